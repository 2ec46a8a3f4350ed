"""The rules that LMDB's lock.mdb imposes, each as a pair: what we do survives, and what the rule forbids is seen to lose."""

from __future__ import annotations

import os
import signal
import struct
import sys
from pathlib import Path
from typing import Any

import lmdb
import pytest

from cowfs.engine.env import Env
from cowfs.engine.locktable import _SLOTS, PIN, LockTable
from cowfs.engine.policy import Event
from cowfs.engine.rootlog import RootLog
from cowfs.engine.rootrecord import DATABASE, RECORD_KEY, RootRecord, Span
from cowfs.errors import CorruptDatabase, EnvironmentFailure, NotFound
from cowfs.pages.format import Root
from cowfs.pages.pagecheck import check_pages
from tests.support.commands import in_private_mounts
from tests.support.environments import stock
from tests.support.retained import (
    Told,
    cowfs_process,
    digest,
    given_up,
    newest_digest,
    pin_of,
    put,
    record_of,
    require_retained,
    retaining,
    span_of,
    stock_process,
)
from tests.support.stock import opened, require_balance

COMMITS = 20


@pytest.fixture
def digests() -> dict[int, str]:
    """What every page of each root was when it was the newest, by txnid."""
    return {}


@pytest.fixture
def path(tmp_path: Path, digests: dict[int, str]) -> Path:
    """An environment with a history, which nobody has open."""
    with retaining(tmp_path / "db") as (env, _keeper):
        digests.update([newest_digest(env)])
        for number in range(COMMITS):
            put(env, number)
            digests.update([newest_digest(env)])
    return tmp_path / "db"


def pids(other: Told) -> list[int]:
    """Return the processes in the table of readers, as another process finds it."""
    lines = other.do("answer = env.readers()").splitlines()[1:]
    return [int(line.split()[0]) for line in lines]


# -- 1: locks, and descriptors of lock.mdb ------------------------------------------------------------------------

CLOSES_ONE = "os.close(os.open(Path(given[0]) / 'lock.mdb', os.O_RDONLY))"


def test_a_closed_descriptor_costs_us_no_lock(path: Path, digests: dict[int, str]) -> None:
    """Rule 1: a process that has it open closes any other descriptor of lock.mdb, as by copying the directory."""
    with cowfs_process(path) as careless:
        careless.do("hold = env.hold(5)")
        careless.do(CLOSES_ONE, path)
        with stock_process(path) as other:
            assert PIN in pids(other)
            assert len(pids(other)) == 2
            other.do("env.reader_check(); write(60)")
            assert len(pids(other)) == 2
        careless.do("put(env, 1); end()")
    with retaining(path) as (env, keeper):
        assert require_retained(env, digests).horizon == 1
        assert [event.kind for event in keeper.events] == []


def test_a_closed_descriptor_costs_lmdb_all_its_locks(path: Path) -> None:
    """The other half of rule 1: with LMDB's locks alone the next one begins the table anew, and both write at once."""
    with stock_process(path) as careless, stock_process() as other:
        careless.do("txn = env.begin()")
        writing = careless.do("writing = env.begin(write=True); answer = writing.id()")
        careless.do(CLOSES_ONE, path)
        other.do("env = lmdb.open(str(given[0]), lib_version=0)", path)
        assert careless.pid not in pids(other)
        assert other.do("writing = env.begin(write=True); answer = writing.id()") == writing, "two writers, one transaction"
        other.do("writing.abort()")
        careless.kill()


# -- 2: forks -----------------------------------------------------------------------------------------------------

FORKED = """
child = os.fork()
if child == 0:
    try:
        exec(given[0], globals() | scope if "scope" in globals() else globals())
        os._exit(0)
    except BaseException as error:
        os.write(2, repr(error).encode())
        os._exit(1)
answer = os.waitpid(child, 0)[1]
"""


