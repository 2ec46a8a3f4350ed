"""What the kernel may remember: everything of what is frozen, nothing of what is not."""

from __future__ import annotations

import ctypes
import json
import struct
from pathlib import Path

import pytest

from cowfs import Store
from cowfs.mount import timeouts
from cowfs.mount.timeouts import EntryTimeout
from cowfs.store.retention import Retention
from tests import churn
from tests.mounted import mounted

_MARK = float(timeouts.MARK)


def test_this_libfuse_is_one_whose_timeout_is_found(tmp_path: Path) -> None:
    Store.create(tmp_path / "db", durability="none").close()
    with mounted(tmp_path / "db", tmp_path / "mnt") as mount:
        assert mount.live.exists()
        assert "walks over frozen trees take longer" not in mount.log.read_text()
    churn.require_sound(tmp_path / "db")


@pytest.mark.parametrize(
    ("numbers", "known"),
    [
        ([1.0, _MARK, 2.0], True),
        ([_MARK], True),
        ([1.0, 2.0], False),
        ([_MARK, 0.0, _MARK], False),
        ([], False),
    ],
)
def test_it_must_be_there_once(numbers: list[float], known: bool) -> None:
    memory = ctypes.create_string_buffer(struct.pack(f"{len(numbers)}d", *numbers), 4096)
    found = EntryTimeout(ctypes.addressof(memory))
    assert found.known == known
    before = memory.raw
    found.set(frozen=True)
    assert (memory.raw == before) == (not known)
    assert memory.raw.count(struct.pack("d", 3600.0)) == (1 if known else 0)
    found.set(frozen=False)
    assert memory.raw == before


def test_a_commit_that_is_given_up_is_gone_though_its_files_were_looked_at(tmp_path: Path) -> None:
    with (
        Store.create(tmp_path / "db", {":note/text": {}}, durability="none") as store,
        mounted(tmp_path / "db", tmp_path / "mnt") as mount,
    ):
        for number in range(20):
            store.transact([{":note/text": f"note {number}"}])
        paths = [mount.snapshot(3) / "data.mdb", mount.point / "browse" / "3" / "entities" / "1.json"]
        for _ in range(2):
            assert all(path.stat().st_size for path in paths)
        store.retain(Retention(commits=0))
        assert not any(path.exists() for path in paths) or 3 in mount.txids(), "what was just looked at may be held"
        for number in range(5):
            store.transact([[":db/add", 1, ":note/text", f"changed {number}"]])
            assert json.loads((mount.live / "entities" / "1.json").read_text())[":note/text"] == f"changed {number}"
    churn.require_sound(tmp_path / "db")
