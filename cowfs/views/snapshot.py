"""``Snapshot``: one commit, held, and the three files that every directory of a commit has.

- ``data.mdb``: the image of the root;
- ``snapshot.json``: which commit this is: ``txid``, ``instant`` (ISO 8601, UTC), ``pages``, ``page_size`` and ``bytes`` of
  the image, and ``datoms`` when the environment is a cowfs store;
- ``schema.json``: the attributes, in the form that ``cowfs init --schema`` reads; only in a cowfs store.

Each JSON document ends in so many spaces that its size is the txid modulo 256: like the padding of an image, it lets rsync,
which goes by size and whole-second mtime, tell two commits of one second apart.

The same files appear in three places with different inodes: below ``snapshots/<txid>`` they are frozen, below ``live`` and
``snapshots/latest`` the path shows another commit later.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from functools import cached_property
from typing import NamedTuple

from cowfs.errors import CowfsError, NotFound
from cowfs.pages.env import Env
from cowfs.pages.hold import Hold
from cowfs.pages.image import Image, pages_in_use
from cowfs.store.db import store_at
from cowfs.store.values import instant_text
from cowfs.views.node import Attributes, Directory, Entry, File, Node, Stability

_SIZES = 256  # enough to tell commits of one second apart, and few enough blanks for a terminal


class Snapshot:
    """One commit, held by whoever retained it; when the last has released it, its root is let go."""

    def __init__(self, env: Env, hold: Hold) -> None:
        """Take over ``hold``: it is closed when the snapshot is released for the last time, or when this raises."""
        self.root = hold.root
        self.hold = hold
        self._users = 1
        try:
            self.db = store_at(hold, hold.root.txnid)
            self.txid = self.root.txnid if self.db is None else self.db.txid
            self.instant = self._find_instant(env)
        except CowfsError:
            hold.close()
            raise
        self.mtime = int(self.instant.timestamp())
        self.image = Image(env.file, self.root, self.txid)

    def _find_instant(self, env: Env) -> datetime:
        """Return when the commit was made; a foreign environment does not say, there the file's mtime must do."""
        if self.db is not None and self.db.instant is not None:
            return self.db.instant
        return datetime.fromtimestamp(int(env.file.status().st_mtime), timezone.utc)

    @property
    def used(self) -> bool:
        """Whether anybody beside the history has retained the snapshot."""
        return self._users > 1

    def retain(self) -> Snapshot:
        """Hold the snapshot once more; each retain needs its release."""
        self._users += 1
        return self

    def release(self) -> None:
        """Give up one hold; with the last one the root is let go."""
        self._users -= 1
        if self._users == 0:
            self.hold.close()

    @cached_property
    def blocks(self) -> int:
        """The pages in use, in units of 512 bytes."""
        return pages_in_use(self.hold) * self.root.page_size // 512

    @cached_property
    def summary(self) -> bytes:
        """The content of ``snapshot.json``."""
        document: dict[str, object] = {
            "txid": self.txid,
            "instant": instant_text(self.instant),
            "pages": self.root.pages,
            "page_size": self.root.page_size,
            "bytes": self.image.size,
        }
        if self.db is not None:
            document["datoms"] = self.db.datom_count
        return _document(document, self.txid)

    @cached_property
    def schema(self) -> bytes | None:
        """The content of ``schema.json``; None when the environment is no cowfs store."""
        return None if self.db is None else _document(self.db.schema.to_json(), self.txid)


class Place(NamedTuple):
    """Where in the mount a snapshot appears: the inode of the directory (its files' follow), and for how long."""

    inode: int
    stability: Stability


class SnapshotDirectory(Directory):
    """A commit as a directory of ``data.mdb``, ``snapshot.json`` and ``schema.json``.

    It is made from the txid and the mtime; the snapshot itself is fetched when something in it is asked for.
    """

    def __init__(
        self, txid: int, mtime: int, fetch: Callable[[], Snapshot], place: Place, moving: str | None = None
    ) -> None:
        self.txid = txid
        self.inode = place.inode
        self.stability = place.stability
        self.moving = moving
        self._mtime = mtime
        self._fetch = fetch

    @classmethod
    def of(cls, snapshot: Snapshot, place: Place, moving: str | None = None) -> SnapshotDirectory:
        """Return the directory of a snapshot that is at hand."""
        return cls(snapshot.txid, snapshot.mtime, lambda: snapshot, place, moving)

    @cached_property
    def snapshot(self) -> Snapshot:
        """The commit. Raises ``NotFound`` when it has been given up meanwhile."""
        return self._fetch()

    def attributes(self) -> Attributes:
        """Return what stat(2) tells."""
        return Attributes(self._mtime)

    def child(self, name: str) -> Node:
        """Return the file ``name``, or raise ``NotFound``."""
        if name == "data.mdb":
            return ImageFile(self.snapshot, Place(self.inode + 1, self.stability))
        if name == "snapshot.json":
            return TextFile(self.snapshot, Place(self.inode + 2, self.stability), self.snapshot.summary)
        if name == "schema.json" and self.snapshot.schema is not None:
            return TextFile(self.snapshot, Place(self.inode + 3, self.stability), self.snapshot.schema)
        raise NotFound(f"no file {name!r} here")

    def entries(self) -> Iterator[Entry]:
        """Yield the files."""
        yield Entry("data.mdb", self.inode + 1, directory=False)
        if self.snapshot.db is not None:
            yield Entry("schema.json", self.inode + 3, directory=False)
        yield Entry("snapshot.json", self.inode + 2, directory=False)


class _SnapshotFile(File):
    """A file of a snapshot, at a place."""

    def __init__(self, snapshot: Snapshot, place: Place) -> None:
        self._snapshot = snapshot
        self.txid = snapshot.txid
        self.inode = place.inode
        self.stability = place.stability

    @property
    def snapshot(self) -> Snapshot:
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

    def __init__(self, snapshot: Snapshot, place: Place, content: bytes) -> None:
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


def _document(content: object, txid: int) -> bytes:
    """Return ``content`` as JSON, sorted and indented, with the padding that tells two commits apart."""
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False).encode()
    padding = (txid - len(text) - 1) % _SIZES
    return text + b" " * padding + b"\n"
