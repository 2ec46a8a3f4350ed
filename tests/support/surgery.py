"""A data file opened up: where its pages, nodes and records are, and a knife. It knows the layout, but not ``check``."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path

from cowfs.pages.btree import LeafNode, parse_branch, parse_leaf_node
from cowfs.pages.format import (
    BIG_DATA,
    BRANCH,
    DUP_DATA,
    LEAF,
    LEAF2,
    NODE_SIZE,
    PAGE_HEADER,
    SUB_DATA,
    TreeInfo,
    node_offsets,
    overflow_run,
)
from tests.support.environments import newest

FREE_RECORD = 40  # offsets in a meta page
MAIN_RECORD = 88


class Patient:
    """The bytes of a sound data file, to be changed at known places. Positions are offsets in the file."""

    def __init__(self, path: Path) -> None:
        self.data = bytearray((path / "data.mdb").read_bytes())
        with newest(path) as reader:
            self.root = reader.root
            self.page_size = reader.root.page_size
            self.records = dict(reader.databases())
        self.meta = (self.root.txnid & 1) * self.page_size

    def read(self, position: int, form: str) -> int:
        return int(struct.unpack_from(form, self.data, position)[0])

    def poke(self, position: int, form: str, *values: int) -> None:
        struct.pack_into(form, self.data, position, *values)

    def swap(self, one: int, other: int, size: int) -> None:
        data = self.data
        data[one : one + size], data[other : other + size] = data[other : other + size], data[one : one + size]

    def at(self, pgno: int) -> int:
        return pgno * self.page_size

    def page(self, pgno: int) -> bytes:
        return bytes(self.data[self.at(pgno) : self.at(pgno + 1)])

    def flags(self, pgno: int) -> int:
        return int(PAGE_HEADER.unpack_from(self.page(pgno))[2])

    def nodes(self, pgno: int) -> list[int]:
        """Return the positions of a page's nodes, in key order."""
        return [self.at(pgno) + offset for offset in node_offsets(self.page(pgno), pgno)]

    def key(self, node: int) -> int:
        """Return the position of a node's key."""
        return node + NODE_SIZE

    def value(self, node: int) -> int:
        """Return the position of a leaf node's data."""
        return node + NODE_SIZE + self.read(node + 6, "<H")

    def leaf_nodes(self, pgno: int) -> Iterator[tuple[int, LeafNode]]:
        page = self.page(pgno)
        for offset in node_offsets(page, pgno):
            yield self.at(pgno) + offset, parse_leaf_node(page, offset, pgno)

    def record(self, name: bytes) -> int:
        """Return the position of the record of a named database."""
        for pgno in self.leaves(self.root.main):
            for position, node in self.leaf_nodes(pgno):
                if node.key == name:
                    return self.value(position)
        raise KeyError(name)

    def pages(self, record: TreeInfo) -> Iterator[int]:
        """Yield the branch and leaf pages of a tree, parents first."""
        pending = [] if record.empty else [record.root]
        while pending:
            pgno = pending.pop(0)
            yield pgno
            if self.flags(pgno) & BRANCH:
                pending += parse_branch(self.page(pgno), pgno, self.root.last_pgno).children

    def leaves(self, record: TreeInfo) -> list[int]:
        return [pgno for pgno in self.pages(record) if not self.flags(pgno) & BRANCH]

    def special(self, name: bytes, flags: int) -> list[tuple[int, int, LeafNode]]:
        """Return (page, position, node) of the nodes of a named database that have exactly these flags."""
        leaves = self.leaves(self.records[name])
        found = [(pgno, position, node) for pgno in leaves for position, node in self.leaf_nodes(pgno)]
        return [item for item in found if item[2].flags == flags]

    def duplicates(self, name: bytes) -> list[tuple[int, TreeInfo]]:
        """Return (position of the record, record) of the trees of duplicates in a named database."""
        found = self.special(name, SUB_DATA | DUP_DATA)
        return [(self.value(position), TreeInfo.parse(node.data)) for _pgno, position, node in found]

    def classes(self) -> dict[str, list[range]]:
        """Return where in the file each class of page, or part of a page, is."""
        trees = {"freelist": self.root.free, "main tree": self.root.main}
        result: dict[str, list[range]] = {"meta": [range(152), range(self.page_size, self.page_size + 152)]}
        for database, record in self.records.items():
            trees |= {f"{database!r} {n}": duplicates for n, (_, duplicates) in enumerate(self.duplicates(database))}
            trees[repr(database)] = record
        for name, tree in trees.items():
            for pgno in self.pages(tree):
                flags = self.flags(pgno)
                kind = "branch" if flags & BRANCH else "fixed leaf" if flags & LEAF2 else "leaf"
                result.setdefault(name if tree in (self.root.free, self.root.main) else kind, []).append(self._bytes(pgno))
                if flags & (LEAF | LEAF2) == LEAF:
                    self._add_values(result, pgno)
        return result

    def _add_values(self, result: dict[str, list[range]], pgno: int) -> None:
        for position, node in self.leaf_nodes(pgno):
            start = self.value(position)
            if node.flags & BIG_DATA:
                first = int.from_bytes(node.data, "little")
                run = overflow_run(self.page(first), first)
                result.setdefault("overflow header", []).append(range(self.at(first), self.at(first) + 16))
                result.setdefault("overflow body", []).append(range(self.at(first) + 16, self.at(first + run)))
            elif node.flags == DUP_DATA:
                result.setdefault("sub-page", []).append(range(start, start + len(node.data)))
            elif node.flags & SUB_DATA:
                result.setdefault("record", []).append(range(start, start + len(node.data)))

    def _bytes(self, pgno: int) -> range:
        return range(self.at(pgno), self.at(pgno + 1))


def free_record(patient: Patient) -> int:
    """Return the position of a freelist record (its count) that lies in a leaf and has at least three pages."""
    for pgno in patient.leaves(patient.root.free):
        for position, node in patient.leaf_nodes(pgno):
            if not node.flags & BIG_DATA and node.size >= 32:
                return patient.value(position)
    raise KeyError("no freelist record of three pages")
