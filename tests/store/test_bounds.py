"""The bounds of the history hold for large commits, and small bounds for few of them."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from cowfs import Store
from cowfs.engine.policy import HistoryView
from cowfs.store.history.retention import Retention, StoreRetention
from tests.support import churn

_MIB = 1 << 20


def _overwrite(store: Store, count: int, size: int) -> None:
    """Give one attribute ``count`` values of ``size`` bytes, one after the other."""
    for number in range(count):
        store.transact([{":db/id": 1, ":note/text": f"{number:08}" * (size // 8)}])


def _history(store: Store) -> tuple[int, int]:
    with store.timeline() as timeline:
        return len(timeline), timeline.bytes_held


@pytest.mark.parametrize("processes", [1, 8])
def test_large_commits_keep_to_the_bound_of_bytes(tmp_path: Path, processes: int) -> None:
    """Also when each process makes a few of them: ``processes`` stands for opening the store again."""
    Store.create(tmp_path / "db", durability="none", retention=Retention(size=8 * _MIB)).close()
    for _ in range(processes):
        with Store.open(tmp_path / "db", "none") as store:
            _overwrite(store, 40 // processes, _MIB)
            held = _history(store)[1]
            assert held < 12 * _MIB
    churn.require_sound(tmp_path / "db")


@pytest.mark.parametrize("bounds", [Retention(commits=0), Retention(size=0), Retention(age=0)])
def test_a_bound_of_nothing_keeps_next_to_nothing(
    tmp_path: Path, bounds: Retention, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now)
    with Store.create(tmp_path / "db", durability="none", retention=bounds) as store:
        for _ in range(20):
            _overwrite(store, 2, _MIB // 4)
            now += 1.1
        assert _history(store)[0] <= 7
    churn.require_sound(tmp_path / "db")


def test_small_commits_within_large_bounds_are_not_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Store.create(tmp_path / "db", durability="none") as store:
        _overwrite(store, 3, 100)
        looks: list[int] = []

        def horizon(_self: StoreRetention, view: HistoryView) -> int:
            looks.append(view.span.newest)
            return view.span.horizon

        monkeypatch.setattr(StoreRetention, "horizon", horizon)
        _overwrite(store, 100, 100)
        assert looks == []
    churn.require_sound(tmp_path / "db")
