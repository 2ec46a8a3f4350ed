"""``DataFile``: an LMDB data file read by page number, with pread(2) only.

No mmap: a page that a truncation took away is then an error with a page number, never a SIGBUS. The descriptor is of
``data.mdb`` and of nothing else; LMDB keeps its fcntl locks on ``lock.mdb``, which only ``locktable`` opens.

A read may run in one thread while another closes the file. The number of a closed descriptor is soon that of another file,
so it is closed only when the last read that uses it has ended (``_Descriptor``).
"""

from __future__ import annotations

import errno
import os
import stat
import time
from contextlib import suppress
from pathlib import Path

from cowfs.errors import (
    AccessDenied,
    Closed,
    CorruptDatabase,
    CowfsError,
    DatabaseError,
    EnvironmentFailure,
    NotADatabase,
    UnsupportedFormat,
)
from cowfs.pages.format import HEADER_SIZE, META_SIZE, PAGE_HEADER, Root, raw_txnid
from cowfs.pages.metapages import MetaPages, find_page_size, read_meta_pages, require_possible
from cowfs.pages.unfinished import is_unfinished

_PATIENCE = (0.0, 0.001, 0.01)  # seconds between looks at a meta page that contradicts itself


_DAMAGED = (errno.EIO, errno.EBADMSG, errno.EUCLEAN)  # what the disk, or the filesystem, says of bytes that it has lost


class _Descriptor:
    """Owns an open descriptor: it is closed when nobody refers to this object any more."""

    __slots__ = ("number",)

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        if self.number >= 0:
            os.close(self.number)


_CLOSED = _Descriptor(-1)


