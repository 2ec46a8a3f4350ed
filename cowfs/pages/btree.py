"""``TreeReader``: LMDB's B+trees read at any root, straight from the file.

Rules it keeps:

1. Nothing on disk is believed. Every page number is checked against the root's last page, every node against its page,
   the depth against the tree's record; so a corrupt file ends in ``CorruptDatabase``, never in a loop or a crash.
2. Branch pages are parsed once and kept by page number (they are few); leaves are read anew, so memory does not grow with
   the database.
3. The root must be held, by a reader slot or because nobody writes the file; else pages change under the reader.

Keys come in LMDB's own order: bytes as unsigned numbers, a prefix first. Trees with other orders (REVERSEKEY, INTEGERKEY)
and trees of duplicates are walked by ``check``, and refused by ``get`` and ``scan``.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from cowfs.errors import CorruptDatabase, EnvironmentFailure
from cowfs.pages.datafile import DataFile
from cowfs.pages.format import (
    BIG_DATA,
    BRANCH,
    DUP_DATA,
    DUP_SORT,
    HEADER_SIZE,
    INTEGER_KEY,
    LEAF,
    LEAF2,
    LEAF_NODE,
    MAX_DEPTH,
    META,
    NODE_HEADER,
    NODE_SIZE,
    OVERFLOW,
    PAGE_HEADER,
    REVERSE_KEY,
    SUB_DATA,
    Root,
    TreeInfo,
    node_offsets,
    overflow_run,
)

_BRANCHES_KEPT = 65536  # parsed branch pages: some 100 million leaf entries before the cache is begun anew


@dataclass(frozen=True, slots=True)
class Branch:
    """A parsed branch page: ``children[i]`` holds the keys from ``keys[i]`` on; ``keys[0]`` is empty (below every key)."""

    keys: list[bytes]
    children: list[int]


class LeafNode(NamedTuple):
    """One node of a leaf page: ``data`` are the bytes in the page, which for a big value are its first page number."""

    flags: int
    key: bytes
    size: int
    data: bytes


def parse_branch(page: bytes, pgno: int, last_pgno: int) -> Branch:
    """Parse a branch page; every child is checked to be a page that ``last_pgno`` allows."""
    keys: list[bytes] = []
    children: list[int] = []
    unpack, size = NODE_HEADER.unpack_from, len(page)
    for offset in node_offsets(page, pgno):
        low, high, flags, key_size = unpack(page, offset)
        child = low | high << 16 | flags << 32
        start = offset + NODE_SIZE
        end = start + key_size
        if end > size:
            raise CorruptDatabase("a key lies outside the page", pgno)
        if not 2 <= child <= last_pgno:
            raise CorruptDatabase(f"child page {child} is not in 2..{last_pgno}", pgno)
        keys.append(page[start:end])
        children.append(child)
    if not children:
        raise CorruptDatabase("a branch page without children", pgno)
    keys[0] = b""
    return Branch(keys, children)


def parse_leaf_node(page: bytes, offset: int, pgno: int) -> LeafNode:
    """Parse the node at ``offset`` of a leaf page, and check that key and data lie inside the page."""
    size, flags, key_size = LEAF_NODE.unpack_from(page, offset)
    start = offset + NODE_SIZE
    middle = start + key_size
    end = middle + (8 if flags & BIG_DATA else size)
    if end > len(page):
        raise _outside("node's data", pgno)
    return LeafNode(flags, page[start:middle], size, page[middle:end])


class TreeReader:
    """A ``Reader`` of one root of a data file. It lives as long as the file is open and the root is held."""

    def __init__(self, file: DataFile, root: Root) -> None:
        self.file = file
        self.root = root
        self._branches: dict[int, Branch] = {}
        self._records: dict[bytes, TreeInfo | None] = {}

    def require_steady(self) -> None:
        """Raise ``Busy`` when the root may have changed: before damage is believed. One that is held never does."""

    # -- the Reader interface ------------------------------------------------------------------------------------

    def get(self, name: bytes, key: bytes) -> bytes | None:
        """Return the value at ``key`` in database ``name``; None when the key, or the database, is not there."""
        record = self.record(name)
        return None if record is None else self._get(record, key)

    def scan(
        self, name: bytes, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) for start <= key < stop in key order, or the same pairs from the last to the first."""
        record = self.record(name)
        if record is None:
            return iter(())
        return self.scan_tree(record, start, stop, reverse=reverse)

    def keys(self, name: bytes, start: bytes = b"", stop: bytes | None = None) -> Iterator[bytes]:
        """Yield the keys with start <= key < stop in order; no big value is read for it."""
        record = self.record(name)
        if record is None:
            return
        for pgno, page, offsets in self._within(record, start, stop, reverse=False):
            for offset in offsets:
                end = offset + NODE_SIZE + LEAF_NODE.unpack_from(page, offset)[2]
                if end > len(page):
                    raise _outside("key", pgno)
                yield page[offset + NODE_SIZE : end]

    def prefixes(self, name: bytes, size: int, start: bytes = b"", stop: bytes | None = None) -> Iterator[bytes]:
        """Yield, each once and in order, the first ``size`` bytes of the keys with start <= key < stop.

        A prefix that many keys share costs no more than a search for the next. ``CorruptDatabase`` when a key is shorter.
        """
        record = self.record(name)
        if record is None:
            return
        _only_plain(record)
        last = b""
        more = True
        while more:
            more = False
            for pgno, page, offsets in self._within(record, start, stop, reverse=False):
                found = {page[offset + NODE_SIZE : offset + NODE_SIZE + size]: offset for offset in offsets}
                for prefix, offset in found.items():
                    if prefix != last:
                        if LEAF_NODE.unpack_from(page, offset)[2] < size or len(prefix) < size:
                            raise CorruptDatabase(f"a key of less than {size} bytes", pgno)
                        yield prefix
                        last = prefix
                if len(found) == 1 and last != b"\xff" * size:  # the leaves after it may have no other, either
                    following = (int.from_bytes(last, "big") + 1).to_bytes(size, "big")
                    if following <= start:
                        raise CorruptDatabase("its keys are not in order", pgno)
                    start, more = following, True
                    break

    # -- trees by record -----------------------------------------------------------------------------------------

    def databases(self) -> Iterator[tuple[bytes, TreeInfo]]:
        """Yield (name, record) of the named databases, in order; plain entries of the main tree are passed over."""
        for pgno, page in self._leaves_of(self.root.main, b"", None, reverse=False):
            for offset in node_offsets(page, pgno):
                node = parse_leaf_node(page, offset, pgno)
                if _is_database(node):
                    yield node.key, self._database(node, pgno)

    def record(self, name: bytes) -> TreeInfo | None:
        """Return the record of the database ``name`` (b"" is the main tree); None when there is none."""
        self.file.require_open()  # here, for what follows may find all that it wants in what is kept
        if name == b"":
            return self.root.main
        if name not in self._records:
            self._records[name] = self._find_record(name)
        return self._records[name]

    def scan_tree(
        self, record: TreeInfo, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """``scan`` on a tree by its record, for the freelist and for trees without a name."""
        for pgno, page, offsets in self._within(record, start, stop, reverse=reverse):
            page_size = len(page)
            for offset in reversed(offsets) if reverse else offsets:
                size, flags, key_size = LEAF_NODE.unpack_from(page, offset)
                middle = offset + NODE_SIZE + key_size
                end = middle + size
                if flags & BIG_DATA:
                    node = parse_leaf_node(page, offset, pgno)
                    yield node.key, self.value(node, pgno)
                elif end <= page_size:
                    yield page[offset + NODE_SIZE : middle], page[middle:end]
                else:
                    raise _outside("node's data", pgno)

    def leaves(self, record: TreeInfo) -> Iterator[tuple[int, bytes]]:
        """Yield (page number, bytes) of the leaves of a tree, in order."""
        return self._leaves_of(record, b"", None, reverse=False)

    def scan_integers(self, record: TreeInfo, start: int, stop: int, size: int | None = 8) -> Iterator[tuple[int, bytes]]:
        """Yield (key, first ``size`` bytes of the value, or all) for start <= key < stop of a tree whose keys are integers.

        For the freelist, the order of whose keys is that of the numbers, not of their bytes.
        """
        for pgno, page in self._walk(record, lambda branch: _children_between(branch, start, stop), reverse=False):
            yield from self._integers_in(page, pgno, start, stop, size)

    def extents(self, name: bytes, start: bytes, stop: bytes) -> Iterator[tuple[int, int]]:
        """Yield (offset in the file, bytes) of every value for start <= key < stop."""
        record = self.record(name)
        if record is None:
            return
        for pgno, page in self._leaves_of(record, start, stop, reverse=False):
            for offset in node_offsets(page, pgno):
                node = parse_leaf_node(page, offset, pgno)
                if start <= node.key < stop:
                    in_page = pgno * self.file.page_size + offset + NODE_SIZE + len(node.key)
                    big = node.flags & BIG_DATA
                    yield self.big_value_pgno(node, pgno) * self.file.page_size + HEADER_SIZE if big else in_page, node.size

    def value(self, node: LeafNode, pgno: int) -> bytes:
        """Return the value of a leaf node of page ``pgno``, fetched from its overflow run when it is big."""
        if not node.flags & BIG_DATA:
            return node.data
        first = self.big_value_pgno(node, pgno)
        data = self.file.pread(node.size, first * self.file.page_size + HEADER_SIZE)
        if len(data) < node.size:
            raise CorruptDatabase("an overflow run was cut off while it was read", first)
        return data

    def big_value_pgno(self, node: LeafNode, pgno: int) -> int:
        """Return the first page of a big value's overflow run, after checking that the run, and the file, hold the value."""
        first = int.from_bytes(node.data, "little")
        if not 2 <= first <= self.root.last_pgno:
            raise CorruptDatabase(f"overflow page {first} is not in 2..{self.root.last_pgno}", pgno)
        self.require_run(first, node.size)
        return first

    def require_run(self, first: int, size: int) -> None:
        """Raise ``CorruptDatabase`` unless an overflow run begins at page ``first`` and holds a value of ``size`` bytes."""
        last_pgno = self.root.last_pgno
        run = overflow_run(self.file.header(first), first) if 2 <= first <= last_pgno else 0
        if first + run - 1 > last_pgno or run * self.file.page_size < HEADER_SIZE + size:
            raise CorruptDatabase(f"a run of {run} pages cannot hold a value of {size} bytes", first)
        if first * self.file.page_size + HEADER_SIZE + size > self.file.size():
            raise CorruptDatabase("an overflow run is cut short, the file ends in it", first)

    # -- inside --------------------------------------------------------------------------------------------------

    def _integers_in(self, page: bytes, pgno: int, start: int, stop: int, size: int | None) -> Iterator[tuple[int, bytes]]:
        for offset in node_offsets(page, pgno):
            node = parse_leaf_node(page, offset, pgno)
            key = int.from_bytes(node.key, "little")
            if start <= key < stop:
                if size is None:
                    yield key, self.value(node, pgno)
                elif node.flags & BIG_DATA:
                    first = self.big_value_pgno(node, pgno)
                    yield key, self.file.pread(size, first * self.file.page_size + HEADER_SIZE)
                else:
                    yield key, node.data[:size]

    def _find_record(self, name: bytes) -> TreeInfo | None:
        if self.root.main.flags & REVERSE_KEY:
            return dict(self.databases()).get(name)
        pgno, page, offsets = self._leaf_for(self.root.main, name)
        index = self._lower_bound(page, offsets, name, pgno)
        if index == len(offsets):
            return None
        node = parse_leaf_node(page, offsets[index], pgno)
        return self._database(node, pgno) if node.key == name and _is_database(node) else None

    def _database(self, node: LeafNode, pgno: int) -> TreeInfo:
        """Return the record of a named database from its node in page ``pgno`` of the main tree."""
        if node.size != TreeInfo.SIZE or node.flags & BIG_DATA:
            raise CorruptDatabase(f"the record of database {node.key!r} is not of {TreeInfo.SIZE} bytes", pgno)
        record = TreeInfo.parse(node.data)
        if not record.empty and not 2 <= record.root <= self.root.last_pgno:
            raise CorruptDatabase(f"root page {record.root} of database {node.key!r} is out of range", pgno)
        return record

    def _get(self, record: TreeInfo, key: bytes) -> bytes | None:
        _only_plain(record)
        pgno, page, offsets = self._leaf_for(record, key)
        index = self._lower_bound(page, offsets, key, pgno)
        if index == len(offsets):
            return None
        node = parse_leaf_node(page, offsets[index], pgno)
        return self.value(node, pgno) if node.key == key else None

    def _leaf_for(self, record: TreeInfo, key: bytes) -> tuple[int, bytes, Sequence[int]]:
        """Return the leaf in which ``key`` is or would be: its number, bytes and node offsets (empty for no tree)."""
        if record.empty:
            return 0, b"", ()
        pgno = record.root
        for _level in range(MAX_DEPTH):
            branch = self._branches.get(pgno)
            if branch is None:
                page = self.file.page(pgno)
                if _is_leaf(page, pgno):
                    return pgno, page, node_offsets(page, pgno)
                branch = self._keep(pgno, page)
            pgno = branch.children[bisect_right(branch.keys, key, 1) - 1]
        raise CorruptDatabase(f"the tree is deeper than {MAX_DEPTH} levels", record.root)

    @staticmethod
    def _lower_bound(page: bytes, offsets: Sequence[int], key: bytes, pgno: int) -> int:
        """Return the index of the first node whose key is not below ``key``."""
        low, high = 0, len(offsets)
        while low < high:
            middle = (low + high) // 2
            start = offsets[middle] + NODE_SIZE
            end = start + LEAF_NODE.unpack_from(page, offsets[middle])[2]
            if end > len(page):
                raise _outside("key", pgno)
            if page[start:end] < key:
                low = middle + 1
            else:
                high = middle
        return low

    def _within(
        self, record: TreeInfo, start: bytes, stop: bytes | None, *, reverse: bool
    ) -> Iterator[tuple[int, bytes, Sequence[int]]]:
        """Yield (number, bytes, offsets of the nodes in start <= key < stop) of the leaves of a tree in plain key order."""
        _only_plain(record, whole=not start and stop is None)
        for pgno, page in self._leaves_of(record, start, stop, reverse=reverse):
            offsets: Sequence[int] = node_offsets(page, pgno)
            if start:
                offsets = offsets[self._lower_bound(page, offsets, start, pgno) :]
            if stop is not None:
                offsets = offsets[: self._lower_bound(page, offsets, stop, pgno)]
            yield pgno, page, offsets

    def _leaves_of(
        self, record: TreeInfo, start: bytes, stop: bytes | None, *, reverse: bool
    ) -> Iterator[tuple[int, bytes]]:
        """Yield (number, bytes) of the leaves that can hold keys in start <= key < stop."""

        def within(branch: Branch) -> list[int]:
            first = bisect_right(branch.keys, start, 1) - 1
            last = len(branch.keys) if stop is None else bisect_right(branch.keys, stop, 1)
            return branch.children[first:last]

        return self._walk(record, within, reverse=reverse)

    def _walk(
        self, record: TreeInfo, chosen: Callable[[Branch], list[int]], *, reverse: bool
    ) -> Iterator[tuple[int, bytes]]:
        """Yield (number, bytes) of the leaves below the children that ``chosen`` takes of each branch page, in order.

        Every walk over more than one path of a tree is this one. It ends: a tree has no more levels than ``MAX_DEPTH``, and
        no more pages than the root.
        """
        pending = [] if record.empty else [(record.root, 1)]
        visited = 0
        while pending:
            pgno, depth = pending.pop()
            visited += 1
            if depth > MAX_DEPTH or visited > self.root.last_pgno:
                raise CorruptDatabase("the tree runs in a circle: it has more levels, or pages, than there can be", pgno)
            branch = self._branches.get(pgno)
            if branch is None:
                page = self.file.page(pgno)
                if _is_leaf(page, pgno):
                    yield pgno, page
                    continue
                branch = self._keep(pgno, page)
            children = chosen(branch)
            pending.extend((child, depth + 1) for child in (children if reverse else reversed(children)))
        self.file.require_open()  # or a walk that was begun before would seem complete

    def _keep(self, pgno: int, page: bytes) -> Branch:
        branch = parse_branch(page, pgno, self.root.last_pgno)
        if len(self._branches) >= _BRANCHES_KEPT:
            self._branches.clear()
        self._branches[pgno] = branch
        return branch


def _children_between(branch: Branch, start: int, stop: int) -> list[int]:
    """Return the children that can hold keys in start <= key < stop, of a tree whose keys are integers."""
    keys = [int.from_bytes(key, "little") for key in branch.keys]
    return branch.children[bisect_right(keys, start, 1) - 1 : bisect_left(keys, stop, 1)]


def _outside(what: str, pgno: int) -> CorruptDatabase:
    return CorruptDatabase(f"a {what} lies outside the page", pgno)


def _is_leaf(page: bytes, pgno: int) -> bool:
    """Whether the page is a plain leaf (True) or a branch (False); anything else does not belong into a tree."""
    flags = PAGE_HEADER.unpack_from(page, 0)[2] & (BRANCH | LEAF | LEAF2 | OVERFLOW | META)
    if flags == LEAF:
        return True
    if flags == BRANCH:
        return False
    raise CorruptDatabase(f"neither a branch nor a leaf (flags {flags:#x})", pgno)


def _is_database(node: LeafNode) -> bool:
    return node.flags & (SUB_DATA | DUP_DATA) == SUB_DATA


def _only_plain(record: TreeInfo, *, whole: bool = False) -> None:
    if record.flags & DUP_SORT or (record.flags & (REVERSE_KEY | INTEGER_KEY) and not whole):
        raise EnvironmentFailure("this tree is not in plain key order; only check reads it")
