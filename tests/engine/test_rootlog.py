"""``RootLog``: every retained root is found, and costs what it holds."""

from __future__ import annotations

import logging
import os
import random
from itertools import pairwise
from pathlib import Path

import pytest

from cowfs.engine import rootlog as roots_module
from cowfs.engine.env import Env
from cowfs.engine.policy import Event
from cowfs.engine.rootlog import RootLog
from cowfs.engine.rootrecord import DATABASE, OWN_KEYS, RECORD_KEY, RootRecord, Span
from cowfs.errors import CorruptDatabase, NotFound
from cowfs.pages.btree import TreeReader
from cowfs.pages.datafile import DataFile
from cowfs.pages.format import Root
from cowfs.pages.freelist import freed_pages, parse_free_record
from cowfs.pages.pagecheck import _Checker
from tests.support.environments import findings, image_bytes, newest, stock
from tests.support.retained import (
    FakePolicy,
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
from tests.support.writer import STYLES


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """What may be given up is looked at often, so that short histories show it."""
    monkeypatch.setattr(roots_module, "LOOK_EVERY", 16)


# -- damage -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", ["short", "long", "count", "horizon", "circle"])
def test_a_damaged_record_in_an_environment_is_corrupt(tmp_path: Path, damage: str) -> None:
    with retaining(tmp_path / "db") as (env, _keeper):
        for number in range(30):
            put(env, number)
        record = record_of(env)
        link = (record.txnid + 7).to_bytes(8, "little") + (5).to_bytes(8, "little")
        damaged = {
            "short": record.pack()[:-1],
            "long": record.pack() + b"\0",
            "count": record.pack()[:58] + b"\xff" + record.pack()[59:],
            "horizon": record.pack()[:16] + b"\xff" + record.pack()[17:],
            "circle": RootRecord(
                record.nonce, record.horizon, record.txnid, 0, 0, roots=record.roots, levels=(link * 8,)
            ).pack(),
        }[damage]
        with env.write() as txn:
            txn.put(DATABASE, RECORD_KEY, damaged)
        with pytest.raises(CorruptDatabase):
            env.hold(5)
        if damage != "circle":
            with pytest.raises(CorruptDatabase):
                put(env, 0)
        assert env.readers() == []


# -- finding ------------------------------------------------------------------------------------------------------


@pytest.fixture
def visits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The records that were read to find a root."""
    visited: list[int] = []
    record_at = RootLog._record_at

    def counted(self: RootLog, reader: TreeReader, txnid: int, pgno: int) -> RootRecord | None:
        visited.append(txnid)
        return record_at(self, reader, txnid, pgno)

    monkeypatch.setattr(RootLog, "_record_at", counted)
    return visited


def test_every_commit_is_found_in_a_few_steps(tmp_path: Path, visits: list[int]) -> None:
    roots: dict[int, Root] = {}
    with retaining(tmp_path / "db") as (env, _keeper):
        for number in range(4000):
            with env.write() as txn:
                txn.put(b"a", b"key", b"%d" % number)
            roots[txn.txnid] = env.file.meta(txn.txnid & 1)
        with env.hold() as hold:
            span = env.rootlog.span(hold)
            assert list(span) == [1, *roots]
            most = 0
            for txnid in span:
                visits.clear()
                root = env.rootlog.find(hold, txnid)
                assert txnid == 1 or root == roots[txnid]
                most = max(most, len(visits))
            assert most <= 8
            for txnid in (0, span.newest + 1):
                with pytest.raises(NotFound):
                    env.rootlog.find(hold, txnid)
        first = next(env.hold(2).scan(b"a"))
    assert first == (b"key", b"0")


@pytest.mark.parametrize("seed", range(2))
def test_commits_are_found_beside_gaps(
    tmp_path: Path, seed: int, visits: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    """Others commit without recording: one is no gap, its root and the one before are both there; of more, the last is."""
    choice = random.Random(seed)
    digests: dict[int, str] = {}
    gaps: list[tuple[int, int]] = []
    with retaining(tmp_path / "db") as (env, keeper), stock_process(env.path) as other:
        for number in range(10):
            for _ in range(choice.choice([1, 1, 2, 7, 20])):
                put(env, number)
                digests.update([newest_digest(env)])
            foreign = choice.choice([0, 1, 1, 2, 3, 20])
            if foreign:
                last = env.newest_txnid()
                other.do("write(given[0])", foreign)
                digests.update([newest_digest(env)])
                if foreign > 1:
                    gaps.append((last, last + foreign - 2))
        put(env, 0)
        span = require_retained(env, digests)
        assert span == Span(1, env.newest_txnid(), tuple(gaps))
        assert keeper.events == [Event("gap", *gap) for gap in gaps]
        assert len([message for message in caplog.messages if "not retained" in message]) == len(gaps)
        most = 0
        for txnid in range(span.newest):
            visits.clear()
            if txnid in span:
                env.hold(txnid).close()
            else:
                with pytest.raises(NotFound, match=f"commit {txnid} is not retained"):
                    env.hold(txnid)
            most = max(most, len(visits))
        assert most <= 8
        assert env.readers() == []


def test_a_writer_of_every_second_commit_leaves_no_gap(tmp_path: Path) -> None:
    with retaining(tmp_path / "db") as (env, keeper), stock_process(env.path) as other:
        digests: dict[int, str] = {}
        for number in range(30):
            put(env, number)
            digests.update([newest_digest(env)])
            other.do("write(1, given[0])", number)
            digests.update([newest_digest(env)])
            assert span_of(env).gaps == ((env.newest_txnid() - 1,) * 2,), "until it is recorded"
        require_retained(env, digests)
        put(env, 0)
        assert require_retained(env, digests) == Span(1, 62)
        assert keeper.events == []


def test_many_gaps_are_forgotten_with_what_was_before_them(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    with retaining(tmp_path / "db") as (env, _keeper), stock_process(env.path) as other:
        for number in range(80):
            put(env, number)
            other.do("write(2, given[0], 10)", number)
        put(env, 0)
        span = require_retained(env, {})
        assert len(span.gaps) == 64
        assert span.horizon == span.gaps[0][0] - 1 - 1, "the root before the gap is recorded, too"
        assert pin_of(env).txnid == span.horizon


def test_an_environment_that_is_no_store_has_no_history(tmp_path: Path) -> None:
    """Whoever only looks into it, with this class, leaves no trace."""
    with Env.create(tmp_path / "db", durable=False) as env:
        with env.write() as txn:
            txn.create([b"a"])
        for keeper in (None, FakePolicy()):
            env.rootlog.policy = keeper
            put(env, 1)
            assert env._table.pin() is None
            assert list(span_of(env)) == [env.newest_txnid()]
            assert not env.give_up_history()
        with env.hold() as hold, pytest.raises(NotFound):
            env.hold(hold.root.txnid - 1)
        with env.hold() as hold:
            assert [name for name, _record in hold.databases()] == [b"a"]


def test_a_store_that_nobody_keeps_loses_nothing(tmp_path: Path) -> None:
    """Commits through ``Env`` alone, without a keeper, are recorded when there is a history."""
    with retaining(tmp_path / "db") as (env, _keeper):
        put(env, 1)
    with Env.open(tmp_path / "db", durable=False) as env:
        for number in range(40):
            put(env, number)
        assert require_retained(env, {}) == Span(1, 42)


def test_the_quick_way_makes_the_same_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Most records are made from the one before without taking it apart: byte for byte what the whole way makes."""
    quick: list[bytes | None] = []
    following = RootLog._following

    def whole_way(self: RootLog, data: bytes | None, txnid: int) -> bytes | None:
        quick.append(following(self, data, txnid))
        return None

    monkeypatch.setattr(RootLog, "_following", whole_way)
    ways = []
    with retaining(tmp_path / "db") as (env, keeper), stock_process(env.path) as other:
        for number in range(700):
            if number in (90, 91, 300):
                other.do("write(given[0])", 1 + number % 3)
            keeper.wanted = {120: 50, 250: 245, 400: 380}.get(number, keeper.wanted)
            with env.write() as txn:
                if number % 50 == 7:
                    env.rootlog.review(txn)
                    continue
                if quick[-1] is not None:
                    assert txn.get(DATABASE, RECORD_KEY) == quick[-1]
                ways.append(quick[-1] is not None)
        assert ways.count(True) > 400
        assert ways.count(False) > 40


# -- giving up ----------------------------------------------------------------------------------------------------


def test_what_the_keeper_does_not_want_is_given_up(tmp_path: Path) -> None:
    with retaining(tmp_path / "db") as (env, keeper):
        for number in range(100):
            put(env, number)
        keeper.wanted = 50
        held = env.hold(20)
        put_until_look(env)
        assert span_of(env).horizon == pin_of(env).txnid == 20, "somebody reads it"
        held.close()
        keeper.needed = 30
        put_until_look(env)
        assert span_of(env).horizon == pin_of(env).txnid == 30, "it has a name"
        keeper.needed = None
        with env.write(review=True) as txn:
            pass
        assert span_of(env) == Span(50, txn.txnid)
        assert require_retained(env, {}).horizon == pin_of(env).txnid == 50
        keeper.wanted = 10
        put_until_look(env)
        assert require_retained(env, {}).horizon == pin_of(env).txnid == 50, "it never moves back"
        for txnid in (1, 20, 49):
            with pytest.raises(NotFound):
                env.hold(txnid)
        assert keeper.events == []


def put_until_look(env: Env) -> None:
    while True:
        txnid = put(env, env.newest_txnid())
        if txnid % roots_module.LOOK_EVERY == 1:
            return


def test_a_horizon_moves_by_a_good_step_or_not(tmp_path: Path) -> None:
    with retaining(tmp_path / "db") as (env, keeper):
        for number in range(1000):
            put(env, number, 10)
        keeper.wanted = 5
        put_until_look(env)
        assert span_of(env).horizon == 1, "four of a thousand are not worth it"
        with env.write(review=True):
            pass
        assert span_of(env).horizon == pin_of(env).txnid == 5


def test_what_a_full_disk_gives_up(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with retaining(tmp_path / "db") as (env, keeper):
        for number in range(100):
            put(env, number)
        digests = dict([newest_digest(env)])
        keeper.needed = 90
        held = env.hold(80)
        horizons = []
        while env.give_up_history():
            horizons.append(pin_of(env).txnid)
            assert span_of(env) == Span(horizons[-1], 101)
            with pytest.raises(NotFound):
                env.hold(horizons[-1] - 1)
        assert horizons == [32, 48, 64, 65, *horizons[4:]]
        assert horizons[-1] == 80
        held.close()
        while env.give_up_history():
            pass
        assert pin_of(env).txnid == 90
        assert caplog.messages[0] == "the disk is full: commits 1 to 31 of the history are given up"
        assert keeper.events == []
        put(env, 0)
        assert keeper.events == [Event("full", 1, 89)]
        assert record_of(env).horizon == 90
        assert require_retained(env, digests) == Span(90, 102)
        keeper.needed = None
        while env.give_up_history():
            pass
        assert list(span_of(env)) == [102]
        put(env, 1)
        assert require_retained(env, digests) == Span(102, 103)


def test_a_history_given_up_to_its_end_goes_on_after_others(tmp_path: Path) -> None:
    """The pin is at a root that was never recorded, and never can be any more."""
    for foreign in (1, 2, 5):
        with retaining(tmp_path / f"db{foreign}") as (env, keeper), stock_process(env.path) as other:
            for number in range(30):
                put(env, number)
            while env.give_up_history():
                pass
            assert list(span_of(env)) == [31]
            other.do("write(given[0])", foreign)
            for number in range(3):
                put(env, number)
            span = require_retained(env, {})
            assert span == Span(31 + foreign, 34 + foreign)
            assert len(span) == 4
            assert keeper.events[0] == Event("full", 1, 30)
            assert keeper.events[1:] == ([Event("gap", 31, 29 + foreign)] if foreign > 1 else [])


def test_an_older_file_under_a_younger_pin_begins_anew(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Somebody puts a copy of data.mdb back, and leaves lock.mdb as it is."""
    path = tmp_path / "db"
    with retaining(path) as (env, _keeper):
        for number in range(20):
            put(env, number)
    older = (path / "data.mdb").read_bytes()
    with retaining(path) as (env, keeper):
        for number in range(40):
            put(env, number)
        keeper.wanted = 40
        with env.write(review=True):
            pass
        assert pin_of(env).txnid == 40
    (path / "data.mdb").write_bytes(older)
    with retaining(path) as (env, keeper):
        for number in range(10):
            put(env, number)
        assert require_retained(env, {}) == Span(21, 31)
        assert keeper.events == [Event("lost", 1, 20)]
        assert pin_of(env).txnid == 21
    assert len(caplog.messages) == 1


# -- what it costs ------------------------------------------------------------------------------------------------


def pages_of(env: Env, root: Root) -> set[int]:
    """Return the pages that a root uses, those of its freelist included."""
    checker = _Checker(env.file, root, lambda _pages: None)
    assert list(checker.run()) == []
    return set(checker._used.among(0, root.last_pgno))


def freed_between(reader: TreeReader, first: int, last: int) -> set[int]:
    """Return the pages that the transactions with first < txnid <= last have freed, from the freelist parsed whole."""
    pages: set[int] = set()
    for key, value in reader.scan_tree(reader.root.free):
        if first < int.from_bytes(key, "little") <= last:
            pages.update(parse_free_record(key, value, 0))
    return pages


def require_costs(env: Env, *, exact: bool) -> int:
    """Hold every cost against the pages that are reachable from the roots; return how many costs that were.

    A page that a transaction both took and freed belongs to no root; it, too, is only given back with the others.
    """
    with env.hold() as hold:
        span = list(env.rootlog.span(hold))
        used = {txnid: pages_of(env, env.rootlog.find(hold, txnid)) for txnid in span}
        count = 0
        for start, first in enumerate(span):
            only: set[int] = set()
            for before, last in pairwise(span[start:]):
                only |= used[before]
                expected = only - used[last]
                freed = freed_between(hold, first, last)
                of_no_root = freed - expected
                assert expected <= freed
                assert not any(of_no_root & used[txnid] for txnid in span if first <= txnid <= last)
                assert env.rootlog.cost(hold, first, last) == len(freed)
                assert not exact or not of_no_root
                count += 1
        return count


def test_costs_of_small_commits_are_the_pages_that_only_they_use(tmp_path: Path) -> None:
    with retaining(tmp_path / "db") as (env, keeper):
        for number in range(24):
            put(env, number, 100)
        require_costs(env, exact=True)
        for wanted in (9, 21, 38):  # not where it was counted
            keeper.wanted = wanted
            with env.write(review=True):
                pass
            for number in range(14):
                put(env, number, 100)
                with env.hold() as hold:
                    assert env.rootlog.cost(hold, wanted, hold.root.txnid) == len(
                        freed_between(hold, wanted, hold.root.txnid)
                    )
            assert require_costs(env, exact=True) > 100


@pytest.mark.parametrize("style", ["nosync", "nested", "dropping", "aborting"])
def test_costs_of_any_commits_are_what_dropping_them_gives_back(tmp_path: Path, style: str) -> None:
    """Large values, deletes, whole databases dropped, transactions that spill; while the horizon moves."""
    choice = random.Random(style)
    write, _options = STYLES[style]
    with retaining(tmp_path / "db") as (env, keeper):
        for number in range(45):
            with env.write() as txn:
                write(env._writable(), txn._raw, choice)
                for _ in range(choice.choice([1, 3, 60])):
                    key = b"%d" % choice.randrange(200)
                    if choice.random() < 0.3:
                        txn.delete(b"a", key)
                    else:
                        txn.put(b"a", key, bytes(choice.choice([10, 500, 9000])))
            if number in (20, 37):
                keeper.wanted = number - 6
                with env.write(review=True):
                    pass
        assert require_costs(env, exact=False) > 50
        with env.hold() as hold:
            assert env.rootlog.cost(hold, 31, 31) == 0


def test_costs_beside_gaps(tmp_path: Path) -> None:
    with retaining(tmp_path / "db") as (env, _keeper), stock_process(env.path) as other:
        for number in range(12):
            for again in range(1 + number % 4):
                put(env, number + again, 100)
            other.do("write(given[0], given[1], 100)", number % 3 + 1, number)
        assert require_costs(env, exact=False) > 100
        put(env, 0, 100)
        assert require_costs(env, exact=False) > 100


def test_freed_pages_are_those_of_the_freelist_parsed_whole(tmp_path: Path) -> None:
    choice = random.Random(8)
    with retaining(tmp_path / "db") as (env, _keeper):
        for number in range(700):
            put(env, choice.randrange(40), choice.choice([10, 3000, 9000]) if number % 100 else 200_000)
        with env.hold() as hold:
            whole = {int.from_bytes(key, "little"): value for key, value in hold.scan_tree(hold.root.free)}
            assert len(whole) >= 699
            assert hold.root.free.depth > 1
            ranges = [(0, 2**63), (0, 1), (699, 700), (702, 9000), (5, 5), (9, 3)]
            ranges += [(choice.randrange(720), choice.randrange(720)) for _ in range(200)]
            for start, stop in ranges:
                expected = [(key, value) for key, value in sorted(whole.items()) if start <= key < stop]
                for size in (8, 24):
                    found = list(hold.scan_integers(hold.root.free, start, stop, size))
                    assert found == [(key, value[:size]) for key, value in expected]
                count = sum(len(parse_free_record(key.to_bytes(8, "little"), value, 0)) for key, value in expected)
                assert freed_pages(hold, start - 1, stop - 1) == count


def test_counting_reads_few_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with retaining(tmp_path / "db") as (env, _keeper):
        for number in range(1500):
            put(env, number, 10)
        reads: list[int] = []
        page = DataFile.page

        def counted(self: DataFile, pgno: int) -> bytes:
            reads.append(pgno)
            return page(self, pgno)

        monkeypatch.setattr(DataFile, "page", counted)
        with env.hold() as hold:
            assert hold.root.free.depth > 1
            env.rootlog.cost(hold, 700, 1400)
            assert len(reads) < 80


# -- images -------------------------------------------------------------------------------------------------------


def test_an_image_has_no_history_and_begins_its_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = {OWN_KEYS + b"names": b"some names", OWN_KEYS + b"events": b"e" * 5000, OWN_KEYS: b"!", b"history": b"H"}
    neighbours = {b"history": b"H", b"history.": b"I", b"history0": b"J", b"historz": b"K" * 4000}
    with retaining(tmp_path / "db") as (env, _keeper):
        for number in range(50):
            put(env, number)
        with env.write() as txn:
            for key, value in (names | neighbours).items():
                txn.put(DATABASE, key, value)
        put(env, 0)
        with env.hold() as hold:
            live = dict(hold.scan(DATABASE))
            content, image = dict(hold.scan(b"a")), image_bytes(env.file, hold.root)
            live_bytes = os.pread(env.file.fd, len(image), 0)
    assert len(image) == hold.root.pages * hold.root.page_size + hold.root.txnid % hold.root.page_size
    assert live[OWN_KEYS + b"events"] in live_bytes
    assert live[OWN_KEYS + b"events"] not in image
    path = tmp_path / "image"
    path.mkdir()
    (path / "data.mdb").write_bytes(image)
    assert findings(path) == []
    with newest(path) as reader:
        own = {key: value for key, value in reader.scan(DATABASE) if key.startswith(OWN_KEYS)}
        assert own == {key: bytes(len(value)) for key, value in live.items() if key.startswith(OWN_KEYS)}
        assert len(own) == 4
        assert {key: value for key, value in reader.scan(DATABASE) if key not in own}.items() >= neighbours.items()
    with stock(path) as plain, plain.begin() as raw:
        assert dict(raw.cursor(plain.open_db(b"a", raw, create=False))) == content
    (path / "lock.mdb").unlink()
    with retaining(path) as (env, keeper):
        assert list(span_of(env)) == [hold.root.txnid]
        for number in range(20):
            put(env, number)
        assert require_retained(env, {}) == Span(hold.root.txnid, hold.root.txnid + 20)
        assert keeper.events == []
        with env.hold(hold.root.txnid) as first:
            assert dict(first.scan(b"a")) == content
    assert caplog.messages == []


def test_a_copy_of_the_file_knows_that_it_has_no_history(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """``cp`` of data.mdb alone: its record is there, but the pin is not, so nothing says that the roots are whole."""
    with retaining(tmp_path / "db") as (env, _keeper):
        for number in range(20):
            put(env, number)
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "data.mdb").write_bytes((tmp_path / "db" / "data.mdb").read_bytes())
    with retaining(tmp_path / "copy") as (env, keeper):
        assert list(span_of(env)) == [21]
        put(env, 0)
        assert keeper.events == [Event("lost", 1, 20)]
        assert require_retained(env, {}) == Span(21, 22)
    assert given_up(caplog) == caplog.messages != []
