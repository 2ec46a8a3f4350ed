"""What a commit of a store shows to people: its data as files, below ``live/`` and ``browse/<commit>/``.

entities/    one document for each entity
attributes/  one column for each attribute
unique/      the values of unique attributes, as links to the entities
log/         one document for each transaction
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from cowfs.commits.commits import Commits
from cowfs.commits.held import HeldCommit
from cowfs.errors import NotFound
from cowfs.views.columns import AttributesDirectory
from cowfs.views.commitdir import Placement, SnapshotDirectory, TextFile
from cowfs.views.context import CommitContext, DataNode, inode_at
from cowfs.views.entities import EntitiesDirectory, HistoryDirectory
from cowfs.views.logs import CurrentLog, LogDirectory
from cowfs.views.node import Attributes, Directory, Entry, Node, Stability
from cowfs.views.unique import UniqueDirectory

_COMMIT = "commit"
_NOT_A_STORE = b"""This is an LMDB environment, but not a cowfs store: its images are here and in ../snapshots/,
and there is no browse tree, for cowfs does not know what its keys and values mean.
"""


def _trees(context: CommitContext, current: CurrentLog | None = None) -> dict[str, Callable[[], Directory]]:
    """Return how to make the trees of data of a commit, by name; each has the inode that the context gives its name."""
    return {
        "attributes": lambda: AttributesDirectory(context),
        "entities": lambda: EntitiesDirectory(context),
        "log": lambda: LogDirectory(context, current),
        "unique": lambda: UniqueDirectory(context),
    }


class LiveDirectory(SnapshotDirectory):
    """``live/``: the newest commit, as an image and as data, and the history of each entity."""

    def __init__(self, history: Commits, snapshot: HeldCommit, place: Placement, current: CurrentLog) -> None:
        super().__init__(snapshot.txid, snapshot.mtime, lambda: snapshot, place)
        self._context = CommitContext(snapshot, place.stability, b"live")
        self._trees: dict[str, Callable[[], Directory]] = {}
        if snapshot.db is not None:
            self._trees = _trees(self._context, current)
            self._trees["history"] = lambda: HistoryDirectory(self._context, history)

    def child(self, name: str) -> Node:
        """Return a file or a tree, or raise ``NotFound``."""
        if name in self._trees:
            return self._trees[name]()
        if name == "README" and not self._trees:
            return TextFile(self._context.snapshot, Placement(self.inode + 4, self.stability), _NOT_A_STORE)
        return super().child(name)

    def entries(self) -> Iterator[Entry]:
        """Yield the trees and the files."""
        for name in sorted(self._trees):
            yield Entry(name, self._context.inode(name), directory=True)
        yield from super().entries()
        if not self._trees:
            yield Entry("README", self.inode + 4, directory=False)


class DataDirectory(DataNode, Directory):
    """``browse/<commit>/``: the data of one commit, without its image."""

    def __init__(self, snapshot: HeldCommit, stability: Stability, place: bytes, moving: str | None = None) -> None:
        context = CommitContext(snapshot, stability, place)
        super().__init__(context, _COMMIT)
        self.moving = moving
        self._trees = _trees(context)

    def attributes(self) -> Attributes:
        """Return what stat(2) tells."""
        return Attributes(self._context.snapshot.mtime)

    def child(self, name: str) -> Node:
        """Return a tree or a file, or raise ``NotFound``."""
        snapshot = self._context.snapshot
        if name in self._trees:
            return self._trees[name]()
        documents = {"schema.json": snapshot.schema or b"", "snapshot.json": snapshot.summary}
        if name in documents:
            content = documents[name].rstrip() + b"\n"  # without the blanks that are there for rsync
            return TextFile(snapshot, Placement(self._context.inode(name), self.stability), content)
        raise NotFound(f"no {name!r} here")

    def entries(self) -> Iterator[Entry]:
        """Yield the trees and the files."""
        for name in self._trees:
            yield Entry(name, self._context.inode(name), directory=True)
        for name in ("schema.json", "snapshot.json"):
            yield Entry(name, self._context.inode(name), directory=False)


def inode_of_commit(place: bytes) -> int:
    """Return the inode of the ``DataDirectory`` at ``place``."""
    return inode_at(place, _COMMIT)
