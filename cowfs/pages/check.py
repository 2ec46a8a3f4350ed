"""``check_pages``: every page of a root is where it should be, once, and every tree is in order.

What it verifies, all of it against the bytes and nothing against LMDB:

1. every page from 2 to the last is reachable from the root, or free, exactly once;
2. every page says its own number and what it is, its nodes fill its used part exactly, and lie inside it;
3. keys ascend in each tree by the tree's own order, and stay between the separators above them;
4. overflow runs are whole, and long enough for their values (LMDB leaves a longer one when a value shrinks in place);
5. depth, page counts and entry counts are what the tree's record says; not the page counts of a database with
   duplicates, which LMDB 0.9 itself gets wrong when it turns a page of duplicates into a tree and back.

It reads each page once, keeps one bit a page, and never stops at the first damage.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from cowfs.errors import CorruptDatabase
from cowfs.pages.datafile import DataFile
from cowfs.pages.freelist import PageSet, parse_free_record
from cowfs.pages.layout import (
    BIG_DATA,
    BRANCH,
    DUP_DATA,
    DUP_FIXED,
    DUP_SORT,
    HEADER_SIZE,
    INTEGER_DUP,
    INTEGER_KEY,
    LEAF,
    LEAF2,
    MAX_DEPTH,
    META,
    NODE_SIZE,
    OVERFLOW,
    PAGE_HEADER,
    REVERSE_DUP,
    REVERSE_KEY,
    SUB_DATA,
    SUBPAGE,
    Root,
    TreeRecord,
    node_offsets,
    overflow_run,
)
from cowfs.pages.tree import LeafNode, TreeReader, parse_branch, parse_leaf_node

Order = Callable[[bytes], bytes]
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: in which page (None: not in one page), and what."""

    page: int | None
    text: str

    def __str__(self) -> str:
        return self.text if self.page is None else f"page {self.page}: {self.text}"


class _Visit(NamedTuple):
    """A page still to be looked at: its number, its level in the tree, and the key range its parent promises."""

    pgno: int
    level: int
    low: bytes | None
    high: bytes | None


@dataclass
class _Tree:
    """A tree while it is walked: its record, and what was counted in it."""

    name: str
    record: TreeRecord
    order: Order
    counts: dict[str, int] = field(default_factory=lambda: {"branch": 0, "leaf": 0, "overflow": 0, "entries": 0})


def check_pages(file: DataFile, root: Root, progress: Progress = lambda _pages: None) -> Iterator[Finding]:
    """Yield what is wrong with the pages of ``root``, which must be held; nothing when all is well.

    ``progress`` is called with the number of pages seen since its last call. Time and reads are proportional to the
    database.
    """
    return _Checker(file, root, progress).run()


