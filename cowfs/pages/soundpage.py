"""One branch or leaf page of a plain tree held against all that LMDB relies on, and all that ``check`` demands of it.

LMDB believes its file: a node pointer that leads out of the page, or keys out of order, end in a crash or in wrong data.
``check`` demands the same, of whole trees of every kind, and goes on after the first demand that fails.
"""

from __future__ import annotations

from operator import ge
from typing import NamedTuple

from cowfs.errors import CorruptDatabase
from cowfs.pages.btree import Branch, parse_branch
from cowfs.pages.format import (
    BIG_DATA,
    HEADER_SIZE,
    LEAF_NODE,
    NODE_SIZE,
    PAGE_HEADER,
    SUB_DATA,
    TreeInfo,
    node_offsets,
)

_unpack_node = LEAF_NODE.unpack_from


class Leaf(NamedTuple):
    """A sound leaf page: its first and last key, its nodes with values on pages of their own, and how full it is.

    ``big`` is {key: (size, first page)}; ``used`` and ``largest`` are bytes, of the page and of its largest node.
    """

    first: bytes
    last: bytes
    big: dict[bytes, tuple[int, int]]
    used: int
    largest: int


def sound_branch(page: bytes, pgno: int, last_pgno: int, low: bytes | None, high: bytes | None, *, integers: bool) -> Branch:
    """Return the parsed branch page, whose keys lie in low <= key < high (None: no bound). Raises ``CorruptDatabase``.

    With ``integers`` the keys are little-endian numbers; they, and the bounds, are then compared as reversed bytes.
    """
    branch = parse_branch(page, pgno, last_pgno)
    offsets = node_offsets(page, pgno)
    ends = [offset + NODE_SIZE + len(key) for offset, key in zip(offsets, branch.keys, strict=True)]
    ends[0] += _unpack_node(page, offsets[0])[2]  # the first key says nothing, and the parsed branch does not have it
    _require_filled(page, pgno, list(offsets), ends)
    if integers:
        branch = Branch([key[::-1] for key in branch.keys], branch.children)
    elif len(branch.children) < 2:  # LMDB itself aborts at one, but in the freelist (mdb_page_search_root)
        raise CorruptDatabase("a branch page with a single child", pgno)
    _require_order(branch.keys[1:], pgno, low, high)
    return branch


def sound_leaf(page: bytes, pgno: int, low: bytes | None, high: bytes | None, *, integers: bool, main: bool) -> Leaf:
    """Return what a leaf page holds, whose keys lie in low <= key < high. Raises ``CorruptDatabase``.

    ``main`` says that it is of the main tree, in which there are records of named databases.
    """
    size = len(page)
    pointers = node_offsets(page, pgno)
    keys, ends, big = [], [], {}
    start = largest = 0
    for start in pointers:
        length, flags, key_size = _unpack_node(page, start)
        middle = start + NODE_SIZE + key_size
        end = middle + length
        key = page[start + NODE_SIZE : middle]
        if flags:
            if flags == BIG_DATA:
                end = middle + 8
                big[key] = length, int.from_bytes(page[middle:end], "little")
            elif not (main and flags == SUB_DATA and length == TreeInfo.SIZE):
                raise CorruptDatabase(f"a node with flags {flags:#x} and {length} bytes of data", pgno)
        if end - start > largest:
            largest = end - start
        keys.append(key)
        ends.append(end)
    if not keys:
        raise CorruptDatabase("a leaf page without entries", pgno)
    _require_filled(page, pgno, list(pointers), ends)
    if integers:
        if any(len(key) != 8 for key in keys):
            raise CorruptDatabase("a key that is no integer", pgno)
        keys = [key[::-1] for key in keys]
    _require_order(keys, pgno, low, high)
    return Leaf(keys[0], keys[-1], big, size - PAGE_HEADER.unpack_from(page, 0)[4] + 2 * len(keys) + HEADER_SIZE, largest)


def _require_filled(page: bytes, pgno: int, starts: list[int], ends: list[int]) -> None:
    """Nodes begin at even offsets, and lie side by side from ``upper`` to the end of the page."""
    starts.sort()
    ends.sort()
    if [PAGE_HEADER.unpack_from(page, 0)[4], *[end + (end & 1) for end in ends]] != [*starts, len(page)]:
        raise CorruptDatabase("its nodes do not lie side by side", pgno)


def _require_order(keys: list[bytes], pgno: int, low: bytes | None, high: bytes | None) -> None:
    if any(map(ge, keys, keys[1:])):
        raise CorruptDatabase("keys out of order", pgno)
    if keys and ((low is not None and keys[0] < low) or (high is not None and keys[-1] >= high)):
        raise CorruptDatabase("a key beyond the separators above it", pgno)
