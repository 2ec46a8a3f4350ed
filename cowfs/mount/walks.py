"""``Walks``: which commits each process is walking, so that what it copies is of one commit and stays while it looks.

1. A process that lists ``snapshots/latest`` is bound to the commit that is newest then. It sees that one under ``latest``
   until it ends, lists ``latest`` again, or leaves that commit alone for 60 s. A tool may list the directory more than once
   in one walk (borg does): listing it again while a file in there is open, or within a second of the process's last use of
   one, keeps the binding. Looking at ``latest`` itself is no use: the kernel does so on the way to every listing.
2. A process that lists a directory of a frozen commit holds that commit as long.
3. An open file is in use all the time: reading a large file makes no other call for minutes.
4. A process that has listed nothing sees the newest commit at each call. In ``live`` every process does, so listing that
   holds nothing.

In a local ``rsync -a`` one process lists, stats and opens everything in the source; so do tar, cp, find and borg.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from cowfs.mount.process import Process
from cowfs.views.history import History
from cowfs.views.snapshot import Snapshot

_IDLE = 60.0  # seconds after which a process has left a commit that it does not use
_SAME_WALK = 1.0  # seconds within which listing latest again belongs to the same walk


@dataclass
class _Held:
    """A commit held for a process: when the process last used it, and how many files of it the process has open."""

    snapshot: Snapshot
    used: float
    open_files: int = 0

    def in_use(self, since: float) -> bool:
        return self.open_files > 0 or self.used >= since


@dataclass
class _Walk:
    process: Process
    held: dict[int, _Held] = field(default_factory=dict)  # by txid
    latest: _Held | None = None  # the one of them that the process is bound to


class Walks:
    """The walks of all processes. A process id of 0 (one that is not to be seen from here) never walks."""

    def __init__(self, history: History) -> None:
        self._history = history
        self._walks: dict[int, _Walk] = {}

    def latest(self, pid: int) -> Snapshot:
        """Return what ``snapshots/latest`` is to the process."""
        walk = self._walk(pid)
        if walk is None or walk.latest is None:
            return self._history.newest()
        return walk.latest.snapshot

    def list_latest(self, pid: int) -> None:
        """The process lists ``snapshots/latest``: bind it, or keep its binding."""
        walk = self._walk(pid, begin=True)
        if walk is None:
            return
        now = time.monotonic()
        if walk.latest is None or not walk.latest.in_use(now - _SAME_WALK):
            walk.latest = self._hold(walk, self._history.newest())
        walk.latest.used = now

    def list_snapshot(self, pid: int, snapshot: Snapshot) -> None:
        """The process lists a directory of ``snapshot``: hold it for the process."""
        walk = self._walk(pid, begin=True)
        if walk is not None:
            self._hold(walk, snapshot)

    def use(self, pid: int, snapshot: Snapshot) -> None:
        """Note that the process has asked for something of ``snapshot``."""
        self._find(pid, snapshot)

    def opened(self, pid: int, snapshot: Snapshot) -> None:
        """The process has opened a file of ``snapshot``; each call needs its ``closed``."""
        held = self._find(pid, snapshot)
        if held is not None:
            held.open_files += 1

    def closed(self, pid: int, snapshot: Snapshot) -> None:
        """A file of ``snapshot`` that the process had opened was closed."""
        held = self._find(pid, snapshot)
        if held is not None and held.open_files:
            held.open_files -= 1

    def expire(self) -> None:
        """Let go what is held for processes that ended, or that have left it."""
        since = time.monotonic() - _IDLE
        for pid, walk in list(self._walks.items()):
            for txid in [txid for txid, held in walk.held.items() if not held.in_use(since)]:
                self._let_go(walk, txid)
            if not walk.held or walk.process.ended():
                self._end(pid)
        self._history.retire()

    def close(self) -> None:
        """End all walks."""
        for pid in list(self._walks):
            self._end(pid)

    def _walk(self, pid: int, *, begin: bool = False) -> _Walk | None:
        """Return the process's walk; begin one if asked to, and if the process still runs."""
        walk = self._walks.get(pid)
        if walk is not None and walk.process.ended():  # another process has got its id
            self._end(pid)
            walk = None
        if walk is None and begin:
            return self._begin(pid)
        return walk

    def _find(self, pid: int, snapshot: Snapshot) -> _Held | None:
        """Return what is held of ``snapshot`` for the process, noted as used now; None when nothing is."""
        walk = self._walk(pid)
        held = None if walk is None else walk.held.get(snapshot.txid)
        if held is not None:
            held.used = time.monotonic()
        return held

    def _begin(self, pid: int) -> _Walk | None:
        if pid == 0:
            return None
        try:
            process = Process(pid)
        except OSError:
            return None
        walk = self._walks[pid] = _Walk(process)
        return walk

    def _end(self, pid: int) -> None:
        walk = self._walks.pop(pid)
        walk.process.close()
        for txid in list(walk.held):
            self._let_go(walk, txid)

    @staticmethod
    def _hold(walk: _Walk, snapshot: Snapshot) -> _Held:
        held = walk.held.get(snapshot.txid)
        if held is None:
            held = walk.held[snapshot.txid] = _Held(snapshot.retain(), time.monotonic())
        return held

    @staticmethod
    def _let_go(walk: _Walk, txid: int) -> None:
        held = walk.held.pop(txid)
        if walk.latest is held:
            walk.latest = None
        held.snapshot.release()
