"""``RetentionPolicy``: what decides which commits are retained, by a ``HistoryView``; and the ``Event``s that it records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from cowfs.engine.pace import Pace
from cowfs.engine.rootrecord import Span
from cowfs.engine.writetxn import WriteTxn
from cowfs.pages.reader import Reader


class HistoryView(Protocol):
    """The retained commits as of the newest one; valid as long as ``reader``."""

    @property
    def reader(self) -> Reader:
        """The newest commit, or the write transaction after it."""

    @property
    def span(self) -> Span:
        """Which commits are retained."""

    def held_from(self, txnid: int) -> int:
        """Return how many pages are held for the commits from ``txnid`` on, beyond what the newest one uses."""


class RetentionPolicy(Protocol):
    """Retention policy callbacks, implemented by the store. All but ``pace`` and the two queries may write to ``txn``."""

    def horizon(self, view: HistoryView) -> int:
        """Return the oldest txnid that should be retained.

        The one after the newest when the commit that is being made gives up all commits before it.
        """

    def limit(self, view: HistoryView) -> int:
        """Return the oldest txnid that must be retained, the newest one when there is none older."""

    def pace(self, reader: Reader) -> Pace:
        """Return what may happen between two reviews of what may be given up."""

    def on_give_up(self, txn: WriteTxn, span: Span, last: int) -> None:
        """Record, if it is worth an event, that the commits of ``span`` up to ``last`` are given up within the bounds."""

    def sweep(self, txn: WriteTxn, span: Span) -> None:
        """Delete what is kept about commits that are not retained any more."""

    def on_event(self, txn: WriteTxn, event: Event) -> None:
        """Record an event."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to the history: ``lost``, ``gap``, ``full``, or what the policy adds; and to which txnids."""

    kind: str
    first: int
    last: int
