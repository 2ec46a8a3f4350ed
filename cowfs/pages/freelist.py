"""The freelist of a root: which of its pages are garbage to it.

``FREE_DBI`` maps a transaction id to the pages which that transaction freed: a u64 count, then as many u64 page numbers,
descending. The pages are kept as one bit each (a set of Python integers would take 50 bytes a page).
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from sys import byteorder

from cowfs.errors import CorruptDatabase
from cowfs.pages.tree import TreeReader

_NOT_FULL = re.compile(rb"[^\xff]")  # a byte of a set that lacks a page
_NOT_EMPTY = re.compile(rb"[^\0]")  # a byte of a set that has a page


class PageSet:
    """A set of page numbers below a fixed bound, one bit each."""

    def __init__(self, bound: int) -> None:
        self._bits = bytearray((bound + 7) // 8)
        self._bound = bound
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, pgno: int) -> bool:
        return pgno < self._bound and bool(self._bits[pgno >> 3] & 1 << (pgno & 7))

    def add(self, pgno: int) -> bool:
        """Add ``pgno``; return False when it is in the set already. The caller has checked 0 <= pgno < bound."""
        byte, bit = pgno >> 3, 1 << (pgno & 7)
        if self._bits[byte] & bit:
            return False
        self._bits[byte] |= bit
        self._count += 1
        return True

    def __or__(self, other: PageSet) -> PageSet:
        """Return the union with another set of the same bound."""
        union = PageSet(self._bound)
        bits = int.from_bytes(self._bits, "little") | int.from_bytes(other._bits, "little")
        union._bits[:] = bits.to_bytes(len(self._bits), "little")
        union._count = bits.bit_count()
        return union

    def gaps(self, start: int) -> Iterator[tuple[int, int]]:
        """Yield (first, count) of every run of page numbers from ``start`` to the bound that are not in the set."""
        first = self._next(start, present=False)
        while first < self._bound:
            end = self._next(first, present=True)
            yield first, end - first
            first = self._next(end, present=False)

    def _next(self, pgno: int, *, present: bool) -> int:
        """Return the first number from ``pgno`` on that is in the set (or is not); the bound when there is none."""
        while pgno < self._bound and (pgno in self) is not present:
            pgno += 1
            if pgno & 7 == 0:
                found = (_NOT_EMPTY if present else _NOT_FULL).search(self._bits, pgno >> 3)
                pgno = found.start() << 3 if found else self._bound
        return min(pgno, self._bound)

    def among(self, first: int, last: int) -> Iterator[int]:
        """Yield the members in ``first``..``last``, both included, in order."""
        for byte in range(first >> 3, (last >> 3) + 1):
            if self._bits[byte]:
                for pgno in range(max(first, byte << 3), min(last, (byte << 3) + 7) + 1):
                    if self._bits[byte] & 1 << (pgno & 7):
                        yield pgno


def read_free_pages(reader: TreeReader) -> PageSet:
    """Return the pages that are free at the reader's root, in time and reads proportional to the freelist.

    Raises ``CorruptDatabase`` for a record of a wrong size, a page number that cannot be, or a page freed twice.
    """
    root = reader.root
    free = PageSet(root.last_pgno + 1)
    for key, value in reader.scan_tree(root.free):
        for pgno in parse_free_record(key, value, root.free.root):
            if not 2 <= pgno <= root.last_pgno:
                raise CorruptDatabase(f"free page {pgno} is not in 2..{root.last_pgno}", root.free.root)
            if not free.add(pgno):
                raise CorruptDatabase("freed twice", pgno)
    return free


def parse_free_record(key: bytes, value: bytes, pgno: int) -> array[int]:
    """Return the page numbers of one freelist record; ``pgno`` is the page that an error names."""
    if len(key) != 8 or len(value) < 8 or len(value) % 8:
        raise CorruptDatabase(f"a freelist record of {len(key)} and {len(value)} bytes", pgno)
    pages = array("Q")
    pages.frombytes(value)
    if byteorder != "little":
        pages.byteswap()
    if pages[0] + 1 > len(pages):
        raise CorruptDatabase(f"a freelist record of {len(pages) - 1} pages says that it has {pages[0]}", pgno)
    return pages[1 : pages[0] + 1]
