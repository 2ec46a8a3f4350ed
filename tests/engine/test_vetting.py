"""What LMDB would crash at, or destroy data by, is refused before it is touched."""

from __future__ import annotations

import random
import shutil
import struct
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from cowfs.engine.env import Env
from cowfs.engine.vetting import _FREELIST
from cowfs.errors import CorruptDatabase, DatabaseError
from cowfs.pages.btree import TreeReader
from cowfs.pages.datafile import DataFile
from cowfs.store.history.retention import Retention
from cowfs.store.store import Store
from tests.support.commands import run
from tests.support.environments import findings
from tests.support.surgery import Patient, free_record
from tests.support.vetted import all_vetted

PAGE = 4096
Damage = Callable[[Patient], None]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("original") / "db"
    with Store.create(path, {":n": {":db/unique": ":db.unique/identity"}}, durability="none") as store:
        store.transact([{":n": n, ":text": f"{n} " * 20} for n in range(2000)])
        store.transact([[":db/retractEntity", n] for n in range(500, 900)])
        store.retain(Retention(commits=0))
        store.transact([{":n": 5000}])
        store.transact([{":n": 5001, ":text": "x" * 9000}])
    return path


def leaf(name: bytes, which: int) -> Callable[[Patient], int]:
    return lambda patient: patient.leaves(patient.records[name])[which]


def pointers(page: Callable[[Patient], int], value: int) -> Damage:
    def work(patient: Patient) -> None:
        pgno = page(patient)
        for at in range(len(patient.nodes(pgno))):
            patient.poke(patient.at(pgno) + 16 + 2 * at, "<H", value)

    return work


def node(page: Callable[[Patient], int], offset: int, form: str, value: int) -> Damage:
    return lambda patient: patient.poke(patient.nodes(page(patient))[0] + offset, form, value)


