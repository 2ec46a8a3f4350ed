"""Entities as files: what they hold, that it can be transacted again, and how the blocks list a sparse space of ids."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cowfs import Store
from cowfs.commits.retained import RetainedCommits
from cowfs.errors import NotFound
from cowfs.store.history.retention import Retention
from cowfs.views import blocks
from cowfs.views.context import CommitContext
from cowfs.views.entities import EntitiesDirectory, HistoryDirectory, entity_document
from cowfs.views.node import Directory, Stability

from .conftest import PEOPLE, fresh
from .nodes import at, content, listed


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with fresh(tmp_path / "people", PEOPLE) as store:
        yield store


def entities(history: RetainedCommits, stability: Stability = Stability.MOVING) -> EntitiesDirectory:
    return EntitiesDirectory(CommitContext(history.newest(), stability, b"here"))


def test_a_document_is_a_line_an_attribute(store: Store, history: RetainedCommits) -> None:
    store.transact([{":db/id": 7, ":person/name": "Änn", ":a/first": True, ":person/tags": ["b", "a"]}])
    store.transact([{":db/id": 7, ":person/friend": [9, 8], ":person/boss": 8, ":person/weight": "NaN"}])
    assert content(at(entities(history), "0-999", "7.json")).decode() == (
        '{\n  ":a/first": true,\n  ":db/id": 7,\n  ":person/boss": {":db/id": 8},\n'
        '  ":person/friend": [{":db/id": 8}, {":db/id": 9}],\n  ":person/name": "Änn",\n'
        '  ":person/tags": ["a", "b"],\n  ":person/weight": "NaN"\n}\n'
    )


def test_blocks_of_a_sparse_space_of_ids(store: Store, history: RetainedCommits) -> None:
    ids = [1, 999, 1000, 1999, 5_000_000, 2**52]
    store.transact([{":db/id": e, ":person/name": "x"} for e in ids])
    store.transact([[":db/add", 1000, ":any", n] for n in range(350)])
    blocks = ["0-999", "1000-1999", "5000000-5000999", "4503599627370000-4503599627370999"]
    directory = entities(history)
    assert listed(directory) == blocks
    assert [listed(at(directory, block)) for block in blocks] == [
        ["1.json", "999.json"],
        ["1000.json", "1999.json"],
        ["5000000.json"],
        ["4503599627370496.json"],
    ]
    for block in blocks:
        found = at(directory, block)
        assert isinstance(found, Directory)
        assert found.inode in {entry.inode for entry in directory.entries() if entry.name == block and entry.directory}
        for name, inode, is_directory, link in found.entries():
            assert at(found, name).inode == at(directory, name).inode == inode
            assert not is_directory
            assert not link
    store.transact([[":db/retractEntity", 5_000_000]])
    assert listed(entities(history)) == [*blocks[:2], blocks[3]]


@pytest.mark.parametrize(
    "name",
    [
        "",
        "0-999.json",
        "00-999",
        "0-1000",
        "1-1000",
        "1000-1999",
        "0-999 ",
        "-1-998",
        "0.json",
        "01.json",
        "2.json",
        "1",
        ".json",
        "1.JSON",
        "+1.json",
        f"{2**53}.json",
        f"{2**64 - 1}.json",
        "9" * 400 + ".json",
        "\udcff.json",
        "current",
        f"{2**64 - 616}-x",
    ],
)
def test_other_names_are_not_found(store: Store, history: RetainedCommits, name: str) -> None:
    store.transact([{":db/id": 1, ":person/name": "x"}])
    with pytest.raises(NotFound):
        at(entities(history), name)
    with pytest.raises(NotFound):
        at(entities(history), "0-999", name)


def test_a_block_has_its_own_documents_only(store: Store, history: RetainedCommits) -> None:
    store.transact([{":db/id": e, ":person/name": "x"} for e in (1, 1001)])
    with pytest.raises(NotFound):
        at(entities(history), "0-999", "1001.json")


def a_second_later(monkeypatch: pytest.MonkeyPatch) -> None:
    later = time.time_ns() + 1_100_000_000
    monkeypatch.setattr(time, "time_ns", lambda: later)


def test_mtime_is_that_of_the_last_transaction_that_changed_it(
    store: Store, history: RetainedCommits, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = store.transact([{":db/id": 1, ":person/name": "x"}, {":db/id": 2, ":person/name": "y"}]).instant
    a_second_later(monkeypatch)
    second = store.transact([{":db/id": 1, ":person/name": "z"}]).instant
    directory = entities(history)
    assert at(directory, "2.json").attributes().mtime == int(first.timestamp())
    assert at(directory, "1.json").attributes().mtime == int(second.timestamp())
    assert directory.attributes().mtime == at(directory, "0-999").attributes().mtime == history.newest().mtime


def test_mtime_tells_of_what_was_only_retracted(
    store: Store, history: RetainedCommits, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.transact([{":db/id": e, ":person/name": "x", ":a/first": 1} for e in (1, 2, 3)])
    a_second_later(monkeypatch)
    instant = store.transact([[":db/retract", 2, ":a/first"]]).instant
    directory = entities(history)
    mtimes = [at(directory, f"{e}.json").attributes().mtime for e in (1, 2, 3)]
    assert mtimes[0] == mtimes[2] < mtimes[1] == int(instant.timestamp())


def test_one_after_the_other_they_are_the_same_as_each_by_itself(store: Store, history: RetainedCommits) -> None:
    store.transact([{":db/id": e, ":person/name": f"n{e}", ":any": ["long " * 200, "x"]} for e in range(1, 60) if e % 7])
    store.transact([[":db/add", e, ":any", n] for e in (10, 20) for n in range(400)])
    store.transact([[":db/retract", e, ":person/name"] for e in range(1, 60, 4) if e % 7])
    directory = entities(history)
    assert listed(at(directory, "0-999")) == [f"{e}.json" for e in range(1, 60) if e % 7]
    with store.db() as db:
        for e in [*range(1, 60), *range(59, 0, -1)]:
            if e % 7 == 0:
                with pytest.raises(NotFound):
                    at(directory, f"{e}.json")
                continue
            row = db.log(db.last_touched(e) or 0)
            assert row is not None
            assert content(at(directory, f"{e}.json")) == entity_document(db, e)
            assert at(directory, f"{e}.json").attributes().mtime == int(row.instant.timestamp())


def test_each_commit_shows_its_own(store: Store, history: RetainedCommits) -> None:
    store.transact([{":db/id": 1, ":person/name": "old"}])
    before = at(entities(history, Stability.FROZEN), "1.json")
    old = content(before)
    store.transact([{":db/id": 1, ":person/name": "new"}])
    after = at(entities(history), "1.json")
    assert (b"new" in content(after), b"old" in content(after), content(before)) == (True, False, old)
    assert (before.stability, after.stability) == (Stability.FROZEN, Stability.MOVING)
    assert before.txid == history.newest().txid - 1


def test_what_is_remembered_is_bounded(store: Store, history: RetainedCommits, monkeypatch: pytest.MonkeyPatch) -> None:
    remembered = blocks._Remembered()
    monkeypatch.setattr(blocks, "_remembered", remembered)
    monkeypatch.setattr(blocks, "_MAX_REMEMBERED", 20_000)
    store.transact([{":db/id": e, ":person/name": "x" * (e if e % 40 else 30_000)} for e in range(1, 200)])
    directory = entities(history)
    contents = [content(at(directory, f"{e}.json")) for e in range(1, 200)]
    assert contents == [content(at(directory, f"{e}.json")) for e in range(1, 200)]
    kept = remembered._documents.values()
    assert 20 < len(kept) < 40
    assert sum(map(blocks._size_of, kept)) == remembered.bytes <= 20_000


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
IDS = st.integers(1, 5)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    ":a/first": TEXT | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans(),
    ":any": st.lists(TEXT | st.integers(-3, 3) | st.builds(lambda e: {":db/id": e}, IDS), min_size=1, max_size=4),
    ":person/name": TEXT,
    ":person/tags": st.lists(TEXT | st.just("long " * 200), min_size=1, max_size=4),
    ":person/friend": st.lists(IDS, min_size=1, max_size=3),
    ":person/boss": IDS,
    ":person/born": st.datetimes(timezones=st.just(UTC)),
    ":person/weight": st.floats(),
    ":person/wealth": st.decimals(allow_nan=False, allow_infinity=False).map(str),
    ":person/key": st.binary(max_size=9),
    ":person/kind": st.sampled_from([":a", ":b/c"]),
    ":person/place": st.tuples(st.none() | st.floats(allow_nan=False), TEXT),
}
PERSON = st.fixed_dictionaries({":db/id": IDS}, optional=VALUES).filter(lambda person: len(person) > 1)


@settings(max_examples=60, deadline=None)
@given(st.lists(PERSON, min_size=1, max_size=5), st.lists(PERSON, max_size=3))
def test_a_document_of_an_old_commit_restores_the_entity(first: list[Any], second: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder, fresh(Path(folder) / "db", PEOPLE) as store:
        for person in first:
            store.transact([person])
        history = RetainedCommits(store.env)
        old = history.newest().retain()
        directory = EntitiesDirectory(CommitContext(old, Stability.FROZEN, b"old"))
        for person in second:
            store.transact([person])
        files = {int(name[:-5]): content(at(directory, "0-999", name)) for name in listed(at(directory, "0-999"))}
        assert old.db is not None
        assert set(files) == set(old.db.entities())
        for e, document in files.items():
            assert json.loads(document) == old.db.entity_json(e)
            assert document == entity_document(old.db, e)
            assert document.endswith(b"\n}\n")
            assert document.count(b"\n") == 2 + len(json.loads(document))
        store.transact([[":db/retractEntity", e] for e in range(1, 6)])
        store.transact([json.loads(document) for document in files.values()])
        with store.db() as db:
            assert {e: entity_document(db, e) for e in db.entities()} == files
            assert [d[:3] for d in map(repr_of, db.datoms("eav"))] == [d[:3] for d in map(repr_of, old.db.datoms("eav"))]
        old.release()
        history.close()


def repr_of(datom: Any) -> list[str]:
    return [repr(part) for part in datom]  # a NaN is not equal to itself


def test_history_has_the_commits_that_changed_an_entity(store: Store, history: RetainedCommits) -> None:
    commits = [store.transact([{":db/id": 1, ":person/name": "one"}]).txid]
    store.transact([{":db/id": 2, ":person/name": "another", ":person/friend": [1]}])
    commits += [store.transact([{":db/id": 1, ":person/name": "two"}]).txid]
    commits += [store.transact([[":db/retractEntity", 1]]).txid]
    store.transact([{":db/id": 3, ":person/name": "third"}])
    directory = HistoryDirectory(CommitContext(history.newest(), Stability.MOVING, b"live"), history)
    assert listed(directory) == []
    one = at(directory, "1")
    assert isinstance(one, Directory)
    assert listed(one) == [f"{txid}.json" for txid in commits]
    files = [at(one, name) for name in listed(one)]
    assert [json.loads(content(file)) for file in files] == [
        {":db/id": 1, ":person/name": "one"},
        {":db/id": 1, ":person/name": "two"},
        None,
    ]
    assert content(files[2]) == b"null\n"
    assert [file.inode for file in files] == [entry.inode for entry in one.entries()]
    assert [file.txid for file in files] == commits
    assert {file.stability for file in files} == {Stability.FROZEN}
    assert [file.attributes().mtime for file in files] == [history.mtime(txid) for txid in commits]
    for name in (f"{commits[0] + 1}.json", "1.json", f"{commits[-1] + 99}.json", str(commits[0]), "x.json"):
        with pytest.raises(NotFound):
            at(one, name)
    for name in ("0", "4", "01", "1.json", "x", str(2**64), ""):
        with pytest.raises(NotFound):
            at(directory, name)


def test_history_ends_where_the_retained_commits_do(store: Store, history: RetainedCommits) -> None:
    first = store.transact([{":db/id": 1, ":person/name": "one"}]).txid
    context = CommitContext(history.newest(), Stability.MOVING, b"live")
    assert listed(at(HistoryDirectory(context, history), "1")) == [f"{first}.json"]
    history.retire()
    store.retain(Retention(commits=0))
    store.transact([{":db/id": 2, ":person/name": "x"}])
    history.newest()
    history.close()
    store.retain(Retention(commits=0))
    again = RetainedCommits(store.env)
    directory = at(HistoryDirectory(CommitContext(again.newest(), Stability.MOVING, b"live"), again), "1")
    assert listed(directory) == []
    with pytest.raises(NotFound):
        at(directory, f"{first}.json")
    again.close()


def test_speed(store: Store, history: RetainedCommits) -> None:
    for start in range(1, 5000, 1000):
        store.transact([{":db/id": e, ":person/name": f"n {e}", ":person/friend": [e]} for e in range(start, start + 1000)])
    directory = entities(history)
    begin = time.perf_counter()
    assert len(listed(directory)) == 6
    listing = time.perf_counter()
    for e in range(1, 5001):
        at(directory, f"{e}.json").attributes()
    end = time.perf_counter()
    print(f"6 blocks {(listing - begin) * 1e3:.1f} ms; an entity {(end - listing) / 5000 * 1e6:.0f} us")
