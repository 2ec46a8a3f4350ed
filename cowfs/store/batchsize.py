"""``BatchSize``: how much text the next batch of an import has, when the import gives up its own batches.

A commit copies every page that it changes, and LMDB uses the pages that it has replaced again only two commits later. So the
file ends larger than one big transaction would have made it, by what the last two batches have copied. Keys come in no
order: a few thousand of them, and most pages of an index are copied. What matters is the share of the pages that are copied,
and the batches grow with the store. As long as the store is small against what it will be, they may copy more of it.

Pages that one transaction has filled are split by the first keys that come between: a file that is little larger than its
first batch has half of its pages half empty. So the first batch takes up to half more, if that is all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FIRST: Final = 4 << 20  # bytes of text: some 150 MB of memory while they are committed
_MOST: Final = 16  # times less than the first batch
_LEAST: Final = 1024
_GROWTH: Final = 4  # times from one batch to the next
_SHARE: Final = 0.03  # of the pages, that a batch may always copy
_EXPECTED: Final = 0.85  # of the pages that the file will have at the end, as the text that is to come says


@dataclass(frozen=True, slots=True)
class Footprint:
    """The pages of a store after a batch: ``used`` by it, and ``copied``: those that the batch has replaced."""

    used: int
    copied: int


class BatchSize:
    """The size of the next batch: ``limit`` bytes of text. What has at most ``whole`` bytes is one batch.

    ``total`` is how many bytes the whole import has, None when that is not known; ``first`` those of the first batch.
    """

    def __init__(self, total: int | None, first: int = FIRST) -> None:
        self._total = total
        self._done = 0
        self._first = first
        self.whole = first + first // 2
        self.limit = first

    def committed(self, size: int, after: Footprint) -> None:
        """Take note of a batch of so many bytes, and of what the store was after it."""
        first = not self._done
        self._done += size
        most = self._first // _MOST
        limit = most / _GROWTH if first else min(size * self._copies(after) / max(after.copied, 1), size * _GROWTH)
        self.limit = int(max(self._first // _LEAST, min(limit, most)))

    def _copies(self, after: Footprint) -> float:
        """Return how many pages the next batch may copy; with the one after it, it is twice as many that are not used."""
        share = _SHARE * after.used
        if self._total is None:
            return share
        return max(share, (_EXPECTED * after.used * self._total / self._done - after.used) / 2)
