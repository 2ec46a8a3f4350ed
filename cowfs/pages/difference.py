"""What differs between two roots of one environment, in time proportional to the difference.

A page of a root never changes, and is not used again while the root is held. So a page number that both roots reach is
the same page, with all that is below it, and an entry of a shared page is in both trees as it is. Hence both trees are
walked from the top, level by level, and only the pages that one of them has alone are read; what differs are the entries
of their leaves. Leaves of a B+tree are all equally deep: levels are counted from below, so the trees may differ in depth.

As everywhere in ``pages`` nothing on disk is believed: a tree that is damaged ends in ``CorruptDatabase``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from cowfs.errors import CorruptDatabase, EnvironmentFailure
from cowfs.pages.btree import LeafNode, TreeReader, parse_branch, parse_leaf_node
from cowfs.pages.format import (
    BIG_DATA,
    BRANCH,
    DUP_SORT,
    INTEGER_KEY,
    LEAF,
    LEAF2,
    MAX_DEPTH,
    META,
    OVERFLOW,
    PAGE_HEADER,
    REVERSE_KEY,
    TreeInfo,
    node_offsets,
)

Change = tuple[bytes, bytes | None, bytes | None]


def changed_entries(old: TreeReader, new: TreeReader, name: bytes) -> Iterator[Change]:
    """Yield (key, old value, new value) of every entry of the database ``name`` that differs, in the order of the keys.

    None stands for no entry. Both roots are of the same environment, and held by the caller, in any order of time. Raises
    ``CorruptDatabase``, and ``EnvironmentFailure`` for a tree that is not in plain key order.
    """
    olds, news = _unshared_leaves(_Side(old, name), _Side(new, name))
    return _differing(_entries(old, olds), _entries(new, news))


class _Entry(NamedTuple):
    """One node of a leaf, whose value is read when it is needed."""

    key: bytes
    reader: TreeReader
    node: LeafNode
    pgno: int

    @property
    def value(self) -> bytes:
        return self.reader.value(self.node, self.pgno)

    def equals(self, other: _Entry) -> bool:
        """Whether both have the same value; big values at the same page are the same, and are not read."""
        one, two = self.node, other.node
        if one.size != two.size:
            return False
        if one.flags & BIG_DATA == two.flags & BIG_DATA and one.data == two.data:
            return True
        return bool((one.flags | two.flags) & BIG_DATA) and self.value == other.value


class _Side:
    """One of the two trees, and the pages of one level of it: at first of the highest, which is its root."""

    def __init__(self, reader: TreeReader, name: bytes) -> None:
        self._reader = reader
        record = reader.record(name)
        self.height = 0
        self.pages: list[int] = []
        if record is not None:
            _require_plain(record)
            if not record.empty:
                self.height, self.pages = record.depth, [record.root]
                if not 1 <= record.depth <= MAX_DEPTH:
                    raise CorruptDatabase(f"a tree of {record.depth} levels", record.root)

    def without(self, pages: set[int]) -> None:
        """Leave out these pages, and so what is below them."""
        self.pages = [pgno for pgno in self.pages if pgno not in pages]

    def descend(self) -> None:
        """Go on to the children of the pages."""
        children: list[int] = []
        for pgno in self.pages:
            page = _page(self._reader, pgno, BRANCH)
            children += parse_branch(page, pgno, self._reader.root.last_pgno).children
        if len(set(children)) < len(children):
            raise CorruptDatabase("the tree has a page at two places", self.pages[0])
        self.height -= 1
        self.pages = children


def _unshared_leaves(old: _Side, new: _Side) -> tuple[Sequence[int], Sequence[int]]:
    """Return the leaves, in order, that only the one, and that only the other tree has."""
    while True:
        if old.height == new.height:
            shared = {*old.pages} & {*new.pages}
            old.without(shared)
            new.without(shared)
        height = max(old.height, new.height)
        if height <= 1:
            return old.pages, new.pages
        for side in (old, new):
            if side.height == height:
                side.descend()


def _entries(reader: TreeReader, leaves: Iterable[int]) -> Iterator[_Entry]:
    for pgno in leaves:
        page = _page(reader, pgno, LEAF)
        for offset in node_offsets(page, pgno):
            node = parse_leaf_node(page, offset, pgno)
            yield _Entry(node.key, reader, node, pgno)


def _differing(olds: Iterator[_Entry], news: Iterator[_Entry]) -> Iterator[Change]:
    """Merge the entries of both sides, and yield those that differ."""
    old, new = next(olds, None), next(news, None)
    while old is not None or new is not None:
        if old is not None and (new is None or old.key < new.key):
            yield old.key, old.value, None
            old = next(olds, None)
        elif new is not None and (old is None or new.key < old.key):
            yield new.key, None, new.value
            new = next(news, None)
        elif old is not None and new is not None:
            if not old.equals(new):
                yield old.key, old.value, new.value
            old, new = next(olds, None), next(news, None)


def _page(reader: TreeReader, pgno: int, kind: int) -> bytes:
    page = reader.file.page(pgno)
    flags = PAGE_HEADER.unpack_from(page, 0)[2] & (BRANCH | LEAF | LEAF2 | OVERFLOW | META)
    if flags != kind:
        raise CorruptDatabase(f"not a {'leaf' if kind == LEAF else 'branch'} (flags {flags:#x}) where one is due", pgno)
    return page


def _require_plain(record: TreeInfo) -> None:
    if record.flags & (DUP_SORT | REVERSE_KEY | INTEGER_KEY):
        raise EnvironmentFailure("this tree is not in plain key order; only check reads it")
