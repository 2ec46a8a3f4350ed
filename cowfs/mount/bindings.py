"""``Walks``: which commits each process is walking, so that what it copies is of one commit and stays while it looks.

1. A process that lists ``snapshots/latest``, or another directory that moves with time (``at/...``, ``ago/...``), is bound
   to the commit that it shows then. It sees that one there until it ends, lists the directory again, or leaves that commit
   alone for 60 s. A tool may list the directory more than once in one walk (borg does): listing it again while a file in
   there is open, or within a second of the process's last use of one, keeps the binding. Looking at the directory itself is
   no use: the kernel does so on the way to every listing.
2. A process that lists a directory of a commit holds that commit as long; of more than 256, the last 256 that it used.
3. An open file is in use all the time: reading a large file makes no other call for minutes.
4. A snapshot whose name was deleted is still found by it by those who have listed it by that name, for as long as that.
5. A process that has listed nothing sees the newest commit at each call. In ``live`` every process does, so listing that
   holds nothing.

In a local ``rsync -a`` one process lists, stats and opens everything in the source; so do tar, cp, find and borg.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from cowfs.commits.commits import Commits
from cowfs.commits.held import HeldCommit
from cowfs.mount.callers import Process

_IDLE = 60.0  # seconds after which a process has left a commit that it does not use
_MAX_HELD = 256  # commits for one process, beside those of which it has files open
_SAME_WALK = 1.0  # seconds within which listing the same again belongs to the same walk


@dataclass
class _Held:
    """A commit held for a process: when the process last used it, how many files of it the process has open.

    ``names`` are those of the snapshot that the process has listed it by.
    """

    snapshot: HeldCommit
    used: float
    open_files: int = 0
    names: set[str] = field(default_factory=set)  # by which the process has listed it

    def in_use(self, since: float) -> bool:
        return self.open_files > 0 or self.used >= since


@dataclass
class _Walk:
    process: Process
    held: dict[int, _Held] = field(default_factory=dict)  # by txid
    bound: dict[str, _Held] = field(default_factory=dict)  # those of them that it sees in moving directories, by name


class Walks:
    """The walks of all processes. A process id of 0 (one that is not to be seen from here) never walks."""

    def __init__(self, history: Commits) -> None:
        self._history = history
        self._walks: dict[int, _Walk] = {}

    def sees(self, pid: int, name: str, resolve: Callable[[], HeldCommit]) -> HeldCommit:
        """Return what the moving directory ``name`` shows to the process; ``resolve`` finds it for one that is not bound."""
        walk = self._walk(pid)
        held = None if walk is None else walk.bound.get(name)
        return resolve() if held is None else held.snapshot

    def list_moving(self, pid: int, name: str, resolve: Callable[[], HeldCommit]) -> None:
        """The process lists the moving directory ``name``: bind it, or keep its binding."""
        walk = self._walk(pid, begin=True)
        if walk is None:
            return
        now = time.monotonic()
        held = walk.bound.get(name)
        if held is None or not held.in_use(now - _SAME_WALK):
            held = walk.bound[name] = self._hold(walk, resolve())
        held.used = now

    def list_snapshot(self, pid: int, snapshot: HeldCommit, name: str | None = None) -> None:
        """The process lists a directory of ``snapshot``, perhaps by the ``name`` of that: hold it for the process."""
        walk = self._walk(pid, begin=True)
        if walk is not None:
            held = self._hold(walk, snapshot)
            if name is not None:
                held.names.add(name)

    def walks(self, pid: int, name: str) -> bool:
        """Whether the process has listed a directory of a snapshot by its ``name``, and has not left it."""
        walk = self._walk(pid)
        since = time.monotonic() - _IDLE
        return walk is not None and any(name in held.names and held.in_use(since) for held in walk.held.values())

    def walked(self, name: str, *, besides: int) -> bool:
        """Whether a process other than ``besides`` ``walks`` the snapshot by its ``name``."""
        return any(self.walks(pid, name) for pid in list(self._walks) if pid != besides)

    def remove(self, name: str) -> None:
        """The directory ``name`` is removed: no process finds it any more."""
        for walk in self._walks.values():
            for held in walk.held.values():
                held.names.discard(name)

    def use(self, pid: int, txid: int) -> None:
        """Note that the process has asked for something of the commit ``txid``."""
        self._find(pid, txid)

    def opened(self, pid: int, snapshot: HeldCommit) -> None:
        """The process has opened a file of ``snapshot``; each call needs its ``closed``."""
        held = self._find(pid, snapshot.txid)
        if held is not None:
            held.open_files += 1

    def closed(self, pid: int, snapshot: HeldCommit) -> None:
        """A file of ``snapshot`` that the process had opened was closed."""
        held = self._find(pid, snapshot.txid)
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

    def _find(self, pid: int, txid: int) -> _Held | None:
        """Return what is held of a commit for the process, noted as used now; None when nothing is."""
        walk = self._walk(pid)
        held = None if walk is None else walk.held.get(txid)
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

    def _hold(self, walk: _Walk, snapshot: HeldCommit) -> _Held:
        held = walk.held.get(snapshot.txid)
        if held is None:
            held = walk.held[snapshot.txid] = _Held(snapshot.retain(), time.monotonic())
            if len(walk.held) > _MAX_HELD:
                idle = [txid for txid, other in walk.held.items() if not other.open_files and other is not held]
                if idle:
                    self._let_go(walk, min(idle, key=lambda txid: walk.held[txid].used))
        return held

    @staticmethod
    def _let_go(walk: _Walk, txid: int) -> None:
        held = walk.held.pop(txid)
        for name in [name for name, bound in walk.bound.items() if bound is held]:
            del walk.bound[name]
        held.snapshot.release()
