"""``check_pages``: every page of a root is where it should be, once, and every tree is in order.

What it verifies, all of it against the bytes and nothing against LMDB:

1. every page from 2 to the last is reachable from the root, or free, exactly once;
2. every page says its own number and what it is, its nodes lie side by side and fill its used part exactly; no leaf is
   empty, and no branch page but the freelist's has a single child (LMDB leaves none, and aborts at one);
3. keys ascend in each tree by the tree's own order, and stay between the separators above them;
4. overflow runs are whole, and long enough for their values (LMDB leaves a longer one when a value shrinks in place);
5. depth, page counts and entry counts are what the tree's record says; not the page counts of a database with
   duplicates, which LMDB 0.9 itself gets wrong when it turns a page of duplicates into a tree and back.

It reads each page once, keeps one bit a page, and never stops at the first damage.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import repeat
from operator import ge

from cowfs.errors import CorruptDatabase
from cowfs.pages.btree import LeafNode, TreeReader, parse_branch, parse_leaf_node
from cowfs.pages.datafile import DataFile
from cowfs.pages.format import (
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
    NODE_HEADER,
    NODE_SIZE,
    OVERFLOW,
    PAGE_HEADER,
    REVERSE_DUP,
    REVERSE_KEY,
    SUB_DATA,
    SUBPAGE,
    Root,
    TreeInfo,
    node_offsets,
    overflow_run,
)
from cowfs.pages.freelist import PageSet, parse_free_record

Order = Callable[[bytes], bytes]
Progress = Callable[[int], None]
_Visit = tuple[int, int, bytes | None, bytes | None]  # a page to look at, its level, and the key range its parent promises

_PROGRESS_PAGES = 256


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: in which page (None: not in one page), and what."""

    page: int | None
    text: str

    def __str__(self) -> str:
        return self.text if self.page is None else f"page {self.page}: {self.text}"


@dataclass(slots=True)
class _Tree:
    """A tree while it is walked: its record, and what was counted in it."""

    name: str
    record: TreeInfo
    order: Order
    branch_pages: int = 0
    leaf_pages: int = 0
    overflow_pages: int = 0
    entries: int = 0


def check_pages(file: DataFile, root: Root, progress: Progress = lambda _pages: None) -> Iterator[Finding]:
    """Yield what is wrong with the pages of ``root``, which must be held; nothing when all is well.

    ``progress`` is called now and then with the number of pages seen since its last call. Time and reads are proportional
    to the database.
    """
    return _Checker(file, root, progress).run()


def check_meta_pages(file: DataFile) -> Iterator[Finding]:
    """Yield what is wrong with the two meta pages of the file; the database may be whole all the same."""
    for page, text in file.settled_meta_pages().problems():
        yield Finding(page, text)


