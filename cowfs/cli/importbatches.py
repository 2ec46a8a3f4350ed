"""The lines of an import in batches: by their number, or by what the batches cost."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice
from typing import Any, NamedTuple

from cowfs.store.batchsize import BatchSize, Footprint

MOST_LINES = 1000  # of a batch, unless it is the first of all


class Line(NamedTuple):
    """One form, where it stands, and how many bytes its line has."""

    number: int
    form: Any
    size: int


class ByCount:
    """Batches of ``count`` lines."""

    def __init__(self, count: int) -> None:
        self._count = count

    def split(self, lines: Iterator[Line]) -> Iterator[list[Line]]:
        """Yield the lines of a file in batches; each is committed when the next one is asked for."""
        while batch := list(islice(lines, self._count)):
            yield batch


class ByCost:
    """Batches that copy few of the pages of the store, as ``BatchSize`` says; a small import is one batch.

    ``footprint`` says what the store is now.
    """

    def __init__(self, footprint: Callable[[], Footprint], size: BatchSize) -> None:
        self._footprint = footprint
        self._size = size
        self._first = True

    def split(self, lines: Iterator[Line]) -> Iterator[list[Line]]:
        """Yield the lines of a file in batches; each is committed when the next one is asked for."""
        if self._first:
            self._first = False
            ahead = _take(lines, self._size.whole)
            if _size(ahead) >= self._size.whole:
                lines = chain(ahead, lines)
                ahead = _take(lines, self._size.limit)
            yield from self._committed(ahead)
        while batch := _take(islice(lines, MOST_LINES), self._size.limit):
            yield from self._committed(batch)

    def _committed(self, batch: list[Line]) -> Iterator[list[Line]]:
        if batch:
            yield batch
            self._size.committed(_size(batch), self._footprint())


def _take(lines: Iterable[Line], size: int) -> list[Line]:
    """Return the next lines, up to that which makes them ``size`` bytes."""
    batch = []
    for line in lines:
        batch.append(line)
        size -= line.size
        if size <= 0:
            break
    return batch


def _size(lines: list[Line]) -> int:
    return sum(line.size for line in lines)
