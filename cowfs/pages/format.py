"""The byte layout of LMDB's data file, data version 1 (all releases 0.9.x), little endian, 64 bit.

Source: ``libraries/liblmdb/mdb.c`` of LMDB 0.9 (``MDB_page``, ``MDB_meta``, ``MDB_db``, ``MDB_node``). Each structure is
documented once, here, beside the code that parses it; nobody else in cowfs knows an offset. Nothing that comes from
disk is believed: whatever does not fit raises ``CorruptDatabase`` with the number of the page.

Page header, 16 bytes, ``<QHHHH``::

    0 pgno u64 | 8 pad u16 (LEAF2: key size) | 10 flags u16 | 12 lower u16 | 14 upper u16
    an overflow page has its run length as u32 at 12 instead; node offsets u16[(lower-16)/2] follow at 16

Meta page (pages 0 and 1; transaction N writes page N & 1)::

    16 magic u32 | 20 version u32 | 24 address u64 | 32 map size u64 | 40 FREE_DBI record | 88 MAIN_DBI record
    136 last page number u64 | 144 transaction id u64 | ends at 152; the page size is the pad of the FREE_DBI record

Database record, 48 bytes, ``<IHHQQQQQ``::

    pad u32 | flags u16 | depth u16 | branch pages | leaf pages | overflow pages | entries | root page (2**64-1: empty)

Node, at an even offset, ``<HHHH``::

    lo u16 | hi u16 | flags u16 | key size u16 | key | data
    leaf: the data's size is lo | hi << 16;  branch: the child's page number is lo | hi << 16 | flags << 32
"""

from __future__ import annotations

import struct
from array import array
from dataclasses import dataclass
from sys import byteorder
from typing import Final, Literal

from cowfs.errors import CorruptDatabase, NotADatabase, UnsupportedFormat

MAGIC: Final = 0xBEEFC0DE
DATA_VERSION: Final = 1
PAGE_HEADER: Final = struct.Struct("<QHHHH")
NODE_HEADER: Final = struct.Struct("<HHHH")
LEAF_NODE: Final = struct.Struct("<IHH")  # the same: size of the data, flags, size of the key
OVERFLOW_HEADER: Final = struct.Struct("<QHHI")
HEADER_SIZE: Final = PAGE_HEADER.size
NODE_SIZE: Final = NODE_HEADER.size
META_SIZE: Final = 152
ROOT_BYTES: Final = slice(32, META_SIZE)  # of a meta page: what a commit writes into it
ROOT_SIZE: Final = META_SIZE - 32
MIN_PAGE_SIZE: Final = 512
MAX_PAGE_SIZE: Final = 32768  # offsets in a page are u16, and one of them may be its end
MAX_DEPTH: Final = 32  # CURSOR_STACK in mdb.c
NO_PAGE: Final = 2**64 - 1
MAX_TXNID: Final = 2**53 - 1  # more than any database reaches; exact in JSON, and with room above it for offsets and inodes

# page flags
BRANCH: Final = 0x01
LEAF: Final = 0x02
OVERFLOW: Final = 0x04
META: Final = 0x08
LEAF2: Final = 0x20
SUBPAGE: Final = 0x40

# flags of a leaf node
BIG_DATA: Final = 0x01
SUB_DATA: Final = 0x02
DUP_DATA: Final = 0x04

# flags of a database
REVERSE_KEY: Final = 0x02
DUP_SORT: Final = 0x04
INTEGER_KEY: Final = 0x08
DUP_FIXED: Final = 0x10
INTEGER_DUP: Final = 0x20
REVERSE_DUP: Final = 0x40

_META = struct.Struct("<IIQQ")
_LATER_META = struct.Struct("<II")
_BYTE_ORDERS: Final[tuple[Literal["little", "big"], ...]] = ("little", "big")
_META_END = struct.Struct("<QQ")
_FREE_PATH = struct.Struct("<H32xQ")
_U16 = struct.Struct("<H")
_RECORD = struct.Struct("<IHHQQQQQ")
_MAX_LAST_PGNO: Final = 2**47  # more than any address space holds: a larger one is damage, not a database


