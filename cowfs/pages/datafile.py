"""``DataFile``: an LMDB data file read by page number, with pread(2) only.

No mmap: a page that a truncation took away is then an error with a page number, never a SIGBUS. The descriptor is of
``data.mdb`` and of nothing else; LMDB keeps its fcntl locks on ``lock.mdb``, which no code of cowfs ever opens.
"""

from __future__ import annotations

import os
import stat
import time
from pathlib import Path

from cowfs.errors import AccessDenied, CorruptDatabase, EnvironmentFailure, NotADatabase, UnsupportedFormat
from cowfs.pages.layout import HEADER_SIZE, META_SIZE, PAGE_HEADER, Root, parse_meta

_PATIENCE = (0.0, 0.001, 0.01)  # seconds between looks at a meta page that contradicts itself


class DataFile:
    """An open data file. Close it, or use it as a context manager; results outlive it."""

    def __init__(self, path: Path) -> None:
        """Open ``path``, a data file or a directory with a ``data.mdb``, and check both of its meta pages.

        Raises ``NotADatabase``, ``UnsupportedFormat`` or ``CorruptDatabase`` by what is found there, ``AccessDenied``
        where the user may not read.
        """
        self.path = path / "data.mdb" if os.path.isdir(path) else path  # noqa: PTH112 - Path.is_dir raises without permission
        try:
            self.fd = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except FileNotFoundError:
            missing = "there is no data.mdb in it" if path.is_dir() else "no such file or directory"
            raise NotADatabase(f"{path}: no database here, {missing}") from None
        except PermissionError:
            raise AccessDenied(f"{self.path}: no permission to read it") from None
        except OSError as error:
            raise EnvironmentFailure(f"{self.path}: {error.strerror}") from error
        try:
            self.page_size = self._find_page_size()
            self.newest_root()
        except BaseException:
            os.close(self.fd)
            raise

    def __enter__(self) -> DataFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the descriptor; closing twice does nothing."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def size(self) -> int:
        """Return the length of the file in bytes, now."""
        return os.fstat(self.fd).st_size

    def pread(self, count: int, offset: int) -> bytes:
        """Return up to ``count`` bytes at ``offset``, fewer only at the end of the file."""
        try:
            return os.pread(self.fd, count, offset)
        except OSError as error:
            raise CorruptDatabase(f"{self.path}: reading {count} bytes at {offset}: {error.strerror}") from error

    def readinto(self, buffer: memoryview, offset: int) -> int:
        """Fill ``buffer`` with the bytes at ``offset``; return how many, fewer perhaps before the end of the file, too."""
        try:
            return os.preadv(self.fd, [buffer], offset)
        except OSError as error:
            raise CorruptDatabase(f"{self.path}: reading {len(buffer)} bytes at {offset}: {error.strerror}") from error

    def page(self, pgno: int) -> bytes:
        """Return page ``pgno`` whole; ``CorruptDatabase`` where the file has no such page or it says another number."""
        page = self.pread(self.page_size, pgno * self.page_size)
        if len(page) < self.page_size:
            raise CorruptDatabase("missing, the file ends before it", pgno)
        stored = PAGE_HEADER.unpack_from(page, 0)[0]
        if stored != pgno:
            raise CorruptDatabase(f"its header says that it is page {stored}", pgno)
        return page

    def header(self, pgno: int) -> bytes:
        """Return the 16 header bytes of page ``pgno``."""
        header = self.pread(HEADER_SIZE, pgno * self.page_size)
        if len(header) < HEADER_SIZE:
            raise CorruptDatabase("missing, the file ends before it", pgno)
        return header

    def meta(self, slot: int) -> Root:
        """Parse meta page ``slot`` (0 or 1) as it is now."""
        return self.parse_meta(self.pread(META_SIZE, slot * self.page_size), slot)

    def parse_meta(self, data: bytes, slot: int) -> Root:
        """Parse the bytes of a meta page of this file, and check that the file can have as many pages as it says.

        A file may end before pages that are free, but each of those takes 8 bytes of the freelist in it. Nobody need fear
        to allocate a bit for each page of a root that came from here.
        """
        root = parse_meta(data, slot)
        size = self.size()
        if root.pages > size // root.page_size + size // 8:
            raise CorruptDatabase(f"{root.last_pgno} cannot be the last page of a file of {size} bytes", slot)
        return root

    def meta_txnids(self) -> tuple[int, int]:
        """Return the transaction ids of both meta pages as they are now: the cheapest look for news.

        Nothing of them is checked but that they are there: LMDB, which maps the file, would die of it.
        """
        first = self.pread(8, 144)
        second = self.pread(8, self.page_size + 144)
        if len(second) < 8:
            raise CorruptDatabase("missing, the file ends before it", 1)
        return int.from_bytes(first, "little"), int.from_bytes(second, "little")

    def newest_root(self) -> Root:
        """Return the root of the meta page with the higher transaction id. Nothing holds it: see ``Env.hold``.

        A meta page that a commit is just rewriting may contradict itself for the length of that write, so damage is
        believed only when it stays.
        """
        for patience in _PATIENCE:
            try:
                return self._newest_root()
            except CorruptDatabase:
                time.sleep(patience)
        return self._newest_root()

    def _newest_root(self) -> Root:
        roots = (self.meta(0), self.meta(1))
        if roots[0].page_size != roots[1].page_size:
            raise CorruptDatabase(f"the meta pages disagree on the page size: {roots[0].page_size}, {roots[1].page_size}")
        newest = max(roots, key=lambda root: root.txnid)
        if roots[newest.txnid & 1].txnid != newest.txnid:
            raise CorruptDatabase(f"transaction {newest.txnid} belongs into the other meta page", 1 - (newest.txnid & 1))
        return newest

    def _find_page_size(self) -> int:
        if not stat.S_ISREG(os.fstat(self.fd).st_mode):
            raise NotADatabase(f"{self.path}: no LMDB database: not a regular file")
        if not self.pread(1, 0):
            raise NotADatabase(f"{self.path}: no LMDB database: the file is empty")
        try:
            page_size = parse_meta(self.pread(META_SIZE, 0), 0).page_size
        except (NotADatabase, UnsupportedFormat) as error:
            raise type(error)(f"{self.path}: {error}") from None
        if self.size() < page_size + META_SIZE:
            raise CorruptDatabase(f"{self.path}: missing, the file ends before it", 1)
        return page_size
