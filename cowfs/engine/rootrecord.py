"""The record of the retained roots: what each commit keeps of those before it, packed, and the span of commits retained.

It is one value, in the page of the store's own state, which every commit writes anyway:

``cowfs``, key ``history/roots``, little endian, ``RootRecord``::

    0 nonce, 16 bytes (of the pin) | 16 horizon u64: the oldest retained txnid | 24 txnid u64 of the commit that wrote this
    32 counted u64, freed u64: how many pages the commits up to ``counted`` have freed since the history began
    48 let go u64: how many of these the commits up to the horizon have freed (where the horizon is the commit that wrote
    this, which gives up all before it: the commits before it)
    56 number of gaps u16, of roots u16, of levels u16, 2 bytes padding
    gaps, each first u64, last u64: commits that were not recorded
    roots, each bytes 32..152 of its meta page: the newest commit before this one (and the one before that, when somebody
    who does not record has committed in between)
    levels, each 8 times txnid u64, main root page u64: level k has the last 8 commits whose txnid is a multiple of 8**k

The root of an older commit is found in its successor's record, and that by the levels: the smallest txnid above it leads to
a root that is nearer, whose record leads on. Each step is a level down, so among 100,000 commits every one is at most seven
steps away. Giving up the oldest commits is one number, the horizon; nothing else has to be written or deleted, ever.

All keys that begin with ``history/`` belong to this file and not to its content: an image shows their values as zeros, so a
copy has no history, and begins its own.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from cowfs.engine.locktable import NONCE_SIZE
from cowfs.errors import CorruptDatabase, NotFound
from cowfs.pages.datafile import DataFile
from cowfs.pages.format import ROOT_SIZE, Root, parse_root
from cowfs.pages.image import Image

DATABASE: Final = b"cowfs"
OWN_KEYS: Final = b"history/"
OWN_KEYS_END: Final = b"history0"  # the first key after them
RECORD_KEY: Final = OWN_KEYS + b"roots"

NONCE: Final = slice(0, NONCE_SIZE)  # in the packed record, as the next ones
HORIZON: Final = slice(16, 24)
_TXNID: Final = slice(24, 32)
_COUNTS: Final = slice(56, 60)  # of gaps and roots
_PLAIN: Final = struct.pack("<HH", 0, 1)  # no gaps, one root
_HEAD = struct.Struct(f"<{NONCE_SIZE}sQQQQQHHHxx")
_LINK = struct.Struct("<QQ")
_LINKS_AT: Final = _HEAD.size + ROOT_SIZE  # then
_MAIN_ROOT: Final = slice(96, 104)  # of what is kept of a meta page: the first page of the main tree
_FAN_OUT: Final = 8
LEVEL_SIZE: Final = _FAN_OUT * _LINK.size


@dataclass(frozen=True, slots=True)
class Span:
    """The commits that are retained: txnids from ``horizon`` to ``newest``, without the ``gaps`` (first, last)."""

    horizon: int
    newest: int
    gaps: tuple[tuple[int, int], ...] = ()

    def __contains__(self, txnid: int) -> bool:
        return self.horizon <= txnid <= self.newest and not any(first <= txnid <= last for first, last in self.gaps)

    def __iter__(self) -> Iterator[int]:
        """Yield the txnids, ascending."""
        txnid = self.horizon
        for first, last in self.gaps:
            yield from range(txnid, first)
            txnid = max(txnid, last + 1)
        yield from range(txnid, self.newest + 1)

    def first_from(self, txnid: int) -> int:
        """Return the first retained txnid that is not below ``txnid``."""
        txnid = max(txnid, self.horizon)
        for first, last in self.gaps:
            if first <= txnid <= last:
                txnid = last + 1
        return txnid

    def __len__(self) -> int:
        return self.newest + 1 - self.horizon - sum(last + 1 - max(first, self.horizon) for first, last in self.gaps)


@dataclass(frozen=True, slots=True)
class RootRecord:
    """The value under ``history/roots``; the module documents its fields."""

    nonce: bytes
    horizon: int
    txnid: int
    counted: int
    freed: int
    let_go: int = 0
    gaps: tuple[tuple[int, int], ...] = ()
    roots: tuple[bytes, ...] = ()
    levels: tuple[bytes, ...] = ()

    def pack(self) -> bytes:
        """Return the value."""
        gaps, roots, levels = self.gaps, self.roots, self.levels
        head = _HEAD.pack(
            self.nonce,
            self.horizon,
            self.txnid,
            self.counted,
            self.freed,
            self.let_go,
            len(gaps),
            len(roots),
            len(levels),
        )
        return b"".join((head, *(_LINK.pack(*gap) for gap in gaps), *roots, *levels))

    @classmethod
    def parse(cls, data: bytes | None) -> RootRecord | None:
        """Parse the value; None when there is none, or only zeros: then there is no history. Raises ``CorruptDatabase``."""
        if data is None or not any(data[NONCE]):
            return None
        if len(data) < _HEAD.size:
            raise CorruptDatabase("the record of the retained roots is damaged")
        nonce, horizon, txnid, counted, freed, let_go, gaps, roots, levels = _HEAD.unpack_from(data)
        roots_at = _HEAD.size + gaps * _LINK.size
        levels_at = roots_at + roots * ROOT_SIZE
        end = levels_at + levels * LEVEL_SIZE
        if len(data) != end or not horizon <= txnid:
            raise CorruptDatabase("the record of the retained roots is damaged")
        return cls(
            nonce,
            horizon,
            txnid,
            counted,
            freed,
            let_go,
            tuple(_LINK.iter_unpack(data[_HEAD.size : roots_at])),
            tuple([data[at : at + ROOT_SIZE] for at in range(roots_at, levels_at, ROOT_SIZE)]),
            tuple([data[at : at + LEVEL_SIZE] for at in range(levels_at, end, LEVEL_SIZE)]),
        )

    def find(self, txnid: int) -> Root | None:
        """Return the root of ``txnid`` when this record has it."""
        for data in self.roots:
            root = parse_root(data)
            if root.txnid == txnid:
                return root
        return None

    def link_above(self, txnid: int) -> tuple[int, int]:
        """Return (txnid, main root page) of the commit above ``txnid`` that is nearest to it. Raises ``NotFound``."""
        links = [link for level in self.levels for link in _LINK.iter_unpack(level) if link[0] > txnid]
        if not links:
            raise NotFound(f"commit {txnid} is not recorded")
        return min(links)

    def gaps_at(self, newest: int) -> tuple[tuple[int, int], ...]:
        """Return the gaps as of the commit ``newest``: what others have committed is not recorded before our next."""
        return self.gaps if self.txnid >= newest else (*self.gaps, (self.txnid, newest - 1))

    def levels_above(self, horizon: int, newest: int) -> tuple[bytes, ...]:
        """Return the levels that are of use among the commits from ``horizon`` to ``newest``."""
        return self.levels[: 1 + _levels_for(newest - horizon)]

    def levels_with(self, meta: bytes) -> tuple[bytes, ...]:
        """Return the levels with a link to this record, which the root ``meta`` has in its tree."""
        link = self.txnid.to_bytes(8, "little") + meta[_MAIN_ROOT]
        if self.txnid % _FAN_OUT:  # seven times of eight
            first = self.levels[0] if self.levels else bytes(LEVEL_SIZE)
            return (first[_LINK.size :] + link, *self.levels[1:])
        result = list(self.levels)
        for level in range(1 + _levels_for(self.txnid - self.horizon)):
            if self.txnid % _FAN_OUT**level:
                break
            if level == len(result):
                result.append(bytes(LEVEL_SIZE))
            result[level] = result[level][_LINK.size :] + link
        return tuple(result)


def following(data: bytes, newest: int, meta: bytes) -> bytes | None:
    """Return the packed record of the commit after ``newest``, whose root ``meta`` has the packed record ``data``.

    None where more is new than that root and its links. It is what ``RootRecord`` does in full, for one commit of many, here
    without taking the record apart.
    """
    last = data[_TXNID]
    if last != newest.to_bytes(8, "little") or data[_COUNTS] != _PLAIN or data[HORIZON] == last:
        return None
    parts = [data[: _TXNID.start], (newest + 1).to_bytes(8, "little"), data[_TXNID.stop : _HEAD.size], meta]
    at, distance = _LINKS_AT, 1
    while newest % distance == 0:
        if at == len(data):
            return None  # a level is missing, as it seems
        parts += (data[at + _LINK.size : at + LEVEL_SIZE], last, meta[_MAIN_ROOT])
        at += LEVEL_SIZE
        distance *= _FAN_OUT
    parts.append(data[at:])
    return b"".join(parts)


def _levels_for(commits: int) -> int:
    """Return how many levels above the first are of use among so many commits."""
    levels = 0
    while commits >= _FAN_OUT ** (levels + 1):
        levels += 1
    return levels


def image_of(file: DataFile, root: Root, tag: int) -> Image:
    """Return the image of a root, in which the values under ``history/`` are zeros; ``tag`` as in ``Image``."""
    return Image(file, root, tag, [(DATABASE, OWN_KEYS, OWN_KEYS_END)])