@pytest.mark.parametrize(
    "deed", ["hold.close()", "env.close()", "hold.__exit__(); env.__exit__()", "import gc; del hold; gc.collect()"]
)
def test_a_forked_child_lets_nothing_go(path: Path, digests: dict[int, str], deed: str) -> None:
    """Rule 2: our slots are our parent's."""
    with cowfs_process(path) as parent, retaining(path) as (env, _keeper):
        parent.do("hold = env.hold(7)")
        assert parent.do(FORKED, deed) == 0
        assert env.readers() == [(parent.pid, 7)]
        assert pin_of(env).txnid == 1
        assert parent.do("hold.close(); answer = list(span_of(env))") == list(range(1, COMMITS + 2))
        parent.do("put(env, 1)")
        assert require_retained(env, digests).horizon == 1


def test_a_forked_child_of_lmdb_lets_its_parents_transaction_go(path: Path) -> None:
    with stock_process(path) as parent, retaining(path) as (env, _keeper):
        parent.do("txn = env.begin()")
        assert env.readers() == [(parent.pid, COMMITS + 1)]
        assert parent.do(FORKED, "txn.abort()") == 0
        assert env.readers() == []


def test_use_after_a_fork_is_refused(path: Path) -> None:
    with cowfs_process(path) as parent:
        for deed in ("env.hold()", "env.hold(3)", "put(env, 1)", "env.claim_pin()", "env.give_up_history()"):
            refused = f"""
try:
    {deed}
except EnvironmentFailure as error:
    assert "opened before a fork" in str(error)
else:
    raise AssertionError({deed!r})
"""
            assert parent.do("from cowfs.errors import EnvironmentFailure\n" + FORKED, refused) == 0, deed


# -- 3: what a pin survives ---------------------------------------------------------------------------------------

CLOSES_IN_CHILD = FORKED.replace("given[0]", "'env.close()'")
DEEDS = {  # to us, and to LMDB
    "the map is resized": ("env._lmdb.set_mapsize(1 << 31)", "env.set_mapsize(1 << 31)"),
    "closed in a forked child": (CLOSES_IN_CHILD, CLOSES_IN_CHILD),
    "aborted": ("env._lmdb.begin().abort()\nwith env.write() as txn: txn.abort()", "txn.abort()"),
    "garbage": ("env.hold(); gc.collect()", "txn = None; gc.collect()"),
}


@pytest.mark.parametrize("deed", DEEDS)
def test_the_pin_survives_what_a_transaction_does_not(path: Path, digests: dict[int, str], deed: str) -> None:
    """Rule 3. The transaction is the broken variant: it holds a root, too, and is gone after the same deed."""
    with retaining(path) as (env, _keeper), cowfs_process(path) as ours, stock_process(path) as theirs:
        pin = pin_of(env)
        ours.do("hold = env.hold(3)")
        theirs.do("txn = env.begin()")
        assert env.readers() == [(ours.pid, 3), (theirs.pid, COMMITS + 1)]
        for process, code in zip((ours, theirs), DEEDS[deed], strict=True):
            process.do(code)
        assert env.readers() == [(ours.pid, 3)]
        assert pin_of(env) == pin
        theirs.do("write(60)")
        put(env, 1)
        assert require_retained(env, digests).horizon == 1


# -- 4: the order of a commit and the pin -------------------------------------------------------------------------

GIVES_UP = """
keeper.wanted = 12
with env.write(review=True):
    pass
"""
DIES_AFTER_COMMIT = "RootLog.after_commit = lambda self, *_: os.kill(os.getpid(), signal.SIGKILL)"
DIES_BEFORE_COMMIT = """
from cowfs.engine.writetxn import WriteTxn
review = RootLog.review
def early(self, txn):
    horizon = review(self, txn)
    self._table.raise_pin(12)
    return horizon
RootLog.review = early
WriteTxn.commit = lambda self: os.kill(os.getpid(), signal.SIGKILL)
"""


