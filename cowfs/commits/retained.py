"""The commits that a store retains, whoever made them, and the named ones under their names as well.

A commit is held from when it is asked for until nobody has used it for some seconds; a caller that needs it for longer
retains it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable
from datetime import datetime

from cowfs.commits.commits import Commits
from cowfs.commits.held import HeldCommit
from cowfs.engine.env import Env
from cowfs.errors import NotFound
from cowfs.store.history import finding
from cowfs.store.history.named import checked
from cowfs.store.history.timeline import Timeline
from cowfs.store.model import clock
from cowfs.store.store import Store

log = logging.getLogger("cowfs.commits")

_IDLE = 2.0  # seconds that a snapshot is kept for the next request
_MAX_IDLE = 64


class RetainedCommits(Commits):
    """The commits that a store retains."""

    of_store = True

    def __init__(self, env: Env) -> None:
        super().__init__(env)
        self._store = Store(env)
        env.claim_pin()
        self._timeline = Timeline(env, self._newest.hold)
        self._asked: dict[int, float] = {}  # when each of the snapshots was last asked for
        self._doubts: set[tuple[int, int]] = set()  # which commits were said to be misdated
        self._bound: dict[str, HeldCommit] = {}  # what a name has shown, and shows as long as that is in use

    def get(self, txid: int) -> HeldCommit:
        """Return a retained commit, or one that is in use."""
        newest = self.newest()
        snapshot = self._snapshots.get(txid)
        if snapshot is None:
            snapshot = HeldCommit(self._env, self._env.hold(self._line().txnid(txid)))
            self._snapshots[txid] = snapshot
        if snapshot is not newest:
            self._asked[txid] = time.monotonic()
        return snapshot

    def mtime(self, txid: int) -> int:
        """Return when a retained commit was made, from the log."""
        self.newest()
        snapshot = self._snapshots.get(txid)
        if snapshot is not None:
            return snapshot.mtime
        line = self._line()
        if txid not in line:
            raise NotFound(f"no snapshot {txid}")
        instant = line.instant(txid)
        return self.get(txid).mtime if instant is None else int(instant.timestamp())

    def txids(self) -> Iterable[int]:
        """Return the retained commits."""
        self.newest()
        return self._line()

    def retire(self) -> None:
        """Let go the commits that nobody uses, and nobody has asked for in the last seconds."""
        since = time.monotonic() - _IDLE
        idle = [txid for txid, snapshot in self._snapshots.items() if not snapshot.used and snapshot is not self._newest]
        idle.sort(key=lambda txid: self._asked.get(txid, 0.0))
        for number, txid in enumerate(idle, 1):
            if self._asked.get(txid, 0.0) < since or len(idle) - number >= _MAX_IDLE:
                self._snapshots.pop(txid).release()
                self._asked.pop(txid, None)
        for name in [name for name, snapshot in self._bound.items() if not snapshot.used]:
            del self._bound[name]

    def _release_idle(self) -> None:
        """Release the commits that nobody uses now: what a name is about to give back is not held by a look at it."""
        for txid, snapshot in list(self._snapshots.items()):
            if not snapshot.used and snapshot is not self._newest:
                self._snapshots.pop(txid).release()
                self._asked.pop(txid, None)
        self._bound = {name: snapshot for name, snapshot in self._bound.items() if snapshot.used}

    def names(self) -> Iterable[str]:
        """Return the names of named snapshots."""
        self.newest()
        return [name for name, snapshot in self._line().named.items() if not snapshot.expired()]

    def named(self, name: str) -> HeldCommit:
        """Return the commit that has the name; as long as one that had it is in use, that one, has it the name or not."""
        self.newest()
        bound = self._bound.get(name)
        if bound is None or not bound.used:
            named = self._line().snapshot(name)
            if named is None:
                raise NotFound(f"no snapshot {name!r}")
            bound = self._bound[name] = self.get(named.txid)
        return bound

    def has_name(self, name: str) -> bool:
        """Whether a commit has the name now."""
        return self._line().snapshot(name) is not None

    def at(self, instant: datetime, now: datetime | None = None) -> HeldCommit:
        """Return the newest retained commit that was there at ``instant``. What makes it doubtful is logged once."""
        self.newest()
        found = finding.at(self._line(), instant, now or clock.now())
        if found.doubt is not None and found.doubt[:2] not in self._doubts:
            self._doubts.add(found.doubt[:2])
            log.warning("%s", finding.doubt_text(found.doubt))
        return self.get(found.txid)

    def name(self, name: str, owner: str) -> None:
        """Name the newest commit."""
        checked(name)
        self._env.require_idle()
        self._store.name(name, owner)

    def unname(self, name: str) -> None:
        """Delete a name."""
        self.newest()
        if self._line().snapshot(name) is None:
            raise NotFound(f"no snapshot {name!r}")
        self._release_idle()
        self._env.require_idle()
        self._store.unname(name)

    def _line(self) -> Timeline:
        """Return what is retained as of the newest commit."""
        if self._timeline.reader is not self._newest.hold:
            self._timeline = Timeline(self._env, self._newest.hold)
        return self._timeline
