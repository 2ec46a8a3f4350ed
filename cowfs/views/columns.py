"""``attributes/``: the database by columns, a file for each attribute.

attributes/<namespace>/<name>.tsv   the datoms of an attribute in the order of their values, one a line (``store.columns``)
attributes/<name>.tsv               those of an attribute without a namespace

A column is never made as a whole. A read begins where the index is known to begin some line: at one of the checkpoints,
which come to be while lines are made, or, where the end is much nearer, at one that is found from there backward.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property
from typing import Final

from cowfs.errors import NotFound
from cowfs.pages.reader import Reader
from cowfs.store.columns import Piece, pieces, starts_before
from cowfs.store.layout import stop_after
from cowfs.store.schema import Attribute
from cowfs.views import filenames
from cowfs.views.ground import DataNode, Ground
from cowfs.views.node import Attributes, Directory, Entry, File

SUFFIX: Final = ".tsv"
_SUFFIX_OF_DIRECTORY: Final = "%2Etsv"  # where a namespace ends like a file, so that it is none's name
_APART = 1 << 16  # bytes of lines between two checkpoints, at least


class AttributesDirectory(DataNode, Directory):
    """``attributes``: a directory for each namespace, and the columns without one."""

    def __init__(self, ground: Ground) -> None:
        super().__init__(ground, "attributes")

    def attributes(self) -> Attributes:
        """Return what stat(2) tells."""
        return Attributes(self.snapshot.mtime)

    def child(self, name: str) -> NamespaceDirectory | ColumnFile:
        """Return the namespace or the column ``name``, or raise ``NotFound``."""
        space = self._namespaces.get(name)
        return _column(self._ground, "", name) if space is None else NamespaceDirectory(self._ground, space)

    def entries(self) -> Iterator[Entry]:
        """Yield the namespaces, then the columns that have none."""
        for name, space in sorted(self._namespaces.items()):
            yield Entry(name, self._ground.inode("namespace", space.encode()), directory=True)
        yield from _entries(self._ground, "")

    @cached_property
    def _namespaces(self) -> dict[str, str]:
        spaces = {_split(name)[0] for name in self._ground.db.schema}
        return {_directory_name(space): space for space in spaces if space}


class NamespaceDirectory(DataNode, Directory):
    """``attributes/<namespace>``: a file for each attribute with that namespace."""

    def __init__(self, ground: Ground, namespace: str) -> None:
        super().__init__(ground, "namespace", namespace.encode())
        self._namespace = namespace

    def attributes(self) -> Attributes:
        """Return what stat(2) tells."""
        return Attributes(self.snapshot.mtime)

    def child(self, name: str) -> ColumnFile:
        """Return the column ``name``, or raise ``NotFound``."""
        return _column(self._ground, self._namespace, name)

    def entries(self) -> Iterator[Entry]:
        """Yield the columns."""
        return _entries(self._ground, self._namespace)


class ColumnFile(DataNode, File):
    """The lines of one attribute. It remembers where it was read last and where lines begin, so it is for one at a time."""

    def __init__(self, ground: Ground, attribute: Attribute) -> None:
        super().__init__(ground, "column", attribute.key)
        self._attribute = attribute

    @cached_property
    def size(self) -> int:
        """How many bytes all lines have."""
        return self._ground.db.column_size(self._attribute.name)

    def attributes(self) -> Attributes:
        """Return what stat(2) tells."""
        return Attributes(self.snapshot.mtime, self.size, -(-self.size // 512))

    def readinto(self, offset: int, buffer: memoryview) -> int:
        """Fill ``buffer`` from ``offset`` on; a read that goes on where the last one ended costs least."""
        return self._lines.readinto(offset, buffer)

    @cached_property
    def _lines(self) -> Lines:
        return Lines(self._ground.db.reader, self._attribute.key, self.size)


class Lines:
    """The lines of an attribute as bytes at any offset; ``size`` is how many there are.

    ``_piece`` are the lines that were made last; they begin at ``_at``. ``_offsets`` and ``_keys`` are the checkpoints: at
    this byte begins the line with which the index goes on at that key.
    """

    def __init__(self, reader: Reader, aid: bytes, size: int) -> None:
        self._reader = reader
        self._aid = aid
        self._size = size
        self._offsets = [0, size]
        self._keys = [aid, stop_after(aid)]
        self._rest: Iterator[Piece] = iter(())
        self._piece = b""
        self._at = 0

    def readinto(self, offset: int, buffer: memoryview) -> int:
        """Fill ``buffer`` from ``offset`` on; return how many bytes that were."""
        wanted = min(len(buffer), self._size - offset)
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
        """Make the piece that holds ``offset``, the shortest way; return whether there is one."""
        if not self._at <= offset < self._at + len(self._piece):
            self._begin_before(offset)
        while offset >= self._at + len(self._piece):
            if not self._advance():
                return False
        return True

    def _begin_before(self, offset: int) -> None:
        """Go to where making lines gets to ``offset`` soonest: not at all, a checkpoint, or one found backward."""
        index = bisect_right(self._offsets, offset) - 1
        going_on = self._at + len(self._piece)
        nearest = max(self._offsets[index], going_on if self._at < going_on <= offset else 0)
        if offset - nearest > 2 * (self._offsets[index + 1] - offset) + _APART:  # backward, every line is read twice
            self._look_back(index + 1, offset)
            index = bisect_right(self._offsets, offset) - 1
            nearest = max(nearest, self._offsets[index])
        if nearest != going_on or not self._piece:
            self._at = self._offsets[index]
            self._piece = b""
            self._rest = pieces(self._reader, self._keys[index], self._keys[-1])

    def _look_back(self, index: int, offset: int) -> None:
        """Find checkpoints from the one at ``index`` on backward, down to one that is not after ``offset``."""
        end, below = self._offsets[index], self._offsets[index - 1]
        for key, size in starts_before(self._reader, self._aid, self._keys[index - 1], self._keys[index]):
            at = end - size
            if at <= below:
                return
            if at <= offset or self._offsets[index] - at >= _APART:
                self._offsets.insert(index, at)
                self._keys.insert(index, key)
            if at <= offset:
                return

    def _advance(self) -> bool:
        """Make the next lines; return whether there are any."""
        piece = next(self._rest, None)
        if piece is None:
            return False
        self._at += len(self._piece)
        self._piece = piece.lines
        index = bisect_right(self._offsets, self._at)
        if piece.key is not None and self._at - self._offsets[index - 1] >= _APART and index < len(self._offsets):
            self._offsets.insert(index, self._at)
            self._keys.insert(index, piece.key)
        return True


def _split(attribute: str) -> tuple[str, str]:
    """Return the namespace of an attribute's name, empty when it has none, and its name in it."""
    space, _slash, name = attribute[1:].rpartition("/")
    return space, name


def _directory_name(namespace: str) -> str:
    name = filenames.encode(namespace)
    return filenames.encode(namespace[: -len(SUFFIX)], _SUFFIX_OF_DIRECTORY) if name.endswith(SUFFIX) else name


def _columns(ground: Ground, namespace: str) -> dict[str, Attribute]:
    """Return the attributes of a namespace by the names of their files."""
    split = ((_split(attribute.name), attribute) for attribute in ground.db.schema.values())
    return {filenames.encode(name, SUFFIX): attribute for (space, name), attribute in split if space == namespace}


def _column(ground: Ground, namespace: str, name: str) -> ColumnFile:
    attribute = _columns(ground, namespace).get(name)
    if attribute is None:
        raise NotFound(f"no column {name!r} here")
    return ColumnFile(ground, attribute)


def _entries(ground: Ground, namespace: str) -> Iterator[Entry]:
    for name, attribute in sorted(_columns(ground, namespace).items()):
        yield Entry(name, ground.inode("column", attribute.key), directory=False)