def killed(path: Path, *deeds: str) -> None:
    """Let a process of ours do it, in the course of which it kills itself."""
    with cowfs_process(path) as other:
        other.do("from cowfs.engine.rootlog import RootLog")
        for deed in deeds[:-1]:
            other.do(deed)
        other.tell(deeds[-1])
        assert other.wait() == -signal.SIGKILL


def test_who_dies_between_commit_and_raise_leaves_it_to_the_next(path: Path, digests: dict[int, str]) -> None:
    """Rule 4."""
    killed(path, DIES_AFTER_COMMIT, GIVES_UP)
    with retaining(path) as (env, keeper):
        assert (record_of(env).horizon, pin_of(env).txnid) == (12, 1)
        assert require_retained(env, digests) == Span(12, COMMITS + 2)
        with pytest.raises(NotFound):
            env.hold(11)
        with stock_process(path) as other:
            other.do("write(1)")
        put(env, 1)
        assert (record_of(env).horizon, pin_of(env).txnid) == (12, 12)
        assert require_retained(env, digests) == Span(12, COMMITS + 4)
        assert keeper.events == []


def test_raising_before_the_commit_loses_roots_that_are_recorded(path: Path, digests: dict[int, str]) -> None:
    """The wrong order. The record promises roots whose pages others use; that we see it, and say so, is the second net."""
    killed(path, DIES_BEFORE_COMMIT, GIVES_UP)
    with retaining(path) as (env, keeper), stock_process(path) as other:
        record = record_of(env)
        assert (record.horizon, pin_of(env).txnid) == (1, 12)
        root = root_of(env, 5)
        assert digest(env.file, root) == digests[5]
        other.do("write(60)")
        assert lost(env, root, digests[5]), "nothing is wrong with it, so this is no test"
        with pytest.raises(NotFound):
            env.hold(5)
        put(env, 1)
        assert keeper.events[0] == Event("full", 1, 11)
        assert require_retained(env, digests).horizon == 12


def root_of(env: Env, txnid: int) -> Root:
    """Return the root of a commit by the records alone, whatever the pin says."""
    with env.hold() as hold:
        return env.rootlog._record_after(hold, txnid)[1]


def lost(env: Env, root: Root, before: str) -> bool:
    """Return whether the root is not what it was."""
    try:
        return digest(env.file, root) != before or bool(list(check_pages(env.file, root)))
    except CorruptDatabase:
        return True


def test_the_horizon_never_moves_back(path: Path, digests: dict[int, str]) -> None:
    with retaining(path) as (env, keeper), cowfs_process(path) as other:
        keeper.wanted = 12
        with env.write(review=True):
            pass
        other.do("keeper.wanted = 3\nwith env.write(review=True): pass")
        other.do("env._table.raise_pin(3)")
        assert (record_of(env).horizon, pin_of(env).txnid) == (12, 12)
        with env.hold(14):
            keeper.wanted = 18
            with env.write(review=True):
                pass
            assert (record_of(env).horizon, pin_of(env).txnid) == (14, 14), "a reader holds it"
        assert require_retained(env, digests).horizon == 14


def test_a_transaction_that_is_aborted_raises_nothing(path: Path, digests: dict[int, str]) -> None:
    with retaining(path) as (env, keeper):
        keeper.wanted = 12
        with pytest.raises(ZeroDivisionError), env.write() as txn:
            env.rootlog.review(txn)
            raise ZeroDivisionError
        with env.write(review=True) as txn:
            txn.abort()
        assert (record_of(env).horizon, pin_of(env).txnid) == (1, 1)
        put(env, 1)
        assert pin_of(env).txnid == 1
        assert require_retained(env, digests).horizon == 1


