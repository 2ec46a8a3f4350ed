"""Numbered JSON documents: in a directory of blocks of a thousand, each a file.

Both trees that number what they hold (``entities`` by entity id, ``log`` by txid) look alike::

    1000-1999/1042.json     blocks are listed when they hold anything, and what they hold
    1042.json               the same document, not listed

What was rendered last is remembered, for the stat, the open and the next stat of one document. Not safe for several threads
at once: the mount takes turns.
"""

from __future__ import annotations

import json
from abc import abstractmethod
from collections import OrderedDict
from collections.abc import Iterator
from itertools import count
from typing import Final, NamedTuple
from weakref import WeakKeyDictionary

from cowfs import ids as txids
from cowfs.commits.held import HeldCommit
from cowfs.errors import CorruptDatabase, NotFound
from cowfs.store.model.layout import LOG, number_key
from cowfs.store.read.log import row_instant
from cowfs.views.context import CommitContext, DataNode
from cowfs.views.node import Attributes, Directory, Entry, File, Node

BLOCK: Final = 1000
SUFFIX: Final = ".json"

_MAX_REMEMBERED = 1 << 25  # bytes
_OVERHEAD = 1 << 9  # bytes that a document takes beside its content
_MAX_KNOWN = 1 << 16

to_text = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


class Rendered(NamedTuple):
    """A document's bytes, and when it was made, in whole seconds."""

    content: bytes
    mtime: int


class _Known(NamedTuple):
    """What is remembered of a snapshot: a number that no other has, when its transactions were, and blocks that it has."""

    number: int
    seconds: dict[int, int]
    blocks: set[tuple[str, int]]


class _Remembered:
    """The documents that were rendered last, by snapshot, kind and number; all of them together within a bound."""

    def __init__(self) -> None:
        self._documents: OrderedDict[tuple[int, str, int], Rendered] = OrderedDict()  # the least recently used first
        self.bytes = 0

    def get(self, key: tuple[int, str, int]) -> Rendered | None:
        found = self._documents.get(key)
        if found is not None:
            self._documents.move_to_end(key)
        return found

    def add(self, key: tuple[int, str, int], document: Rendered) -> None:
        if key in self._documents or _size_of(document) > _MAX_REMEMBERED:
            return
        self._documents[key] = document
        self.bytes += _size_of(document)
        while self.bytes > _MAX_REMEMBERED:
            self.bytes -= _size_of(self._documents.popitem(last=False)[1])


def _size_of(document: Rendered) -> int:
    return len(document.content) + _OVERHEAD


_numbers = count()
_known: WeakKeyDictionary[HeldCommit, _Known] = WeakKeyDictionary()
_remembered = _Remembered()


def recall(snapshot: HeldCommit, kind: str, number: int) -> Rendered | None:
    """Return the document ``number`` of a kind at a commit when it was rendered a moment ago, else None."""
    return _remembered.get((_of(snapshot).number, kind, number))


def remember(snapshot: HeldCommit, kind: str, number: int, document: Rendered) -> None:
    """Keep a document for a moment."""
    _remembered.add((_of(snapshot).number, kind, number), document)


def seconds_of(snapshot: HeldCommit, txid: int) -> int:
    """Return when a transaction was, in whole seconds, from the log of a commit that has it."""
    seconds = _of(snapshot).seconds
    found = seconds.get(txid)
    if found is None:
        row = snapshot.hold.get(LOG, number_key(txid))
        found = snapshot.mtime if row is None else row_instant(row) // 1_000_000
        if len(seconds) >= _MAX_KNOWN:
            seconds.clear()
        seconds[txid] = found
    return found


def number_of(name: str) -> int | None:
    """Return the number of which ``name`` is the document, None when it is none."""
    return txids.parse(name[: -len(SUFFIX)]) if name.endswith(SUFFIX) else None


def block_name(number: int) -> str:
    """Return the name of the block in which a number is."""
    start = number - number % BLOCK
    return f"{start}-{start + BLOCK - 1}"