class _Checker:
    def __init__(self, file: DataFile, root: Root, progress: Progress) -> None:
        self._file = file
        self._root = root
        self._reader = TreeReader(file, root)
        self._progress = progress
        self._used = PageSet(root.pages)
        self._free = PageSet(root.pages)
        self._pending: list[_Tree] = []

    def run(self) -> Iterator[Finding]:
        yield from self._tree(_Tree("the freelist", self._root.free, _order(self._root.free.flags)))
        self._pending.append(_Tree("the main tree", self._root.main, _order(self._root.main.flags)))
        while self._pending:
            yield from self._tree(self._pending.pop())
        yield from self._balance()

    # -- a tree --------------------------------------------------------------------------------------------------

    def _tree(self, tree: _Tree) -> Iterator[Finding]:
        record = tree.record
        if not record.empty and not 2 <= record.root <= self._root.last_pgno:
            yield Finding(None, f"{tree.name}: its root page {record.root} is not in 2..{self._root.last_pgno}")
            return
        damaged = False
        stack = [] if record.empty else [_Visit(record.root, 1, None, None)]
        while stack:
            visit = stack.pop()
            try:
                problems = list(self._page(tree, visit, stack))
            except CorruptDatabase as error:
                problems = [_finding(error, tree)]
            damaged = damaged or bool(problems)
            yield from problems
        if not damaged:
            yield from self._compare(tree)

    def _compare(self, tree: _Tree) -> Iterator[Finding]:
        record, counts = tree.record, tree.counts
        said = {"entries": record.entries}
        if not record.flags & DUP_SORT:
            said |= {"branch": record.branch_pages, "leaf": record.leaf_pages, "overflow": record.overflow_pages}
        for what, number in said.items():
            if counts[what] != number:
                unit = "entries" if what == "entries" else f"{what} pages"
                yield Finding(None, f"{tree.name}: its record says {number} {unit}, there are {counts[what]}")

    # -- a page --------------------------------------------------------------------------------------------------

    def _page(self, tree: _Tree, visit: _Visit, stack: list[_Visit]) -> Iterator[Finding]:
        pgno = visit.pgno
        self._take(pgno, 1)
        page = self._file.page(pgno)
        flags = PAGE_HEADER.unpack_from(page, 0)[2]
        kind = flags & (BRANCH | LEAF | OVERFLOW | META | LEAF2 | SUBPAGE)
        if kind == BRANCH:
            yield from self._branch(tree, visit, page, stack)
            return
        if visit.level != tree.record.depth:
            yield Finding(pgno, f"{tree.name}: a leaf at level {visit.level} of a tree of depth {tree.record.depth}")
        tree.counts["leaf"] += 1
        if kind == LEAF:
            yield from self._leaf(tree, visit, page)
        elif kind == LEAF | LEAF2:
            keys = _fixed_keys(page, pgno)
            tree.counts["entries"] += len(keys)
            yield from _in_order(tree, visit, keys)
        else:
            raise CorruptDatabase(f"neither a branch nor a leaf (flags {flags:#x})", pgno)

    def _branch(self, tree: _Tree, visit: _Visit, page: bytes, stack: list[_Visit]) -> Iterator[Finding]:
        pgno, level = visit.pgno, visit.level
        if level >= min(tree.record.depth, MAX_DEPTH):
            raise CorruptDatabase(f"a branch page at level {level} of a tree of depth {tree.record.depth}", pgno)
        tree.counts["branch"] += 1
        offsets = node_offsets(page, pgno)
        branch = parse_branch(page, pgno, self._root.last_pgno)
        first_key_size = int.from_bytes(page[offsets[0] + 6 : offsets[0] + 8], "little")
        sizes = [NODE_SIZE + len(key) for key in branch.keys[1:]]
        yield from _filled(page, pgno, [NODE_SIZE + first_key_size, *sizes])
        separators = branch.keys[1:]
        yield from _in_order(tree, visit, separators)
        bounds: list[bytes | None] = [visit.low, *separators, visit.high]
        for child, (low, high) in zip(branch.children, pairwise(bounds), strict=True):
            stack.append(_Visit(child, level + 1, low, high))

    def _leaf(self, tree: _Tree, visit: _Visit, page: bytes) -> Iterator[Finding]:
        pgno = visit.pgno
        keys: list[bytes] = []
        sizes: list[int] = []
        for offset in node_offsets(page, pgno):
            node = parse_leaf_node(page, offset, pgno)
            keys.append(node.key)
            sizes.append(NODE_SIZE + len(node.key) + len(node.data))
            if node.flags:
                yield from self._special(tree, node, pgno)
            else:
                tree.counts["entries"] += 1
        yield from _filled(page, pgno, sizes)
        yield from _in_order(tree, visit, keys)

    def _special(self, tree: _Tree, node: LeafNode, pgno: int) -> Iterator[Finding]:
        """A leaf node that is more than a key and a small value."""
        if node.flags == BIG_DATA:
            tree.counts["entries"] += 1
            yield from self._overflow(tree, node, pgno)
        elif node.flags == DUP_DATA and tree.record.flags & DUP_SORT:
            yield from self._subpage(tree, node, pgno)
        elif node.flags in (SUB_DATA, SUB_DATA | DUP_DATA) and node.size == TreeRecord.SIZE:
            record = TreeRecord.parse(node.data)
            if node.flags & DUP_DATA:
                tree.counts["entries"] += record.entries
                order = _order(_duplicate_flags(tree.record.flags))
                self._pending.append(_Tree(f"{tree.name}, duplicates of {node.key[:40]!r}", record, order))
            else:
                tree.counts["entries"] += 1
                self._pending.append(_Tree(f"database {node.key.decode(errors='replace')!r}", record, _order(record.flags)))
        else:
            yield Finding(pgno, f"{tree.name}: a node with flags {node.flags:#x} and {node.size} bytes of data")

    def _overflow(self, tree: _Tree, node: LeafNode, pgno: int) -> Iterator[Finding]:
        """A value on pages of its own; ``big_value_pgno`` sees to it that they are long enough."""
        first = self._reader.big_value_pgno(node, pgno)
        run = overflow_run(self._file.header(first), first)
        tree.counts["overflow"] += run
        self._take(first, run)
        end = first * self._root.page_size + HEADER_SIZE + node.size
        if self._file.size() < end:
            yield Finding(first, f"{tree.name}: an overflow run is cut short, the file ends in it")

    def _subpage(self, tree: _Tree, node: LeafNode, pgno: int) -> Iterator[Finding]:
        """A few duplicates, kept in a page inside the node."""
        if node.size < HEADER_SIZE:
            raise CorruptDatabase("a page of duplicates is cut short", pgno)
        flags = PAGE_HEADER.unpack_from(node.data, 0)[2]
        if flags & LEAF2:
            values = _fixed_keys(node.data, pgno)
        else:
            values = [parse_leaf_node(node.data, offset, pgno).key for offset in node_offsets(node.data, pgno)]
        tree.counts["entries"] += len(values)
        order = _order(_duplicate_flags(tree.record.flags))
        whole = _Visit(pgno, 0, None, None)
        yield from _in_order(_Tree(f"{tree.name}, duplicates of {node.key[:40]!r}", tree.record, order), whole, values)

    # -- all pages -----------------------------------------------------------------------------------------------

    def _take(self, first: int, count: int) -> None:
        """Note that these pages are in use; ``CorruptDatabase`` when one is already."""
        self._progress(count)
        for pgno in range(first, first + count):
            if pgno > self._root.last_pgno:
                raise CorruptDatabase(f"after the last page ({self._root.last_pgno})", pgno)
            if not self._used.add(pgno):
                raise CorruptDatabase("reachable twice", pgno)

    def _balance(self) -> Iterator[Finding]:
        """Hold the free pages against the used ones."""
        try:
            for key, value in self._reader.scan_tree(self._root.free):
                for pgno in parse_free_record(key, value, self._root.free.root):
                    yield from self._free_page(pgno, int.from_bytes(key, "little"))
        except CorruptDatabase as error:
            yield Finding(error.page, f"the freelist cannot be read: {error}")
        first = None
        for pgno in range(2, self._root.pages + 1):
            lost = pgno < self._root.pages and pgno not in self._used and pgno not in self._free
            if lost and first is None:
                first = pgno
            elif not lost and first is not None:
                pages = "" if pgno - first == 1 else f" (and the {pgno - first - 1} pages after it)"
                yield Finding(first, f"neither reachable nor free{pages}")
                first = None

    def _free_page(self, pgno: int, txnid: int) -> Iterator[Finding]:
        if not 2 <= pgno <= self._root.last_pgno:
            yield Finding(None, f"the freelist of transaction {txnid} names page {pgno}, which cannot be")
        elif pgno in self._used:
            yield Finding(pgno, f"reachable, and free since transaction {txnid}")
        elif not self._free.add(pgno):
            yield Finding(pgno, f"freed twice (again by transaction {txnid})")


