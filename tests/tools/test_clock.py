"""A clock that was wrong: what commands find, show and give up, then and afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cowfs import Store
from cowfs.cli.history import event_text
from cowfs.commits.retained import RetainedCommits
from cowfs.store.history.retention import Retention
from cowfs.store.model import clock as clock_module
from cowfs.store.model.values import instant_text
from cowfs.views.commitdir import SnapshotDirectory
from cowfs.views.tree import Tree
from tests.support.clocks import FakeClock
from tests.support.commands import cowfs_here, refused_here, run_here


@pytest.fixture
def database(tmp_path: Path, clock: FakeClock) -> Iterator[Path]:
    """A database of five commits, a minute apart; whatever is done, it stays sound."""
    with Store.create(tmp_path / "db", {":note/text": {}}, durability="none") as store:
        _write(store, clock, 4)
    yield tmp_path / "db"
    assert ": ok (" in cowfs_here("check", tmp_path / "db")


def _write(store: Store, clock: FakeClock, count: int = 1, **apart: float) -> int:
    """Commit a note, so many times; return the last txid, which is that note's text."""
    txid = 0
    for _ in range(count):
        clock.advance(**(apart or {"minutes": 1}))
        with store.db() as db:
            txid = db.txid + 1
        assert store.transact([{":db/id": 1, ":note/text": str(txid)}]).txid == txid
    return txid


def _more(database: Path, clock: FakeClock, count: int = 1, **apart: float) -> int:
    with Store.open(database, "none") as store:
        return _write(store, clock, count, **apart)


def _json(*arguments: str | Path) -> Any:
    return json.loads(cowfs_here(*arguments, "--json"))


def _at(database: Path, at: str) -> int:
    """Return the commit that ``at`` finds, which says nothing on standard error."""
    result = run_here("export", database, "--at", at)
    assert result.stderr == ""
    return int(json.loads(result.stdout)[":note/text"])


def _resolved(database: Path, *paths: str) -> list[int]:
    """Return the commits that these paths of a mount show."""
    with Store.open(database) as store:
        history = RetainedCommits(store.env)
        nodes = [Tree(history).node(f"/snapshots/{path}") for path in paths]
        found = [node.snapshot.txid for node in nodes if isinstance(node, SnapshotDirectory)]
        history.close()
    return found


def _glitch(database: Path, clock: FakeClock, count: int = 3, **by: float) -> None:
    """Commit while the clock is wrong by so much."""
    clock.advance(**by)
    _more(database, clock, count)
    clock.advance(**{unit: -value for unit, value in by.items()})


@pytest.mark.parametrize("by", [{"days": 8}, {"days": -365}, {"seconds": 300}])
def test_times_work_again_once_the_clock_is_right(database: Path, clock: FakeClock, by: dict[str, float]) -> None:
    before = clock.now
    _glitch(database, clock, 3, **by)
    last = _more(database, clock, 5)  # 9 to 13
    clock.advance(seconds=10)
    assert [_at(database, at) for at in ("0s", "1s", "1m10s", "4m10s")] == [13, 13, 12, 9]
    assert _at(database, instant_text(before - timedelta(minutes=1))) == 4
    assert _resolved(database, "ago/1s", "ago/2m", f"at/{instant_text(clock.now)}") == [last, last - 2, last]
    assert _json("status", database)["history"]["newest"]["age"] == 10
    assert cowfs_here("diff", database, "4m10s", "1s") == cowfs_here("diff", database, "9", "13") != ""
    assert json.loads(cowfs_here("revert", database, "4m10s", "--json"))["reverted_to"] == 9


def test_what_may_be_another_commit_is_said(database: Path, clock: FakeClock) -> None:
    _glitch(database, clock, 3, days=8)
    result = run_here("export", database, "--at", "1s")  # nobody has committed since
    assert json.loads(result.stdout)[":note/text"] == "5"
    assert result.stderr == "cowfs: commits 6 to 8 were made while the clock was wrong, and can be found by txid only\n"
    assert _at(database, "0s") == _at(database, "latest") == _at(database, "8") == 8
    _more(database, clock, 3)
    assert "commits 6 to 8 were" in run_here("export", database, "--at", "3m").stderr, "five is the last before"
    assert _at(database, "2m") == 9
    assert "was made at or before" in refused_here("export", database, "--at", "1d", code=2)