@dataclass(frozen=True, slots=True)
class TreeInfo:
    """What LMDB keeps of one B+tree (``MDB_db``): where it begins and how much it holds."""

    pad: int
    flags: int
    depth: int
    branch_pages: int
    leaf_pages: int
    overflow_pages: int
    entries: int
    root: int

    SIZE = _RECORD.size

    @classmethod
    def parse(cls, data: bytes, offset: int = 0) -> TreeInfo:
        """Read the record at ``offset`` of ``data``; the caller has seen to it that 48 bytes are there."""
        return cls(*_RECORD.unpack_from(data, offset))

    def pack(self) -> bytes:
        """Return the 48 bytes that ``parse`` reads."""
        return _RECORD.pack(
            self.pad,
            self.flags,
            self.depth,
            self.branch_pages,
            self.leaf_pages,
            self.overflow_pages,
            self.entries,
            self.root,
        )

    @property
    def empty(self) -> bool:
        """Whether the tree has no page at all."""
        return self.root == NO_PAGE

    @property
    def pages(self) -> int:
        """How many pages the tree has, by its own count (trees of duplicates below it are not counted)."""
        return self.branch_pages + self.leaf_pages + self.overflow_pages


@dataclass(frozen=True, slots=True)
class Root:
    """What one meta page describes: a whole database, frozen at one commit.

    ``txnid`` is LMDB's transaction id, ``page_size`` and ``map_size`` are bytes, ``last_pgno`` is the highest page number
    that the commit knows (the file may be longer, or shorter by pages that are free). The pages below a root stay as they
    are for as long as a reader slot at or below ``txnid`` is held.
    """

    txnid: int
    page_size: int
    map_size: int
    last_pgno: int
    free: TreeInfo
    main: TreeInfo

    @property
    def pages(self) -> int:
        """How many pages the database has, free ones and the two meta pages included."""
        return self.last_pgno + 1


def parse_meta(data: bytes, pgno: int) -> Root:
    """Parse the meta page ``pgno`` (0 or 1) from at least its first 152 bytes.

    Raises ``NotADatabase`` when these bytes were never a meta page, ``UnsupportedFormat`` for another data version,
    ``CorruptDatabase`` when its fields contradict each other.
    """
    if len(data) < META_SIZE:
        raise NotADatabase(f"no LMDB database: the file ends inside meta page {pgno}")
    magic, version, _address, map_size = _META.unpack_from(data, HEADER_SIZE)
    if magic != MAGIC:
        raise _without_magic(data, pgno)
    if version != DATA_VERSION:
        raise _other_version(version)
    stored_pgno, _pad, flags, _lower, _upper = PAGE_HEADER.unpack_from(data, 0)
    if stored_pgno != pgno or not flags & META:
        raise CorruptDatabase(f"not a meta page (number {stored_pgno}, flags {flags:#x})", pgno)
    free = TreeInfo.parse(data, 40)
    main = TreeInfo.parse(data, 88)
    last_pgno, txnid = _META_END.unpack_from(data, 136)
    return _checked(Root(txnid, free.pad, map_size, last_pgno, free, main), pgno)


def _checked(root: Root, pgno: int | None) -> Root:
    """Return ``root`` when its fields can be those of a database. Raises ``CorruptDatabase``, of page ``pgno``."""
    page_size, last_pgno = root.page_size, root.last_pgno
    if not MIN_PAGE_SIZE <= page_size <= MAX_PAGE_SIZE or page_size & (page_size - 1):
        raise CorruptDatabase(f"{page_size} is no page size", pgno)
    if root.free.flags & (REVERSE_KEY | DUP_SORT | INTEGER_KEY) != INTEGER_KEY:
        raise CorruptDatabase(f"the freelist cannot have the flags {root.free.flags:#x}", pgno)
    if not 1 <= last_pgno <= _MAX_LAST_PGNO:
        raise CorruptDatabase(f"{last_pgno} cannot be the last page number", pgno)
    if root.txnid > MAX_TXNID:
        raise CorruptDatabase(f"{root.txnid} cannot be a transaction id", pgno)
    for name, record in (("freelist", root.free), ("main", root.main)):
        if not record.empty and not 2 <= record.root <= last_pgno:
            raise CorruptDatabase(f"root page {record.root} of the {name} tree is not in 2..{last_pgno}", pgno)
    return root


