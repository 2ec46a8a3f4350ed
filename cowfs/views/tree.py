"""``Tree``: the whole mount as directories, and the way from a path to a node.

/live                    the newest commit at each look, as an image and as data
/snapshots/latest        the newest commit for who lists it; a process walking it is bound to one (see mount)
/snapshots/<txid>        a commit, frozen
/snapshots/<name>        a commit that somebody has named
/snapshots/at/<instant>  the last commit at or before an instant in ISO 8601, UTC unless it says otherwise; never listed
/snapshots/ago/<time>    the last commit at or before so long ago (5m, 1h30m, 7d); never listed
/browse                  the same commits as data, in a store; of those with a txid all resolve, and none is listed
"""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Final

from cowfs import ids as txids
from cowfs.commits.commits import Commits
from cowfs.commits.held import HeldCommit
from cowfs.errors import InputError, NotFound, ReadOnly
from cowfs.store.history import finding
from cowfs.store.history.named import RESERVED
from cowfs.store.model import clock
from cowfs.views.browse import DataDirectory, LiveDirectory, inode_of_commit
from cowfs.views.commitdir import Placement, SnapshotDirectory
from cowfs.views.logs import CurrentLog
from cowfs.views.node import Attributes, Directory, Entry, Node, Stability

# Inodes of paths that show another commit later stay the same (find and cp give up on a directory whose inode changes
# under them); those of a frozen commit are its own.
_TOP: Final = 1
_SNAPSHOTS: Final = 2
_AT: Final = 3
_AGO: Final = 4
_BROWSE: Final = 5
_BROWSE_AT: Final = 6
_BROWSE_AGO: Final = 7
_LIVE = Placement(16, Stability.MOVING)
_LATEST = Placement(32, Stability.MOVING)
_OF_NAMES: Final = 1 << 62

Resolver = Callable[[str, Callable[[], HeldCommit]], HeldCommit]
"""What a moving directory shows to the one who asks: given its name, and how to find what it would show anew."""


def frozen_place(txid: int) -> Placement:
    """Return the place of the commit ``txid`` below ``snapshots/``: an inode of its own, room for its files' after it."""
    return Placement((txid + 1) << 8, Stability.FROZEN)


def unbound(_name: str, resolve: Callable[[], HeldCommit]) -> HeldCommit:
    """See every moving directory as it is now."""
    return resolve()


class Tree:
    """All directories of the mount."""

    def __init__(self, history: Commits) -> None:
        self.history = history
        self._current = CurrentLog(history.newest)

    def node(self, path: str, resolver: Resolver = unbound) -> Node:
        """Return what ``path`` (absolute within the mount) leads to; raise ``NotFound``."""
        node: Node = TopDirectory(self.history, resolver, self._current)
        for name in path.split("/"):
            if not name:
                continue
            if not isinstance(node, Directory):
                raise NotFound(f"{path}: not a directory on the way")
            node = node.child(name)
        return node

    def make(self, path: str, owner: str) -> None:
        """Make the directory ``path``: name the newest commit. Raises ``ReadOnly`` anywhere but in ``snapshots/``."""
        self.history.name(_name_in_snapshots(path), owner)

    def remove(self, path: str) -> None:
        """Remove the directory ``path``: give a name back. Raises ``ReadOnly``, ``NotFound``."""
        name = _name_in_snapshots(path)
        if txids.parse(name) is not None or name in RESERVED:
            raise ReadOnly(f"{path} is no name that could be given back")
        self.history.unname(name)


class _Commits(Directory):
    """A directory above those of the commits: it is as old as the newest of them."""

    def __init__(self, history: Commits, resolver: Resolver) -> None:
        self._history = history
        self._resolver = resolver

    def attributes(self) -> Attributes:
        """Return what stat(2) tells."""
        return Attributes(self._history.newest().mtime)

    def entries(self) -> Iterator[Entry]:
        """Yield nothing: there is too much, or too little, to list."""
        return iter(())


class TopDirectory(_Commits):
    """The mount point itself."""

    inode = _TOP

    def __init__(self, history: Commits, resolver: Resolver, current: CurrentLog) -> None:
        super().__init__(history, resolver)
        self._current = current

    def child(self, name: str) -> Node:
        """Return ``live``, ``snapshots`` or ``browse``, or raise ``NotFound``."""
        if name == "live":
            return LiveDirectory(self._history, self._history.newest(), _LIVE, self._current)
        if name == "snapshots":
            return SnapshotsDirectory(self._history, self._resolver)
        if name == "browse" and self._history.of_store:
            return BrowseDirectory(self._history, self._resolver)
        raise NotFound(f"no {name!r} here")

    def entries(self) -> Iterator[Entry]:
        """Yield the directories."""
        if self._history.of_store:
            yield Entry("browse", _BROWSE, directory=True)
        yield Entry("live", _LIVE.inode, directory=True)
        yield Entry("snapshots", _SNAPSHOTS, directory=True)


