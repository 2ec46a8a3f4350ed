"""Stores on disk: making, opening, several writers, txids and instants."""

from __future__ import annotations

import subprocess
import sys
import threading
from datetime import timedelta
from pathlib import Path

import lmdb
import pytest

import cowfs
from cowfs import Store
from cowfs.errors import AccessDenied, InputError, InvalidTarget, NotADatabase, SchemaError, UnsupportedFormat
from cowfs.store.model.layout import State, txid_of
from tests.support.clocks import FakeClock
from tests.support.commands import LIMIT

from .conftest import PEOPLE, findings


def test_open_makes_a_store_and_opens_it_again(tmp_path: Path) -> None:
    place = tmp_path / "new" / "db"
    with cowfs.open(place, {":a": {":db/unique": ":db.unique/identity"}}, durability="none") as store:
        store.transact([{":a": "x"}])
    with cowfs.open(str(place), {":b": {}}, durability="none") as store:
        assert list(store.schema) == [":a", ":b"]
        assert not store.schema.strict
        with store.db() as db:
            assert db.entid([":a", "x"]) == 1
        assert findings(store) == []


def test_open_takes_an_empty_directory(tmp_path: Path) -> None:
    with cowfs.open(tmp_path) as store:
        assert store.transact([{":a": 1}]).txid == 2
        assert findings(store) == []


def test_open_refuses_other_places(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("x")
    for place in (tmp_path, file):
        with pytest.raises(NotADatabase):
            cowfs.open(place)
    with pytest.raises(InvalidTarget):
        Store.create(tmp_path)
    with pytest.raises(InputError, match='durability is sync or none, not "fast"'):
        Store.create(tmp_path / "db", durability="fast")  # type: ignore[arg-type]


def test_a_wrong_schema_leaves_nothing_open(tmp_path: Path) -> None:
    cowfs.open(tmp_path, durability="none").close()
    with pytest.raises(SchemaError):
        cowfs.open(tmp_path, {":a": {":x": 1}}, durability="none")
    with cowfs.open(tmp_path, durability="sync") as store:  # another durability: nobody has it open
        assert findings(store) == []


def test_an_environment_that_is_no_store(tmp_path: Path) -> None:
    lmdb.open(str(tmp_path), max_dbs=2, lib_version=0).close()
    with pytest.raises(NotADatabase, match="an LMDB environment, but not a cowfs store"):
        Store.open(tmp_path)


def test_a_store_that_was_begun_is_finished(tmp_path: Path) -> None:
    lmdb.open(str(tmp_path), max_dbs=2, lib_version=0).close()
    with cowfs.open(tmp_path, {":a": {}}) as store:
        assert store.transact([{":a": 1}]).txid == 2
        assert findings(store) == []


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    with Store.create(tmp_path / "db", durability="none") as store, store.env.write() as txn:
        txn.put(b"cowfs", b"format", b'{"version": 2, "strict": false}')
    with pytest.raises(UnsupportedFormat, match=r"written by a newer cowfs \(format 2\)"):
        Store.open(tmp_path / "db", "none")


def test_readonly(tmp_path: Path) -> None:
    with Store.create(tmp_path / "db", PEOPLE) as store:
        store.transact([{":person/email": "a@x"}])
    with Store.open(tmp_path / "db", readonly=True) as store:
        with store.db() as db:
            assert db.entid([":person/email", "a@x"]) == 1
        with pytest.raises(AccessDenied):
            store.transact([])
        assert findings(store) == []


def test_the_schema_that_another_writer_made_is_seen(people: Store) -> None:
    with Store.open(people.env.path, "none") as other:
        other.transact([{":other": 1}])
        people.transact([{":mine": 1}, {":other": 2}])
        other.update_schema({":third": {}})
        assert [people.transact([{":third": 1}]).txid, other.transact([{":mine": 1}]).txid] == [5, 6]
        assert (
            people.schema.to_json()
            == other.schema.to_json()
            == dict(sorted((PEOPLE | {":mine": {}, ":other": {}, ":third": {}}).items()))
        )


WRITER = """
import sys, cowfs
with cowfs.Store.open(sys.argv[1], "none") as store:
    for number in range(40):
        person = {":person/email": f"{sys.argv[2]}{number % 10}", ":person/age": number, ":p" + sys.argv[2]: 1}
        print(store.transact([person]).txid)
"""


def test_processes_write_in_turn(people: Store) -> None:
    command = [sys.executable, "-c", WRITER, str(people.env.path)]
    processes = [subprocess.Popen([*command, name], stdout=subprocess.PIPE, text=True) for name in ("a", "b")]
    mine = [people.transact([{":person/email": "c", ":person/age": number}]).txid for number in range(40)]
    outputs = [process.communicate(timeout=LIMIT)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    txids = mine + [int(line) for output in outputs for line in output.split()]
    assert sorted(txids) == list(range(2, 122))
    with people.db() as db:
        assert len(list(db.entities())) == 21
        assert db.datom_count == 62
        assert [row.txid for row in db.transactions()] == [1, *sorted(txids)]


def test_threads_write_in_turn(people: Store) -> None:
    def write(name: str) -> None:
        for number in range(20):
            people.transact([{":person/email": f"{name}{number % 5}", ":person/age": number}])

    threads = [threading.Thread(target=write, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    with people.db() as db:
        assert (db.txid, db.datom_count) == (61, 30)


def test_txids_grow_past_a_copy_that_resets_them(tmp_path: Path) -> None:
    with Store.create(tmp_path / "db", PEOPLE, durability="none") as store:
        for number in range(5):
            last = store.transact([{":person/email": "a@x", ":person/age": number}])
    (tmp_path / "copy").mkdir()
    with lmdb.open(str(tmp_path / "db"), lib_version=0) as env:
        env.copy(str(tmp_path / "copy"), compact=True)
    with Store.open(tmp_path / "copy", "none") as store:
        assert store.env.newest_txnid() == 1
        with store.db() as db:
            assert db.txid == last.txid == 6
        assert [store.transact([{":person/age": number}]).txid for number in range(4)] == [7, 8, 9, 10]
        with store.db() as db:
            assert db.txid == 10
            assert [row.txid for row in db.transactions()] == list(range(1, 11))
        assert findings(store) == []
    (tmp_path / "again").mkdir()
    with lmdb.open(str(tmp_path / "copy"), lib_version=0) as env:
        env.copy(str(tmp_path / "again"), compact=True)
    with Store.open(tmp_path / "again", "none") as store:
        assert store.transact([]).txid == 11
        assert findings(store) == []


def test_the_txid_of_a_root() -> None:
    assert txid_of(1, State()) == 1
    assert txid_of(9, State(txid=7)) == 9
    assert txid_of(9, State(txid=12, offset=3)) == 12
    assert txid_of(1, State(txid=12, offset=3)) == 12
    assert txid_of(2, State(txid=12)) == 13


def test_an_instant_is_what_the_clock_says_but_for_small_corrections(people: Store, clock: FakeClock) -> None:
    first = people.transact([]).instant
    clock.advance(seconds=-1)
    assert people.transact([]).instant == first
    clock.advance(seconds=-0.001)
    assert people.transact([]).instant == first - timedelta(seconds=1, milliseconds=1)


def test_a_failed_commit_leaves_the_store_usable(people: Store) -> None:
    with pytest.raises(RuntimeError), people.env.write() as txn:
        txn.put(b"cowfs", b"state", b"nonsense")
        raise RuntimeError
    assert people.transact([{":person/age": 1}]).txid == 2