def test_status_says_it_and_since_when(database: Path, clock: FakeClock) -> None:
    clean = cowfs_here("status", database) + cowfs_here("retain", database)
    assert "\nclock" not in clean
    _glitch(database, clock, 3, days=8)
    history = _json("status", database)["history"]
    assert history["newest"]["age"] is None
    (future,) = history["clock"]
    assert (future["kind"], future["first"], future["last"], future["seconds"]) == ("future", 6, 8, 8 * 86_400)
    shown = cowfs_here("status", database)
    assert ", 8d in the future: a clock is, or was, wrong" in shown
    assert "commits 6 to 8 were made while the clock was ahead, or it is behind now" in shown
    made = run_here("transact", database, stdin="[]")
    assert made.stderr.startswith("cowfs: the clock is 8d")
    (back,) = _json("status", database)["history"]["clock"]
    assert back == {
        "kind": "back",
        "txid": 9,
        "instant": instant_text(clock.now),
        "seconds": 8 * 86_400,
        "first": 6,
        "last": 8,
        "was": "ahead",
    }
    for command in ("status", "retain"):
        line = "txid 9 is dated 8d before the one before: commits 6 to 8 were made while the clock was ahead"
        assert f"{back['instant']}  {line}" in cowfs_here(command, database)
    assert "; instants out of order since txid 9)" in cowfs_here("check", database)
    assert _json("check", database)["clock_went_back"] == [9]
    cowfs_here("retain", database, "--commits", "0")
    assert _json("status", database)["history"]["clock"] == [], "those commits are given up"


