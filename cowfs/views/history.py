"""``History``: the commits that have a directory in the mount.

Of a store these are the commits that the store retains, whoever made them, and the named ones under their names as well
(``Retained``). Of any other environment they are those that were seen while it is mounted, until more than ``keep`` newer
ones were seen and nobody uses them (``Seen``).

A snapshot is held from when it is asked for until nobody has used it for some seconds; whoever wants it for longer retains
it. Whoever calls ``newest`` sees the newest commit of any process: it is looked for anew each time, which costs a stat and
a look at the table of readers.
"""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Iterable
from datetime import datetime

from cowfs.errors import NotFound, ReadOnly
from cowfs.pages.env import Env
from cowfs.store import clock, finding
from cowfs.store.db import store_at
from cowfs.store.named import checked
from cowfs.store.store import Store
from cowfs.store.timeline import Timeline
from cowfs.views.snapshot import Snapshot

log = logging.getLogger("cowfs.views")

_IDLE = 2.0  # seconds that a snapshot is kept for the next request
_MOST_IDLE = 64


class History(ABC):
    """The commits of an environment, by txid. Not safe for several threads at once: the mount takes turns."""

    of_store: bool
    """Whether the environment is a cowfs store: then a commit can be shown as data, too."""

    def __init__(self, env: Env) -> None:
        """Hold the newest commit of ``env``. Raises what reading it raises."""
        self._env = env
        self._newest = Snapshot(env, env.hold())
        self._snapshots: dict[int, Snapshot] = {self._newest.txid: self._newest}  # what this object holds, oldest use first

    def newest(self) -> Snapshot:
        """Return the newest commit, as of now."""
        if self._env.newest_txnid() != self._newest.root.txnid:
            snapshot = Snapshot(self._env, self._env.hold())
            if snapshot.txid in self._snapshots:  # the same commit, seen twice in a race
                snapshot.release()
            else:
                self._newest = self._snapshots[snapshot.txid] = snapshot
                self.retire()
        return self._newest

    @abstractmethod
    def get(self, txid: int) -> Snapshot:
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

    def named(self, name: str) -> Snapshot:
        """Return the commit that has the name, or had it and is in use; raise ``NotFound`` when there is none."""
        raise NotFound(f"no snapshot {name!r}")

    def has_name(self, name: str) -> bool:
        """Whether a commit has the name now."""
        return False

    def at(self, instant: datetime, now: datetime | None = None) -> Snapshot:
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


class Seen(History):
    """The commits of an environment that is no store: those that were seen, ``keep`` of them behind the newest."""

    of_store = False

    def __init__(self, env: Env, keep: int) -> None:
        super().__init__(env)
        self._keep = keep

    def get(self, txid: int) -> Snapshot:
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


class Retained(History):
    """The commits that a store retains."""

    of_store = True

    def __init__(self, env: Env) -> None:
        super().__init__(env)
        self._store = Store(env)
        env.claim_pin()
        self._timeline = Timeline(env, self._newest.hold)
        self._asked: dict[int, float] = {}  # when each of the snapshots was last asked for
        self._doubts: set[tuple[int, int]] = set()  # which commits were said to be misdated
        self._bound: dict[str, Snapshot] = {}  # what a name has shown, and shows as long as that is in use

    def get(self, txid: int) -> Snapshot:
        """Return a retained commit, or one that is in use."""
        newest = self.newest()
        snapshot = self._snapshots.get(txid)
        if snapshot is None:
            snapshot = Snapshot(self._env, self._env.hold(self._line().txnid(txid)))
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
            if self._asked.get(txid, 0.0) < since or len(idle) - number >= _MOST_IDLE:
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

    def named(self, name: str) -> Snapshot:
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

    def at(self, instant: datetime, now: datetime | None = None) -> Snapshot:
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


def open_history(env: Env, keep: int) -> History:
    """Return the history of an environment; ``keep`` is for one that is no store. Raises what reading it raises."""
    with env.hold() as hold:
        store = store_at(hold, hold.root.txnid)
    return Seen(env, keep) if store is None else Retained(env)
