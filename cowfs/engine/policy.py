"""``RetentionPolicy``: what the roots ask about the history, and ``Event``, what they report. The store answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cowfs.engine.pace import Pace
from cowfs.engine.rootrecord import Span
from cowfs.engine.writetxn import WriteTxn
from cowfs.pages.reader import Reader


class RetentionPolicy(Protocol):
    """Who decides what is retained, and remembers what befell it: the store. Called in a write transaction."""

    def horizon(self, reader: Reader, span: Span, held: Callable[[int], int]) -> int:
        """Return the oldest txnid of ``span`` that should be retained; ``held(txnid)`` pages are held from there on.

        The one after its newest when the commit that is being made gives up all before it.
        """

    def limit(self, reader: Reader, span: Span) -> int:
        """Return the oldest txnid of ``span`` that must be retained, its newest when there is none older."""

    def pace(self, reader: Reader) -> Pace:
        """Return what may happen between two looks at what may be given up."""

    def gave_up(self, txn: WriteTxn, span: Span, last: int) -> None:
        """Remember, if it is worth an event, that the commits of ``span`` up to ``last`` are given up within the bounds."""

    def sweep(self, txn: WriteTxn, span: Span) -> None:
        """Delete what is kept about commits that are not retained any more."""

    def befell(self, txn: WriteTxn, event: Event) -> None:
        """Remember an event."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that befell the history: ``lost``, ``gap``, ``full``, or what the keeper adds; and which txnids."""

    kind: str
    first: int
    last: int