class DataFile:
    """An open data file. Close it, or use it as a context manager; results outlive it.

    Every method raises ``Closed`` after ``close``.
    """

    def __init__(self, path: Path) -> None:
        """Open ``path``, a data file or a directory with a ``data.mdb``, one of whose meta pages at least must be valid.

        Raises ``NotADatabase``, ``UnsupportedFormat`` or ``CorruptDatabase`` by what is found there, ``AccessDenied``
        where the user may not read.
        """
        self.path = path / "data.mdb" if os.path.isdir(path) else path  # noqa: PTH112 - Path.is_dir raises without permission
        try:
            self._descriptor = _Descriptor(os.open(self.path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK))
        except FileNotFoundError:
            missing = "there is no data.mdb in it" if path.is_dir() else "no such file or directory"
            raise NotADatabase(f"{path}: no database here, {missing}{_how_to_finish(path)}") from None
        except PermissionError:
            raise AccessDenied(f"{self.path}: no permission to read it") from None
        except OSError as error:
            raise EnvironmentFailure(f"{self.path}: {error.strerror}") from error
        try:
            self.page_size = self._find_page_size()
            self._looked = b"", b""  # the meta pages when the newest commit was last looked for
            self._newest = self.newest_root().txnid
        except DatabaseError as error:
            self.close()
            error.args = (f"{error}{_how_to_finish(path)}",)
            raise
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> DataFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; closing twice does nothing."""
        self._descriptor = _CLOSED

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return self._descriptor is _CLOSED

    @property
    def fd(self) -> int:
        """The descriptor, which is valid until ``close``."""
        self.require_open()
        return self._descriptor.number

    def require_open(self) -> None:
        """Raise ``Closed`` after ``close``."""
        if self._descriptor is _CLOSED:
            raise Closed(f"{self.path}: closed")

    def status(self) -> os.stat_result:
        """Return what fstat(2) says of the file, now."""
        descriptor = self._descriptor
        try:
            return os.fstat(descriptor.number)
        except OSError as error:
            raise self._failure(descriptor, error, "fstat") from error

    def size(self) -> int:
        """Return the length of the file in bytes, now."""
        return self.status().st_size

    def pread(self, count: int, offset: int) -> bytes:
        """Return up to ``count`` bytes at ``offset``, fewer only at the end of the file."""
        descriptor = self._descriptor  # kept open by this variable for as long as we read
        try:
            return os.pread(descriptor.number, count, offset)
        except OSError as error:
            raise self._failure(descriptor, error, f"reading {count} bytes at {offset}") from error

    def readinto(self, buffer: memoryview, offset: int) -> int:
        """Fill ``buffer`` with the bytes at ``offset``; return how many, fewer perhaps before the end of the file, too."""
        descriptor = self._descriptor  # kept open by this variable for as long as we read
        try:
            return os.preadv(descriptor.number, [buffer], offset)
        except OSError as error:
            raise self._failure(descriptor, error, f"reading {len(buffer)} bytes at {offset}") from error

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
        """Parse meta page ``slot`` (0 or 1) as it is now. Raises ``DatabaseError``."""
        meta = self.meta_pages().parsed[slot]
        if isinstance(meta, DatabaseError):
            raise meta
        return meta

    def meta_pages(self) -> MetaPages:
        """Return both meta pages as they are now, at one moment."""
        return read_meta_pages(self.pread, self.page_size, self.size())

    def require_possible(self, root: Root) -> None:
        """Raise ``CorruptDatabase`` unless the file can have the root, which does not come from its meta pages."""
        require_possible(root, self.page_size, self.size())

    def settled_meta_pages(self) -> MetaPages:
        """Return both meta pages; damage is believed only when it stays.

        A meta page that a commit is just rewriting may contradict itself for the length of that write.
        """
        for patience in _PATIENCE:
            pages = self.meta_pages()
            if not pages.problems():
                return pages
            time.sleep(patience)
        return self.meta_pages()

    def newest_root(self) -> Root:
        """Return the root of the newest valid meta page. Nothing holds it: see ``Env.hold``.

        Raises ``DatabaseError`` when neither page is valid.
        """
        return self.settled_meta_pages().newest

    def raw_txnids(self) -> tuple[int, int]:
        """Return what both meta pages say is their transaction id, of which nothing is believed."""
        return raw_txnid(self.pread(META_SIZE, 0)), raw_txnid(self.pread(META_SIZE, self.page_size))

    def newest_txnid(self) -> int:
        """Return the id of the newest commit as it is now: the cheapest look for news, for a file that was opened.

        Raises ``CorruptDatabase`` when the file ends before its meta pages: LMDB, which maps it, would die of that.
        """
        first = self.pread(META_SIZE, 0)
        second = self.pread(META_SIZE, self.page_size)
        if len(second) < META_SIZE:
            raise CorruptDatabase("missing, the file ends before it", 1)
        if self._looked != (first, second):
            self._newest = self.newest_root().txnid
            self._looked = first, second
        return self._newest

    def _failure(self, descriptor: _Descriptor, error: OSError, what: str) -> CowfsError:
        """Return what an error of the operating system means for the database."""
        if descriptor is _CLOSED:
            return Closed(f"{self.path}: closed")
        kind = CorruptDatabase if error.errno in _DAMAGED else EnvironmentFailure
        return kind(f"{self.path}: {what}: {error.strerror}")

    def _find_page_size(self) -> int:
        if not stat.S_ISREG(self.status().st_mode):
            raise NotADatabase(f"{self.path}: no LMDB database: not a regular file")
        if not self.pread(1, 0):
            raise NotADatabase(f"{self.path}: no LMDB database: the file is empty")
        try:
            page_size = find_page_size(self.pread)
        except (NotADatabase, UnsupportedFormat) as error:
            raise type(error)(f"{self.path}: {error}") from None
        if self.size() < page_size + META_SIZE:
            raise CorruptDatabase(f"{self.path}: missing, the file ends before it", 1)
        return page_size


def _how_to_finish(path: Path) -> str:
    """Return what to add to the error about ``path`` when it is a database whose making was cut off."""
    with suppress(OSError):
        if os.listdir(path) and is_unfinished(path):
            return "; nothing was ever committed here, `cowfs init` makes it"
    return ""
