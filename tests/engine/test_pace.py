"""When the bounds are looked at: every so many commits, and sooner when much has happened."""

from __future__ import annotations

import random
import time
from itertools import pairwise
from pathlib import Path

import pytest

from cowfs.engine import rootlog as roots_module
from cowfs.engine.env import Env
from cowfs.engine.locktable import LockTable
from cowfs.engine.pace import Pace
from cowfs.engine.policy import HistoryView
from cowfs.engine.rootrecord import Span
from cowfs.errors import NotFound
from cowfs.pages.format import META_SIZE, ROOT_BYTES
from cowfs.pages.freelist import freed_in_last_leaf, freed_pages
from tests.support.retained import (
    FakePolicy,
    cowfs_process,
    newest_digest,
    pin_of,
    put,
    record_of,
    require_retained,
    retaining,
    span_of,
    stock_process,
)


class Looker(FakePolicy):
    """Remembers at which commits it was asked; with ``passing`` it wants nothing but the commit that is being made."""

    def __init__(self) -> None:
        super().__init__()
        self.looks: list[int] = []
        self.passing = False

    def horizon(self, view: HistoryView) -> int:
        self.looks.append(view.span.newest)
        return view.span.newest + 1 if self.passing else super().horizon(view)

    def limit(self, view: HistoryView) -> int:
        return view.span.newest + 1 if self.passing else super().limit(view)


def _looker(env: Env, **between: float) -> Looker:
    keeper = Looker()
    keeper.between = Pace(**between)
    env.rootlog.policy = keeper
    return keeper


def _replace(env: Env, number: int) -> int:
    """Commit a small value in the place of a large one, which goes into a log, as in the store."""
    with env.write() as txn:
        old = txn.get(b"a", b"%d" % number)
        assert old is not None
        txn.put(b"a", b"log", old)
        txn.put(b"a", b"%d" % number, b"small")
    return txn.txnid


def _freed(env: Env, after: int) -> int:
    with env.hold() as hold:
        return freed_pages(hold, after, hold.root.txnid)


def test_a_commit_that_frees_much_is_looked_at_by_the_next(tmp_path: Path) -> None:
    with retaining(tmp_path / "db") as (env, _keeper):
        put(env, 0, 1_000_000)
        keeper = _looker(env, pages=200)
        for number in range(1, 8):
            put(env, number, 10)
        assert keeper.looks == []
        big = _replace(env, 0)
        assert _freed(env, big - 1) > 200
        put(env, 1, 10)
        assert keeper.looks == [big]
        put(env, 2, 10)
        assert keeper.looks == [big], "it is counted from the last look on"


def test_small_commits_add_up(tmp_path: Path) -> None:
    with retaining(tmp_path / "db") as (env, _keeper):
        keeper = _looker(env, pages=100)
        for number in range(120):
            before = keeper.looks[-1] if keeper.looks else 1
            due = _freed(env, before) >= 100 or env.newest_txnid() % roots_module.LOOK_EVERY == 0
            looks = len(keeper.looks)
            put(env, number, 10)
            assert (len(keeper.looks) > looks) == due, number
        assert len(keeper.looks) >= 5


def test_what_a_transaction_says_that_it_freed_is_never_too_little(tmp_path: Path) -> None:
    choice = random.Random(3)
    with retaining(tmp_path / "db") as (env, _keeper):
        for number in range(150):
            with env.write() as txn:
                for _ in range(choice.choice([1, 3, 40, 400])):
                    key = b"%d" % choice.randrange(500)
                    if choice.random() < 0.3:
                        old = txn.get(b"a", key)
                        txn.delete(b"a", key)
                        txn.put(b"a", b"log", old or b"-")  # as the store: what is deleted is put into the log
                    else:
                        txn.put(b"a", key, bytes(choice.choice([10, 500, 3000])))
            freed = _freed(env, txn.txnid - 1)
            assert freed <= txn.most_freed, number


def test_the_last_leaf_tells_what_the_freelist_says(tmp_path: Path) -> None:
    with retaining(tmp_path / "db") as (env, _keeper):
        assert freed_in_last_leaf(env.file, bytes(120), 0) is None
        told = 0
        for number in range(400):
            txnid = put(env, number, 9000 if number % 50 else 3_000_000)
            meta = env.file.pread(META_SIZE, (txnid & 1) * env.file.page_size)[ROOT_BYTES]
            for back in (1, 2, 5, 60):
                freed = freed_in_last_leaf(env.file, meta, txnid - back)
                assert freed in (None, _freed(env, txnid - back))
                told += freed is not None
            assert freed_in_last_leaf(env.file, meta, txnid - 1) is not None
        assert 1000 < told < 1600


def test_time_that_has_passed_takes_a_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with retaining(tmp_path / "db") as (env, _keeper):
        keeper = _looker(env, seconds=60.0)
        first = env.newest_txnid()
        put(env, 0)
        assert keeper.looks == [first], "a process that begins does not know when the last look was"
        put(env, 1)
        now += 59
        put(env, 2)
        assert keeper.looks == [first]
        now += 2
        put(env, 3)
        put(env, 4)
        assert keeper.looks == [first, first + 3]


