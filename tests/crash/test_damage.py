"""Damaged and shrinking files under a mount: bytes or EIO, and the daemon lives on."""

from __future__ import annotations

import errno
import json
import os
import random
import re
import shutil
from collections import defaultdict
from pathlib import Path

import pytest

from cowfs import Store
from tests.support.commands import cowfs_here, one_line, python, run_here
from tests.support.mounted import complaints, log_of, mounted, serving

_PAGE = 4096
_CLASSES = {0x01: "branch", 0x02: "leaf", 0x04: "overflow", 0x08: "meta"}
_FLIPS = 4  # mounts for each class of page
_FORESEEN = r"(?s)^(?!.*Traceback)|\ncowfs\.errors\.\w+: [^\n]*\Z"  # no traceback, or one that ends in an error of cowfs

# Reads every file of a mount; prints {"read": bytes, "failed": {errno: count}}.
_READ_ALL = """
    import collections, errno, json, os, sys
    read, failed = 0, collections.Counter()
    def visit(path):
        global read
        try:
            if os.path.isdir(path):
                for name in sorted(os.listdir(path)):
                    visit(path + "/" + name)
            else:
                os.stat(path)
                with open(path, "rb", buffering=0) as file:
                    while part := file.read(100_000):
                        read += len(part)
        except OSError as error:
            failed[errno.errorcode[error.errno]] += 1
    for name in ("live", "snapshots"):
        visit(sys.argv[1] + "/" + name)
    print(json.dumps({"read": read, "failed": failed}))
    """


@pytest.fixture(scope="module")
def healthy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with pages of every class, free ones, and a freelist of several records."""
    path = tmp_path_factory.mktemp("damage") / "db"
    with Store.create(
        path, {":note/text": {}, ":note/number": {":db/valueType": ":db.type/long"}}, durability="none"
    ) as store:
        store.transact([{":note/number": number, ":note/text": f"note {number} " * 5} for number in range(600)])
        for number in range(12):  # each is read as a whole from each mount
            store.transact([{":note/text": f"{number} " * 10_000}])
            store.transact([[":db/retractEntity", number + 1]])
    return path


def _pages_by_class(content: bytes) -> dict[str, list[int]]:
    found = defaultdict(list)
    for pgno in range(len(content) // _PAGE):
        header = content[pgno * _PAGE :][:16]
        kind = _CLASSES.get(int.from_bytes(header[10:12], "little") & 0x0F, "other")
        own_number = int.from_bytes(header[:8], "little") == pgno
        found[kind if own_number else "other"].append(pgno)
    return found


def _flip(content: bytes, kind: str, choice: random.Random) -> tuple[bytes, str]:
    """Return the content with some bytes of one page of a class flipped, and where."""
    damaged = bytearray(content)
    pgno = choice.choice(_pages_by_class(content)[kind])
    header = choice.random() < 0.5
    offsets = [choice.randrange(152 if kind == "meta" else 24 if header else _PAGE) for _ in range(choice.randint(1, 6))]
    for offset in offsets:
        damaged[pgno * _PAGE + offset] ^= 1 << choice.randrange(8)
    return bytes(damaged), f"page {pgno}, bytes {offsets}"


@pytest.mark.parametrize("kind", ["meta", "branch", "leaf", "overflow", "other"])
@pytest.mark.parametrize("seed", range(_FLIPS))
def test_a_damaged_file_is_refused_or_served_as_far_as_it_goes(healthy: Path, tmp_path: Path, kind: str, seed: int) -> None:
    content, where = _flip((healthy / "data.mdb").read_bytes(), kind, random.Random(f"{kind} {seed}"))
    print(f"seed {seed}, {kind}: {where}")
    (tmp_path / "db").mkdir()
    (tmp_path / "db/data.mdb").write_bytes(content)
    (tmp_path / "mnt").mkdir()
    tried = run_here("mount", tmp_path / "db", tmp_path / "mnt", "--log", log_of(tmp_path / "mnt"), code=None)
    if tried.returncode != 0:
        assert tried.returncode == 1
        one_line(tried)
        return
    with serving(tmp_path / "db", tmp_path / "mnt", declared=[_FORESEEN]) as mount:
        result = json.loads(python(_READ_ALL, mount.point))
        assert set(result["failed"]) <= {"EIO"}
        assert not mount.daemon.ends(0), "the daemon died"


def _read_what_is_left(point: Path) -> dict[str, int]:
    failed: dict[str, int] = json.loads(python(_READ_ALL, point))["failed"]
    return failed


@pytest.mark.parametrize("pages", [2, 3, 100])
def test_a_file_that_is_cut_short_under_a_mount_is_eio(healthy: Path, tmp_path: Path, pages: int) -> None:
    shutil.copytree(healthy, tmp_path / "db")
    with mounted(tmp_path / "db", tmp_path / "mnt", declared=[_FORESEEN]) as mount:
        os.truncate(tmp_path / "db/data.mdb", pages * _PAGE)
        failed = _read_what_is_left(mount.point)
        assert set(failed) == {"EIO"}
        assert not mount.daemon.ends(0.3), "the daemon died"


@pytest.mark.parametrize("size", [0, 100, _PAGE, _PAGE + 100])
@pytest.mark.parametrize("commits", [0, 1])
def test_a_file_that_lost_its_meta_pages_under_a_mount_is_eio(
    healthy: Path, tmp_path: Path, size: int, commits: int
) -> None:
    """Whichever of the two pages the newest root is on."""
    shutil.copytree(healthy, tmp_path / "db")
    for _ in range(commits):
        cowfs_here("transact", tmp_path / "db", stdin='[{":note/text": "one more"}]')
    with mounted(tmp_path / "db", tmp_path / "mnt", declared=[_FORESEEN]) as mount:
        os.truncate(tmp_path / "db/data.mdb", size)
        failed = _read_what_is_left(mount.point)
        assert set(failed) == {"EIO"}
        assert not mount.daemon.ends(0.3), "the daemon died"


def test_damage_that_comes_while_it_is_mounted_is_eio(healthy: Path, tmp_path: Path) -> None:
    """Overwritten with noise, the meta pages too: what is held may come out as noise, what is asked anew is EIO."""
    shutil.copytree(healthy, tmp_path / "db")
    with mounted(tmp_path / "db", tmp_path / "mnt", declared=[_FORESEEN]) as mount:
        with (tmp_path / "db/data.mdb").open("r+b") as file:
            file.write(random.Random(1).randbytes(20 * _PAGE))
        failed = _read_what_is_left(mount.point)
        assert set(failed) <= {"EIO"}
        with pytest.raises(OSError, match=re.escape(os.strerror(errno.EIO))):
            (mount.live / "data.mdb").stat()
        assert not mount.daemon.ends(0.3), "the daemon died"


def test_complaints_knows_a_foreseen_traceback_from_an_unforeseen_one() -> None:
    head = "2026-01-01 00:00:00,000 cowfs[1] ERROR getattr: x\nTraceback (most recent call last):\n  File\n"
    assert complaints(head + "cowfs.errors.CorruptDatabase: page 7: x\n", [_FORESEEN]) == []
    assert len(complaints(head + "IndexError: x\n", [_FORESEEN])) == 1
    assert len(complaints("Fatal Python error: Bus error\n")) == 1
