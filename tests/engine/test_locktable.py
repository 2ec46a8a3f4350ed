"""``LockTable``: our slots among LMDB's, on files that LMDB itself has made, or nobody."""

from __future__ import annotations

import fcntl
import os
import random
import struct
import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import lmdb
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowfs.engine.env import Env
from cowfs.engine.holds import Holds
from cowfs.engine.locktable import _COUNT, _SLOTS, _TXNID, _WRITER_MUTEX, IDLE, PIN, LockTable
from cowfs.engine.rootrecord import Span
from cowfs.errors import EnvironmentFailure, ReadersFull, UnsupportedFormat
from tests.support.commands import python
from tests.support.retained import (
    another,
    cowfs_process,
    digest,
    pin_of,
    put,
    require_retained,
    retaining,
    span_of,
    stock_process,
)

SLOTS = 510


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """An environment with a history, which nobody has open; its lock.mdb, with the pin, is there."""
    with retaining(tmp_path / "db") as (env, _keeper):
        for number in range(10):
            put(env, number)
    return tmp_path / "db"


def listed(readers: str) -> dict[int, str]:
    """Return txnid by process from what LMDB lists."""
    return {int(line.split()[0]): line.split()[2] for line in readers.splitlines()[1:]}


# -- in LMDB's eyes -----------------------------------------------------------------------------------------------


def test_lmdb_lists_our_slots(path: Path) -> None:
    with retaining(path) as (env, _keeper), stock_process(path) as other:
        with env.hold(5), env.hold(7), env.hold():
            own = env._table._own_process
            for readers in (env._writable().readers(), other.do("answer = env.readers()")):
                rows = listed(readers)
                assert (rows[PIN], rows[own]) == ("1", "5")
            assert other.do("answer = env.reader_check()") == 0, "we live"
            assert env.readers() == [(os.getpid(), 5)]
        assert listed(env._writable().readers())[own] == "-"
        assert env.readers() == []
        other.do("txn = env.begin()")
        assert env.readers() == [(other.pid, 11)]
        other.do("txn.abort()")


def test_stock_lmdb_uses_no_page_that_is_pinned(path: Path) -> None:
    """Neither one of the pin's roots nor one of a hold's; when they are let go, it uses them again, and does not grow."""
    with retaining(path) as (env, _keeper), stock_process(path) as other:
        digests = {}
        for txnid in span_of(env):
            with env.hold(txnid) as hold:
                digests[txnid] = digest(env.file, hold.root)
        pages = [env.file.newest_root().pages]
        for _ in range(3):
            other.do("write(60)")
            pages.append(env.file.newest_root().pages)
        assert all(after - before >= 60 * 3 for before, after in pairwise(pages)), "nothing was used again"
        held = env.hold(9)
        env._table.raise_pin(env.newest_txnid())
        other.do("write(60)")
        assert env.file.newest_root().pages >= pages[-1] + 60 * 3
        assert digest(env.file, held.root) == digests[9]
        held.close()
        full = env.file.newest_root().pages
        for _ in range(10):
            env._table.raise_pin(env.newest_txnid())
            other.do("write(20)")
        assert env.file.newest_root().pages == full
        put(env, 0)
        require_retained(env, digests)


def test_the_pin_is_only_raised(path: Path) -> None:
    with retaining(path) as (env, _keeper):
        nonce = pin_of(env).nonce
        for txnid, expected in ((1, 1), (4, 4), (3, 4), (0, 4), (9, 9)):
            env._table.raise_pin(txnid)
            assert pin_of(env) == (expected, nonce)
        assert env._table.oldest_held() is None, "the pin is no reader"


def test_a_pin_is_claimed_in_the_slot_that_it_has(path: Path) -> None:
    with retaining(path) as (env, _keeper), env.hold():
        before = list(env._table.slots())
        with env._write_lock():
            env._table.claim_pin(7, b"n" * 16)
        assert pin_of(env) == (7, b"n" * 16)
        assert len(list(env._table.slots())) == len(before)
        assert [slot.number for slot in env._table.slots() if slot.process == PIN] == [0]