class _ByCommit(_Commits):
    """A directory with a directory for every commit, by txid, by name, and by time."""

    moments: tuple[int, int]  # the inodes of at/ and ago/ in it

    def child(self, name: str) -> Node:
        """Return the directory of a commit, ``at`` or ``ago``, or raise ``NotFound``."""
        txid = txids.parse(name)
        if txid is not None:
            return self.frozen(txid)
        if name == "latest":
            return self.bound("latest", self._history.newest)
        if name in ("at", "ago"):
            return MomentsDirectory(self._history, self._resolver, self, name)
        directory = self.shown(self._history.named(name), name, Stability.NAMED)
        directory.deleted = not self._history.has_name(name)
        return directory

    def bound(self, name: str, resolve: Callable[[], HeldCommit]) -> Directory:
        """Return the directory of the commit that the moving directory ``name`` shows to the one who asks."""
        return self.shown(self._resolver(name, resolve), name, Stability.MOVING)

    @abstractmethod
    def frozen(self, txid: int) -> Directory:
        """Return the directory of the commit ``txid``, or raise ``NotFound``."""

    @abstractmethod
    def shown(self, snapshot: HeldCommit, name: str, stability: Stability) -> Directory:
        """Return the directory ``name``, which shows ``snapshot`` now."""


class SnapshotsDirectory(_ByCommit):
    """``snapshots/``: the commits as images; every commit is listed."""

    inode = _SNAPSHOTS
    moments = (_AT, _AGO)

    def frozen(self, txid: int) -> Directory:
        """Return the directory of the commit ``txid``; its root is not looked for before something in it is."""
        history = self._history
        return SnapshotDirectory(txid, history.mtime(txid), lambda: history.get(txid), frozen_place(txid))

    def shown(self, snapshot: HeldCommit, name: str, stability: Stability) -> Directory:
        """Return the directory ``name``."""
        place = _LATEST if name == "latest" else _named_place(name, stability)
        return SnapshotDirectory.of(snapshot, place, name if stability is Stability.MOVING else None)

    def entries(self) -> Iterator[Entry]:
        """Yield the commits by txid, then the names, then ``latest``."""
        for txid in self._history.txids():
            yield Entry(str(txid), frozen_place(txid).inode, directory=True)
        for name in self._history.names():
            yield Entry(name, _named_place(name, Stability.NAMED).inode, directory=True)
        yield Entry("latest", _LATEST.inode, directory=True)


class BrowseDirectory(_ByCommit):
    """``browse/``: the commits as data; only names are listed, so that a find over the mount comes to an end."""

    inode = _BROWSE
    moments = (_BROWSE_AT, _BROWSE_AGO)

    def frozen(self, txid: int) -> Directory:
        """Return the directory of the commit ``txid``."""
        return DataDirectory(self._history.get(txid), Stability.FROZEN, b"browse/%d" % txid)

    def shown(self, snapshot: HeldCommit, name: str, stability: Stability) -> Directory:
        """Return the directory ``name``."""
        moving = name if stability is Stability.MOVING else None
        return DataDirectory(snapshot, stability, _place_of(name), moving)

    def entries(self) -> Iterator[Entry]:
        """Yield the names, then ``latest``."""
        for name in (*self._history.names(), "latest"):
            yield Entry(name, inode_of_commit(_place_of(name)), directory=True)


class MomentsDirectory(_Commits):
    """``at/`` and ``ago/``: commits by instant, and by age."""

    def __init__(self, history: Commits, resolver: Resolver, above: _ByCommit, kind: str) -> None:
        super().__init__(history, resolver)
        self.inode = above.moments[kind == "ago"]
        self._above = above
        self._kind = kind

    def child(self, name: str) -> Node:
        """Return the last commit at or before the moment ``name``, or raise ``NotFound``."""
        now = clock.now()
        try:
            instant = finding.parse_at(name) if self._kind == "at" else finding.ago(name, now)
        except InputError as error:
            raise NotFound(f"{name!r}: {error}") from None
        return self._above.bound(f"{self._kind}/{name}", lambda: self._history.at(instant, now))


def _place_of(name: str) -> bytes:
    return b"browse/" + name.encode(errors="surrogateescape")


def _named_place(name: str, stability: Stability) -> Placement:
    """Return a place whose inode depends on the name alone."""
    return Placement(_OF_NAMES | zlib.crc32(name.encode(errors="surrogateescape")) << 8, stability)


def _name_in_snapshots(path: str) -> str:
    parts = [name for name in path.split("/") if name]
    if len(parts) != 2 or parts[0] != "snapshots":
        raise ReadOnly("only in snapshots/ can a directory be made or removed: it is a snapshot's name")
    return parts[1]
