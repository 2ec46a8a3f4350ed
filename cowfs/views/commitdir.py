"""The directory of a commit, and the three files in it: ``data.mdb``, ``snapshot.json`` and ``schema.json``.

The same files appear in three places with different inodes: below ``snapshots/<txid>`` they are frozen, below ``live`` and
``snapshots/latest`` the path shows another commit later. ``commits.held`` says what is in them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import NamedTuple

from cowfs.commits.held import HeldCommit
from cowfs.errors import NotFound
from cowfs.views.node import Attributes, Directory, Entry, File, Node, Stability


class Placement(NamedTuple):
    """Where in the mount a snapshot appears: the inode of the directory (its files' follow), and for how long."""

    inode: int
    stability: Stability


class SnapshotDirectory(Directory):
    """A commit as a directory of ``data.mdb``, ``snapshot.json`` and ``schema.json``.

    It is made from the txid and the mtime; the snapshot itself is fetched when something in it is asked for.
    """

    def __init__(
        self, txid: int, mtime: int, fetch: Callable[[], HeldCommit], place: Placement, moving: str | None = None
    ) -> None:
        self.txid = txid
        self.inode = place.inode
        self.stability = place.stability
        self.moving = moving
        self._mtime = mtime
        self._fetch = fetch

    @classmethod
    def of(cls, snapshot: HeldCommit, place: Placement, moving: str | None = None) -> SnapshotDirectory:
        """Return the directory of a snapshot that is at hand."""
        return cls(snapshot.txid, snapshot.mtime, lambda: snapshot, place, moving)

    @cached_property
    def snapshot(self) -> HeldCommit:
        """The commit. Raises ``NotFound`` when it has been given up meanwhile."""
        return self._fetch()

    def attributes(self) -> Attributes:
        """Return what stat(2) tells."""
        return Attributes(self._mtime)

    def child(self, name: str) -> Node:
        """Return the file ``name``, or raise ``NotFound``."""
        if name == "data.mdb":
            return ImageFile(self.snapshot, Placement(self.inode + 1, self.stability))
        if name == "snapshot.json":
            return TextFile(self.snapshot, Placement(self.inode + 2, self.stability), self.snapshot.summary)
        if name == "schema.json" and self.snapshot.schema is not None:
            return TextFile(self.snapshot, Placement(self.inode + 3, self.stability), self.snapshot.schema)
        raise NotFound(f"no file {name!r} here")

    def entries(self) -> Iterator[Entry]:
        """Yield the files."""
        yield Entry("data.mdb", self.inode + 1, directory=False)
        if self.snapshot.db is not None:
            yield Entry("schema.json", self.inode + 3, directory=False)
        yield Entry("snapshot.json", self.inode + 2, directory=False)


class _SnapshotFile(File):
    """A file of a snapshot, at a place."""

    def __init__(self, snapshot: HeldCommit, place: Placement) -> None:
        self._snapshot = snapshot
        self.txid = snapshot.txid
        self.inode = place.inode
        self.stability = place.stability

    @property
    def snapshot(self) -> HeldCommit:
        """The commit."""
        return self._snapshot


class ImageFile(_SnapshotFile):
    """``data.mdb``: the image of the snapshot's root."""

    def attributes(self) -> Attributes:
        """Return what stat(2) tells; the blocks are those of the pages in use."""
        snapshot = self._snapshot
        return Attributes(snapshot.mtime, snapshot.image.size, snapshot.blocks)

    def readinto(self, offset: int, buffer: memoryview) -> int:
        """Fill ``buffer`` from ``offset`` on."""
        return self._snapshot.image.readinto(offset, buffer)


class TextFile(_SnapshotFile):
    """A small file whose whole content is at hand."""

    def __init__(self, snapshot: HeldCommit, place: Placement, content: bytes) -> None:
        super().__init__(snapshot, place)
        self._content = content

    def attributes(self) -> Attributes:
        """Return what stat(2) tells."""
        size = len(self._content)
        return Attributes(self._snapshot.mtime, size, -(-size // 512))

    def readinto(self, offset: int, buffer: memoryview) -> int:
        """Fill ``buffer`` from ``offset`` on."""
        piece = self._content[offset : offset + len(buffer)]
        buffer[: len(piece)] = piece
        return len(piece)
