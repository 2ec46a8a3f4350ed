"""The history of a store: every retained commit, by txid, by name, by time."""

from __future__ import annotations

import json
import time
from datetime import UTC, datetime, timedelta

import pytest

from cowfs import Store
from cowfs.commits import retained as module
from cowfs.commits.held import HeldCommit
from cowfs.commits.retained import RetainedCommits
from cowfs.engine.writetxn import WriteTxn
from cowfs.errors import Busy, DiskFull, NameTaken, NotFound, ReadOnly, WrongName
from cowfs.store.history.retention import Retention
from cowfs.views.node import Directory, Stability
from cowfs.views.tree import Tree

from .conftest import add


def test_every_commit_is_there_also_those_that_nobody_saw(store: Store, history: RetainedCommits) -> None:
    txids = [add(store, f"item {number}") for number in range(300)]
    assert list(history.txids()) == [1, 2, *txids]
    for txid in (1, 2, txids[0], txids[150], txids[-1]):
        snapshot = history.get(txid)
        assert snapshot.txid == txid
        assert json.loads(snapshot.summary)["txid"] == txid
        assert snapshot.mtime == history.mtime(txid)
    for txid in (0, txids[-1] + 1, 10**9):
        with pytest.raises(NotFound):
            history.get(txid)
        with pytest.raises(NotFound):
            history.mtime(txid)


def test_what_nobody_uses_is_let_go_and_the_newest_is_held(
    store: Store, history: RetainedCommits, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(10):
        last = add(store, f"item {number}")
    used = history.get(3).retain()
    history.get(4)
    history.retire()
    assert [txid for _pid, txid in store.env.readers()] == [3]
    later = time.monotonic() + 60
    monkeypatch.setattr(time, "monotonic", lambda: later)
    history.retire()
    assert history.get(3) is used
    used.release()
    monkeypatch.setattr(time, "monotonic", lambda: later + 60)
    history.retire()
    assert [txid for _pid, txid in store.env.readers()] == [last]


def test_so_many_that_were_asked_for_once_are_not_kept(store: Store, history: RetainedCommits) -> None:
    for number in range(200):
        add(store, f"item {number}")
    for txid in range(1, 200):
        history.get(txid)
    history.retire()
    assert len(history._snapshots) <= module._MAX_IDLE + 1


def test_names(store: Store, history: RetainedCommits) -> None:
    named = add(store, "second")
    history.name("mine", "me")
    assert list(history.names()) == ["mine"]
    assert history.named("mine").txid == named
    with pytest.raises(NameTaken):
        history.name("mine", "me")
    for wrong in ("latest", "at", "ago", "12", "", ".x", "a/b", "a\0b"):
        with pytest.raises(WrongName):
            history.name(wrong, "me")
    for _ in range(5):
        add(store, f"later {time.monotonic_ns()}")
    store.retain(Retention(commits=0))
    assert next(iter(history.txids())) == named
    history.unname("mine")
    for missing in ("mine", "never"):
        with pytest.raises(NotFound):
            history.named(missing)
        with pytest.raises(NotFound):
            history.unname(missing)


def test_on_a_full_disk_a_name_is_deleted_though_somebody_has_just_looked_at_it(
    store: Store, history: RetainedCommits, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.name("mine", "me", txid=2)
    for _ in range(5):
        add(store, f"later {time.monotonic_ns()}")
    commit = WriteTxn.commit

    def failing(txn: WriteTxn) -> None:
        pin = store.env._table.pin()
        assert pin is not None
        if pin.txnid < 4:
            raise DiskFull("no space left")
        commit(txn)

    monkeypatch.setattr(WriteTxn, "commit", failing)
    used = history.named("mine").retain()
    with pytest.raises(DiskFull, match="this process holds txid 2"):
        history.unname("mine")
    used.release()
    assert history.named("mine").txid == 2, "it was not given up"
    history.unname("mine")
    with pytest.raises(NotFound):
        history.named("mine")


def test_a_deleted_name_leads_to_its_commit_as_long_as_that_is_in_use(store: Store, history: RetainedCommits) -> None:
    tree = Tree(history)
    history.name("mine", "me")
    used = history.named("mine").retain()
    history.unname("mine")
    add(store, "later")
    assert history.named("mine") is used
    assert list(history.names()) == []
    for path in ("/snapshots/mine", "/browse/mine"):
        node = tree.node(path)
        assert isinstance(node, Directory)
        assert node.deleted
        assert tree.node(f"{path}/schema.json").snapshot is used
    with pytest.raises(NotFound):
        history.unname("mine")
    history.name("mine", "me")
    assert history.named("mine") is used
    used.release()
    assert history.named("mine").txid > used.txid
    node = tree.node("/snapshots/mine")
    assert isinstance(node, Directory)
    assert not node.deleted
    history.unname("mine")
    history.retire()
    with pytest.raises(NotFound):
        history.named("mine")


def test_an_expired_name_is_gone(store: Store, history: RetainedCommits) -> None:
    now = datetime.now(UTC)
    store.name("long", "me", expires=now + timedelta(hours=1))
    store.name("short", "me", expires=now + timedelta(milliseconds=300))
    while (names := list(history.names())) != ["long"]:
        assert names == ["long", "short"]
        time.sleep(0.02)
    assert datetime.now(UTC) >= now + timedelta(milliseconds=300)
    with pytest.raises(NotFound):
        history.named("short")


def test_naming_beside_a_writer_is_busy(store: Store, history: RetainedCommits, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(store.env._table), "writing", lambda _self: True)
    with pytest.raises(Busy):
        history.name("mine", "me")


def test_a_commit_by_its_time(store: Store, history: RetainedCommits) -> None:
    reports = []
    for number in range(3):
        reports.append(store.transact([{":item/name": f"item {number}"}]))
        time.sleep(0.002)
    for report in reports:
        assert history.at(report.instant).txid == report.txid
        assert history.at(report.instant + timedelta(microseconds=500)).txid == report.txid
        assert history.at(report.instant - timedelta(microseconds=1)).txid == report.txid - 1
    assert history.at(datetime(2999, 1, 1, tzinfo=UTC)).txid == reports[-1].txid
    with pytest.raises(NotFound):
        history.at(datetime(1999, 1, 1, tzinfo=UTC))


def test_moving_directories_ask_what_the_caller_sees(store: Store, history: RetainedCommits) -> None:
    tree = Tree(history)
    bound = history.newest().retain()
    add(store, "second")
    asked: list[str] = []

    def seen(name: str, _resolve: object) -> HeldCommit:
        asked.append(name)
        return bound

    for path in ("/snapshots/latest", "/snapshots/ago/5m", "/snapshots/at/2999-01-01"):
        node = tree.node(path, seen)
        assert isinstance(node, Directory)
        assert (node.txid, node.stability) == (bound.txid, Stability.MOVING)
        assert node.moving == asked[-1]
    bound.release()


@pytest.mark.parametrize("path", ["/", "/snapshots", "/live/x", "/snapshots/a/b", "/new", "/snapshots/latest/x"])
def test_only_names_can_be_made_and_removed(history: RetainedCommits, path: str) -> None:
    tree = Tree(history)
    with pytest.raises(ReadOnly):
        tree.make(path, "me")
    with pytest.raises(ReadOnly):
        tree.remove(path)
