"""``Tree``: the whole mount as directories, and the way from a path to a node.

/live                 the newest commit at each look
/snapshots/latest     the commit that the caller says is its latest (a process walking it is bound to one: see mount)
/snapshots/<txid>     a commit, frozen
"""

from __future__ import annotations

from collections.abc import Iterator

from cowfs import txid as txids
from cowfs.errors import NotFound
from cowfs.views.history import History
from cowfs.views.node import Attributes, Directory, Node
from cowfs.views.snapshot import Place, Snapshot, SnapshotDirectory

# Inodes of paths that show another commit later stay the same (find and cp give up on a directory whose inode changes
# under them); those of a frozen commit are its own.
_TOP = 1
_SNAPSHOTS = 2
_LIVE = Place(16, frozen=False)
_LATEST = Place(32, frozen=False)


def frozen_place(txid: int) -> Place:
    """Return the place of the commit ``txid`` below ``snapshots/``: an inode of its own, room for its files' after it."""
    return Place((txid + 1) << 8, frozen=True)


class Tree:
    """All directories of the mount. ``latest`` below is what ``snapshots/latest`` shows to the one who asks."""

    def __init__(self, history: History) -> None:
        self.history = history

    def node(self, path: str, latest: Snapshot) -> Node:
        """Return what ``path`` (absolute within the mount) leads to; raise ``NotFound``."""
        node: Node = TopDirectory(self.history, latest)
        for name in path.split("/"):
            if not name:
                continue
            if not isinstance(node, Directory):
                raise NotFound(f"{path}: not a directory on the way")
            node = node.child(name)
        return node


class _Commits(Directory):
    """A directory above those of the commits: it is as old as the newest of them."""

    def __init__(self, history: History, latest: Snapshot) -> None:
        self._history = history
        self._latest = latest

    def attributes(self) -> Attributes:
        """Return what stat(2) tells."""
        return Attributes(self._history.newest().mtime)


class TopDirectory(_Commits):
    """The mount point itself."""

    inode = _TOP

    def child(self, name: str) -> Node:
        """Return ``live`` or ``snapshots``, or raise ``NotFound``."""
        if name == "live":
            return SnapshotDirectory(self._history.newest(), _LIVE)
        if name == "snapshots":
            return SnapshotsDirectory(self._history, self._latest)
        raise NotFound(f"no {name!r} here")

    def children(self) -> Iterator[tuple[str, Node]]:
        """Yield both directories."""
        for name in ("live", "snapshots"):
            yield name, self.child(name)


class SnapshotsDirectory(_Commits):
    """``snapshots/``: a directory for every commit that the history has, by txid, and ``latest``."""

    inode = _SNAPSHOTS

    def child(self, name: str) -> Node:
        """Return ``latest`` or the commit that ``name`` spells, or raise ``NotFound``."""
        if name == "latest":
            return SnapshotDirectory(self._latest, _LATEST)
        txid = txids.parse(name)
        if txid is None:
            raise NotFound(f"no snapshot {name!r}")
        return SnapshotDirectory(self._history.get(txid), frozen_place(txid))

    def children(self) -> Iterator[tuple[str, Node]]:
        """Yield the commits by txid, then ``latest``."""
        for snapshot in self._history.snapshots():  # not by txid again: one of them may be retired by then
            yield str(snapshot.txid), SnapshotDirectory(snapshot, frozen_place(snapshot.txid))
        yield "latest", self.child("latest")