def free_names(page: Callable[[Patient], int]) -> Damage:
    def work(patient: Patient) -> None:
        for pgno in patient.leaves(patient.root.free):
            for position, found in patient.leaf_nodes(pgno):
                if not found.flags and found.size >= 32:
                    patient.poke(patient.value(position) + 8 * (found.size // 8 - 1), "<Q", page(patient))

    return work


def swapped_keys(page: Callable[[Patient], int]) -> Damage:
    def work(patient: Patient) -> None:
        pgno = page(patient)
        patient.swap(patient.at(pgno) + 16, patient.at(pgno) + 18, 2)

    return work


def noise(page: Callable[[Patient], int]) -> Damage:
    def work(patient: Patient) -> None:
        at = patient.at(page(patient))
        patient.data[at + 16 : at + PAGE] = bytes(range(256)) * 15 + bytes(range(240))

    return work


LOG, AVE_LAST, EAV_LAST, META = leaf(b"log", -1), leaf(b"ave", 0), leaf(b"eav", -1), leaf(b"cowfs", -1)
DAMAGES: dict[str, Damage] = {
    "pointers out of the log's leaf": pointers(LOG, 65535),
    "pointers out of the store's own leaf": pointers(META, 65535),
    "pointers into the header": pointers(EAV_LAST, 2),
    "a value longer than the page": node(EAV_LAST, 0, "<I", 2**31),
    "a key longer than the page": node(EAV_LAST, 6, "<H", 65535),
    "a value on pages that are not there": node(META, 4, "<H", 1),
    "keys out of order": swapped_keys(EAV_LAST),
    "noise in the log": noise(LOG),
    "noise in an index": noise(EAV_LAST),
    "noise in the freelist": noise(lambda patient: patient.leaves(patient.root.free)[0]),
    "a free page that is the log's": free_names(LOG),
    "a free page that is an index's": free_names(EAV_LAST),
    "a free page that is the freelist's": free_names(lambda patient: patient.leaves(patient.root.free)[-1]),
    "a free page beyond the end": free_names(lambda patient: patient.root.pages + 5),
    "a record of free pages that is too long": lambda patient: patient.poke(free_record(patient), "<Q", 2**20),
    "a database with the flags of another kind": lambda patient: patient.poke(patient.record(b"eav") + 4, "<H", 0x0C),
    "a database of another depth": lambda patient: patient.poke(patient.record(b"log") + 6, "<H", 7),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_transaction_is_refused_before_lmdb_sees_the_damage(original: Path, damaged: Path, damage: Damage) -> None:
    """In processes of their own, since what is tested against are signals; nothing is written."""
    shutil.copytree(original, damaged, dirs_exist_ok=True)
    (damaged / "lock.mdb").unlink()  # without a pin all that is free may be used
    patient = Patient(original)
    damage(patient)
    (damaged / "data.mdb").write_bytes(patient.data)
    program = """if True:
        import sys
        from cowfs import CowfsError, Store
        from cowfs.store.history.retention import Retention
        for work in (
            lambda store: store.transact([{":n": 7000, ":text": "new"}]),
            lambda store: store.transact([[":db/retractEntity", 1990]]),
            lambda store: store.name("name", "somebody"),
            lambda store: store.retain(Retention(commits=5)),
        ):
            try:
                with Store.open(sys.argv[1], durability="none") as store:
                    work(store)
            except CowfsError as error:
                print(type(error).__name__)
            else:
                print("done")
    """
    lines = run(sys.executable, "-c", program, damaged).stdout.split()
    print(lines)
    assert lines[0] == "CorruptDatabase"
    assert len(lines) == 4


def test_damage_that_comes_while_it_is_open_is_seen_by_the_next_transaction(original: Path, damaged: Path) -> None:
    shutil.copytree(original, damaged, dirs_exist_ok=True)
    with Store.open(damaged, durability="none") as store:
        store.transact([{":n": 7000}])
        with DataFile(damaged) as file:
            record = TreeReader(file, file.newest_root()).record(b"log")
        assert record is not None
        pgno = record.root
        with open(damaged / "data.mdb", "r+b") as data:
            data.seek(pgno * PAGE + 16)
            data.write(struct.pack("<HH", 65535, 65535))
        with pytest.raises(CorruptDatabase, match=f"page {pgno}"):
            store.transact([{":n": 7001}])
        with pytest.raises(CorruptDatabase, match=f"page {pgno}"):
            store.name("name", "somebody")


def test_what_is_vetted_is_remembered_until_somebody_else_writes(original: Path, tmp_path: Path) -> None:
    """The cost: from the third transaction at the same place on no page is read again; the second begins the watch."""
    shutil.copytree(original, tmp_path / "db")
    with Env.open(tmp_path / "db", durable=False) as env:
        vetting = env._vetting
        vetted: list[bytes] = []
        vet = vetting._vet
        vetting._vet = lambda name, key, **how: vetted.append(name) or vet(name, key, **how)  # type: ignore[method-assign,func-returns-value]
        for number in range(4):
            vetted.clear()
            with env.write() as txn:
                txn.put(b"log", b"\xff%d" % number, b"value")
            assert bool(vetted) == (number < 2), vetted
        with open(tmp_path / "db" / "data.mdb", "r+b") as data:
            data.seek(0)
            data.write(data.read(1))
        with env.write() as txn:
            txn.put(b"log", b"\xff again", b"value")
        assert vetted
        with env.write() as txn:
            for number in range(3):
                txn.delete(b"log", b"\xff%d" % number)
            txn.delete(b"log", b"\xff again")


def test_a_long_freelist_is_not_vetted_on_and_on(tmp_path: Path) -> None:
    """Nothing of it is used again, for all commits are retained: its ends are all that a commit touches."""
    with Store.create(tmp_path / "db", {":n": {}}, durability="none") as store:
        for number in range(400):
            store.transact([{":n": number}])
    with Store.open(tmp_path / "db", durability="none") as store:
        known = []
        for number in range(4):
            store.transact([{":n": number}])
            known.append([(of.low, of.high) for of in store.env._vetting._ranges[_FREELIST]])
        assert known[0][0][1] != known[0][1][0], "the freelist is too short for this test"
        assert known == known[:1] * 4
    assert findings(tmp_path / "db") == []


def test_all_of_the_freelist_that_one_commit_uses_up_is_vetted(tmp_path: Path) -> None:
    with Store.create(tmp_path / "db", {":n": {}}, durability="none") as store:
        for number in range(400):
            store.transact([{":n": number}])
    with Store.open(tmp_path / "db", durability="none") as store:
        store.retain(Retention(commits=0))
        for _ in range(3):
            with all_vetted(store.env):
                store.transact([{":n": number, ":text": "x" * 500} for number in range(1000)])
    assert findings(tmp_path / "db") == []


@pytest.mark.parametrize("seed", range(4))
def test_all_leaves_that_a_commit_replaces_were_vetted(tmp_path: Path, seed: int) -> None:
    """Puts and deletes at random, of nodes of many sizes, with commits and aborts."""
    choice = random.Random(seed)
    with Env.create(tmp_path / "db", durable=False) as env:
        with env.write() as txn:
            txn.create([b"d"])
        for step in range(80):
            with all_vetted(env), suppress(InterruptedError), env.write() as txn:
                keys = list(txn.keys(b"d"))
                for _ in range(choice.choice([1, 3, 30, 200])):
                    if choice.random() < (0.2, 0.9)[step // 20 % 2] and keys:
                        first = choice.randrange(len(keys))
                        for key in keys[first : first + choice.choice([1, 1, 5, 40])]:
                            txn.delete(b"d", key)
                    else:
                        size = choice.choice([1, 1, 20, 300, 1500, 6000])
                        old = keys and choice.random() < 0.3
                        txn.put(
                            b"d", choice.choice(keys) if old else choice.randbytes(choice.choice([2, 8, 200])), bytes(size)
                        )
                if choice.random() < 0.2:
                    raise InterruptedError
            if choice.random() < 0.5:  # what is known is forgotten
                (tmp_path / "db" / "data.mdb").touch()
    assert findings(tmp_path / "db") == []


def filled(path: Path, count: int, size: int) -> Env:
    """Return an environment with as many entries in leaves that are full."""
    env = Env.create(path, durable=False)
    with env.write() as txn:
        txn.create([b"d"])
        txn.put_many(b"d", [(b"%04d" % number, bytes(size)) for number in range(count)])
    return env


def test_a_leaf_that_falls_just_below_a_quarter_is_vetted_with_those_beside_it(tmp_path: Path) -> None:
    """LMDB does not count the header of the page: nine nodes of 112 bytes are 24.7 % of the rest."""
    with filled(tmp_path / "db", 108, 98) as env:
        with env.write() as txn:
            for number in range(40, 66):
                assert txn.delete(b"d", b"%04d" % number)
        (tmp_path / "db" / "data.mdb").touch()
        with all_vetted(env), env.write() as txn:
            assert txn.delete(b"d", b"0066")
    assert findings(tmp_path / "db") == []


def test_a_shorter_value_leaves_less_to_delete(tmp_path: Path) -> None:
    with filled(tmp_path / "db", 30, 1200) as env:
        (tmp_path / "db" / "data.mdb").touch()
        with all_vetted(env), env.write() as txn:
            txn.put(b"d", b"0012", b"x")
            assert txn.delete(b"d", b"0013")
    assert findings(tmp_path / "db") == []


def test_what_an_aborted_transaction_deletes_makes_no_room(tmp_path: Path) -> None:
    with filled(tmp_path / "db", 30, 1200) as env:
        room = [known.room for known in env._vetting._ranges[b"d"]]
        with suppress(InterruptedError), env.write() as txn:
            assert txn.delete(b"d", b"0014")
            raise InterruptedError
        with env.write() as txn:
            assert txn.get(b"d", b"0014")
        assert all(known.room <= max(room) for known in env._vetting._ranges[b"d"])
    assert findings(tmp_path / "db") == []


def test_everything_can_be_deleted_and_put_again(original: Path, tmp_path: Path) -> None:
    """Merges and splits over a whole tree, in one transaction and in many: what was vetted covers what LMDB touches."""
    shutil.copytree(original, tmp_path / "db")
    with Env.open(tmp_path / "db", durable=False) as env:
        for step in (1, 97):
            with env.write() as txn:
                entries = list(txn.scan(b"eav"))
            for first in range(0, len(entries), len(entries) // step):
                with env.write() as txn:
                    for key, _value in entries[first : first + len(entries) // step]:
                        assert txn.delete(b"eav", key)
            with env.write() as txn:
                assert list(txn.scan(b"eav")) == []
                txn.put_many(b"eav", entries)
            with env.write() as txn:
                assert list(txn.scan(b"eav", reverse=True)) == entries[::-1]


def test_no_write_comes_of_a_refusal(original: Path, damaged: Path) -> None:
    shutil.copytree(original, damaged, dirs_exist_ok=True)
    patient = Patient(original)
    pointers(EAV_LAST, 65535)(patient)
    (damaged / "data.mdb").write_bytes(patient.data)
    with Store.open(damaged, durability="none") as store:
        for _ in range(3):
            with pytest.raises(DatabaseError):
                store.transact([{":n": 9000}])
        with store.db() as db:
            assert db.txid
