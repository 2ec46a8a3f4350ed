"""``History``: the commits that have a directory in the mount.

A commit has one from the moment it is seen until more than ``keep`` newer ones were seen and nobody uses it. Each is held
by a read transaction of its own. Whoever calls ``newest`` sees the newest commit of any process: it is looked for anew each
time, which costs two reads of eight bytes.
"""

from __future__ import annotations

from cowfs.errors import NotFound, ReadersFull
from cowfs.pages.env import Env
from cowfs.pages.hold import Hold
from cowfs.views.snapshot import Snapshot


class History:
    """The newest commits of an environment, by txid. Not safe for several threads at once: the mount takes turns."""

    def __init__(self, env: Env, keep: int) -> None:
        """Hold the newest commit of ``env``, and later up to ``keep`` older ones. Raises what reading it raises."""
        self._env = env
        self._keep = keep
        self._snapshots: dict[int, Snapshot] = {}  # oldest first
        self._newest = Snapshot(env, env.hold())
        self._snapshots[self._newest.txid] = self._newest

    def newest(self) -> Snapshot:
        """Return the newest commit, as of now."""
        if self._env.newest_txnid() != self._newest.root.txnid:
            self._add_newest()
        return self._newest

    def get(self, txid: int) -> Snapshot:
        """Return the commit ``txid``; raise ``NotFound`` when it has no directory (any more)."""
        self.newest()
        try:
            return self._snapshots[txid]
        except KeyError:
            raise NotFound(f"no snapshot {txid}") from None

    def snapshots(self) -> list[Snapshot]:
        """Return the commits that have a directory, the oldest first."""
        self.newest()
        return list(self._snapshots.values())

    def retire(self) -> None:
        """Let go what is more than ``keep`` commits old, except what is in use."""
        surplus = len(self._snapshots) - 1 - self._keep
        if surplus > 0:
            for txid in [txid for txid, snapshot in self._oldest(surplus) if not snapshot.used]:
                self._snapshots.pop(txid).release()

    def close(self) -> None:
        """Let go everything that nobody else holds."""
        while self._snapshots:
            self._snapshots.popitem()[1].release()

    def _add_newest(self) -> None:
        snapshot = Snapshot(self._env, self._hold())
        if snapshot.txid in self._snapshots:  # the same commit, seen twice in a race
            snapshot.release()
            return
        self._newest = self._snapshots[snapshot.txid] = snapshot
        self.retire()

    def _hold(self) -> Hold:
        """Hold the newest root; when all reader slots are taken, at the price of the oldest commit that nobody uses."""
        while True:
            try:
                return self._env.hold()
            except ReadersFull:
                unused = [txid for txid, snapshot in self._snapshots.items() if not snapshot.used]
                if unused[:1] in ([], [self._newest.txid]):
                    raise
                self._snapshots.pop(unused[0]).release()

    def _oldest(self, count: int) -> list[tuple[int, Snapshot]]:
        return list(self._snapshots.items())[:count]
