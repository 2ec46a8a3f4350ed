"""The commits of an environment that is no store: those that were seen while it is mounted."""

from __future__ import annotations

from collections.abc import Iterable

from cowfs.commits.commits import Commits
from cowfs.commits.held import HeldCommit
from cowfs.engine.env import Env
from cowfs.errors import NotFound


class ObservedCommits(Commits):
    """The commits of an environment that is no store: those that were seen, ``keep`` of them behind the newest."""

    of_store = False

    def __init__(self, env: Env, keep: int) -> None:
        super().__init__(env)
        self._keep = keep

    def get(self, txid: int) -> HeldCommit:
        """Return a commit that was seen."""
        self.newest()
        try:
            return self._snapshots[txid]
        except KeyError:
            raise NotFound(f"no snapshot {txid}") from None

    def mtime(self, txid: int) -> int:
        """Return when a commit was seen: the environment does not say when it was made."""
        return self.get(txid).mtime

    def txids(self) -> Iterable[int]:
        """Return the commits that were seen."""
        self.newest()
        return list(self._snapshots)

    def retire(self) -> None:
        """Let go what is more than ``keep`` commits old, except what is in use."""
        surplus = len(self._snapshots) - 1 - self._keep
        for txid, snapshot in list(self._snapshots.items())[: max(surplus, 0)]:
            if not snapshot.used:
                self._snapshots.pop(txid).release()