def test_a_store_that_an_older_version_left_with_instants_ahead(
    database: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(clock_module, "instant_after", lambda last: max(clock.micros, last))
        _glitch(database, clock, 3, days=8)
        assert _more(database, clock, 3) == 11  # by a right clock, but dated like 8
    _more(database, clock, 2)
    assert (_at(database, "0s"), _at(database, "1m"), _json("status", database)["history"]["newest"]["age"]) == (13, 12, 0)


def test_small_corrections_are_not_remembered(database: Path, clock: FakeClock) -> None:
    _glitch(database, clock, 3, seconds=0.9)
    _more(database, clock, 1, seconds=-0.05)
    assert run_here("transact", database, stdin="[]").stderr == ""
    assert _json("status", database)["history"]["clock"] == []
    assert _json("status", database)["history"]["newest"]["age"] == 0
    assert cowfs_here("export", database, "--at", "0s") == cowfs_here("export", database)


# -- bounds ----------------------------------------------------------------------------------------------------------------


def _retained(database: Path) -> int:
    """Return the oldest commit that is retained."""
    return int(_json("status", database)["history"]["oldest"]["txid"])


def test_a_clock_that_jumps_ahead_gives_nothing_up(database: Path, clock: FakeClock) -> None:
    _more(database, clock, 140)
    _glitch(database, clock, 150, days=8)
    assert _retained(database) == 1
    _more(database, clock, 150)
    cowfs_here("retain", database, "--age", "7d")
    assert _retained(database) == 1


def test_while_it_is_ahead_status_says_what_stays_and_until_when(database: Path, clock: FakeClock) -> None:
    clock.advance(days=8)
    jumped = clock.now + timedelta(minutes=1)
    _more(database, clock, 2)
    cowfs_here("retain", database, "--age", "7d")
    assert _retained(database) == 1
    (gap,) = _json("status", database)["history"]["clock"]
    assert (gap["kind"], gap["txid"], gap["seconds"], gap["commits"]) == ("gap", 6, 8 * 86_400 + 60, 4)
    assert gap["until"] == instant_text(jumped + timedelta(days=7))
    assert "txid 6 came 8d after the one before: 4 older commits kept until 20" in cowfs_here("status", database)
    _more(database, clock, 7, days=1)
    cowfs_here("retain", database, "--age", "7d")
    assert _retained(database) == 8, "of 6 to 8, which are seven days old, the last"
    assert _json("status", database)["history"]["clock"] == []


def test_two_jumps_are_said_when_they_give_something_up(database: Path, clock: FakeClock) -> None:
    for _ in range(2):
        clock.advance(days=8)
        _more(database, clock, 2)
    cowfs_here("retain", database, "--age", "7d")
    (event,) = _json("status", database)["history"]["events"]
    assert (event["kind"], event["first"], event["last"] + 1) == ("aged", 1, _retained(database))
    assert event_text(event) in cowfs_here("status", database)


def test_ages_bound_again_once_the_clock_is_right(database: Path, clock: FakeClock) -> None:
    _glitch(database, clock, 3, days=8)
    _more(database, clock, 24, hours=1)
    cowfs_here("retain", database, "--age", "10h")
    assert _retained(database) == 22, "the newest of ten hours ago"
    assert _at(database, "10h") == 22


def test_a_clock_that_jumps_ahead_ends_no_name(database: Path, clock: FakeClock) -> None:
    cowfs_here("snapshot", "create", database, "kept", "--txid", "3", "--expires", "5d")
    _glitch(database, clock, 150, days=8)
    cowfs_here("retain", database, "--commits", "1")
    assert _retained(database) == 3
    assert [item["name"] for item in _json("snapshot", "list", database)] == ["kept"]
    with Store.open(database, "none") as store:
        _write(store, clock, 300, hours=1)
    assert _json("snapshot", "list", database) == []
    assert _retained(database) > 300, "five days have passed"


def test_a_name_that_two_jumps_end_is_said(database: Path, clock: FakeClock) -> None:
    cowfs_here("snapshot", "create", database, "kept", "--txid", "3", "--expires", "5d")
    with Store.open(database, "none") as store:
        store.retain(Retention(commits=1))
        for _ in range(2):
            clock.advance(days=8)
            _write(store, clock, 130)
    events = _json("status", database)["history"]["events"]
    assert [(event["kind"], event["first"], event["last"]) for event in events] == [("expired", 3, 3)]
    assert event_text(events[0]) in cowfs_here("status", database)


# -- copies, and many steps ------------------------------------------------------------------------------------------------


def test_a_copy_is_as_good(database: Path, clock: FakeClock, tmp_path: Path) -> None:
    _glitch(database, clock, 3, days=8)
    cowfs_here("restore", database, tmp_path / "copy")
    assert ": ok (" in cowfs_here("check", tmp_path / "copy")
    assert cowfs_here("export", tmp_path / "copy", "--at", "0s") == cowfs_here("export", database)
    assert _more(tmp_path / "copy", clock, 3) == 11
    assert (_at(tmp_path / "copy", "1m"), _at(tmp_path / "copy", "0s")) == (10, 11)
    assert ": ok (" in cowfs_here("check", tmp_path / "copy")


def test_a_clock_that_goes_back_at_every_commit(database: Path, clock: FakeClock) -> None:
    with Store.open(database, "none") as store:
        for _ in range(100):
            _write(store, clock, 1, hours=1)
            last = _write(store, clock, 1, minutes=-30)
    assert _at(database, "0s") == last
    assert json.loads(cowfs_here("export", database, "--at", "30m"))[":note/text"] == str(last - 2)
    assert len(_json("status", database)["history"]["clock"]) == 64


def test_a_clock_before_1970(tmp_path: Path, clock: FakeClock) -> None:
    clock.set(datetime.fromisoformat("1960-01-01T00:00:00+00:00"))
    with Store.create(tmp_path / "db", {":note/text": {}}, durability="none") as store:
        _write(store, clock, 3)
    assert _at(tmp_path / "db", "1m") == 3
    assert ": ok (" in cowfs_here("check", tmp_path / "db")
