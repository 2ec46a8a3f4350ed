"""``attributes/``: the database by columns, a file for each attribute.

attributes/<namespace>/<name>.tsv   the datoms of an attribute in the order of their values, one a line (``store.lines``)
attributes/<name>.tsv               those of an attribute without a namespace

A column is never made as a whole. A read begins where the index is known to begin some line: at one of the checkpoints,
which come to be while lines are made. Where none is near, the lines from the nearest one on, before or after, are counted.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Final
from weakref import WeakKeyDictionary

from cowfs.commits.held import HeldCommit
from cowfs.errors import NotFound
from cowfs.store.model.layout import stop_after
from cowfs.store.model.schema import Attribute
from cowfs.store.read.db import Db
from cowfs.store.read.tsv import pieces, starts
from cowfs.views import filenames
from cowfs.views.context import CommitContext, DataNode
from cowfs.views.node import Attributes, Directory, Entry, File

SUFFIX: Final = ".tsv"
_SUFFIX_OF_DIRECTORY: Final = "%2Etsv"  # where a namespace ends like a file, so that it is none's name
_APART = 1 << 16  # bytes of lines between two checkpoints, at least


class AttributesDirectory(DataNode, Directory):
    """``attributes``: a directory for each namespace, and the columns without one."""

    def __init__(self, context: CommitContext) -> None:
        super().__init__(context, "attributes")

    def attributes(self) -> Attributes:
        """Return what stat(2) tells."""
        return Attributes(self.snapshot.mtime)

    def child(self, name: str) -> NamespaceDirectory | ColumnFile:
        """Return the namespace or the column ``name``, or raise ``NotFound``."""
        space = self._namespaces.get(name)
        return _column(self._context, "", name) if space is None else NamespaceDirectory(self._context, space)

    def entries(self) -> Iterator[Entry]:
        """Yield the namespaces, then the columns that have none."""
        for name, space in sorted(self._namespaces.items()):
            yield Entry(name, self._context.inode("namespace", space.encode()), directory=True)
        yield from _entries(self._context, "")

    @cached_property
    def _namespaces(self) -> dict[str, str]:
        spaces = {_split(name)[0] for name in self._context.db.schema}
        return {_directory_name(space): space for space in spaces if space}


class NamespaceDirectory(DataNode, Directory):
    """``attributes/<namespace>``: a file for each attribute with that namespace."""

    def __init__(self, context: CommitContext, namespace: str) -> None:
        super().__init__(context, "namespace", namespace.encode())
        self._namespace = namespace

    def attributes(self) -> Attributes:
        """Return what stat(2) tells."""
        return Attributes(self.snapshot.mtime)

    def child(self, name: str) -> ColumnFile:
        """Return the column ``name``, or raise ``NotFound``."""
        return _column(self._context, self._namespace, name)

    def entries(self) -> Iterator[Entry]:
        """Yield the columns."""
        return _entries(self._context, self._namespace)


class ColumnFile(DataNode, File):
    """The lines of one attribute. It remembers where it was read last, so it is for one at a time."""

    def __init__(self, context: CommitContext, attribute: Attribute) -> None:
        super().__init__(context, "column", attribute.key)
        self._attribute = attribute

    @cached_property
    def size(self) -> int:
        """How many bytes all lines have."""
        return self._context.db.column_size(self._attribute.name)

    def attributes(self) -> Attributes:
        """Return what stat(2) tells."""
        return Attributes(self.snapshot.mtime, self.size, -(-self.size // 512))

    def readinto(self, offset: int, buffer: memoryview) -> int:
        """Fill ``buffer`` from ``offset`` on; a read that goes on where the last one ended costs least."""
        return self._lines.readinto(offset, buffer)

    @cached_property
    def _lines(self) -> Lines:
        known = _checkpoints.setdefault(self.snapshot, {})
        key = self._attribute.key
        return Lines(self._context.db, known.setdefault(key, Checkpoints.of(key, self.size)))


@dataclass
class Checkpoints:
    """Where lines of a column begin: at byte ``offsets[i]`` that with which the index goes on at ``keys[i]``.

    The first are the column's beginning, the last its end. Others come to be while it is read, for whoever reads it next.
    """

    offsets: list[int]
    keys: list[bytes]

    @classmethod
    def of(cls, aid: bytes, size: int) -> Checkpoints:
        """Return what is known of the column of ``size`` bytes of an attribute before it is read."""
        return cls([0, size], [aid, stop_after(aid)])

    def before(self, offset: int) -> int:
        """Return the index of the last that is not after ``offset``, and not the end."""
        return min(bisect_right(self.offsets, offset), len(self.offsets) - 1) - 1

    def add(self, offset: int, key: bytes) -> None:
        """Remember one more, unless there is one so near that nobody needs it."""
        index = self.before(offset)
        if offset - self.offsets[index] >= _APART and offset < self.offsets[index + 1]:
            self.offsets.insert(index + 1, offset)
            self.keys.insert(index + 1, key)


_checkpoints: WeakKeyDictionary[HeldCommit, dict[bytes, Checkpoints]] = WeakKeyDictionary()


class Lines:
    """The lines of an attribute as bytes at any offset.

    ``_piece`` are the lines that were made last; they begin at ``_at``.
    """

    def __init__(self, db: Db, known: Checkpoints) -> None:
        self._reader = db.reader
        self._known = known
        self._rest = pieces(self._reader, known.keys[0], known.keys[-1])
        self._piece = b""
        self._at = 0

    def readinto(self, offset: int, buffer: memoryview) -> int:
        """Fill ``buffer`` from ``offset`` on; return how many bytes that were."""
        wanted = min(len(buffer), self._known.offsets[-1] - offset)
        filled = 0
        if wanted > 0 and not self._seek(offset):
            return 0
        while filled < wanted:
            start = offset + filled - self._at
            if start >= len(self._piece):
                if not self._advance():
                    break
                continue
            found = self._piece[start : start + wanted - filled]
            buffer[filled : filled + len(found)] = found
            filled += len(found)
        return max(filled, 0)

    def _seek(self, offset: int) -> bool:
        """Make the piece that holds ``offset``; return whether there is one."""
        end = self._at + len(self._piece)
        if not self._at <= offset < end + _APART:  # else it is at hand, or comes soon
            self._begin_before(offset)
        while offset >= self._at + len(self._piece):
            if not self._advance():
                return False
        return True

    def _begin_before(self, offset: int) -> None:
        """Begin to make lines at a checkpoint near ``offset``; find one when there is none, from whichever end is nearer."""
        known = self._known
        index = known.before(offset)
        start, stop = known.offsets[index : index + 2]
        if offset - start > 2 * _APART:
            reverse = stop - offset < offset - start
            for key, size in starts(self._reader, *known.keys[index : index + 2], reverse=reverse):
                at = stop - size if reverse else start + size
                if at > offset and not reverse:
                    break
                known.add(at, key)
                if at <= offset and reverse:
                    break
            index = known.before(offset)
        self._at = known.offsets[index]
        self._piece = b""
        self._rest = pieces(self._reader, known.keys[index], known.keys[-1])

    def _advance(self) -> bool:
        """Make the next lines; return whether there are any."""
        piece = next(self._rest, None)
        if piece is None:
            return False
        self._at += len(self._piece)
        self._piece = piece.lines
        if piece.key is not None:
            self._known.add(self._at, piece.key)
        return True


def _split(attribute: str) -> tuple[str, str]:
    """Return the namespace of an attribute's name, empty when it has none, and its name in it."""
    space, _slash, name = attribute[1:].rpartition("/")
    return space, name


def _directory_name(namespace: str) -> str:
    name = filenames.encode(namespace)
    return filenames.encode(namespace[: -len(SUFFIX)], _SUFFIX_OF_DIRECTORY) if name.endswith(SUFFIX) else name


def _columns(context: CommitContext, namespace: str) -> dict[str, Attribute]:
    """Return the attributes of a namespace by the names of their files."""
    split = ((_split(attribute.name), attribute) for attribute in context.db.schema.values())
    return {filenames.encode(name, SUFFIX): attribute for (space, name), attribute in split if space == namespace}


def _column(context: CommitContext, namespace: str, name: str) -> ColumnFile:
    attribute = _columns(context, namespace).get(name)
    if attribute is None:
        raise NotFound(f"no column {name!r} here")
    return ColumnFile(context, attribute)


def _entries(context: CommitContext, namespace: str) -> Iterator[Entry]:
    for name, attribute in sorted(_columns(context, namespace).items()):
        yield Entry(name, context.inode("column", attribute.key), directory=False)
