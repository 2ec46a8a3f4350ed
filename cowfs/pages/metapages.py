"""``MetaPages``: both meta pages of a data file as one look found them, and which of them is the newest commit.

LMDB keeps two meta pages and each commit rewrites the older one, so one of them may be damaged while the database is whole:

- A commit whose write of the meta page fails (``mdb_env_write_meta`` in mdb.c) puts the old transaction id back, beside the
  new trees: that page contradicts itself, and is the older one.
- A bad sector, or a flipped bit, in the newer one loses the last commit and nothing else: the pages of the commit before it
  are used again two commits later at the earliest.

So the newest valid meta page is the one that everybody reads. Writing is another matter: LMDB itself goes by the transaction
ids alone, and must come to the same choice (``require_writable``). Its next commit then rewrites the damaged page.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cowfs.errors import CorruptDatabase, DatabaseError
from cowfs.pages.format import MAX_PAGE_SIZE, META_SIZE, MIN_PAGE_SIZE, Root, is_meta, parse_meta, raw_txnid

log = logging.getLogger("cowfs.pages")

Read = Callable[[int, int], bytes]
"""``read(count, offset)``: up to so many bytes of the file, as pread(2)."""


@dataclass(frozen=True)
class MetaPages:
    """The two meta pages: their bytes, and what each says, a root or why it is none. ``page_size`` is that of the file."""

    page_size: int
    data: tuple[bytes, bytes]
    file_size: int

    @cached_property
    def parsed(self) -> tuple[Root | DatabaseError, Root | DatabaseError]:
        """What each page says."""
        return self._parse(0), self._parse(1)

    @property
    def newest(self) -> Root:
        """The root of the newest valid page. Raises what the pages are when none is valid."""
        first, second = self.parsed
        if isinstance(first, Root) and isinstance(second, Root):
            newer, older = (first, second) if first.txnid >= second.txnid else (second, first)
            if newer.txnid == older.txnid or _in_place(newer, self.parsed):
                return newer
            if _in_place(older, self.parsed):
                return older
            slot = self.parsed.index(newer)
            raise CorruptDatabase(f"transaction {newer.txnid} belongs into the other meta page", slot)
        if isinstance(first, Root):
            return first
        if isinstance(second, Root):
            return second
        raise first

    def problems(self) -> list[tuple[int, str]]:
        """Return (page, text) for what is wrong with either page; nothing when both are sound."""
        found = [(slot, _text(meta, slot)) for slot, meta in enumerate(self.parsed) if isinstance(meta, DatabaseError)]
        first, second = self.parsed
        if isinstance(first, Root) and isinstance(second, Root):
            ids = first.txnid, second.txnid
            for slot, meta in enumerate((first, second)):
                if ids[0] != ids[1] and not _in_place(meta, self.parsed):
                    found.append((slot, f"transaction {meta.txnid} belongs into the other meta page"))
            if not found and abs(ids[0] - ids[1]) > 1:
                found.append(
                    (ids.index(min(ids)), f"of transaction {min(ids)}, and the other of {max(ids)}: not neighbours")
                )
        return found

    def warn_of_lost_commit(self, path: Path) -> None:
        """Log a warning when the page that is not ``newest`` is damaged, and may have been of a later commit."""
        newest = self.newest
        for slot, text in self.problems():
            if self.parsed[slot] != newest and raw_txnid(self.data[slot]) != newest.txnid - 1:
                log.warning("%s: page %d: %s: commit %d is read, a later one may be lost", path, slot, text, newest.txnid)

    def require_writable(self) -> None:
        """Raise ``CorruptDatabase`` when LMDB would not open the file, or would go on from another page than ``newest``."""
        newest = self.newest
        for slot, data in enumerate(self.data):
            if not is_meta(data):
                raise CorruptDatabase(f"{_text(self.parsed[slot], slot)}; {_UNWRITABLE}", slot)
        chosen = 0 if raw_txnid(self.data[0]) >= raw_txnid(self.data[1]) else 1  # mdb_env_pick_meta
        if raw_txnid(self.data[chosen]) != newest.txnid or self.parsed[newest.txnid & 1] != newest:
            slot = 1 - self.parsed.index(newest)
            raise CorruptDatabase(f"{_text(self.parsed[slot], slot)}; {_UNWRITABLE}", slot)
        first = self.parsed[0]
        if not isinstance(first, Root) and int.from_bytes(self.data[0][40:44], "little") != self.page_size:
            raise CorruptDatabase(f"{_text(first, 0)}; {_UNWRITABLE}", 0)

    def _parse(self, slot: int) -> Root | DatabaseError:
        try:
            root = parse_meta(self.data[slot], slot)
            require_possible(root, self.page_size, self.file_size, slot)
        except DatabaseError as error:
            return error
        return root


_UNWRITABLE = "it can be read, not written: `cowfs restore` makes a sound copy of it"


def require_possible(root: Root, page_size: int, file_size: int, pgno: int | None = None) -> None:
    """Raise ``CorruptDatabase`` unless a file of that size can have the root.

    A file may end before pages that are free, but each of those takes 8 bytes of the freelist in it. So nobody need fear to
    allocate a bit for each page of a root that was held against this.
    """
    if root.page_size != page_size:
        raise CorruptDatabase(f"it says {root.page_size} bytes a page, and the file has {page_size}", pgno)
    if root.pages > file_size // page_size + file_size // 8:
        raise CorruptDatabase(f"{root.last_pgno} cannot be the last page of a file of {file_size} bytes", pgno)


def read_meta_pages(read: Read, page_size: int, file_size: int) -> MetaPages:
    """Read both meta pages: at one moment, so again when a commit came between."""
    while True:
        first, second = read(META_SIZE, 0), read(META_SIZE, page_size)
        if first == read(META_SIZE, 0):
            return MetaPages(page_size, (first, second), file_size)


def find_page_size(read: Read) -> int:
    """Return the page size of a file, on which at least one of its meta pages agrees with where the second one is.

    Raises what the first page is when there is no valid one: ``NotADatabase``, ``UnsupportedFormat``, ``CorruptDatabase``.
    """
    first: Root | DatabaseError
    try:
        first = parse_meta(read(META_SIZE, 0), 0)
    except DatabaseError as error:
        first = error
    sizes = [MIN_PAGE_SIZE << power for power in range((MAX_PAGE_SIZE // MIN_PAGE_SIZE).bit_length())]
    if isinstance(first, Root):
        sizes.insert(0, first.page_size)
    for size in sizes:
        try:
            if parse_meta(read(META_SIZE, size), 1).page_size == size:
                return size
        except DatabaseError:
            continue
    if isinstance(first, Root):
        return first.page_size
    raise first


def _in_place(meta: Root, parsed: tuple[Root | DatabaseError, Root | DatabaseError]) -> bool:
    """Whether a page is the one that its transaction writes; a new file has transaction 0 in both."""
    return parsed[meta.txnid & 1] is meta or meta.txnid == 0


def _text(meta: Root | DatabaseError, slot: int) -> str:
    reason = f" ({str(meta).removeprefix(f'page {slot}: ')})" if isinstance(meta, DatabaseError) else ""
    return f"damaged meta page{reason}"
