"""``Retention``: how much of its history a store keeps, a property of the store; and ``StoreRetention``, which applies it.

Under ``retention`` in the ``cowfs`` database, JSON: ``{"commits": 10000, "age": 604800, "bytes": 1073741824}``. A commit is
given up when any of the bounds is exceeded, and no named snapshot and no reader needs it:

- ``commits``: so many behind the newest are kept (one at least);
- ``age``, seconds: what the store held at any moment within that time can be seen (``aging`` says by which clock);
- ``bytes``: pages that only older commits use; the newest commit itself costs nothing.

The bounds are looked at every 128 commits; sooner when 1/64 of one of them has been reached since the last look (so many
commits, bytes, seconds); when a process begins to write; and when they are changed. What happened to the history is kept
under ``history/events``, JSON, the newest last.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import lru_cache
from typing import Any, Final

from cowfs.engine.pace import Pace
from cowfs.engine.policy import Event, HistoryView
from cowfs.engine.rootrecord import OWN_KEYS, Span
from cowfs.engine.writetxn import WriteTxn
from cowfs.errors import InputError
from cowfs.pages.reader import Reader
from cowfs.store.history import named
from cowfs.store.history.aging import Aging
from cowfs.store.history.chronology import Chronology
from cowfs.store.model import clock
from cowfs.store.model.layout import META, parse_json, read_state, txid_of
from cowfs.store.model.values import instant_text

RETENTION_KEY: Final = b"retention"
EVENTS_KEY: Final = OWN_KEYS + b"events"
_EVENTS_KEPT: Final = 16
_DAY: Final = 86_400  # seconds
_LOOKS: Final = 64  # while as much happens as a bound allows in all
_MIN_COMMITS: Final = 4  # between two looks, since a look costs as much as a small commit; as the next two
_MIN_PAGES: Final = 64
_MIN_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class Retention:
    """The bounds: commits behind the newest, seconds, bytes. The defaults are those of a new store."""

    commits: int = 10_000
    age: int = 7 * 86_400
    size: int = 1 << 30

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not isinstance(value, int) or not 0 <= value < 2**62:
                raise InputError(f"the bound {name} of the history cannot be {value}")

    def pack(self) -> bytes:
        """Return the record under ``retention``."""
        return json.dumps(self.to_json()).encode()

    def to_json(self) -> dict[str, int]:
        """Return the bounds by the names under which they are set."""
        return {"commits": self.commits, "age": self.age, "bytes": self.size}


DEFAULT_RETENTION: Final = Retention()


def read_retention(reader: Reader) -> Retention:
    """Return the bounds of a store; the defaults where it says nothing. Raises ``CorruptDatabase``."""
    return _parsed(reader.get(META, RETENTION_KEY))


@lru_cache(maxsize=16)
def _parsed(data: bytes | None) -> Retention:
    record = {} if data is None else parse_json(data, "retention")
    default = DEFAULT_RETENTION
    return Retention(
        record.get("commits", default.commits), record.get("age", default.age), record.get("bytes", default.size)
    )


def read_events(reader: Reader) -> list[dict[str, Any]]:
    """Return the events of the history: ``kind`` (lost, gap, full, aged, expired), ``first`` and ``last``, ``instant``."""
    data = (reader.get(META, EVENTS_KEY) or b"").strip(b"\0")
    return list(parse_json(data, "events").get("events", ())) if data else []


class StoreRetention:
    """The retention policy of a store, asked in its write transactions. Its txids are LMDB's.

    By default it answers as the store stands; with ``retention`` as under these bounds, with ``without`` as if that name had
    been deleted: what will be once such a change is committed.
    """

    def __init__(self, page_size: int, *, retention: Retention | None = None, without: str | None = None) -> None:
        self._page_size = page_size
        self._retention = retention
        self.without = without

    def horizon(self, view: HistoryView, made: int = 1) -> int:
        """Return the oldest retained commit that the bounds allow.

        ``made`` is how many commits are being made after the newest of the view.
        """
        reader, span = view.reader, view.span
        bounds = self._bounds(reader)
        offset = read_state(reader).offset
        wanted = max(span.horizon, span.newest + made - bounds.commits)
        base = wanted + offset
        wanted = (self._aging(reader, span.newest + offset).oldest(base) or base) - offset
        most = bounds.size // self._page_size
        if view.held_from(wanted) > most:
            wanted = _first(wanted, span.newest, lambda txnid: view.held_from(txnid) <= most - most // 16)
        return wanted

    def limit(self, view: HistoryView) -> int:
        """Return the oldest retained commit that a named snapshot needs; the newest when none needs any."""
        reader, span = view.reader, view.span
        offset = read_state(reader).offset
        passed = self._expiry(reader, span.newest + offset).passed
        needed = (txid - offset for txid in named.read_txids(reader, self.without, passed))
        return min([span.newest, *(txnid for txnid in needed if txnid in span)])

    def pace(self, reader: Reader) -> Pace:
        """Return what may happen between two looks: a small part of each bound."""
        bounds = self._bounds(reader)
        return Pace(
            max(bounds.commits // _LOOKS, _MIN_COMMITS),
            max(bounds.size // self._page_size // _LOOKS, _MIN_PAGES),
            max(bounds.age / _LOOKS, _MIN_SECONDS),
        )

    def sweep(self, txn: WriteTxn, span: Span) -> None:
        """Delete the names of commits that are not retained any more, and those that have expired."""
        offset = read_state(txn).offset
        aging = self._expiry(txn, span.newest + offset)
        for snapshot in named.sweep(txn, lambda txid: txid - offset in span, aging.passed):
            if aging.passed_by_gaps(snapshot.instant, snapshot.expires or snapshot.instant):
                self.on_event(txn, Event("expired", snapshot.txid - offset, snapshot.txid - offset))

    def on_give_up(self, txn: WriteTxn, span: Span, last: int) -> None:
        """Add an event when commits were given up that are old only if time passed while nothing was committed."""
        offset = read_state(txn).offset
        aging = self._aging(txn, span.newest + offset)
        first, last_txid = span.horizon + offset, last + offset
        if (aging.oldest(first) or 0) > last_txid and aging.dropped_by_gaps(first, last_txid):
            self.on_event(txn, Event("aged", span.horizon, last))

    def on_event(self, txn: WriteTxn, event: Event) -> None:
        """Add an event to those that are kept."""
        newest = txn.txnid - 1
        offset = txid_of(newest, read_state(txn)) - newest
        events = read_events(txn)
        now = instant_text(clock.now())
        first = event.first + offset
        if events and events[-1]["kind"] == event.kind and events[-1]["last"] == first - 1:  # a full disk, bit by bit
            first = events.pop()["first"]
        events.append({"kind": event.kind, "first": first, "last": event.last + offset, "instant": now})
        txn.put(META, EVENTS_KEY, json.dumps({"events": events[-_EVENTS_KEPT:]}).encode())

    def _bounds(self, reader: Reader) -> Retention:
        return self._retention or read_retention(reader)

    def _aging(self, reader: Reader, newest: int) -> Aging:
        return Aging(Chronology(reader, newest), self._bounds(reader).age, clock.now_micros())

    def _expiry(self, reader: Reader, newest: int) -> Aging:
        """Return what says when a name expires: also where the bound is small, a jump of the clock must stand for a day."""
        return Aging(Chronology(reader, newest), max(self._bounds(reader).age, _DAY), clock.now_micros())


def _first(low: int, high: int, enough: Callable[[int], bool]) -> int:
    """Return the first number in ``low``..``high`` that is enough, as all after it are; ``high`` when there is none."""
    while low < high:
        middle = (low + high) // 2
        if enough(middle):
            high = middle
        else:
            low = middle + 1
    return low