def is_meta(data: bytes) -> bool:
    """Return whether LMDB takes the bytes for a meta page (``mdb_env_read_header``): it looks at no field but these."""
    if len(data) < META_SIZE:
        return False
    flags = PAGE_HEADER.unpack_from(data, 0)[2]
    return bool(flags & META) and _META.unpack_from(data, HEADER_SIZE)[:2] == (MAGIC, DATA_VERSION)


def raw_txnid(data: bytes) -> int:
    """Return the transaction id of a meta page of which nothing is believed."""
    return int.from_bytes(data[144:META_SIZE], "little")


def _without_magic(data: bytes, pgno: int) -> NotADatabase | UnsupportedFormat:
    """Return the error for a meta page that has no magic number at 16: LMDB 1.0, and other machines, have it elsewhere."""
    if _LATER_META.unpack_from(data, 24)[0] == MAGIC:
        return _other_version(_LATER_META.unpack_from(data, 24)[1])
    if any(MAGIC.to_bytes(4, order) in data[:32] for order in _BYTE_ORDERS):
        return UnsupportedFormat("an LMDB file of a machine that is not a 64-bit little-endian one is not supported")
    return NotADatabase(f"no LMDB database: meta page {pgno} has no LMDB magic number")


def _other_version(version: int) -> UnsupportedFormat:
    return UnsupportedFormat(
        f"LMDB data version {version} is not supported (cowfs reads data version {DATA_VERSION}, that of LMDB 0.9)"
    )


def parse_root(data: bytes) -> Root:
    """Parse what ``meta[ROOT_BYTES]`` has kept of a meta page. Raises ``CorruptDatabase``."""
    free, main = TreeInfo.parse(data, 8), TreeInfo.parse(data, 56)
    last_pgno, txnid = _META_END.unpack_from(data, 104)
    return _checked(Root(txnid, free.pad, int.from_bytes(data[:8], "little"), last_pgno, free, main), None)


def pack_meta(root: Root, pgno: int) -> bytes:
    """Return the whole page ``pgno`` (0 or 1) that makes ``root`` the root of a data file, zeros after the fields."""
    page = (
        PAGE_HEADER.pack(pgno, 0, META, 0, 0)
        + _META.pack(MAGIC, DATA_VERSION, 0, root.map_size)
        + root.free.pack()
        + root.main.pack()
        + _META_END.pack(root.last_pgno, root.txnid)
    )
    return page.ljust(root.page_size, b"\0")


def node_offsets(page: bytes, pgno: int) -> array[int]:
    """Return the offsets of the nodes of a branch or leaf page, in key order, each of them inside the page."""
    lower, upper = PAGE_HEADER.unpack_from(page, 0)[3:]
    size = len(page)
    if not HEADER_SIZE <= lower <= upper <= size or lower & 1:
        raise CorruptDatabase(f"free space {lower}..{upper} does not fit a page of {size} bytes", pgno)
    offsets = array("H")
    offsets.frombytes(page[HEADER_SIZE:lower])
    if byteorder != "little":
        offsets.byteswap()
    if offsets and (min(offsets) < upper or max(offsets) > size - NODE_SIZE):
        raise CorruptDatabase("a node lies outside the page", pgno)
    return offsets


def free_path(meta: bytes) -> tuple[int, int]:
    """Return (depth, root page) of the freelist's tree from what ``meta[ROOT_BYTES]`` has kept of a meta page."""
    depth, pgno = _FREE_PATH.unpack_from(meta, 14)
    return depth, pgno


def last_child(page: bytes) -> int:
    """Return the page that the last node of a branch page leads to, unchecked. Raises ``struct.error``."""
    (lower,) = _U16.unpack_from(page, 12)
    (offset,) = _U16.unpack_from(page, lower - 2)
    return int.from_bytes(page[offset : offset + 6], "little")


def overflow_run(header: bytes, pgno: int) -> int:
    """Return how many pages the overflow run that begins with ``header`` has, itself included."""
    stored_pgno, _pad, flags, count = OVERFLOW_HEADER.unpack_from(header, 0)
    if stored_pgno != pgno or flags & (OVERFLOW | LEAF | BRANCH | META) != OVERFLOW or count < 1:
        raise CorruptDatabase(f"not an overflow page (number {stored_pgno}, flags {flags:#x}, length {count})", pgno)
    return int(count)