def test_so_many_commits_take_a_look(tmp_path: Path) -> None:
    with retaining(tmp_path / "db") as (env, _keeper):
        keeper = _looker(env, commits=3)
        for number in range(13):
            put(env, number)
        assert [later - earlier for earlier, later in pairwise(keeper.looks)] == [3, 3, 3]


def test_a_look_that_was_not_committed_is_taken_again(tmp_path: Path) -> None:
    with retaining(tmp_path / "db") as (env, _keeper):
        put(env, 0, 1_000_000)
        keeper = _looker(env, pages=200)
        put(env, 1, 10)
        big = _replace(env, 0)
        for _ in range(2):
            with pytest.raises(KeyError), env.write():
                raise KeyError
        put(env, 1, 10)
        assert keeper.looks == [big] * 3
        put(env, 1, 10)
        assert keeper.looks == [big] * 3


def test_what_other_processes_free_counts(tmp_path: Path) -> None:
    with retaining(tmp_path / "db") as (env, _keeper), cowfs_process(env.path) as other:
        put(env, 0, 1_000_000)
        put(env, 2, 1_000_000)
        keeper = _looker(env, pages=200)
        put(env, 1, 10)
        other.do("put(env, 0, 10)")
        put(env, 1, 10)
        assert len(keeper.looks) == 1
        other.do("put(env, 2, 10); put(env, 3, 10); put(env, 4, 10)")
        put(env, 1, 10)
        assert len(keeper.looks) == 2


def test_names_are_swept_every_so_often(tmp_path: Path) -> None:
    with retaining(tmp_path / "db") as (env, _keeper):
        keeper = _looker(env, commits=1)
        for number in range(2 * roots_module.LOOK_EVERY):
            put(env, number, 10)
        assert len(keeper.looks) > roots_module.LOOK_EVERY
        assert keeper.swept == [roots_module.LOOK_EVERY + 1, 2 * roots_module.LOOK_EVERY + 1]


# -- commits that give up all before them -----------------------------------------------------------------------------


def _pass(env: Env, commits: int) -> Looker:
    """Make commits of which each gives up all before it."""
    keeper = _looker(env, commits=0)
    keeper.passing = True
    for number in range(commits):
        put(env, number, 5000)
        assert list(span_of(env)) == [env.newest_txnid()]
        assert pin_of(env).txnid == record_of(env).horizon == env.newest_txnid()
    keeper.passing = False
    keeper.between = Pace()
    return keeper


def test_commits_that_give_up_all_before_them_use_its_pages_again(tmp_path: Path) -> None:
    with retaining(tmp_path / "db") as (env, _keeper):
        _pass(env, 60)
        size = env.file.newest_root().pages
        keeper = _pass(env, 60)
        assert env.file.newest_root().pages < size + 20
        assert keeper.events == []
        digests: dict[int, str] = {}
        first = env.newest_txnid()
        for number in range(20):
            digests.update([newest_digest(env)])
            put(env, number, 5000)
        assert require_retained(env, digests) == Span(first, first + 20)
        with env.hold() as hold:
            for txnid in range(first, first + 20):
                assert env.rootlog.cost(hold, first, txnid) == freed_pages(hold, first, txnid), "what it costs is exact"
        assert keeper.events == []


def test_one_that_is_read_stays(tmp_path: Path) -> None:
    with retaining(tmp_path / "db") as (env, _keeper):
        put(env, 0)
        txnid, digest = newest_digest(env)
        keeper = _looker(env, commits=0)
        keeper.passing = True
        with env.hold():
            for number in range(10):
                put(env, number)
            assert require_retained(env, {txnid: digest}) == Span(txnid, txnid + 10)
        put(env, 0)
        assert list(span_of(env)) == [env.newest_txnid()]


def test_a_death_before_the_pin_is_raised_leaves_what_was_committed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with retaining(tmp_path / "db") as (env, _keeper):
        put(env, 0)
        keeper = _looker(env, commits=0)
        keeper.passing = True
        with monkeypatch.context() as patch:
            patch.setattr(LockTable, "raise_pin", lambda _self, _txnid: None)
            newest = put(env, 1)
        assert pin_of(env).txnid < newest
        assert list(span_of(env)) == [newest]
        keeper.passing = False
        put(env, 2)
        assert pin_of(env).txnid == newest
        assert require_retained(env, {}) == Span(newest, newest + 1)
        assert keeper.events == []


@pytest.mark.parametrize("foreign", [1, 2, 5])
def test_others_may_commit_after_one_that_gave_up_all_before_it(tmp_path: Path, foreign: int) -> None:
    with retaining(tmp_path / "db") as (env, _keeper), stock_process(env.path) as other:
        keeper = _pass(env, 5)
        newest = env.newest_txnid()
        other.do("write(given[0])", foreign)
        for number in range(3):
            put(env, number)
        assert require_retained(env, {}) == Span(newest + foreign, newest + foreign + 3) or foreign == 1
        with pytest.raises(NotFound):
            env.hold(newest - 1)
        assert {event.kind for event in keeper.events} <= {"gap"}