def _finding(error: CorruptDatabase, tree: _Tree) -> Finding:
    text = str(error).removeprefix(f"page {error.page}: ")
    return Finding(error.page, f"{tree.name}: {text}")


def _in_order(tree: _Tree, visit: _Visit, keys: list[bytes]) -> Iterator[Finding]:
    """Yield a finding when ``keys`` do not ascend, or leave the range that the separators above allow."""
    if not keys:
        return
    order = tree.order
    ordered = [order(key) for key in keys] if order is not _plain else keys
    for before, after in pairwise(ordered):
        if before >= after:
            yield Finding(visit.pgno, f"{tree.name}: keys out of order")
            break
    if visit.low is not None and ordered[0] < order(visit.low):
        yield Finding(visit.pgno, f"{tree.name}: a key below the separator above it")
    if visit.high is not None and ordered[-1] >= order(visit.high):
        yield Finding(visit.pgno, f"{tree.name}: a key not below the separator after it")


def _filled(page: bytes, pgno: int, sizes: list[int]) -> Iterator[Finding]:
    """Yield a finding when the nodes, each at an even offset, do not fill the used part of the page exactly."""
    upper = PAGE_HEADER.unpack_from(page, 0)[4]
    filled = sum(size + (size & 1) for size in sizes)
    if filled != len(page) - upper:
        yield Finding(pgno, f"its nodes have {filled} bytes, but {len(page) - upper} are in use")


def _fixed_keys(page: bytes, pgno: int) -> list[bytes]:
    """Return the keys of a LEAF2 page: of one size, side by side after the header."""
    _number, size, _flags, lower, _upper = PAGE_HEADER.unpack_from(page, 0)
    count = (lower - HEADER_SIZE) // 2
    if size == 0 or lower < HEADER_SIZE or HEADER_SIZE + count * size > len(page):
        raise CorruptDatabase(f"{count} keys of {size} bytes do not fit", pgno)
    return [page[start : start + size] for start in range(HEADER_SIZE, HEADER_SIZE + count * size, size)]


def _duplicate_flags(flags: int) -> int:
    """Return the flags of the trees of duplicates in a database with ``flags``."""
    result = DUP_FIXED if flags & DUP_FIXED else 0
    if flags & INTEGER_DUP:
        result |= INTEGER_KEY
    if flags & REVERSE_DUP:
        result |= REVERSE_KEY
    return result


def _order(flags: int) -> Order:
    """Return the function whose results sort as LMDB sorts the keys of a tree with ``flags``."""
    if flags & REVERSE_KEY:
        return _reversed
    return _integer if flags & INTEGER_KEY else _plain


def _plain(key: bytes) -> bytes:
    return key


def _reversed(key: bytes) -> bytes:
    return key[::-1]


_integer = _reversed  # little-endian integers of one size sort as their reversed bytes
