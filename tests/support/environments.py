"""Environments for tests, written by py-lmdb and not by cowfs: of every kind of tree, page and node."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lmdb

from cowfs.engine.rootrecord import image_of
from cowfs.pages.btree import TreeReader
from cowfs.pages.datafile import DataFile
from cowfs.pages.format import INTEGER_KEY, NO_PAGE, Root, TreeInfo, pack_meta
from cowfs.pages.pagecheck import check_pages

MAP_SIZE = 1 << 30  # an environment that grows beyond it fails its test
PLAIN = (b"deep", b"big", b"empty", b"gone")
KINDS: dict[bytes, dict[str, Any]] = {
    **{name: {} for name in PLAIN},
    b"dup": {"dupsort": True},
    b"dup fixed": {"dupsort": True, "dupfixed": True, "integerdup": True},
    b"dup fixed text": {"dupsort": True, "dupfixed": True},
    b"reverse": {"reverse_key": True},
    b"reverse dup": {"dupsort": True},
    b"integer": {"integerkey": True},
}


@contextmanager
def stock(path: Path, **options: Any) -> Iterator[lmdb.Environment]:
    """Open (or make) an environment with py-lmdb; what it commits is not put on disk."""
    path.mkdir(exist_ok=True)
    with lmdb.open(str(path), **{"map_size": MAP_SIZE, "max_dbs": 16, "sync": False, "lib_version": 0, **options}) as env:
        yield env


def empty_file(page_size: int, last_pgno: int = 1, main_flags: int = 0) -> bytes:
    """Return a data file without any tree, of any page size and any order of the main tree."""
    free = TreeInfo(page_size, INTEGER_KEY, 0, 0, 0, 0, 0, NO_PAGE)
    root = Root(0, page_size, MAP_SIZE, last_pgno, free, TreeInfo(0, main_flags, 0, 0, 0, 0, 0, NO_PAGE))
    return pack_meta(root, 0) + pack_meta(root, 1)


def write_all_kinds(path: Path, *, page_size: int = 4096, scale: int = 100, seed: int = 1) -> None:
    """Make an environment with every kind of tree, page and node in it; ``scale`` is about the number of entries in each."""
    path.mkdir()
    (path / "data.mdb").write_bytes(empty_file(page_size))
    choice = random.Random(seed)
    with stock(path) as env:
        handles = {name: env.open_db(name, **options) for name, options in KINDS.items()}
        for _ in range(4):
            with env.begin(write=True) as txn:
                for number in range(scale):
                    _put_one(txn, handles, number, choice)
                for _ in range(scale // 3):
                    txn.delete(_long_key(choice.randrange(scale)), db=handles[b"deep"])
                    txn.delete(b"%d" % choice.randrange(scale), db=handles[b"big"])
                txn.put(b"a plain entry", choice.randbytes(50))
        with env.begin(write=True) as txn:
            txn.drop(handles[b"gone"], delete=False)


def _put_one(txn: lmdb.Transaction[bytes], handles: dict[bytes, lmdb._Database], number: int, choice: random.Random) -> None:
    def put(name: bytes, key: bytes, value: bytes) -> None:
        txn.put(key, value, db=handles[name])

    few = b"%d" % choice.randrange(3)
    put(b"deep", _long_key(number), choice.randbytes(choice.randrange(60)))
    put(b"gone", b"%d" % number, b"x" * choice.randrange(300))
    put(b"integer", number.to_bytes(8, "little"), b"%d" % number)
    put(b"reverse", choice.randbytes(5), b"")
    put(b"reverse dup", b"k%d" % (number % 20), choice.randbytes(10))
    put(b"dup", few, choice.randbytes(choice.randint(1, 100)))
    put(b"dup", b"one of %d" % number, b"only")
    for _ in range(8):
        put(b"dup fixed", few, choice.randrange(2**40).to_bytes(8, "little"))
    put(b"dup fixed", b"one of %d" % number, (7).to_bytes(8, "little"))
    put(b"dup fixed text", few, choice.randbytes(12))
    if number % 8 == 0:
        put(b"big", b"%d" % number, choice.randbytes(choice.choice([3000, 9000, 20_000])))


def _long_key(number: int) -> bytes:
    return b"%06d" % (number * 7919 % 1_000_003) + b"." * (200 + number % 2)


def findings(path: Path) -> list[str]:
    """Return what ``check_pages`` finds in the newest root of ``path``, which nobody writes."""
    with DataFile(path) as file:
        return [str(finding) for finding in check_pages(file, file.newest_root())]


class Counting(DataFile):
    """A data file that counts what is read of it."""

    reads = 0

    def pread(self, count: int, offset: int) -> bytes:
        self.reads += 1
        return super().pread(count, offset)


@contextmanager
def newest(path: Path) -> Iterator[TreeReader]:
    """Read the newest root of ``path``, which nobody writes."""
    with DataFile(path) as file:
        yield TreeReader(file, file.newest_root())


def image_bytes(file: DataFile, root: Root) -> bytes:
    """Return the whole image of a root."""
    return b"".join(map(bytes, image_of(file, root, root.txnid).chunks()))
