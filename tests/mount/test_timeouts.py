"""What the kernel may remember: everything of what is frozen, nothing of what is not."""

from __future__ import annotations

import ctypes
import json
import stat
import struct
from pathlib import Path

import pytest

from cowfs import Store
from cowfs.mount import timeouts
from cowfs.mount.timeouts import Timeouts
from cowfs.store.history.retention import Retention
from tests.support import churn
from tests.support.mounted import mounted

_NAME, _ATTRIBUTES = (float(timeouts.OPTIONS[name]) for name in ("entry_timeout", "attr_timeout"))


def test_this_libfuse_is_one_whose_timeout_is_found(tmp_path: Path) -> None:
    Store.create(tmp_path / "db", durability="none").close()
    with mounted(tmp_path / "db", tmp_path / "mnt") as mount:
        assert mount.live.exists()
        assert "walks take longer" not in mount.log.read_text()
    churn.require_sound(tmp_path / "db")


@pytest.mark.parametrize(
    ("numbers", "known"),
    [
        ([1.0, _NAME, 2.0, _ATTRIBUTES], True),
        ([_ATTRIBUTES, _NAME], True),
        ([1.0, 2.0], False),
        ([_NAME], False),
        ([_ATTRIBUTES], False),
        ([_NAME, 0.0, _NAME, _ATTRIBUTES], False),
        ([_NAME, _ATTRIBUTES, _ATTRIBUTES], False),
        ([], False),
    ],
)
def test_both_must_be_there_once(numbers: list[float], known: bool) -> None:
    memory = ctypes.create_string_buffer(struct.pack(f"{len(numbers)}d", *numbers), 4096)
    found = Timeouts(ctypes.addressof(memory))
    assert found.known == known
    for name, attributes in ((False, False), (True, False), (False, True), (True, True)):
        found.set(name=name, attributes=attributes)
        shown = {_NAME: 3600.0 if name else 0.0, _ATTRIBUTES: 1e-9 if attributes else 0.0} if known else {}
        assert memory.raw[: len(numbers) * 8] == struct.pack(f"{len(numbers)}d", *(shown.get(n, n) for n in numbers))


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


def test_a_change_of_the_mode_holds_at_once_for_every_kind_of_file(tmp_path: Path) -> None:
    database = tmp_path / "db"
    with Store.create(database, {":note/text": {":db/unique": ":db.unique/identity"}}, durability="none") as store:
        txid = store.transact([{":note/text": "a"}]).txid
    file = database / "data.mdb"
    with mounted(database, tmp_path / "mnt") as mount:
        frozen = mount.point / "browse" / str(txid)
        paths = [mount.snapshot(txid) / "data.mdb", mount.live / "data.mdb"]
        for directory in (frozen, mount.live):
            paths += [
                directory / "entities" / "0-999" / "1.json",
                directory / "attributes" / "note" / "text.tsv",
                directory / "log" / f"{txid}.json",
                directory / "unique" / "note" / "text" / "a.json",
            ]
        for _ in range(3):
            for mode in (0o600, 0o444, 0o640):
                file.chmod(mode)
                assert {stat.S_IMODE(path.stat().st_mode) for path in paths} == {mode & 0o644}
    churn.require_sound(database)
