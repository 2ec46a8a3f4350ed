"""The commands that tell about the history, and change how much of it is kept, as a user types them."""

from __future__ import annotations

import json
import os
import pwd
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from cowfs import Store
from cowfs.cli.history import bounds_text, event_text
from cowfs.store.history.retention import DEFAULT_RETENTION, Retention
from cowfs.store.model.values import parse_instant
from cowfs.units import exact_bytes_text
from tests.support.commands import COWFS, LIMIT, cowfs_here, python, refused_here, run
from tests.support.times import made_ago
from tests.support.users import ordinary_user

_OWNER = pwd.getpwuid(os.getuid()).pw_name

# Programs that have the database open until their standard input ends.
_HOLD = """
import sys
from cowfs import Store
with Store.open(sys.argv[1]) as store, store.as_of(int(sys.argv[2])):
    print("ready", flush=True)
    sys.stdin.read()
"""
_WRITE = """
import sys
from cowfs import Store
with Store.open(sys.argv[1]) as store, store.env.write():
    print("ready", flush=True)
    sys.stdin.read()
"""
_WRITE_FAST = """
import select, sys
from cowfs import Store
with Store.open(sys.argv[1], "none") as store:
    print("ready", flush=True)
    while not select.select([sys.stdin], [], [], 0)[0]:
        store.transact([{":db/id": 2, ":note/text": "x" * 300}, [":db/retract", 2, ":note/text", "x" * 300]])
"""
_WRITE_WITHOUT_COWFS = """
import lmdb, sys
with lmdb.open(sys.argv[1], max_dbs=8, map_size=1 << 30) as env:
    for _ in range(3):
        with env.begin(write=True) as txn:
            txn.put(b"count/none", b"", db=env.open_db(b"cowfs", txn=txn))
            txn.delete(b"count/none", db=env.open_db(b"cowfs", txn=txn))
"""


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Path]:
    """A database of 12 commits: its creation, then a note each, whose id is the txid. Whatever is done, it stays sound."""
    _make_twelve_commits(tmp_path / "db")
    yield tmp_path / "db"
    assert ": ok (" in cowfs_here("check", tmp_path / "db")


@pytest.fixture
def old_database(tmp_path: Path) -> Iterator[Path]:
    """The same, made an hour ago."""
    with made_ago(hours=1):
        _make_twelve_commits(tmp_path / "db")
    yield tmp_path / "db"
    assert ": ok (" in cowfs_here("check", tmp_path / "db")


def _make_twelve_commits(path: Path) -> None:
    with Store.create(path, {":note/text": {}}, durability="none") as store:
        _write(store, 11)


def _write(store: Store, count: int) -> None:
    for _ in range(count):
        with store.db() as db:
            txid = db.txid + 1
        store.transact([{":db/id": txid, ":note/text": str(txid) * 300}])


def _more(database: Path, count: int) -> None:
    with Store.open(database, "none") as store:
        _write(store, count)


def _json(*arguments: str | Path) -> Any:
    return json.loads(cowfs_here(*arguments, "--json"))


def _notes(exported: str) -> list[int]:
    return [json.loads(line)[":db/id"] for line in exported.splitlines()]


