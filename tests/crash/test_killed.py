"""SIGKILL, for writers and mounts: ``tests.kills`` says what must be true, ``scripts/torture`` does it for longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import churn, kills
from tests.mounted import mounted


def test_what_a_killed_writer_has_acknowledged_is_there(tmp_path: Path) -> None:
    churn.create("store", tmp_path / "db")
    assert kills.kill_writers("store", tmp_path, seed=21, rounds=8) > 50


@pytest.mark.parametrize("kind", ["store", "plain"])
def test_a_mount_serves_on_when_a_writer_is_killed(tmp_path: Path, kind: str) -> None:
    churn.create(kind, tmp_path / "db")
    with mounted(tmp_path / "db", tmp_path / "mnt") as mount:
        assert kills.kill_writers(kind, tmp_path, seed=22, rounds=4, mount=mount) > 20


def test_a_mount_killed_under_rsync_costs_no_backup(tmp_path: Path) -> None:
    kills.kill_mount_under_rsync(tmp_path, seed=23)
