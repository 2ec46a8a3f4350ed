"""``Commits``: the commits that have a directory in the mount.

Of a store these are the commits that the store retains, whoever made them, and the named ones under their names as well
(``RetainedCommits``). Of any other environment they are those that were seen while it is mounted, until more than ``keep``
newer ones were seen and nobody uses them (``ObservedCommits``).

A snapshot is held from when it is asked for until nobody has used it for some seconds; whoever wants it for longer retains
it. Whoever calls ``newest`` sees the newest commit of any process: it is looked for anew each time, which costs a stat and
a look at the table of readers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from datetime import datetime

from cowfs.commits.held import HeldCommit
from cowfs.engine.env import Env
from cowfs.errors import NotFound, ReadOnly


class Commits(ABC):
    """The commits of an environment, by txid. Not safe for several threads at once: the mount takes turns."""

    of_store: bool
    """Whether the environment is a cowfs store: then a commit can be shown as data, too."""

    def __init__(self, env: Env) -> None:
        """Hold the newest commit of ``env``. Raises what reading it raises."""
        self._env = env
        self._newest = HeldCommit(env, env.hold())
        self._snapshots: dict[int, HeldCommit] = {self._newest.txid: self._newest}  # held here, oldest use first

    def newest(self) -> HeldCommit:
        """Return the newest commit, as of now."""
        if self._env.newest_txnid() != self._newest.root.txnid:
            snapshot = HeldCommit(self._env, self._env.hold())
            if snapshot.txid in self._snapshots:  # the same commit, seen twice in a race
                snapshot.release()
            else:
                self._newest = self._snapshots[snapshot.txid] = snapshot
                self.retire()
        return self._newest

    @abstractmethod
    def get(self, txid: int) -> HeldCommit:
        """Return the commit ``txid``; raise ``NotFound`` when it has no directory (any more)."""

    @abstractmethod
    def mtime(self, txid: int) -> int:
        """Return when the commit ``txid`` was made, in whole seconds; raise ``NotFound`` when it has no directory."""

    @abstractmethod
    def txids(self) -> Iterable[int]:
        """Return the commits that have a directory, the oldest first."""

    @abstractmethod
    def retire(self) -> None:
        """Let go what is not needed any more; to be called now and then."""

    def names(self) -> Iterable[str]:
        """Return the names that commits have."""
        return ()

    def named(self, name: str) -> HeldCommit:
        """Return the commit that has the name, or had it and is in use; raise ``NotFound`` when there is none."""
        raise NotFound(f"no snapshot {name!r}")

    def has_name(self, name: str) -> bool:
        """Whether a commit has the name now."""
        return False

    def at(self, instant: datetime, now: datetime | None = None) -> HeldCommit:
        """Return the newest commit that was there at ``instant``, as seen at ``now``; raise ``NotFound`` when none was."""
        raise NotFound("an environment that is no store does not say when a commit was made")

    def name(self, name: str, owner: str) -> None:
        """Name the newest commit. Raises ``WrongName``, ``NameTaken``, ``Busy``, ``ReadOnly``."""
        raise ReadOnly("only a cowfs store has named snapshots")

    def unname(self, name: str) -> None:
        """Delete a name. Raises ``NotFound``, ``Busy``, ``ReadOnly``."""
        raise NotFound(f"no snapshot {name!r}")

    def close(self) -> None:
        """Let go everything that nobody else holds."""
        while self._snapshots:
            self._snapshots.popitem()[1].release()