@contextmanager
def _running(program: str, *arguments: str | Path) -> Iterator[int]:
    """Run a program that says when it is ready, for the length of the block; yield its process id."""
    command = [sys.executable, "-c", program, *map(str, arguments)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            yield process.pid
        finally:
            process.stdin.close()
            process.wait(LIMIT)


# -- init, retain ---------------------------------------------------------------------------------------------------------


def test_init_sets_the_bounds(tmp_path: Path) -> None:
    cowfs_here("init", tmp_path / "one")
    assert _json("retain", tmp_path / "one")["bounds"] == DEFAULT_RETENTION.to_json()
    cowfs_here("init", tmp_path / "two", "--commits", "5", "--age", "1h30m", "--bytes", "2MiB")
    assert _json("retain", tmp_path / "two")["bounds"] == Retention(5, 5400, 2 << 20).to_json()
    assert "5 commits behind the newest, 1h30m, 2,097,152 bytes (2.0 MiB)" in cowfs_here("retain", tmp_path / "two")
    for database in ("one", "two"):
        cowfs_here("check", tmp_path / database)


@pytest.mark.parametrize(
    "options",
    [
        ("--commits", "-1"),
        ("--commits", "many"),
        ("--commits", "9" * 30),
        ("--age", "7"),
        ("--age", "-7d"),
        ("--bytes", "2X"),
        ("--bytes", "0.5"),
        ("--bytes", "9" * 18 + "T"),
    ],
)
def test_wrong_bounds_are_one_line_and_change_nothing(database: Path, tmp_path: Path, options: tuple[str, str]) -> None:
    before = _json("retain", database)
    assert "Invalid value" in refused_here("retain", database, *options, code=2)
    refused_here("init", tmp_path / "new", *options, code=2)
    assert not (tmp_path / "new").exists()
    after = _json("retain", database)
    assert (after["bounds"], after["newest"]["txid"]) == (before["bounds"], before["newest"]["txid"])


def test_retain_shows_without_writing(database: Path) -> None:
    content = (database / "data.mdb").read_bytes()
    shown = cowfs_here("retain", database)
    document = _json("retain", database)
    assert (database / "data.mdb").read_bytes() == content
    with Store.open(database) as store, store.timeline() as timeline:
        held = timeline.bytes_held
        assert (document["commits"], document["bytes"]) == (len(timeline), held) == (12, held)
        assert (document["oldest"]["txid"], document["newest"]["txid"]) == (timeline.horizon, timeline.newest) == (1, 12)
        assert parse_instant(document["newest"]["instant"]) == timeline.instant(12)
    assert held > 0
    assert f"holds {exact_bytes_text(held)}" in shown
    assert re.search(r"^retained +12 commits$", shown, re.MULTILINE)
    assert re.search(r"^oldest +txid 1, ", shown, re.MULTILINE)
    assert re.search(r"^newest +txid 12, .*Z, \d+s ago$", shown, re.MULTILINE)


def test_what_dropping_gives_back_is_exact(database: Path) -> None:
    cowfs_here("snapshot", "create", database, "fifth", "--txid", "5")
    document = _json("retain", database)
    drops = {drop["upto"]: drop for drop in document["dropping"]}
    assert list(drops) == [3, 5, 6, 9, 12]  # the quarters of the twelve older commits, and the snapshot
    assert drops[5]["snapshots"] == ["fifth"]
    assert drops[12]["bytes"] == document["bytes"]
    with Store.open(database) as store, store.timeline() as timeline:
        for txid in range(1, 13):
            asked = _json("retain", database, "--upto", str(txid))
            assert asked["bytes"] == timeline.bytes_between(1, txid + 1)
            assert asked["commits"] == txid
            assert txid not in drops or asked == drops[txid]
    gain = exact_bytes_text(drops[9]["bytes"])
    assert cowfs_here("retain", database, "--upto", "9") == f"dropping 9 commits up to txid 9 gives back {gain}\n"
    assert re.search(rf"^txid 9 .* 9 +{re.escape(gain)}$", cowfs_here("retain", database), re.MULTILINE)
    for wrong in ("13", "14", "0"):  # the newest, none yet, none ever
        refused_here("retain", database, "--upto", wrong, code=2)
    refused_here("retain", database, "--upto", "3", "--age", "1d", code=2)


def test_dropping_gives_back_what_was_said(database: Path) -> None:
    before = _json("retain", database)
    promised = _json("retain", database, "--upto", "7")["bytes"]
    free = _json("status", database)["size"]["free_pages"]
    cowfs_here("retain", database, "--commits", "5")  # itself a commit, the 13th
    after = _json("retain", database)
    assert after["oldest"]["txid"] == 8
    with Store.open(database) as store, store.timeline() as timeline:
        of_the_new_commit = timeline.bytes_between(12, 13)
    assert after["bytes"] == before["bytes"] - promised + of_the_new_commit
    assert _json("status", database)["size"]["free_pages"] > free


def test_retain_changes_what_is_given_and_applies_it_at_once(database: Path) -> None:
    shown = cowfs_here("retain", database, "--commits", "4")
    assert re.search(r"^bounds +4 commits behind the newest, 7d, ", shown, re.MULTILINE)
    assert re.search(r"^retained +5 commits$", shown, re.MULTILINE)
    document = json.loads(cowfs_here("retain", database, "--bytes", "1GiB", "--age", "90s", "--json"))
    assert document["bounds"] == {"commits": 4, "age": 90, "bytes": 1 << 30}
    assert document["commits"] == 5
    assert _json("retain", database, "--bytes", "0")["commits"] == 2  # this change, and the newest commit before it


def test_who_keeps_the_horizon_back_is_named(database: Path) -> None:
    cowfs_here("snapshot", "create", database, "third", "--txid", "3")
    with _running(_HOLD, database, "6") as pid:
        shown = cowfs_here("retain", database, "--commits", "2")
        document = _json("retain", database)
        assert document["oldest"]["txid"] == 3
        (reader,) = document["readers"]
        (snapshot,) = document["snapshots"]
        with Store.open(database) as store, store.timeline() as timeline:
            assert reader["bytes"] == timeline.bytes_between(6, timeline.newest)
            assert snapshot["bytes"] == timeline.bytes_of_names()["third"] > reader["bytes"] // 2
        assert (reader["pid"], reader["txid"], reader["behind"]) == (pid, 6, 8)
        behind = f"process {pid} holds commit 6, 8 behind the newest: {exact_bytes_text(reader['bytes'])}"
        assert behind in shown
        assert behind in cowfs_here("status", database)
        assert f"snapshot third (txid 3, 0s ago) holds {exact_bytes_text(snapshot['bytes'])}" in re.sub(
            r"\d+s ago", "0s ago", shown
        )
        cowfs_here("snapshot", "delete", database, "third")
        assert _json("retain", database)["oldest"]["txid"] == 6
    cowfs_here("retain", database, "--commits", "2")
    assert _json("retain", database)["commits"] == 3
    assert _json("status", database)["readers"] == []


def _dry(database: Path, *arguments: str) -> Any:
    """Ask what bounds would give up; hold that nothing is written for it."""
    content = (database / "data.mdb").read_bytes()
    document = _json("retain", database, *arguments, "--dry-run")
    shown = cowfs_here("retain", database, *arguments, "--dry-run")
    assert (database / "data.mdb").read_bytes() == content
    assert bounds_text(document["bounds"]) in shown
    return document


@pytest.mark.parametrize("bounds", [("--commits", "5"), ("--commits", "0"), ("--bytes", "100KiB"), ("--age", "0s")])
def test_a_dry_run_says_what_bounds_will_give_up(database: Path, bounds: tuple[str, str]) -> None:
    before = _json("retain", database)
    document = _dry(database, *bounds)
    assert (document["snapshots"], document["readers"]) == ([], [])
    assert document["bytes"] == _json("retain", database, "--upto", str(min(document["upto"], 11)))["bytes"]
    after = _json("retain", database, *bounds)
    assert document["bounds"] == after["bounds"] != before["bounds"]
    assert after["oldest"]["txid"] == document["upto"] + 1 == 1 + document["commits"]


def test_a_dry_run_says_what_keeps_commits_longer(database: Path) -> None:
    cowfs_here("snapshot", "create", database, "third", "--txid", "3")
    with _running(_HOLD, database, "6") as pid:
        document = _dry(database, "--commits", "2")
        assert (document["commits"], document["upto"]) == (2, 2)
        assert [(item["name"], item["txid"]) for item in document["snapshots"]] == [("third", 3)]
        assert [(item["pid"], item["txid"]) for item in document["readers"]] == [(pid, 6)]
        shown = cowfs_here("retain", database, "--commits", "2", "--dry-run")
        assert re.search(r": 2 commits up to txid 2 would be given up, [\d,]+ bytes", shown)
        assert "kept longer by snapshot third (txid 3" in shown
        assert f"kept longer by process {pid} holds commit 6" in shown
        assert _json("retain", database, "--commits", "2")["oldest"]["txid"] == 3
    assert _dry(database, "--commits", "100")["commits"] == 0
    assert "nothing would be given up" in cowfs_here("retain", database, "--commits", "100", "--dry-run")
    assert "Invalid value" in refused_here("retain", database, "--dry-run", "--upto", "3", code=2)


def test_a_dry_run_of_a_copy_gives_up_nothing(database: Path, tmp_path: Path) -> None:
    cowfs_here("restore", database, tmp_path / "copy")
    assert _dry(tmp_path / "copy", "--commits", "0")["commits"] == 0
    assert os.listdir(tmp_path / "copy") == ["data.mdb"]


# -- snapshot -------------------------------------------------------------------------------------------------------------


def test_a_snapshot_is_made_listed_and_deleted(database: Path) -> None:
    made = cowfs_here("snapshot", "create", database, "before upgrade", "--reason", "v1 to\nv2 🐟", "--expires", "30d")
    assert re.fullmatch(r"before upgrade: txid 12  \S+Z  expires \S+Z\n", made)
    _more(database, 3)
    cowfs_here("snapshot", "create", database, "later")
    (first, second) = _json("snapshot", "list", database)
    with Store.open(database) as store, store.timeline() as timeline:
        held = timeline.bytes_of_names()
        assert parse_instant(first["instant"]) == timeline.instant(12)
    assert (first["name"], first["txid"], first["owner"]) == ("before upgrade", 12, _OWNER)
    assert first["reason"] == "v1 to\nv2 🐟"
    assert (second["name"], second["txid"], second["reason"], second["expires"]) == ("later", 16, None, None)
    assert {item["name"]: item["bytes"] for item in (first, second)} == held
    ahead = parse_instant(first["expires"]) - datetime.now(UTC)
    assert timedelta(days=29, hours=23) < ahead <= timedelta(days=30)
    assert 0 <= second["age"] <= first["age"] < 100
    header, one, two = cowfs_here("snapshot", "list", database).splitlines()
    assert header.split() == ["NAME", "TXID", "COMMITTED", "AGE", "HOLDS", "OWNER", "EXPIRES", "REASON"]
    assert one.endswith("in 29d23h  v1 to v2 🐟")
    assert two.endswith("never")
    assert {line.index(_OWNER) for line in (one, two)} == {header.index("OWNER")}
    deleted = cowfs_here("snapshot", "delete", database, "before upgrade")
    assert deleted.startswith("before upgrade: deleted, was txid 12; history now holds ")
    assert [item["name"] for item in _json("snapshot", "list", database)] == ["later"]


def test_a_snapshot_outlives_the_bounds(database: Path) -> None:
    then = cowfs_here("export", database)
    cowfs_here("snapshot", "create", database, "kept")
    _more(database, 20)
    cowfs_here("retain", database, "--commits", "1")
    (kept,) = _json("snapshot", "list", database)
    document = _json("retain", database)
    assert document["oldest"]["txid"] == kept["txid"] == 12
    assert 0 < kept["bytes"] <= document["bytes"]
    assert cowfs_here("export", database, "--at", "kept") == then
    cowfs_here("snapshot", "delete", database, "kept")
    assert _json("retain", database)["commits"] == 2


def test_a_snapshot_expires(database: Path) -> None:
    cowfs_here("snapshot", "create", database, "brief", "--txid", "2", "--expires", "1s")
    cowfs_here("snapshot", "create", database, "longer", "--txid", "3", "--expires", "1h")
    while (names := [item["name"] for item in _json("snapshot", "list", database)]) != ["longer"]:
        assert names == ["brief", "longer"]
        time.sleep(0.05)
    cowfs_here("snapshot", "delete", database, "longer")
    result = run(*COWFS, "snapshot", "list", database)
    assert result.stdout == ""
    assert "no named snapshots" in result.stderr
    assert "brief" in refused_here("snapshot", "delete", database, "brief", code=2)
    cowfs_here("snapshot", "create", database, "brief")  # the name is free


@pytest.mark.parametrize(
    "name", ["", "12", "007", "latest", "at", "ago", ".hidden", "a/b", "a\nb", " a", "x" * 256, "\udcff"]
)
def test_wrong_names_are_one_line(database: Path, name: str) -> None:
    refused_here("snapshot", "create", database, name, code=2)
    assert _json("snapshot", "list", database) == []


@pytest.mark.parametrize(
    "name", ["5m", "7d", "0s", "1h30m", "999999999y", "2026-11-22", "2026-11-22T10:00", "2026-11-22t10:00:00+02:00"]
)
def test_a_name_that_at_or_ago_would_take_for_a_time_is_refused(database: Path, name: str) -> None:
    assert "spells a time" in refused_here("snapshot", "create", database, name, code=2)
    cowfs_here("snapshot", "create", database, f"of-{name}")
    assert [item["name"] for item in _json("snapshot", "list", database)] == [f"of-{name}"]
    assert _notes(cowfs_here("export", database, "--at", f"of-{name}")) == list(range(2, 13))


def test_mistakes_with_snapshots_are_one_line(database: Path) -> None:
    cowfs_here("snapshot", "create", database, "taken", "--txid", "4")
    newest = _json("status", database)["txid"]
    assert "txid 4" in refused_here("snapshot", "create", database, "taken", code=2)
    assert "'nope'" in refused_here("snapshot", "delete", database, "nope", code=2)
    assert "not retained" in refused_here("snapshot", "create", database, "new", "--txid", "99", code=2)
    for wrong in ("30", "soon", "999999999y"):
        refused_here("snapshot", "create", database, "new", "--expires", wrong, code=2)
    refused_here("snapshot", "create", database, "new", "--reason", "\udcff", code=2)
    assert _json("status", database)["txid"] == newest


# -- status ---------------------------------------------------------------------------------------------------------------


def test_status_tells_the_history(database: Path) -> None:
    cowfs_here("snapshot", "create", database, "named", "--txid", "7", "--expires", "1h")
    status, retained = _json("status", database), _json("retain", database)
    history = status["history"]
    for key in ("bounds", "bytes", "commits", "events"):
        assert history[key] == retained[key]
    assert history["newest"]["txid"] == status["txid"] == 13
    assert 0 <= history["newest"]["age"] < 100
    assert [item["name"] for item in history["snapshots"]] == ["named"]
    size = status["size"]
    assert size["history_pages"] * size["page_bytes"] == history["bytes"]
    shown = cowfs_here("status", database)
    assert f"13 commits, which hold {exact_bytes_text(history['bytes'])}" in shown
    assert re.search(r"^instant +\S+Z, \d+s ago$", shown, re.MULTILINE)
    assert re.search(r"^ +oldest: txid 1, ", shown, re.MULTILINE)
    assert re.search(
        r"^ +bounds: 10,000 commits behind the newest, 7d, 1,073,741,824 bytes \(1.0 GiB\)$", shown, re.MULTILINE
    )
    assert re.search(
        r"^snapshots +named \(txid 7, \d+s ago\) holds nothing beyond the bounds, expires in 59m", shown, re.MULTILINE
    )
    assert re.search(r"^events +none$", shown, re.MULTILINE)
    assert re.search(r"^readers +none$", shown, re.MULTILINE)


def test_a_copy_has_no_history_and_nothing_is_created_beside_it(database: Path, tmp_path: Path) -> None:
    cowfs_here("snapshot", "create", database, "kept")
    copy = tmp_path / "copy"
    cowfs_here("restore", database, copy)
    history = _json("status", copy)["history"]
    assert (history["commits"], history["bytes"], history["snapshots"]) == (1, 0, [])
    assert _json("retain", copy)["commits"] == 1
    assert _json("snapshot", "list", copy) == []
    assert [row["retained"] for row in _json("log", copy)] == [True] + [False] * 12
    assert _notes(cowfs_here("export", copy, "--at", "13")) == _notes(cowfs_here("export", copy, "--at", "0s")) != []
    for at in ("12", "1h", "2001-01-01"):
        assert f"not {at}" in refused_here("export", copy, "--at", at, code=2)
    refused_here("retain", copy, "--upto", "12", code=2)
    assert os.listdir(copy) == ["data.mdb"]


def test_an_environment_that_is_no_store(tmp_path: Path) -> None:
    python("import lmdb, sys; lmdb.open(sys.argv[1]).begin(write=True).put(b'a', b'b')", tmp_path / "plain")
    assert _json("status", tmp_path / "plain")["history"] is None
    assert "history" not in cowfs_here("status", tmp_path / "plain")
    for command in (("retain",), ("log",), ("snapshot", "list"), ("export",), ("export", "--at", "1")):
        assert "not a cowfs store" in refused_here(*command, tmp_path / "plain", code=1)
    cowfs_here("check", tmp_path / "plain")


def test_a_lost_history_is_said_in_one_line_and_remembered(database: Path) -> None:
    (database / "lock.mdb").unlink()
    result = run(*COWFS, "transact", database, stdin='[{":note/text": "after"}]')
    assert result.stdout.startswith("txid 13 ")
    (line,) = result.stderr.splitlines()
    assert re.fullmatch(r"cowfs: somebody may have written .* commits 1 to 11 are given up", line), line
    (event,) = _json("status", database)["history"]["events"]
    assert (event["kind"], event["first"], event["last"]) == ("lost", 1, 11)
    for command in ("status", "retain"):
        assert re.search(
            r"^events +\S+Z  commits 1 to 11 were given up: somebody", cowfs_here(command, database), re.MULTILINE
        )


def test_a_gap_is_said_in_one_line_and_remembered(database: Path) -> None:
    with _running(_HOLD, database, "12"):  # a process of cowfs is there, so the history is not lost
        python(_WRITE_WITHOUT_COWFS, database)
        result = run(*COWFS, "transact", database, stdin='[{":note/text": "after"}]')
    (line,) = result.stderr.splitlines()
    assert line.startswith("cowfs: somebody has written ")
    (event,) = _json("status", database)["history"]["events"]
    assert event["kind"] == "gap"
    text = event_text(event)
    assert text.endswith("not retained: somebody has written here without recording commits")
    assert text in cowfs_here("status", database)
    gone = range(event["first"], event["last"] + 1)
    assert not [row["txid"] for row in _json("log", database) if row["retained"] and row["txid"] in gone]
    assert _json("retain", database)["commits"] == 16 - len(gone)


def test_events_in_words() -> None:
    event = {"kind": "full", "first": 3, "last": 40, "instant": "2026-11-22T10:00:00Z"}
    assert event_text(event) == "2026-11-22T10:00:00Z  commits 3 to 40 were given up: the disk was full"
    assert "commit 3 was given up" in event_text({**event, "last": 3})
    assert "commit 3: strange" in event_text({**event, "last": 3, "kind": "strange"})


# -- log, export ----------------------------------------------------------------------------------------------------------


def test_the_log_is_listed_newest_first(database: Path) -> None:
    cowfs_here("transact", database, stdin='[[":db/retractEntity", 2]]')
    cowfs_here("snapshot", "create", database, "tenth", "--txid", "10")
    cowfs_here("retain", database, "--commits", "3")
    rows = _json("log", database)
    assert [row["txid"] for row in rows] == list(range(15, 0, -1))
    assert [row["txid"] for row in rows if row["retained"]] == list(range(15, 9, -1))
    assert [(row["asserted"], row["retracted"]) for row in rows[:4]] == [(0, 0), (0, 0), (0, 1), (1, 0)]
    lines = cowfs_here("log", database).splitlines()
    assert len(lines) == 15
    assert re.fullmatch(r"13  20\S+Z +\+0 +-1  retained", lines[2])
    assert re.fullmatch(r"10  20\S+Z +\+1 +-0  retained  tenth", lines[5])
    assert re.fullmatch(r" 9  20\S+Z +\+1 +-0  given up", lines[6])
    assert cowfs_here("log", database, "--reverse").splitlines() == lines[::-1]
    assert cowfs_here("log", database, "--limit", "2").splitlines() == lines[:2]
    assert _json("log", database, "--reverse", "--limit", "2") == rows[:-3:-1]
    refused_here("log", database, "--limit", "0", code=2)


def test_older_commits_are_exported(old_database: Path) -> None:
    with Store.open(old_database) as store, store.timeline() as timeline:
        instant = timeline.instant(8)
    assert instant is not None
    cowfs_here("snapshot", "create", old_database, "fifth", "--txid", "5")
    cowfs_here("transact", old_database, stdin='[[":db/retractEntity", 2]]')
    eighth = list(range(2, 9))
    assert _notes(cowfs_here("export", old_database, "--at", "8")) == eighth
    assert _notes(cowfs_here("export", old_database, "--at", instant.isoformat())) == eighth
    assert _notes(cowfs_here("export", old_database, "--at", "fifth")) == list(range(2, 6))
    assert _notes(cowfs_here("export", old_database, "--at", "1m")) == list(range(2, 13))
    assert _notes(cowfs_here("export", old_database, "--at", "0s")) == list(range(3, 13))
    for wrong in ("15", "2h", "2001-01-02", "nonsense", "999999999y", "0001-01-01T00:00:00+23:00"):
        refused_here("export", old_database, "--at", wrong, code=2)
    cowfs_here("retain", old_database, "--commits", "1")
    assert "not retained" in refused_here("export", old_database, "--at", "4", code=2)


# -- beside others --------------------------------------------------------------------------------------------------------


def test_reading_commands_do_not_wait_for_a_writer(database: Path) -> None:
    with _running(_WRITE, database):
        for command in (
            ("status", database),
            ("retain", database),
            ("retain", database, "--upto", "3"),
            ("snapshot", "list", database),
            ("log", database),
            ("export", database, "--at", "4"),
        ):
            cowfs_here(*command)


def test_what_is_told_holds_together_while_a_writer_gives_up_commits(database: Path) -> None:
    cowfs_here("retain", database, "--commits", "40")
    with _running(_WRITE_FAST, database):
        seen: list[int] = []
        while len(seen) < 25 or len(set(seen)) < 6:  # as often as it takes for somebody to have written
            document = _json("retain", database)
            gains = [drop["bytes"] for drop in document["dropping"]]
            assert gains == sorted(gains)
            assert gains[-1:] in ([], [document["bytes"]])
            seen.append(document["newest"]["txid"])
            size = _json("status", database)["size"]
            assert 0 < size["pages"] - size["history_pages"] - size["free_pages"] < 100
    assert seen == sorted(seen)


def test_who_may_only_read_sees_what_can_be_seen(database: Path) -> None:
    modes = {database / "lock.mdb": 0o000, database / "data.mdb": 0o444}
    before = {file: file.stat().st_mode for file in modes}
    for file, mode in modes.items():
        file.chmod(mode)
    with ordinary_user(database.parent) as user:
        result = user.cowfs("status", database)
        assert re.search(r"^history +unknown", result.stdout, re.MULTILINE)
        assert result.stderr.startswith("cowfs: ")
        assert len(result.stderr.splitlines()) == 1
        assert len(user.cowfs("log", database).stdout.splitlines()) == 12
        for command in (("retain",), ("retain", "--age=1d"), ("snapshot", "list"), ("export", "--at", "3")):
            failed = user.cowfs(*command, database, code=1)
            assert re.fullmatch(r"cowfs: .*permission.*\n", failed.stderr)
    for file, mode in before.items():
        file.chmod(mode)
