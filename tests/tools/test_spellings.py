"""Commands beside a writer, with the database written in other ways than as a directory: sound results, or a refusal."""

from __future__ import annotations

import os
from pathlib import Path

import lmdb
import pytest

from tests.support.commands import cowfs_here, run_here
from tests.support.mounted import mounted
from tests.support.writer import writing

_ROUNDS = 3


@pytest.mark.parametrize("spelling", ["db/data.mdb", "link/data.mdb", "file"])
def test_check_and_restore_beside_a_writer(tmp_path: Path, spelling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to("db")
    (tmp_path / "file").symlink_to("db/data.mdb")
    with writing("dropping", tmp_path / "db", 5):
        for number in range(_ROUNDS):
            assert ": ok (" in cowfs_here("check", spelling)
            cowfs_here("restore", "--no-check", spelling, f"restored {number}")
    for number in range(_ROUNDS):
        assert ": ok (" in cowfs_here("check", f"restored {number}")


def test_a_file_with_its_own_lock_is_as_good_as_a_directory(tmp_path: Path) -> None:
    file = tmp_path / "file.mdb"
    with lmdb.open(str(file), subdir=False, lib_version=0) as env:
        for number in range(5):
            with env.begin(write=True) as txn:
                txn.put(b"%d" % number, b"value")
    for command in ("check", "status"):
        assert "file.mdb" in cowfs_here(command, file)
    cowfs_here("restore", file, tmp_path / "restored")
    with mounted(file, tmp_path / "mnt") as mount:
        assert (mount.point / "snapshots" / "latest" / "data.mdb").stat().st_size > 0
        assert mount.txids() == [5]
        assert f'"{mount.point}"' in cowfs_here("status", "--json", file)
    assert [name for name in os.listdir(tmp_path) if "lock" in name] == ["file.mdb-lock"]


@pytest.mark.parametrize("command", ["check", "export", "status"])
def test_a_writer_without_a_lock_file_is_no_damage(tmp_path: Path, command: str) -> None:
    """Its lock file was removed: the answer is right, or it says that somebody writes."""
    cowfs_here("init", tmp_path / "db")
    cowfs_here("transact", tmp_path / "db", stdin='[{"name": "Ann"}]')
    database = tmp_path / "hidden.mdb"
    os.link(tmp_path / "db" / "data.mdb", database)
    with writing("dropping", tmp_path / "db", 6):
        for _ in range(_ROUNDS):
            result = run_here(command, database, code=None)
            assert result.returncode == 0 or "somebody is writing it" in result.stderr, result.stderr