def test_a_reader_holds_first_and_looks_then(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its two steps everything older is given up, and used again: it is refused, and lets go."""
    with retaining(path) as (env, _keeper), cowfs_process(path) as other:
        find, seen = RootLog.find, []

        def late(self: RootLog, reader: Any, txnid: int) -> Root:
            seen.append(env.readers())
            other.do(GIVES_UP)
            return find(self, reader, txnid)

        monkeypatch.setattr(RootLog, "find", late)
        with env.hold(5) as hold:
            assert hold.root.txnid == 5
            assert seen == [[(os.getpid(), 5)]]
            assert pin_of(env).txnid == 5, "it was held when the other one looked"
        with env.hold() as newest:
            other.do(GIVES_UP)
            assert pin_of(env).txnid == 12
            with pytest.raises(NotFound):
                env.hold(5)
            assert env.readers() == [(os.getpid(), newest.root.txnid)]


# -- 5: where a root is found -------------------------------------------------------------------------------------


def metas(path: Path, data: bytes | None = None) -> dict[int, bytes]:
    content = data or (path / "data.mdb").read_bytes()[:8192]
    pages = (content[:4096], content[4096:])
    return {int.from_bytes(page[144:152], "little"): page[32:152] for page in pages}


def test_a_root_is_recorded_by_whoever_commits_next(path: Path, digests: dict[int, str]) -> None:
    """Rule 5: from meta page T & 1, in transaction T + 1, of which there may be several, all but one aborted."""
    with retaining(path) as (env, _keeper), cowfs_process(path) as other:
        known = {env.newest_txnid(): env.file.newest_root()}
        for number in range(8):
            with pytest.raises(ZeroDivisionError), env.write() as txn:
                txn.put(b"a", b"aborted", bytes(300_000))
                raise ZeroDivisionError
            if number % 2:
                other.do("put(env, given[0])", number)
            else:
                put(env, number)
            known[env.newest_txnid()] = env.file.meta(env.newest_txnid() & 1)
        for txnid, root in known.items():
            with env.hold(txnid) as hold:
                assert hold.root == root
        assert require_retained(env, digests).horizon == 1


def test_a_root_from_another_meta_page_is_not_found(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The broken variant: recorded is what the page has that the transaction will write, the root of T - 1."""
    meta = RootLog._meta
    with retaining(path) as (env, _keeper):
        with monkeypatch.context() as patch:
            patch.setattr(RootLog, "_meta", lambda self, txnid: meta(self, txnid - 1))
            put(env, 1)
        put(env, 2)
        with pytest.raises(NotFound):
            env.hold(COMMITS + 1)


def test_a_meta_page_of_another_transaction_is_refused(path: Path) -> None:
    with retaining(path) as (env, _keeper):
        for txnid in (COMMITS - 1, COMMITS + 2):
            with pytest.raises(CorruptDatabase, match=f"not that of transaction {txnid}"):
                env.rootlog._meta(txnid)


# -- 6: those who do not know us, while we do not live ------------------------------------------------------------

SPILLS = """
with env.begin(write=True) as txn:
    for number in range(3000):
        txn.put(b"spilled %d" % number, bytes(5000), db=database)
        if number == given[0]:
            txn.abort()
            break
"""


@pytest.mark.parametrize("deed", ["env.begin().abort()", "pass", "write(1)", "write(60)", "spills", "in the map"])
def test_whoever_opens_it_first_makes_the_history_suspect(
    path: Path, digests: dict[int, str], deed: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Rule 6: the history is given up, and said so; the data lives on. Even after one who only read: nothing tells."""
    with stock_process() as other:
        other.do("begin(given[0], writemap=given[1])", path, deed == "in the map")
        other.do(SPILLS if deed in ("spills", "in the map") else deed, 2500)
        newest = other.do("answer = env.info()['last_txnid']")
        other.do("env.close()")
    with retaining(path) as (env, keeper):
        content = content_of(env)
        assert list(span_of(env)) == [newest]
        with pytest.raises(NotFound):
            env.hold(5)
        put(env, 1)
        assert keeper.events == [Event("lost", 1, newest - 1)]
        assert given_up(caplog) == [caplog.messages[0]]
        assert f"commits 1 to {newest - 1} are given up" in caplog.messages[0]
        for number in range(30):
            put(env, number)
            digests.update([newest_digest(env)])
        assert require_retained(env, digests) == Span(newest, newest + 31)
        with env.hold(newest) as hold:
            assert dict(hold.scan(b"a")) == content
    assert len(caplog.messages) == 1
    assert require_balance(path) == newest + 31


def content_of(env: Env) -> dict[bytes, bytes]:
    with env.hold() as hold:
        return dict(hold.scan(b"a"))


def test_the_last_txnid_alone_does_not_tell(path: Path, digests: dict[int, str]) -> None:
    """An aborted transaction that spilled has destroyed roots, and the newest id is what it was."""
    with retaining(path) as (env, _keeper):
        roots = {txnid: root_of(env, txnid) for txnid in range(2, COMMITS)}
    with stock_process(path, writemap=True) as other:
        other.do(SPILLS, 2500)
    with retaining(path) as (env, _keeper):
        assert env.newest_txnid() == COMMITS + 1
        assert record_of(env).txnid == COMMITS + 1, "it looks as if nothing had happened"
        assert any(lost(env, root, digests[txnid]) for txnid, root in roots.items()), "no root is lost, so this is no test"
        assert len(span_of(env)) == 1
        put(env, 1)


def test_while_we_live_others_destroy_nothing(path: Path, digests: dict[int, str], caplog: pytest.LogCaptureFixture) -> None:
    for foreign in (1, 2, 30):
        with retaining(path) as (env, keeper):
            before = env.newest_txnid()
            with stock_process(path) as other:
                other.do("write(given[0])", foreign)
                other.do(SPILLS, 2500)
            digests.update([newest_digest(env)])
            put(env, 1)
            digests.update([newest_digest(env)])
            assert keeper.events == ([] if foreign == 1 else [Event("gap", before, before + foreign - 2)])
            span = require_retained(env, digests)
            assert span.horizon == 1
            assert set(span) >= {before - 1, before + foreign - 1, before + foreign, before + foreign + 1} - {before}
            assert (before in span) is (foreign == 1)
    assert given_up(caplog) == []
    assert len(caplog.messages) == 2


def test_one_that_was_there_before_us_respects_the_pin(path: Path, digests: dict[int, str]) -> None:
    """It remembers how old its oldest reader was when it last looked; a pin is only claimed above that, and only raised."""
    (path / "lock.mdb").unlink()
    with stock_process(path) as other:
        other.do("write(60)")
        with retaining(path) as (env, _keeper):
            put(env, 1)
            digests.clear()
            for number in range(10):
                digests.update([newest_digest(env)])
                other.do("write(10, given[0])", number * 10)
                digests.update([newest_digest(env)])
                put(env, number)
            assert require_retained(env, digests).horizon == COMMITS + 61
            env._table.raise_pin(env.newest_txnid() - 30)
            other.do("write(20)")
            put(env, 1)
            assert require_retained(env, digests).horizon >= COMMITS + 61 + 80


def test_a_pin_that_is_lowered_comes_too_late(path: Path, digests: dict[int, str]) -> None:
    """The broken variant: roots below the pin are gone, and one who has looked at it may not look again."""
    with retaining(path) as (env, _keeper), stock_process(path) as other:
        root = root_of(env, 5)
        env._table.raise_pin(15)
        other.do("write(1)")
        env._table._words[LockTable._word(0)] = 1
        other.do("write(60)")
        assert lost(env, root, digests[5])
        env._table.raise_pin(15)
        put(env, 1)


def test_a_foreign_look_at_the_readers_spares_the_pin_while_we_live(path: Path, digests: dict[int, str]) -> None:
    with retaining(path) as (env, keeper), stock_process(path) as other, cowfs_process(path) as dead:
        dead.do("hold = env.hold(3)")
        dead.kill()
        assert env.readers() == [(dead.pid, 3)]
        assert other.do("answer = env.reader_check()") == 1
        assert env.readers() == []
        other.do("write(60)")
        put(env, 1)
        assert require_retained(env, digests).horizon == 1
        assert [event.kind for event in keeper.events] == ["gap"]


@pytest.mark.parametrize("writes", [0, 60])
def test_a_foreign_look_at_the_readers_takes_the_pin_when_we_are_gone(
    path: Path, digests: dict[int, str], writes: int, caplog: pytest.LogCaptureFixture
) -> None:
    with stock_process() as other:
        with retaining(path):
            other.do("begin(given[0])", path)
        assert pids(other) == [PIN]
        other.do("write(1)")
        assert other.do("answer = env.reader_check()") == 1
        assert pids(other) == []
        other.do("write(given[0])", writes)
        newest = COMMITS + 2 + writes
        with retaining(path) as (env, keeper):
            assert list(span_of(env)) == [newest]
            put(env, 1)
            assert keeper.events == [Event("lost", 1, newest - 1)]
            assert require_retained(env, {}) == Span(newest, newest + 1)
    assert len(given_up(caplog)) == 1


def test_one_that_stays_when_we_are_gone_respects_the_pin(path: Path, digests: dict[int, str]) -> None:
    """LMDB frees slots of the dead only when it looks, or is first; until then they count."""
    with stock_process() as other:
        with retaining(path):
            other.do("begin(given[0])", path)
        other.do("write(60)")
        with retaining(path) as (env, keeper):
            put(env, 1)
            assert require_retained(env, digests).horizon == 1
            assert keeper.events == [Event("gap", COMMITS + 1, COMMITS + 59)]


def test_a_pin_beyond_the_slots_in_use_is_none(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """LMDB's first opener leaves the bytes of the old slots where they are, and counts from none again."""
    (path / "lock.mdb").unlink()
    with stock_process(path) as other:
        other.do("txns = [env.begin() for _ in range(5)]")
        with retaining(path) as (env, _keeper):
            put(env, 1)
    with stock_process(path) as other:
        other.do("write(60)")
    assert struct.unpack_from("<I", (path / "lock.mdb").read_bytes(), _SLOTS + 5 * 64 + 8)[0] == PIN
    with retaining(path) as (env, keeper):
        assert env._table.pin() is None
        put(env, 1)
        assert [event.kind for event in keeper.events] == ["lost"]
    assert len(given_up(caplog)) == 2


def test_a_pin_of_another_history_is_no_proof(path: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Somebody puts another store's data.mdb in place, and leaves lock.mdb."""
    with retaining(tmp_path / "other") as (env, _keeper):
        for number in range(COMMITS * 2):
            put(env, number)
    (path / "data.mdb").write_bytes((tmp_path / "other" / "data.mdb").read_bytes())
    with retaining(path) as (env, keeper):
        assert list(span_of(env)) == [COMMITS * 2 + 1]
        with pytest.raises(NotFound):
            env.hold(COMMITS)
        put(env, 1)
        assert keeper.events == [Event("lost", 1, COMMITS * 2)]
        require_retained(env, {})
    assert len(given_up(caplog)) == 1


def test_a_claimed_pin_protects_from_then_on_without_a_commit(path: Path) -> None:
    """What a mount does when it starts: what is committed beside it can be read later, though nothing was written."""
    (path / "lock.mdb").unlink()
    with retaining(path) as (env, keeper), stock_process(path) as other:
        env.claim_pin()
        assert pin_of(env).txnid == env.newest_txnid() == COMMITS + 1
        root, before = env.file.newest_root(), newest_digest(env)[1]
        other.do("write(60)")
        assert not lost(env, root, before)
        put(env, 1)
        assert [event.kind for event in keeper.events] == ["lost", "lost"]
        require_retained(env, {})


def test_an_unclaimed_root_is_lost(path: Path) -> None:
    """The other half: without the pin the same writer uses the same root's pages."""
    (path / "lock.mdb").unlink()
    with retaining(path) as (env, _keeper), stock_process(path) as other:
        root, before = env.file.newest_root(), newest_digest(env)[1]
        other.do("write(60)")
        assert lost(env, root, before)
        put(env, 1)


# -- 9, 10, 11: the map, one open, full tables ---------------------------------------------------------------------


def test_a_map_that_is_huge_need_not_be_resized(path: Path) -> None:
    """Rule 9: another process grows the file beyond what a small map would show."""
    begin = "try: env.begin()\nexcept lmdb.Error as error: answer = type(error).__name__"
    with retaining(path) as (env, _keeper), stock_process(path) as other, stock_process() as small:
        small.do("env = lmdb.open(str(given[0]), lib_version=0)", path)
        env.file.newest_root()
        other.do("write(100, 0, 100_000)")
        with env.hold() as hold:
            assert hold.root.pages > 256
        put(env, 1)
        require_retained(env, {})
        assert small.do(begin) == "MapResizedError"


def test_one_process_opens_it_once(path: Path) -> None:
    """Rule 10: whoever asks gets the same; LMDB itself may not be asked twice."""
    with retaining(path) as (env, _keeper):
        again = Env.open(path, durable=False)
        assert again is env
        again.close()
        with pytest.raises(lmdb.Error, match="already open"):
            lmdb.open(str(path), lib_version=0)
        put(env, 1)
    with stock(path), pytest.raises(EnvironmentFailure, match="already open"):
        Env.open(path)
    Env.open(path, readonly=True).close()


def test_a_read_only_filesystem_has_no_table(path: Path) -> None:
    """Rule 10: there nothing can be held, and nobody writes."""
    program = """
        import sys
        from tests.support.retained import *
        with Env.open(Path(sys.argv[1]), readonly=True, durable=False) as env:
            assert not env.guarded
            with env.hold() as hold:
                print(env.readers(), list(env.rootlog.span(hold)), list(hold.scan(b"a", b"3", b"4"))[0][0])
            env.claim_pin()
    """
    script = 'mount -t tmpfs tmpfs /mnt; cp "$1"/* /mnt; mount -o remount,ro /mnt; "$2" -c "$3" /mnt'
    text = "\n".join(line.removeprefix(" " * 8) for line in program.splitlines())
    assert in_private_mounts(script, path, sys.executable, text).stdout == f"[] [{COMMITS + 1}] b'3'\n"


def test_slots_of_the_dead_are_freed_for_the_pin(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rule 11: also when somebody has looked for them a moment ago."""
    (path / "lock.mdb").unlink()
    with retaining(path) as (env, keeper):
        env.evict_dead_readers()
        with stock_process(path) as other:
            other.do("txns = [env.begin() for _ in range(510)]")
            other.kill()
        put(env, 1)
        assert [event.kind for event in keeper.events] == ["lost"]
        require_retained(env, {})


def test_what_stock_lmdb_reads_is_what_we_read(path: Path) -> None:
    with retaining(path) as (env, _keeper):
        content = content_of(env)
        [found] = opened(path)
        assert (found["txid"], found["databases"]["a"][0]) == (env.newest_txnid(), len(content))
        assert RootRecord.parse(env.hold().get(DATABASE, RECORD_KEY)) == record_of(env)


def test_an_environment_is_used_by_several_processes_under_kills(path: Path, digests: dict[int, str]) -> None:
    """All together: writers of ours and others that are killed at any moment; what is retained is whole, always."""
    with retaining(path) as (env, keeper):
        for number in range(3):
            with cowfs_process(path) as ours, stock_process(path) as theirs:
                ours.tell("for number in range(100_000): put(env, number)")
                theirs.tell("write(100_000)")
                while env.newest_txnid() < COMMITS + 40 * (number + 1):
                    digests.update([newest_digest(env)])
                (ours if number % 2 else theirs).kill()
        put(env, 1)
        span = require_retained(env, digests)
        assert span.horizon == 1
        assert {event.kind for event in keeper.events} <= {"gap"}
