"""Logs made of a list of instants, and by which rule their commits are rightly dated, as plainly as can be."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from hypothesis import strategies as st

from cowfs.pages.reader import Reader
from cowfs.store.history.chronology import Chronology
from cowfs.store.model.layout import LOG, META, STEPS_KEY
from cowfs.store.model.steps import Steps
from cowfs.store.read.log import pack_row

SECOND = 1_000_000
DAY = 86_400 * SECOND


class ListedLog(Reader):
    """A reader of a log whose transactions, from txid 1 on, have these instants; None where there is no row."""

    def __init__(self, instants: Sequence[int | None]) -> None:
        self._rows = {
            txid.to_bytes(8, "big"): pack_row(micros, (), ())
            for txid, micros in enumerate(instants, 1)
            if micros is not None
        }
        self.steps = Steps()
        dated = [(txid, micros) for txid, micros in enumerate(instants, 1) if micros is not None]
        for (_txid, before), (txid, after) in pairwise(dated):
            if after < before:
                self.steps = self.steps.adding(txid)

    def get(self, name: bytes, key: bytes) -> bytes | None:
        assert (name, key) == (META, STEPS_KEY)
        return self.steps.pack() if self.steps.txids else None

    def scan(
        self, name: bytes, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        assert name == LOG
        for key in sorted(self._rows, reverse=reverse):
            if start <= key and (stop is None or key < stop):
                yield key, self._rows[key]


def chronology(instants: Sequence[int | None]) -> Chronology:
    return Chronology(ListedLog(instants), len(instants))


def right_ones(instants: Sequence[int]) -> list[int]:
    """Return the txids that are rightly dated, by the rule that ``chronology`` documents."""
    right: list[int] = []
    doubts: list[tuple[int, int, list[int]]] = []
    for txid, micros in enumerate(instants, 1):
        if right and micros < instants[right[-1] - 1]:
            doubts.append((instants[right[-1] - 1], micros, right))
            right = [other for other in right if instants[other - 1] <= micros]
        right = [*right, txid]
        while doubts and micros >= doubts[-1][0]:
            high, low, before = doubts.pop()
            grown = [other for other in before if instants[other - 1] <= low]
            jumped = min(instants[other - 1] for other in before if instants[other - 1] > low) - low >= (high - low) / 2
            if high - instants[txid - 2] >= (high - low) / 2 and not (grown and jumped):
                right = [*before, txid]
    return right


_jumps = st.sampled_from([0, 1, 2, 3, 10, 100, -1, -2, -3, -10, -100, 90, -90])


@st.composite
def clocks(draw: st.DrawFn) -> list[int]:
    """Return instants of a clock that ticks, and jumps now and then."""
    instants = [draw(st.integers(-50, 50))]
    for _ in range(draw(st.integers(0, 30))):
        instants.append(instants[-1] + (draw(_jumps) if draw(st.integers(0, 3)) == 0 else draw(st.integers(0, 2))))
    return instants
