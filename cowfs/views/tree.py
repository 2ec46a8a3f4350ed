"""``Tree``: the whole mount as directories, and the way from a path to a node.

/live                    the newest commit at each look
/snapshots/latest        the newest commit for who lists it; a process walking it is bound to one (see mount)
/snapshots/<txid>        a commit, frozen
/snapshots/<name>        a commit that somebody has named
/snapshots/at/<instant>  the last commit at or before an instant in ISO 8601, UTC unless it says otherwise; never listed
/snapshots/ago/<time>    the last commit at or before so long ago (5m, 1h30m, 7d); never listed
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from typing import Final

from cowfs import txid as txids
from cowfs.errors import InputError, NotFound, ReadOnly
from cowfs.store.named import RESERVED
from cowfs.store.values import parse_instant
from cowfs.units import parse_duration
from cowfs.views.history import History
from cowfs.views.node import Attributes, Directory, Entry, Node, Stability
from cowfs.views.snapshot import Place, Snapshot, SnapshotDirectory

# Inodes of paths that show another commit later stay the same (find and cp give up on a directory whose inode changes
# under them); those of a frozen commit are its own.
_TOP: Final = 1
_SNAPSHOTS: Final = 2
_AT: Final = 3
_AGO: Final = 4
_LIVE = Place(16, Stability.MOVING)
_LATEST = Place(32, Stability.MOVING)
_OF_NAMES: Final = 1 << 62

Seen = Callable[[str, Callable[[], Snapshot]], Snapshot]
"""What a moving directory shows to the one who asks: given its name, and how to find what it would show anew."""


def frozen_place(txid: int) -> Place:
    """Return the place of the commit ``txid`` below ``snapshots/``: an inode of its own, room for its files' after it."""
    return Place((txid + 1) << 8, Stability.FROZEN)


def unbound(_name: str, resolve: Callable[[], Snapshot]) -> Snapshot:
    """See every moving directory as it is now."""
    return resolve()


class Tree:
    """All directories of the mount."""

    def __init__(self, history: History) -> None:
        self.history = history

    def node(self, path: str, seen: Seen = unbound) -> Node:
        """Return what ``path`` (absolute within the mount) leads to; raise ``NotFound``."""
        node: Node = TopDirectory(self.history, seen)
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

    def __init__(self, history: History, seen: Seen) -> None:
        self._history = history
        self._seen = seen

    def attributes(self) -> Attributes:
        """Return what stat(2) tells."""
        return Attributes(self._history.newest().mtime)

    def entries(self) -> Iterator[Entry]:
        """Yield nothing: there is too much, or too little, to list."""
        return iter(())

    def _moving(self, name: str, resolve: Callable[[], Snapshot], place: Place) -> SnapshotDirectory:
        return SnapshotDirectory.of(self._seen(name, resolve), place, moving=name)


class TopDirectory(_Commits):
    """The mount point itself."""

    inode = _TOP

    def child(self, name: str) -> Node:
        """Return ``live`` or ``snapshots``, or raise ``NotFound``."""
        if name == "live":
            return SnapshotDirectory.of(self._history.newest(), _LIVE)
        if name == "snapshots":
            return SnapshotsDirectory(self._history, self._seen)
        raise NotFound(f"no {name!r} here")

    def entries(self) -> Iterator[Entry]:
        """Yield both directories."""
        yield Entry("live", _LIVE.inode, directory=True)
        yield Entry("snapshots", _SNAPSHOTS, directory=True)


class SnapshotsDirectory(_Commits):
    """``snapshots/``: a directory for every commit that the history has, by txid and by name, and ``latest``."""

    inode = _SNAPSHOTS

    def child(self, name: str) -> Node:
        """Return the directory of a commit, ``at`` or ``ago``, or raise ``NotFound``."""
        history = self._history
        txid = txids.parse(name)
        if txid is not None:
            return SnapshotDirectory(txid, history.mtime(txid), lambda: history.get(txid), frozen_place(txid))
        if name == "latest":
            return self._moving("latest", history.newest, _LATEST)
        if name == "at":
            return AtDirectory(history, self._seen)
        if name == "ago":
            return AgoDirectory(history, self._seen)
        return SnapshotDirectory.of(history.named(name), _named_place(name, Stability.NAMED))

    def entries(self) -> Iterator[Entry]:
        """Yield the commits by txid, then the names, then ``latest``."""
        for txid in self._history.txids():
            yield Entry(str(txid), frozen_place(txid).inode, directory=True)
        for name in self._history.names():
            yield Entry(name, _named_place(name, Stability.NAMED).inode, directory=True)
        yield Entry("latest", _LATEST.inode, directory=True)


class AtDirectory(_Commits):
    """``snapshots/at/``: commits by instant."""

    inode = _AT

    def child(self, name: str) -> Node:
        """Return the last commit at or before the instant ``name``, or raise ``NotFound``."""
        try:
            instant = parse_instant(name)
        except InputError as error:
            raise NotFound(f"{name!r}: {error}") from None
        place = _named_place(f"at/{name}", Stability.MOVING)
        return self._moving(f"at/{name}", lambda: self._history.at(instant), place)


class AgoDirectory(_Commits):
    """``snapshots/ago/``: commits by age."""

    inode = _AGO

    def child(self, name: str) -> Node:
        """Return the last commit at or before the time ``name`` ago, or raise ``NotFound``."""
        try:
            age = timedelta(seconds=parse_duration(name))
            instant = datetime.now(timezone.utc) - age
        except (InputError, OverflowError) as error:
            raise NotFound(f"{name!r}: {error}") from None
        place = _named_place(f"ago/{name}", Stability.MOVING)
        return self._moving(f"ago/{name}", lambda: self._history.at(instant), place)


def _named_place(name: str, stability: Stability) -> Place:
    """Return a place whose inode depends on the name alone."""
    return Place(_OF_NAMES | zlib.crc32(name.encode(errors="surrogateescape")) << 8, stability)


def _name_in_snapshots(path: str) -> str:
    parts = [name for name in path.split("/") if name]
    if len(parts) != 2 or parts[0] != "snapshots":
        raise ReadOnly("only in snapshots/ can a directory be made or removed: it is a snapshot's name")
    return parts[1]
