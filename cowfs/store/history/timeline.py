"""``Timeline``: the commits that a store retains, as of its newest one: which, what they cost, and what they are called."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime
from functools import cached_property
from typing import Any

from cowfs.engine.env import Env
from cowfs.engine.holds import Hold
from cowfs.engine.rootrecord import Span
from cowfs.errors import CorruptDatabase, NotFound
from cowfs.store.history import named
from cowfs.store.history.chronology import Chronology
from cowfs.store.history.named import NamedSnapshot
from cowfs.store.history.retention import Retention, StoreRetention, read_events, read_retention
from cowfs.store.model import clock
from cowfs.store.model.encoding import instant_of, micros_of
from cowfs.store.model.layout import LOG, State, read_state, txid_of
from cowfs.store.read.log import row_instant

_LOOKS = 100  # for the oldest commit, which a writer may give up meanwhile; more are damage


class Timeline:
    """A value, like a Db: it reads through ``reader``, a hold of the newest commit of a store, and lives as long.

    After that everything raises ``Closed``.

    What is asked in bytes is read from older commits, too: ``hold_timeline`` gives one with all of them held.
    """

    def __init__(self, env: Env, reader: Hold) -> None:
        self._env = env
        self.reader = reader
        self._state: State = read_state(reader)
        self._offset = txid_of(reader.root.txnid, self._state) - reader.root.txnid  # of a txid above LMDB's id
        self._retained = env.rootlog.span(reader)

    @property
    def _span(self) -> Span:
        """What is retained. Everything goes through here, and so finds out when the hold is closed."""
        self.reader.file.require_open()
        return self._retained

    @property
    def txnid_of_newest(self) -> int:
        """LMDB's id of the newest commit."""
        return self._span.newest

    @property
    def newest(self) -> int:
        """The txid of the newest commit."""
        return self._span.newest + self._offset

    @property
    def horizon(self) -> int:
        """The txid of the oldest commit that is retained."""
        return self._span.horizon + self._offset

    def __contains__(self, txid: int) -> bool:
        return txid - self._offset in self._span

    def __iter__(self) -> Iterator[int]:
        """Yield the txids of the retained commits, ascending."""
        return (txnid + self._offset for txnid in self._span)

    def __len__(self) -> int:
        return len(self._span)

    def txnid(self, txid: int) -> int:
        """Return LMDB's id of a retained commit. Raises ``NotFound``."""
        if txid not in self:
            raise NotFound(f"commit {txid} is not retained (the oldest is {self.horizon}, the newest {self.newest})")
        return txid - self._offset

    def instant(self, txid: int) -> datetime | None:
        """Return when a commit was made, from the log; None when it is not a transaction of the store."""
        row = self.reader.get(LOG, txid.to_bytes(8, "big"))
        return None if row is None else instant_of(row_instant(row))

    @cached_property
    def chronology(self) -> Chronology:
        """How the commits are dated."""
        return Chronology(self.reader, self.newest)

    def at(self, instant: datetime, now: datetime | None = None) -> int:
        """Return the newest of the retained commits that were there at ``instant``, as seen at ``now``.

        Those are passed over that were made while the clock was wrong. A time that is not over yet finds the newest commit.
        Raises ``NotFound``.
        """
        if instant >= (now or clock.now()):
            return self.newest
        last = self.chronology.at(micros_of(instant)) or 0
        for txid in range(last, self.horizon - 1, -1):
            if txid in self and not self.chronology.is_misdated(txid):
                return txid
        raise NotFound(f"no commit that is retained was made at or before {instant:%Y-%m-%dT%H:%M:%SZ}")

    def bytes_between(self, first: int, last: int) -> int:
        """Return how many bytes of pages only the commits with first <= txid < last use, and none from ``last`` on.

        From the horizon on it is what dropping them gives back. Exact, and as fast for many commits as for few.
        """
        first, last = (self._span.first_from(txid - self._offset) for txid in (first, last))
        return self._env.rootlog.cost(self.reader, first, min(last, self._span.newest)) * self.reader.root.page_size

    @property
    def bytes_held(self) -> int:
        """How many bytes of pages only older commits use."""
        return self.bytes_between(self.horizon, self.newest)

    @cached_property
    def named(self) -> dict[str, NamedSnapshot]:
        """The named snapshots whose commit is retained, by name, the oldest commit first."""
        return {name: snapshot for name, snapshot in named.read_named(self.reader).items() if snapshot.txid in self}

    def snapshot(self, name: str) -> NamedSnapshot | None:
        """Return the named snapshot, None when there is none whose commit is retained; as fast among many as among few."""
        snapshot = named.find(self.reader, name)
        return snapshot if snapshot is not None and snapshot.txid in self else None

    def bytes_of_names(self, bounds: Retention | None = None, *, on_full_disk: bool = False) -> dict[str, int]:
        """Return what each name holds: from its commit to the next named one, or to the oldest that the bounds keep.

        The bounds are the store's, or ``bounds`` once they are set. On a full disk, where history within them is given up,
        too, it is to the newest.
        """
        within = self._wanted() if bounds is None else self.oldest_within(bounds)
        wanted = self.newest if on_full_disk else within
        stops = sorted({*(snapshot.txid for snapshot in self.named.values()), wanted})
        return {
            name: self.bytes_between(snapshot.txid, next(stop for stop in stops if stop > snapshot.txid))
            if snapshot.txid < wanted
            else 0
            for name, snapshot in self.named.items()
        }

    @cached_property
    def retention(self) -> Retention:
        """The bounds within which the store retains commits."""
        return read_retention(self.reader)

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        """What happened to the history: see ``retention``."""
        return read_events(self.reader)

    def oldest_within(self, retention: Retention) -> int:
        """Return the oldest commit that these bounds alone would keep, once a commit has set them."""
        return min(self._wanted(retention, made=1), self.newest)

    def _wanted(self, retention: Retention | None = None, made: int = 0) -> int:
        """Return the oldest commit that the bounds alone would keep, after ``made`` more commits."""
        policy = StoreRetention(self.reader.root.page_size, retention=retention)
        return policy.horizon(self._env.rootlog.view(self.reader), made=made) + self._offset


@contextmanager
def hold_timeline(env: Env) -> Iterator[Timeline]:
    """Yield what the store in ``env`` retains, as of its newest commit; all of it is held for as long."""
    for _ in range(_LOOKS):
        with ExitStack() as stack:
            timeline = Timeline(env, stack.enter_context(env.hold()))
            try:
                stack.enter_context(env.hold(timeline.txnid(timeline.horizon)))
            except NotFound:  # a writer has just given it up: look again
                continue
            yield timeline
            return
    raise CorruptDatabase(f"{env.path}: the oldest commit that it retains, {timeline.horizon}, cannot be found")
