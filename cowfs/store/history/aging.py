"""``Aging``: which commits are too old for a bound, by a clock that may have jumped.

A store in which nothing was committed for a week looks the same as one whose clock jumped ahead by a week. To give up
history for time that passed, and not for a jump, a long gap between commits (more than a quarter of the bound, and of a
minute) does not count at first: it counts when the clock has stood, after the gap, for as long as the bound says. So a
clock that is ahead for less than that gives up nothing, and a store that rests keeps its history for at most twice as long
as it needs to. Meanwhile ``status`` says so.
"""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from typing import Final

from cowfs.store.history.chronology import Chronology, Gap
from cowfs.store.model.encoding import micros_of

_MICRO: Final = 1_000_000
_MIN_GAP: Final = 60 * _MICRO
_PARTS: Final = 4  # a gap is long when it is more than one of so many parts of the bound


class Aging:
    """How old commits are at the instant ``now``, in microseconds, under a bound of ``age`` seconds."""

    def __init__(self, chronology: Chronology, age: int, now: int) -> None:
        self._chronology = chronology
        self._age = age * _MICRO
        self._now = now

    @cached_property
    def open_gaps(self) -> list[Gap]:
        """The long gaps that do not count yet, the oldest first."""
        since = self._now - self._age
        return sorted(gap for gap in self._chronology.gaps(since, self._now, self._longest) if gap.end > since)

    @property
    def now(self) -> int:
        """The time that it is when the open gaps are left out."""
        return self._now - sum(gap.end - gap.start for gap in self.open_gaps)

    def counts_from(self, gap: Gap) -> int:
        """Return the instant from which on an open gap counts."""
        return gap.end + self._age

    def oldest(self, base: int) -> int | None:
        """Return the oldest commit above ``base`` that the bound wants; None when it wants that or an older one.

        What it wants is the newest commit of so long ago, and all after that.
        """
        if not self._is_old(base + 1):
            return None
        wanted = self._chronology.at(self.now - self._age)
        return wanted if wanted is not None and wanted > base else None

    def kept_by_gaps(self, base: int) -> int:
        """Return how many commits from ``base`` on would be too old if the open gaps counted."""
        wanted = self._chronology.at(self._now - self._age)
        kept = self._chronology.at(self.now - self._age)
        return 0 if wanted is None else max(wanted - max(kept or base, base), 0)

    def dropped_by_gaps(self, first: int, last: int) -> bool:
        """Whether some of these commits, which are too old, would not be if no long gap after them counted."""
        since = self._chronology.dated_from(first)
        if since is None:
            return False
        wanted = self._now - self._age
        for gap in sorted(self._chronology.gaps(since.micros, self._now, self._longest), reverse=True):
            if gap.end > wanted:
                wanted -= gap.end - gap.start
                if wanted >= gap.start:  # which is where the gap ends when it is left out
                    wanted = gap.end
        oldest = self._chronology.at(wanted)
        return oldest is None or oldest <= last

    def passed(self, instant: datetime) -> bool:
        """Whether an instant has passed, also when the open gaps are left out."""
        micros = micros_of(instant)
        return micros <= self._now and micros <= self.now

    def passed_by_gaps(self, since: datetime, instant: datetime) -> bool:
        """Whether an instant, which has passed, would not have if no long gap after ``since`` counted."""
        gaps = self._chronology.gaps(micros_of(since), self._now, self._longest)
        return self._now - sum(gap.end - gap.start for gap in gaps) < micros_of(instant)

    def _is_old(self, txid: int) -> bool:
        """Whether a commit is older than the bound, if all gaps count."""
        dated = self._chronology.dated_from(txid)
        return dated is not None and dated.micros <= self._now - self._age

    @property
    def _longest(self) -> int:
        return max(self._age // _PARTS, _MIN_GAP)