class Document(DataNode, File):
    """A file whose content is at hand."""

    def __init__(self, context: CommitContext, kind: str, key: bytes | int, document: Rendered) -> None:
        super().__init__(context, kind, key)
        self._document = document

    def attributes(self) -> Attributes:
        """Return what stat(2) tells."""
        size = len(self._document.content)
        return Attributes(self._document.mtime, size, -(-size // 512))

    def readinto(self, offset: int, buffer: memoryview) -> int:
        """Fill ``buffer`` from ``offset`` on."""
        piece = self._document.content[offset : offset + len(buffer)]
        buffer[: len(piece)] = piece
        return len(piece)


class DatedDirectory(DataNode, Directory):
    """A directory that is as old as its commit."""

    def attributes(self) -> Attributes:
        """Return what stat(2) tells."""
        return Attributes(self.snapshot.mtime)


class BlocksDirectory(DatedDirectory):
    """A directory of blocks. Who derives from it says which numbers there are, and makes their documents."""

    def __init__(self, context: CommitContext, kind: str) -> None:
        super().__init__(context, kind)
        self.context = context
        self.kind = kind

    @abstractmethod
    def numbers(self, start: int, stop: int | None = None) -> Iterator[int]:
        """Yield the numbers that have a document, start <= number < stop, ascending. The first comes at once."""

    @abstractmethod
    def document(self, number: int) -> File:
        """Return the document of a number, of ``document_inode``; raise ``NotFound``."""

    @property
    def document_kind(self) -> str:
        """What the inodes of the documents are made from, with their numbers."""
        return f"{self.kind}/document"

    def document_inode(self, number: int) -> int:
        """Return the inode of a number's document, wherever it appears."""
        return self.context.inode(self.document_kind, number)

    def block_inode(self, start: int) -> int:
        """Return the inode of a block."""
        return self.context.inode(f"{self.kind}/block", start)

    def child(self, name: str) -> Node:
        """Return a block, or a document, or raise ``NotFound``."""
        number = number_of(name)
        if number is not None:
            return self.document(number)
        start = txids.parse(name.partition("-")[0])
        if start is None or name != block_name(start):
            raise NotFound(f"no {name!r} here")
        blocks = _of(self.snapshot).blocks
        if (self.kind, start) not in blocks:
            if next(self.numbers(start, start + BLOCK), None) is None:
                raise NotFound(f"nothing in {name}")
            if len(blocks) >= _MAX_KNOWN:
                blocks.clear()
            blocks.add((self.kind, start))
        return BlockDirectory(self, start)

    def entries(self) -> Iterator[Entry]:
        """Yield the blocks that hold anything."""
        start = 0
        while (found := next(self.numbers(start), None)) is not None:
            if found < start:
                raise CorruptDatabase(f"{self.kind}: the keys are not in order at {found}")
            start = found - found % BLOCK
            yield Entry(block_name(start), self.block_inode(start), directory=True)
            start += BLOCK


class BlockDirectory(DatedDirectory):
    """A block of a thousand numbers: the documents of those that there are."""

    def __init__(self, blocks: BlocksDirectory, start: int) -> None:
        super().__init__(blocks.context, f"{blocks.kind}/block", start)
        self._blocks = blocks
        self._start = start

    def child(self, name: str) -> Node:
        """Return a document, or raise ``NotFound``."""
        number = number_of(name)
        if number is None or not self._start <= number < self._start + BLOCK:
            raise NotFound(f"no {name!r} here")
        return self._blocks.document(number)

    def entries(self) -> Iterator[Entry]:
        """Yield the documents."""
        blocks = self._blocks
        for number in blocks.numbers(self._start, self._start + BLOCK):
            yield Entry(f"{number}{SUFFIX}", blocks.document_inode(number), directory=False)


def _of(snapshot: HeldCommit) -> _Known:
    known = _known.get(snapshot)
    if known is None:
        known = _known[snapshot] = _Known(next(_numbers), {}, set())
    return known
