"""``Walks`` by itself: no mount, the clock and the processes are the test's."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from cowfs import Store
from cowfs.commits.commits import Commits
from cowfs.commits.held import HeldCommit
from cowfs.commits.observed import ObservedCommits
from cowfs.mount import bindings as module
from cowfs.mount.bindings import Walks


class _Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


class _Process:
    """A process that ends when the test says so."""

    gone: frozenset[int] = frozenset()
    watched = 0

    def __init__(self, pid: int) -> None:
        if pid in _Process.gone:
            raise ProcessLookupError(pid)
        self._pid = pid
        _Process.watched += 1

    def ended(self) -> bool:
        return self._pid in _Process.gone

    def close(self) -> None:
        _Process.watched -= 1


class _Scene:
    """A store, its walks with ``keep=0``, and a clock."""

    def __init__(self, store: Store, history: Commits, clock: _Clock) -> None:
        self.walks, self.history, self.clock, self._store = Walks(history), history, clock, store
        self._numbers = itertools.count()

    def commit(self) -> HeldCommit:
        self._store.transact([{":note/text": f"note {next(self._numbers)}"}])
        return self.history.newest()

    def latest(self, pid: int) -> HeldCommit:
        return self.walks.sees(pid, "latest", self.history.newest)

    def list_latest(self, pid: int) -> None:
        self.walks.list_moving(pid, "latest", self.history.newest)

    def after(self, seconds: float) -> None:
        self.clock.now += seconds
        self.walks.expire()

    def held(self) -> list[int]:
        self.walks.expire()
        return list(self.history.txids())


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[_Scene]:
    clock = _Clock()
    monkeypatch.setattr(module, "Process", _Process)
    monkeypatch.setattr(module, "time", clock)
    monkeypatch.setattr(_Process, "gone", frozenset())
    monkeypatch.setattr(_Process, "watched", 0)
    with Store.create(tmp_path / "db", {":note/text": {}}, durability="none") as store:
        history = ObservedCommits(store.env, keep=0)
        scene = _Scene(store, history, clock)
        scene.commit()
        yield scene
        scene.walks.close()
        assert _Process.watched == 0
        assert scene.held() == [scene.history.newest().txid]
        history.close()


def test_a_process_that_has_listed_nothing_sees_the_newest(scene: _Scene) -> None:
    for _ in range(3):
        newest = scene.commit()
        assert scene.latest(7) is newest
        assert scene.held() == [newest.txid]


def test_a_process_that_lists_latest_is_bound_and_others_are_not(scene: _Scene) -> None:
    bound = scene.history.newest()
    scene.list_latest(7)
    newest = scene.commit()
    assert scene.latest(7) is bound
    assert scene.latest(8) is newest
    assert scene.held() == [bound.txid, newest.txid]


def test_listing_again_in_the_same_walk_keeps_the_binding(scene: _Scene) -> None:
    bound = scene.history.newest()
    scene.list_latest(7)
    for _ in range(5):
        scene.after(0.9)
        scene.walks.use(7, bound.txid)
        scene.after(0.9)
        scene.commit()
        scene.list_latest(7)
        assert scene.latest(7) is bound


def test_listing_again_later_binds_anew_although_the_kernel_looks_at_latest_on_the_way(scene: _Scene) -> None:
    scene.list_latest(7)
    newest = scene.commit()
    scene.after(1.1)
    scene.latest(7)
    scene.list_latest(7)
    assert scene.latest(7) is newest


def test_listing_while_a_file_is_open_keeps_the_binding(scene: _Scene) -> None:
    bound = scene.history.newest()
    scene.list_latest(7)
    scene.walks.opened(7, bound)
    newest = scene.commit()
    scene.after(500)
    scene.list_latest(7)
    assert scene.latest(7) is bound
    scene.walks.closed(7, bound)
    scene.after(1.1)
    scene.list_latest(7)
    assert scene.latest(7) is newest


def test_a_binding_ends_after_a_minute_without_use(scene: _Scene) -> None:
    bound = scene.history.newest()
    scene.list_latest(7)
    newest = scene.commit()
    scene.after(59)
    assert scene.latest(7) is bound
    scene.after(2)
    assert scene.latest(7) is newest
    assert scene.held() == [newest.txid]
    assert _Process.watched == 0


def test_use_prolongs_a_binding(scene: _Scene) -> None:
    bound = scene.history.newest()
    scene.list_latest(7)
    scene.commit()
    for _ in range(5):
        scene.after(50)
        scene.walks.use(7, bound.txid)
    assert scene.latest(7) is bound


def test_a_process_that_goes_on_for_ever_does_not_hold_all_it_ever_listed(scene: _Scene) -> None:
    for _ in range(20):
        newest = scene.commit()
        scene.list_latest(7)
        scene.walks.list_snapshot(7, newest)
        scene.after(20)
    assert len(scene.held()) <= 4


def test_a_process_that_ended_holds_nothing(scene: _Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    bound = scene.history.newest()
    scene.list_latest(7)
    scene.walks.opened(7, bound)
    newest = scene.commit()
    monkeypatch.setattr(_Process, "gone", frozenset({7}))
    assert scene.latest(7) is newest  # another process with its id
    assert scene.held() == [newest.txid]


def test_a_process_that_cannot_be_seen_is_never_bound(scene: _Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_Process, "gone", frozenset({9}))
    for pid in (0, 9):
        scene.list_latest(pid)
        scene.walks.list_snapshot(pid, scene.history.newest())
        newest = scene.commit()
        assert scene.latest(pid) is newest
        assert scene.held() == [newest.txid]