def test_a_pin_outside_of_the_slots_in_use_is_none(path: Path) -> None:
    with retaining(path) as (env, _keeper):
        pin, halves = pin_of(env), env._table._halves
        count, halves[_COUNT // 4] = halves[_COUNT // 4], 0
        assert env._table.pin() is None
        halves[_COUNT // 4] = count
        assert env._table.pin() == pin


# -- the first opener ---------------------------------------------------------------------------------------------


def garbage(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def whole(header: bytes) -> bytes:
    return header + garbage(_SLOTS + SLOTS * 64 - len(header))


CONTENTS = {
    "missing": None,
    "empty": b"",
    "short": garbage(100),
    "short, as if ours": struct.pack("<II", 0xBEEFC0DE, 0x10001) + bytes(52),
    "of one slot": struct.pack("<II", 0xBEEFC0DE, 0x10001) + bytes(_SLOTS + 64 - 8),
    "odd": struct.pack("<II", 0xBEEFC0DE, 0x10001) + bytes(_SLOTS + 77),
    "zeros": bytes(_SLOTS + SLOTS * 64),
    "garbage": whole(b""),
    "garbage after the header": whole(struct.pack("<II", 0xBEEFC0DE, 0x10001)),
    "ones": b"\xff" * (_SLOTS + SLOTS * 64),
    "another format": whole(struct.pack("<II", 0xBEEFC0DE, 0x10002)),
    "another magic": whole(struct.pack("<II", 0xBEEFC0DF, 0x10001)),
    "large": bytes(1 << 20),
}


@pytest.mark.parametrize("content", CONTENTS)
def test_any_lock_file_is_begun_anew(path: Path, content: str) -> None:
    (path / "lock.mdb").unlink()
    data = CONTENTS[content]
    if data is not None:
        (path / "lock.mdb").write_bytes(data)
    with retaining(path) as (env, keeper), stock_process(path) as other:
        assert env._table.pin() is None
        assert list(span_of(env)) == [11]
        assert env._table.newest_txnid() == 11
        with env.hold() as hold:
            assert env.readers() == [(os.getpid(), 11)]
            assert other.do("answer = write(10)") == 21
            assert listed(other.do("answer = env.readers()"))[env._table._own_process] == "11"
            put(env, 1)
            assert pin_of(env).txnid == 21
            assert [event.kind for event in keeper.events] == ["lost"]
            assert hold.get(b"a", b"3") == b"3" + bytes(1000)
        assert env._table._capacity >= SLOTS
        require_retained(env, {})


def test_the_first_opener_keeps_the_pin_and_nothing_else(path: Path) -> None:
    with retaining(path) as (env, _keeper):
        pin = pin_of(env)
        with stock_process(path) as other, cowfs_process(path) as third:
            third.do("hold = env.hold()")
            other.do("txns = [env.begin() for _ in range(3)]")
            assert len(list(env._table.slots())) == 5
            other.kill()
            third.kill()
    content = bytearray((path / "lock.mdb").read_bytes())
    assert struct.unpack_from("<I", content, _COUNT)[0] == 5
    content[_TXNID : _TXNID + 8] = bytes(8)
    (path / "lock.mdb").write_bytes(content)
    with retaining(path) as (env, keeper):
        assert pin_of(env) == pin
        assert [slot for slot in env._table.slots() if slot.process not in (PIN, os.getpid())] == []
        assert env._table.newest_txnid() == 11
        put(env, 1)
        assert require_retained(env, {}).horizon == 1
        assert keeper.events == []


def test_what_we_begin_anew_is_what_lmdb_begins(path: Path) -> None:
    with stock_process() as other:
        (path / "lock.mdb").unlink()
        other.do("begin(given[0])", path)
        expected = bytearray((path / "lock.mdb").read_bytes())
        other.kill()
    (path / "lock.mdb").write_bytes(garbage(_SLOTS + SLOTS * 64))
    table = LockTable(path / "lock.mdb")
    table.guard(lambda: 11, SLOTS)
    table.close()
    content = (path / "lock.mdb").read_bytes()
    # LMDB's own has a used mutex and a count of slots; both are begun as all zeros but for what the kind of mutex says.
    kind = slice(8 + 16, 8 + 20)  # __kind in pthread_mutex_t of glibc
    assert content[:8] == expected[:8]
    assert content[kind] == expected[kind] == content[_WRITER_MUTEX + 16 : _WRITER_MUTEX + 20] != bytes(4)
    assert content[_TXNID : _TXNID + 12] == struct.pack("<QI", 11, 0)


BREAK_MUTEXES = """
from cowfs.engine.locktable import _libc, _READER_MUTEX, _WRITER_MUTEX
import ctypes
for offset in (_READER_MUTEX, _WRITER_MUTEX):
    anchor = ctypes.c_char.from_buffer(env._table._map, offset)
    answer = _libc.pthread_mutex_lock(ctypes.c_void_p(ctypes.addressof(anchor)))
"""

USE = """
    import sys
    from tests.support.retained import *
    with retaining(Path(sys.argv[1])) as (env, keeper):
        with env.hold():
            put(env, 1)
        print(len(require_retained(env, {})), keeper.events)
"""


@pytest.mark.parametrize("how", ["locked by a dead process", "garbage"])
def test_mutexes_are_as_new_after_a_power_cut(path: Path, how: str) -> None:
    """In lock.mdb they stay locked for ever, by a process that nobody has told that it died."""
    if how == "garbage":
        content = bytearray((path / "lock.mdb").read_bytes())
        for offset in (8, _WRITER_MUTEX):
            content[offset : offset + 40] = garbage(40)
    else:
        with cowfs_process(path) as other:
            assert other.do(BREAK_MUTEXES) == 0
            content = bytearray((path / "lock.mdb").read_bytes())
            other.kill()
    (path / "lock.mdb").write_bytes(content)
    assert python(USE, path) == "12 []\n"


OPENERS = """
    import os, sys
    from tests.support.retained import *
    import lmdb
    path, kinds = Path(sys.argv[1]), sys.argv[2].split(",")
    start, done, stop = os.pipe(), os.pipe(), os.pipe()
    children = []
    for number, kind in enumerate(kinds):
        children.append(os.fork())
        if children[-1] == 0:
            try:
                os.close(stop[1])
                os.read(start[0], 1)
                if kind == "cowfs":
                    env = Env.open(path, durable=False)
                    with env.write() as txn:
                        txn.put(b"a", b"opener %d" % number, b"here")
                    hold = env.hold()
                else:
                    env = lmdb.open(str(path), max_dbs=8, sync=False, lib_version=0)
                    database = env.open_db(b"a", create=False)
                    with env.begin(write=True) as txn:
                        txn.put(b"opener %d" % number, b"here", db=database)
                    hold = env.begin()
                os.write(done[1], b"+")
                os.read(stop[0], 1)
                os._exit(0)
            finally:
                os.write(done[1], b"-")
                os._exit(1)
    os.write(start[1], b"x" * len(kinds))
    said = b""
    while len(said) < len(kinds):
        said += os.read(done[0], 1)
    assert said == b"+" * len(kinds), said
    with retaining(path) as (env, keeper):
        assert {pid for pid, txnid in env.readers()} == set(children)
        with env.hold() as hold:
            for number in range(len(kinds)):
                assert hold.get(b"a", b"opener %d" % number) == b"here"
        put(env, 1)
        require_retained(env, {})
        print(hold.root.txnid)
    os.close(stop[1])
    for child in children:
        assert os.waitpid(child, 0)[1] == 0
"""


@pytest.mark.parametrize("foreign", [0, 4])
def test_many_first_openers_at_once_share_one_table(path: Path, foreign: int) -> None:
    kinds = ["stock"] * foreign + ["cowfs"] * (10 - foreign)
    for number, content in enumerate([None, (path / "lock.mdb").read_bytes(), b"garbage"]):
        (path / "lock.mdb").unlink()
        if content is not None:
            (path / "lock.mdb").write_bytes(content)
        txnid = int(python(OPENERS, path, ",".join(kinds)))
        assert txnid == 11 + 10 + number * 11


@pytest.mark.parametrize("content", ["empty", "an earlier session's"])
def test_an_opener_behind_a_maker_begins_the_table(path: Path, content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The maker keeps the environment to itself, and ends at the moment at which the opener begins to wait for it."""
    if content == "empty":
        (path / "lock.mdb").write_bytes(b"")
    else:
        lock_file_of_txnid_0 = bytearray((path / "lock.mdb").read_bytes())
        struct.pack_into("<Q", lock_file_of_txnid_0, _TXNID, 0)
        (path / "lock.mdb").write_bytes(lock_file_of_txnid_0)
    maker = LockTable(path / "lock.mdb")
    assert maker.begin_alone()
    lock = fcntl.fcntl

    def lock_after_the_maker(descriptor: int, command: int, argument: bytes) -> object:
        if command == fcntl.F_OFD_SETLKW:
            maker.end_alone()
        return lock(descriptor, command, argument)

    monkeypatch.setattr(fcntl, "fcntl", lock_after_the_maker)
    with retaining(path) as (env, _keeper):
        assert env._table.newest_txnid() == env.newest_txnid() == 11
        put(env, 1)
        require_retained(env, {})


# -- slots --------------------------------------------------------------------------------------------------------


def test_a_process_killed_while_it_claims_a_slot_stops_nobody(path: Path) -> None:
    with retaining(path) as (env, _keeper), cowfs_process(path) as other:
        other.do("context = env._table._reader_mutex(); context.__enter__()")
        other.kill()
        with env.hold(3):
            assert env.readers() == [(os.getpid(), 3)]
        with cowfs_process(path) as third:
            third.do("hold = env.hold(4)")
            assert env.readers() == [(third.pid, 4)]


def test_a_process_claims_one_slot_and_gives_it_back(path: Path) -> None:
    with retaining(path) as (env, _keeper):
        table = env._table
        before = len(list(table.slots()))
        holds = [env.hold(txnid) for txnid in (7, 3, 5, 9, 3)]
        assert len(list(table.slots())) == before + 1
        own = table._own_index
        for hold, oldest in zip(holds, (3, 3, 3, 3, None), strict=True):
            hold.close()
            assert table.oldest_held() == oldest
        assert len(list(table.slots())) == before + 1, "it is kept, idle"
        with env.hold():
            assert table._own_index == own
        with cowfs_process(path) as other:
            other.do("hold = env.hold(2)")
            theirs = other.do("answer = env._table._own_index")
            assert theirs != own
            other.do("end()")
            assert [slot.number for slot in table.slots() if slot.number in (own, theirs)] == [own]
            other.do("begin(given[0]); hold = env.hold(2)", path)
            assert other.do("answer = env._table._own_index") == theirs
            assert table.oldest_held() == 2


def test_a_full_table_is_an_error_until_a_slot_is_free(tmp_path: Path) -> None:
    """LMDB's first opener says how many slots there are; whoever comes later has to live with it."""
    with retaining(tmp_path / "db"):
        pass
    path = tmp_path / "db"
    (path / "lock.mdb").unlink()
    with stock_process(path, max_readers=4) as other, retaining(path) as (env, _keeper):
        other.do("txns = [env.begin() for _ in range(4)]")
        assert env._table._capacity == 4
        with pytest.raises(ReadersFull, match="all reader slots"):
            env.hold()
        with pytest.raises(ReadersFull):
            put(env, 1)
        assert env.newest_txnid() == 1
        assert len(list(env._table.slots())) == 4
        other.do("txns.pop(); gc.collect(); env.close()")
        hold = env.hold()
        put(env, 1)
        assert env.readers() == [(os.getpid(), 1)]
        hold.close()
        require_retained(env, {})


def test_a_small_table_grows_when_nobody_uses_it(tmp_path: Path) -> None:
    with retaining(tmp_path / "db"):
        pass
    (tmp_path / "db" / "lock.mdb").unlink()
    with stock_process(tmp_path / "db", max_readers=2) as other:
        other.kill()
    with retaining(tmp_path / "db") as (env, _keeper):
        assert env._table._capacity == SLOTS
        put(env, 1)
        env.hold(1).close()


def test_a_table_in_which_lmdb_does_not_read_is_refused(path: Path) -> None:
    table = LockTable(path / "lock.mdb")
    table.guard(lambda: 11, SLOTS)
    with lmdb.open(str(path), lib_version=0) as plain, plain.begin() as raw:
        for pid, txnid in ((os.getpid(), raw.id() + 1), (os.getpid() + 1, raw.id())):
            with pytest.raises(UnsupportedFormat, match="in a way that cowfs does not know"):
                table.attach(pid, txnid)
        assert table.attach(os.getpid(), raw.id())
    table.close()


# -- one environment, opened once in a process --------------------------------------------------------------------

IS_ALONE = """
import fcntl, os, struct
def alone(path):
    descriptor = os.open(path / "lock.mdb", os.O_RDWR)
    try:
        fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 1, 0))
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True
"""


def test_an_environment_that_lmdb_has_open_here_is_refused_and_stays_locked(path: Path) -> None:
    with another(IS_ALONE) as other:
        assert other.do("answer = alone(Path(given[0]))", path)
        with lmdb.open(str(path), lib_version=0) as plain, plain.begin() as raw:
            for _ in range(2):
                with pytest.raises(EnvironmentFailure, match="already open in this process"):
                    Env.open(path)
                assert not other.do("answer = alone(Path(given[0]))", path), "LMDB's locks were dropped"
            assert raw.id() == 11
        assert other.do("answer = alone(Path(given[0]))", path)
        with retaining(path) as (env, _keeper):
            assert not other.do("answer = alone(Path(given[0]))", path)
            put(env, 1)
            assert require_retained(env, {}) == Span(11, 12), "LMDB was the first opener"
        assert other.do("answer = alone(Path(given[0]))", path)
    assert path / "lock.mdb" not in [Path(f"/proc/self/fd/{kept}").readlink() for kept in LockTable._kept.values()]


# -- what one process holds ---------------------------------------------------------------------------------------

STEPS = st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=40)


@given(STEPS)
def test_a_process_publishes_the_oldest_that_it_holds(steps: list[tuple[bool, int]]) -> None:
    published = [IDLE]
    holds = Holds(published.append)
    model: Counter[int] = Counter()
    for add, txnid in steps:
        if add:
            holds.add(txnid)
            model[txnid] += 1
        elif model[txnid]:
            holds.remove(txnid)
            model[txnid] -= 1
        assert published[-1] == min((held for held in model if model[held]), default=IDLE)


def test_what_cannot_be_published_is_not_held() -> None:
    def full(_txnid: int) -> None:
        raise ReadersFull("full")

    published: list[int] = []
    for publish in (full, published.append):
        holds = Holds(publish)
        if publish is full:
            with pytest.raises(ReadersFull):
                holds.add(5)
            holds._publish = published.append
        holds.add(7)
        assert published == [7]
        holds.remove(7)
        assert published == [7, IDLE]
        published.clear()


def test_a_hold_that_the_collector_drops_meanwhile_takes_no_other_with_it() -> None:
    """It may come at any time, also while the same thread adds one."""
    published: list[int] = []

    def publish(txnid: int) -> None:
        published.append(txnid)
        if published.count(5) == 1:
            holds.remove(7)

    holds = Holds(publish)
    holds.add(7)
    holds.add(5)
    assert published[-1] == 5


def test_holding_the_newest_again_and_again_takes_no_memory(path: Path) -> None:
    with retaining(path) as (env, _keeper), env.hold(3):
        before = sys.getsizeof(env._holds.__dict__) + sum(map(sys.getsizeof, env._holds.__dict__.values()))
        for _ in range(500):
            env.hold().close()
        assert sys.getsizeof(env._holds.__dict__) + sum(map(sys.getsizeof, env._holds.__dict__.values())) <= before + 500
