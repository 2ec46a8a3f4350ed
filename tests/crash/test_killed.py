"""SIGKILL, for writers and mounts: ``support.kills`` says what must be true, ``scripts/torture`` does it for longer."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

from cowfs import Store
from tests.support import churn, kills
from tests.support.commands import COWFS, LIMIT, cowfs_here
from tests.support.mounted import mounted


def test_what_a_killed_writer_has_acknowledged_is_there(tmp_path: Path) -> None:
    churn.create("store", tmp_path / "db")
    assert kills.kill_writers("store", tmp_path, seed=21, rounds=8) >= 8


@pytest.mark.parametrize("kind", ["store", "plain"])
def test_a_mount_serves_on_when_a_writer_is_killed(tmp_path: Path, kind: str) -> None:
    churn.create(kind, tmp_path / "db")
    with mounted(tmp_path / "db", tmp_path / "mnt") as mount:
        assert kills.kill_writers(kind, tmp_path, seed=22, rounds=4, mount=mount) >= 4


def test_a_mount_killed_under_rsync_costs_no_backup(tmp_path: Path) -> None:
    kills.kill_mount_under_rsync(tmp_path, seed=23)


def test_an_import_that_is_killed_leaves_whole_batches_and_can_go_on(tmp_path: Path) -> None:
    """While it gives up the batches before the last one, so that their pages are used again."""
    Store.create(tmp_path / "db", durability="none").close()
    lines = [json.dumps({":note/number": number, ":note/text": f"{number} " * 100}) + "\n" for number in range(3000)]
    (tmp_path / "notes.jsonl").write_text("".join(lines))
    command = [*COWFS, "import", "--batch", "50", str(tmp_path / "db"), "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL) as process:
        assert process.stdin is not None
        process.stdin.write("".join(lines[:1600]))
        process.stdin.flush()
        with Store.open(tmp_path / "db", "none") as store:
            until = time.monotonic() + LIMIT
            while store.env.newest_txnid() < 25:
                assert time.monotonic() < until
                time.sleep(0.01)
            process.kill()
            process.wait()
    churn.require_sound(tmp_path / "db")
    committed = len(cowfs_here("export", tmp_path / "db").splitlines())
    assert committed % 50 == 0
    assert 24 * 50 <= committed <= 1600
    cowfs_here("import", "--from-line", str(committed + 1), tmp_path / "db", tmp_path / "notes.jsonl")
    with Store.open(tmp_path / "db") as store, store.db() as db:
        assert [datom.v for datom in db.datoms("ave", ":note/number")] == list(range(3000))
    churn.require_sound(tmp_path / "db")
