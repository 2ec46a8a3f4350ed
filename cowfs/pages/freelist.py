"""The freelist of a root: which of its pages are garbage to it.

``FREE_DBI`` maps a transaction id to the pages which that transaction freed: a u64 count, then as many u64 page numbers,
descending. The pages are kept as one byte each (a set of Python integers would take 50 bytes a page), which the interpreter
can set, count and find without a step of ours for each.
"""

from __future__ import annotations

import struct
from array import array
from collections import deque
from collections.abc import Iterator
from itertools import repeat
from sys import byteorder

from cowfs.errors import CorruptDatabase
from cowfs.pages.btree import TreeReader, parse_leaf_node
from cowfs.pages.datafile import DataFile
from cowfs.pages.format import NODE_HEADER, NODE_SIZE, Root, free_path, last_child, node_offsets


class PageSet:
    """A set of page numbers below a fixed bound, one byte each."""

    def __init__(self, bound: int) -> None:
        self._marks = bytearray(bound)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def __contains__(self, pgno: int) -> bool:
        return pgno < len(self._marks) and bool(self._marks[pgno])

    def add(self, pgno: int) -> bool:
        """Add ``pgno``; return False when it is in the set already. The caller has checked 0 <= pgno < bound."""
        if self._marks[pgno]:
            return False
        self._marks[pgno] = 1
        self._count += 1
        return True

    def add_all(self, pages: array[int]) -> bool:
        """Add many at once; return False when one of them was in the set already, or comes twice."""
        before = self._count
        deque(map(self._marks.__setitem__, pages, repeat(1)), maxlen=0)
        self._count = self._marks.count(1)
        return self._count == before + len(pages)

    def __or__(self, other: PageSet) -> PageSet:
        """Return the union with another set of the same bound."""
        union = PageSet(len(self._marks))
        marks = int.from_bytes(self._marks, "little") | int.from_bytes(other._marks, "little")
        union._marks[:] = marks.to_bytes(len(self._marks), "little")
        union._count = union._marks.count(1)
        return union

    def gaps(self, start: int) -> Iterator[tuple[int, int]]:
        """Yield (first, count) of every run of page numbers from ``start`` to the bound that are not in the set."""
        first = self._marks.find(0, start)
        while first >= 0:
            end = self._marks.find(1, first)
            end = len(self._marks) if end < 0 else end
            yield first, end - first
            first = self._marks.find(0, end)

    def among(self, first: int, last: int) -> Iterator[int]:
        """Yield the members in ``first``..``last``, both included, in order."""
        pgno = self._marks.find(1, first, last + 1)
        while pgno >= 0:
            yield pgno
            pgno = self._marks.find(1, pgno + 1, last + 1)


def read_free_pages(reader: TreeReader) -> PageSet:
    """Return the pages that are free at the reader's root, in time and reads proportional to the freelist.

    Raises ``CorruptDatabase`` for a record of a wrong size, a page number that cannot be, or a page freed twice.
    """
    root = reader.root
    free = PageSet(root.last_pgno + 1)
    pages = array("Q")
    for pgno, page in reader.leaves(root.free):
        pages += _pages_in(reader, page, pgno)
        if len(pages) > root.pages:  # before memory runs out: many nodes can name one long record
            raise CorruptDatabase("the freelist has more pages than the database", pgno)
    try:
        once = free.add_all(pages)
    except (IndexError, OverflowError):
        once = False
    if not once or 0 in free or 1 in free:
        raise _wrong(pages, root)
    return free


def freed_pages(reader: TreeReader, after: int, upto: int) -> int:
    """Return how many pages the transactions with after < txnid <= upto have freed, and nobody has used again.

    In time proportional to the number of these transactions. Raises ``CorruptDatabase``.
    """
    total = 0
    for _txnid, value in reader.scan_integers(reader.root.free, after + 1, upto + 1):
        if len(value) != 8:
            raise CorruptDatabase(f"a freelist record of {len(value)} bytes", reader.root.free.root)
        total += int.from_bytes(value, "little")
    return total


def freed_in_last_leaf(file: DataFile, meta: bytes, after: int) -> int | None:
    """Return how many pages the commits after ``after`` have freed, as ``freed_pages`` does up to the newest, in few reads.

    ``meta`` is ``meta[ROOT_BYTES]`` of the newest. Only the last leaf of the freelist is read, which has the newest records.
    None when they begin before it, or when anything is not as expected: ``freed_pages`` says what is wrong.
    """
    depth, pgno = free_path(meta)
    page = b""
    try:
        for level in range(depth):
            pgno = last_child(page) if level else pgno
            page = file.page(pgno)
        nodes = [parse_leaf_node(page, offset, pgno) for offset in node_offsets(page, pgno)] if page else []
    except (CorruptDatabase, struct.error, OverflowError):
        return None
    freed = [(int.from_bytes(node.key, "little"), node.size // 8 - 1) for node in nodes]
    return sum(count for txnid, count in freed if txnid > after) if freed and freed[0][0] <= after + 1 else None


def _pages_in(reader: TreeReader, page: bytes, pgno: int) -> array[int]:
    """Return the page numbers in one leaf of the freelist; small records, which are many, without a copy for each."""
    pages = array("Q")
    small: list[bytes] = []
    for offset in node_offsets(page, pgno):
        size, high, flags, key_size = NODE_HEADER.unpack_from(page, offset)
        start = offset + NODE_SIZE + 16  # after the key and the count
        end = start + int.from_bytes(page[start - 8 : start], "little") * 8
        if high or flags or key_size != 8 or not start <= end <= start - 8 + size <= len(page):
            node = parse_leaf_node(page, offset, pgno)
            pages += parse_free_record(node.key, reader.value(node, pgno), reader.root.free.root)
        else:
            small.append(page[start:end])
    pages.frombytes(_in_order(b"".join(small)))
    return pages


def parse_free_record(key: bytes, value: bytes, pgno: int) -> array[int]:
    """Return the page numbers of one freelist record; ``pgno`` is the page that an error names."""
    if len(key) != 8 or len(value) < 8 or len(value) % 8:
        raise CorruptDatabase(f"a freelist record of {len(key)} and {len(value)} bytes", pgno)
    pages = array("Q")
    pages.frombytes(_in_order(value))
    if pages[0] + 1 > len(pages):
        raise CorruptDatabase(f"a freelist record of {len(pages) - 1} pages says that it has {pages[0]}", pgno)
    return pages[1 : pages[0] + 1]


def _in_order(numbers: bytes) -> bytes:
    """Return little-endian numbers of 64 bits as this machine has them."""
    if byteorder == "little":
        return numbers
    swapped = array("Q", numbers)
    swapped.byteswap()
    return swapped.tobytes()


def _wrong(pages: array[int], root: Root) -> CorruptDatabase:
    """Return what is wrong with the numbers of free pages: one cannot be, or is there twice."""
    seen = PageSet(root.last_pgno + 1)
    for pgno in pages:
        if not 2 <= pgno <= root.last_pgno:
            return CorruptDatabase(f"free page {pgno} is not in 2..{root.last_pgno}", root.free.root)
        if not seen.add(pgno):
            return CorruptDatabase("freed twice", pgno)
    raise AssertionError("nothing is wrong with them")