class _Checker:
    """The walk: what is found goes into ``_found``; ``CorruptDatabase`` gives up a page, or a node."""

    def __init__(self, file: DataFile, root: Root, progress: Progress) -> None:
        self._file = file
        self._root = root
        self._reader = TreeReader(file, root)
        self._progress = progress
        self._used = PageSet(root.pages)
        self._free = PageSet(root.pages)
        self._pending: list[_Tree] = []
        self._found: list[Finding] = []

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
        seen = len(self._used)
        stack: list[_Visit] = [] if record.empty else [(record.root, 1, None, None)]
        while stack:
            visit = stack.pop()
            try:
                self._page(tree, visit, stack)
            except CorruptDatabase as error:
                self._note(tree, error)
            if self._found:
                damaged = True
                yield from self._found
                self._found.clear()
            if len(self._used) >= seen + _PROGRESS_PAGES or not stack:
                self._progress(len(self._used) - seen)
                seen = len(self._used)
        if not damaged:
            yield from _compare(tree)

    # -- a page --------------------------------------------------------------------------------------------------

    def _page(self, tree: _Tree, visit: _Visit, stack: list[_Visit]) -> None:
        pgno, level, _low, _high = visit
        self._take(pgno)
        page = self._file.page(pgno)
        flags = PAGE_HEADER.unpack_from(page, 0)[2] & (BRANCH | LEAF | OVERFLOW | META | LEAF2 | SUBPAGE)
        if flags == BRANCH:
            self._branch(tree, visit, page, stack)
            return
        if level != tree.record.depth:
            self._report(pgno, f"{tree.name}: a leaf at level {level} of a tree of depth {tree.record.depth}")
        tree.leaf_pages += 1
        if flags == LEAF:
            keys = self._leaf(tree, pgno, page)
        elif flags == LEAF | LEAF2:
            keys = _fixed_keys(page, pgno)
            tree.entries += len(keys)
        else:
            raise CorruptDatabase(f"neither a branch nor a leaf (flags {flags:#x})", pgno)
        self._in_order(tree, visit, keys)

    def _branch(self, tree: _Tree, visit: _Visit, page: bytes, stack: list[_Visit]) -> None:
        pgno, level, low, high = visit
        if level >= min(tree.record.depth, MAX_DEPTH):
            raise CorruptDatabase(f"a branch page at level {level} of a tree of depth {tree.record.depth}", pgno)
        tree.branch_pages += 1
        branch = parse_branch(page, pgno, self._root.last_pgno)
        offsets = node_offsets(page, pgno)
        key_sizes = [NODE_HEADER.unpack_from(page, offset)[3] for offset in offsets]
        ends = [offset + NODE_SIZE + size for offset, size in zip(offsets, key_sizes, strict=True)]
        self._filled(page, pgno, offsets, ends)
        separators = branch.keys[1:]
        if not separators and tree.record is not self._root.free:
            self._report(pgno, f"{tree.name}: a branch page with a single child")
        self._in_order(tree, visit, separators)
        stack.extend(zip(branch.children, repeat(level + 1), [low, *separators], [*separators, high], strict=False))

    def _leaf(self, tree: _Tree, pgno: int, page: bytes) -> list[bytes]:
        """Look at the nodes of a leaf page, and return their keys."""
        keys = []
        ends = []
        offsets = node_offsets(page, pgno)
        for offset in offsets:
            low, high, flags, key_size = NODE_HEADER.unpack_from(page, offset)
            start = offset + NODE_SIZE
            middle = start + key_size
            if flags:
                node = parse_leaf_node(page, offset, pgno)
                end = middle + len(node.data)
                try:
                    self._special(tree, node, pgno)
                except CorruptDatabase as error:
                    self._note(tree, error)
            else:
                end = middle + (low | high << 16)
                tree.entries += 1
            keys.append(page[start:middle])
            ends.append(end)
        if not keys:
            self._report(pgno, f"{tree.name}: a leaf page without entries")
        self._filled(page, pgno, offsets, ends)
        return keys

    def _special(self, tree: _Tree, node: LeafNode, pgno: int) -> None:
        """A leaf node that is more than a key and a small value."""
        if node.flags == BIG_DATA:
            tree.entries += 1
            self._overflow(tree, node, pgno)
        elif node.flags == DUP_DATA and tree.record.flags & DUP_SORT:
            self._subpage(tree, node, pgno)
        elif node.flags == SUB_DATA | DUP_DATA and tree.record.flags & DUP_SORT and node.size == TreeInfo.SIZE:
            record = TreeInfo.parse(node.data)
            tree.entries += record.entries
            self._pending.append(_Tree(_duplicates_of(tree, node), record, _order(_duplicate_flags(tree.record.flags))))
        elif node.flags == SUB_DATA and tree.record is self._root.main and node.size == TreeInfo.SIZE:
            record = TreeInfo.parse(node.data)
            tree.entries += 1
            self._pending.append(_Tree(f"database {node.key.decode(errors='replace')!r}", record, _order(record.flags)))
        else:
            self._report(pgno, f"{tree.name}: a node with flags {node.flags:#x} and {node.size} bytes of data")

    def _overflow(self, tree: _Tree, node: LeafNode, pgno: int) -> None:
        """A value on pages of its own; ``big_value_pgno`` sees to it that they are long enough."""
        first = self._reader.big_value_pgno(node, pgno)
        run = overflow_run(self._file.header(first), first)
        tree.overflow_pages += run
        for taken in range(first, first + run):
            self._take(taken)

    def _subpage(self, tree: _Tree, node: LeafNode, pgno: int) -> None:
        """A few duplicates, kept in a page inside the node."""
        if node.size < HEADER_SIZE:
            raise CorruptDatabase("a page of duplicates is cut short", pgno)
        flags = PAGE_HEADER.unpack_from(node.data, 0)[2]
        if flags & LEAF2:
            values = _fixed_keys(node.data, pgno)
        else:
            values = [parse_leaf_node(node.data, offset, pgno).key for offset in node_offsets(node.data, pgno)]
        tree.entries += len(values)
        duplicates = _Tree(_duplicates_of(tree, node), tree.record, _order(_duplicate_flags(tree.record.flags)))
        self._in_order(duplicates, (pgno, 0, None, None), values)

    def _in_order(self, tree: _Tree, visit: _Visit, keys: list[bytes]) -> None:
        """Report when ``keys`` do not ascend, or leave the range that the separators above allow."""
        if not keys:
            return
        pgno, _level, low, high = visit
        order = tree.order
        ordered = keys if order is _plain else list(map(order, keys))
        if any(map(ge, ordered, ordered[1:])):
            self._report(pgno, f"{tree.name}: keys out of order")
        if low is not None and ordered[0] < order(low):
            self._report(pgno, f"{tree.name}: a key below the separator above it")
        if high is not None and ordered[-1] >= order(high):
            self._report(pgno, f"{tree.name}: a key not below the separator after it")

    def _filled(self, page: bytes, pgno: int, offsets: array[int], ends: list[int]) -> None:
        """Report when the nodes, each at an even offset, do not lie side by side from ``upper`` to the end of the page."""
        upper = PAGE_HEADER.unpack_from(page, 0)[4]
        bounds = sorted([end + (end & 1) for end in ends])
        if [upper, *bounds] != [*sorted(offsets), len(page)]:
            self._report(pgno, f"its nodes do not lie side by side in {upper}..{len(page)}")

    def _note(self, tree: _Tree, error: CorruptDatabase) -> None:
        self._found.append(Finding(error.page, f"{tree.name}: " + str(error).removeprefix(f"page {error.page}: ")))

    def _report(self, pgno: int, text: str) -> None:
        self._found.append(Finding(pgno, text))

    # -- all pages -----------------------------------------------------------------------------------------------

    def _take(self, pgno: int) -> None:
        """Note that a page is in use; ``CorruptDatabase`` when it is already. It is known to be in 2..last."""
        if not self._used.add(pgno):
            raise CorruptDatabase("reachable twice", pgno)

    def _balance(self) -> Iterator[Finding]:
        """Hold the free pages against the used ones."""
        try:
            for key, value in self._reader.scan_tree(self._root.free):
                txnid = int.from_bytes(key, "little")
                for pgno in parse_free_record(key, value, self._root.free.root):
                    if not 2 <= pgno <= self._root.last_pgno:
                        yield Finding(None, f"the freelist of transaction {txnid} names page {pgno}, which cannot be")
                    elif pgno in self._used:
                        yield Finding(pgno, f"reachable, and free since transaction {txnid}")
                    elif not self._free.add(pgno):
                        yield Finding(pgno, f"freed twice (again by transaction {txnid})")
        except CorruptDatabase as error:
            yield Finding(error.page, f"the freelist cannot be read: {error}")
        for first, count in (self._used | self._free).gaps(2):
            pages = "" if count == 1 else f" (and the {count - 1} pages after it)"
            yield Finding(first, f"neither reachable nor free{pages}")


def _compare(tree: _Tree) -> Iterator[Finding]:
    """Hold a tree's record against what was counted in it."""
    record = tree.record
    counts = [(record.entries, tree.entries, "entries")]
    if not record.flags & DUP_SORT:
        counts += [
            (record.branch_pages, tree.branch_pages, "branch pages"),
            (record.leaf_pages, tree.leaf_pages, "leaf pages"),
            (record.overflow_pages, tree.overflow_pages, "overflow pages"),
        ]
    for said, counted, unit in counts:
        if said != counted:
            yield Finding(None, f"{tree.name}: its record says {said} {unit}, there are {counted}")


def _duplicates_of(tree: _Tree, node: LeafNode) -> str:
    return f"{tree.name}, duplicates of {node.key[:40]!r}"


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
