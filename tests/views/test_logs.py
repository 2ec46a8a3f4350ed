"""The log as files, and ``log/current``, which grows by whole lines and never changes what it had."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cowfs import Store
from cowfs.commits.retained import RetainedCommits
from cowfs.errors import NotFound
from cowfs.store.model.values import instant_text
from cowfs.views import logs
from cowfs.views.context import CommitContext
from cowfs.views.logs import CurrentLog, LogDirectory
from cowfs.views.node import File, Stability

from .conftest import PEOPLE, fresh
from .nodes import at, content, listed


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with fresh(tmp_path / "people", PEOPLE) as store:
        yield store


def log(
    history: RetainedCommits, current: CurrentLog | None = None, stability: Stability = Stability.MOVING
) -> LogDirectory:
    return LogDirectory(CommitContext(history.newest(), stability, b"here"), current)


def lines(data: bytes) -> list[int]:
    return [json.loads(line)["txid"] for line in data.splitlines()]


def rename(store: Store, name: str) -> int:
    return store.transact([{":db/id": 1, ":person/name": name}]).txid


def test_a_document_says_what_a_transaction_did(store: Store, history: RetainedCommits) -> None:
    first = store.transact([{":db/id": 1, ":person/name": "Änn", ":person/boss": 2}])
    second = store.transact([{":db/id": 1, ":person/name": "Anne"}])
    directory = log(history)
    file = at(directory, f"{second.txid}.json")
    assert content(file).decode() == (
        '{\n  "asserted": [\n    [1, ":person/name", "Anne"]\n  ],\n'
        f'  "instant": "{instant_text(second.instant)}",\n'
        f'  "retracted": [\n    [1, ":person/name", "Änn", {first.txid}]\n  ],\n  "txid": {second.txid}\n}}\n'
    )
    assert json.loads(content(at(directory, "0-999", f"{first.txid}.json"))) == {
        "txid": first.txid,
        "instant": instant_text(first.instant),
        "asserted": [[1, ":person/name", "Änn"], [1, ":person/boss", {":db/id": 2}]],
        "retracted": [],
    }
    assert file.attributes().mtime == int(second.instant.timestamp())


def test_transactions_are_listed_in_blocks(store: Store, history: RetainedCommits) -> None:
    for number in range(1005):
        rename(store, str(number))
    directory = log(history)
    with store.db() as db:
        txids = [row.txid for row in db.transactions()]
    assert listed(directory) == ["0-999", "1000-1999"]
    assert [name for block in listed(directory) for name in listed(at(directory, block))] == [f"{t}.json" for t in txids]
    for name in ("current", "2000-2999", "0.json", f"{txids[-1] + 1}.json", f"{2**64 - 1}.json", "x", "1000-1999.json"):
        with pytest.raises(NotFound):
            at(directory, name)
    begin = time.perf_counter()
    for txid in txids:
        at(directory, f"{txid}.json").attributes()
    print(f"a transaction {(time.perf_counter() - begin) / len(txids) * 1e6:.0f} us")


def test_a_document_is_the_same_at_every_commit(store: Store, history: RetainedCommits) -> None:
    txid = rename(store, "a")
    before = content(at(log(history), f"{txid}.json"))
    rename(store, "b")
    assert content(at(log(history), f"{txid}.json")) == before


def test_current_is_only_where_it_is_given_and_the_commit_moves(store: Store, history: RetainedCommits) -> None:
    current = CurrentLog(history.newest)
    live = log(history, current)
    assert listed(live)[-1] == "current"
    assert at(live, "current").inode == list(live.entries())[-1].inode
    for other in (log(history), log(history, current, Stability.FROZEN), log(history, current, Stability.NAMED)):
        assert "current" not in listed(other)
        with pytest.raises(NotFound):
            at(other, "current")


def test_an_open_current_grows_with_every_transaction_and_holds_no_commit(store: Store, history: RetainedCommits) -> None:
    rename(store, "before the mount")
    file = at(log(history, CurrentLog(history.newest)), "current")
    assert isinstance(file, File)
    assert (file.attributes().size, file.snapshot, file.txid, content(file)) == (0, None, None, b"")
    seen, txids = b"", []
    for number in range(200):
        txids += [rename(store, str(number))]
        if number % 3 == 0:
            txids += [store.name(f"n{number}", "somebody").txid + 1]  # a commit without datoms
        size = file.attributes().size
        buffer = bytearray(10_000)
        count = file.readinto(len(seen), memoryview(buffer))  # as tail -f does: from where it was
        seen += bytes(buffer[:count])
        assert len(seen) == size
        assert lines(seen) == txids
    assert content(file) == seen
    assert [1, ":person/name", "199"] in [datom for line in seen.splitlines()[-2:] for datom in json.loads(line)["asserted"]]
    with store.db() as db:
        row = db.log(txids[-1])
        assert row is not None
        assert file.attributes().mtime == int(row.instant.timestamp())


def test_one_look_takes_in_a_bounded_part(store: Store, history: RetainedCommits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_LOOK_BYTES", 1000)
    file = at(log(history, CurrentLog(history.newest)), "current")
    assert isinstance(file, File)
    txids = [rename(store, "x" * 100 + str(number)) for number in range(100)]
    assert 1000 <= file.attributes().size < 1500
    data = b""
    while part := content_from(file, len(data)):  # as cat does
        data += part
    assert lines(data) == txids


def content_from(file: File, offset: int, size: int = 700) -> bytes:
    buffer = bytearray(size)
    return bytes(buffer[: file.readinto(offset, memoryview(buffer))])


def test_a_long_line_among_short_ones(store: Store, history: RetainedCommits) -> None:
    file = at(log(history, CurrentLog(history.newest)), "current")
    assert isinstance(file, File)
    txids = [rename(store, "x" * size) for size in (1, 200_000, 2, 2_000_000, 3)]
    file.attributes()
    assert lines(content(file)[: file.attributes().size]) in (txids, txids[:4])
    assert lines(content(file)) == txids


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 300), min_size=1, max_size=20), st.data())
def test_every_part_is_the_same_again(sizes: list[int], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder, fresh(Path(folder) / "db", PEOPLE) as store:
        history = RetainedCommits(store.env)
        file = at(log(history, CurrentLog(history.newest)), "current")
        assert isinstance(file, File)
        whole = b""
        for number, size in enumerate(sizes):
            store.transact([{":person/name": f"{number}" + "é" * size, ":person/tags": ["a", "b"][: size % 3]}])
            if data.draw(st.booleans()):
                now = content(file)
                assert now.startswith(whole)
                whole = now
        whole = content(file)
        assert len(lines(whole)) == len(sizes)
        for _ in range(10):
            offset, length = data.draw(st.integers(0, len(whole) + 5)), data.draw(st.integers(0, 2000))
            assert content_from(file, offset, length) == whole[offset : offset + length]
        history.close()
