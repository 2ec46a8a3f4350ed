"""``Walks``: which commits each process is walking, so that what it copies is of one commit and stays while it looks.

1. A process that lists ``snapshots/latest`` is bound to the commit that is newest then. It sees that one under ``latest``
   until it ends, lists ``latest`` again, or leaves the mount alone for 60 s. A tool may list the directory more than once in
   one walk (borg does): listing it again within a second of the process's last call keeps the binding.
2. A process that lists any directory of a commit holds that commit as long.
3. An open file holds its process's walk: reading a large file makes no other call for minutes.
4. A process that has listed nothing sees the newest commit at each call.

In a local ``rsync -a`` one process lists, stats and opens everything in the source; so do tar, cp, find and borg.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from cowfs.mount.process import Process
from cowfs.views.history import History
from cowfs.views.snapshot import Snapshot

_IDLE = 60.0  # seconds after which a process that calls no more has left
_SAME_WALK = 1.0  # seconds within which listing latest again belongs to the same walk


@dataclass
class _Walk:
    process: Process
    touched: float
    latest: Snapshot | None = None
    held: dict[int, Snapshot] = field(default_factory=dict)
    open_files: int = 0


class Walks:
    """The walks of all processes. A process id of 0 (one that is not to be seen from here) never walks."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._walks: dict[int, _Walk] = {}

    def latest(self, pid: int) -> Snapshot:
        """Return what ``snapshots/latest`` is to the process, and note that it called."""
        walk = self._walk(pid)
        if walk is None or walk.latest is None:
            return self._history.newest()
        return walk.latest

    def touch(self, pid: int) -> None:
        """Note that the process called."""
        self._walk(pid)

    def list_latest(self, pid: int) -> Snapshot:
        """The process lists ``snapshots/latest``: bind it, or keep its binding, and return the commit."""
        walk = self._walks.get(pid)
        same_walk = walk is not None and time.monotonic() - walk.touched < _SAME_WALK
        walk = self._walk(pid, begin=True)
        if walk is None:
            return self._history.newest()
        if walk.latest is None or not same_walk:
            walk.latest = self._history.newest()
            self._hold(walk, walk.latest)
        return walk.latest

    def list_snapshot(self, pid: int, snapshot: Snapshot) -> None:
        """The process lists a directory of ``snapshot``: hold it for the process."""
        walk = self._walk(pid, begin=True)
        if walk is not None:
            self._hold(walk, snapshot)

    def opened(self, pid: int) -> None:
        """The process has opened a file; each call needs its ``closed``."""
        walk = self._walk(pid)
        if walk is not None:
            walk.open_files += 1

    def closed(self, pid: int) -> None:
        """A file that the process had opened was closed."""
        walk = self._walk(pid)
        if walk is not None and walk.open_files:
            walk.open_files -= 1

    def expire(self) -> None:
        """End the walks of processes that ended or left."""
        idle_since = time.monotonic() - _IDLE
        for pid, walk in list(self._walks.items()):
            if walk.process.ended() or (walk.touched < idle_since and not walk.open_files):
                self._end(pid)
        self._history.retire()

    def close(self) -> None:
        """End all walks."""
        for pid in list(self._walks):
            self._end(pid)

    def _walk(self, pid: int, *, begin: bool = False) -> _Walk | None:
        """Return the process's walk, touched; begin one if asked to, and if the process still runs."""
        walk = self._walks.get(pid)
        if walk is not None and walk.process.ended():  # another process has got its id
            self._end(pid)
            walk = None
        if walk is None:
            return self._begin(pid) if begin else None
        walk.touched = time.monotonic()
        return walk

    def _begin(self, pid: int) -> _Walk | None:
        if pid == 0:
            return None
        try:
            process = Process(pid)
        except OSError:
            return None
        walk = self._walks[pid] = _Walk(process, time.monotonic())
        return walk

    def _end(self, pid: int) -> None:
        walk = self._walks.pop(pid)
        walk.process.close()
        for snapshot in walk.held.values():
            snapshot.release()

    @staticmethod
    def _hold(walk: _Walk, snapshot: Snapshot) -> None:
        if snapshot.txid not in walk.held:
            walk.held[snapshot.txid] = snapshot.retain()
