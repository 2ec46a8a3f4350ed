"""``Chronology``: which commits are rightly dated, and so which was the newest at a given time.

The order of commits is that of their txids. Their instants go up with it, except where the clock was wrong: ahead for a
while, so that it went back afterwards, or behind for a while, so that it went back before (``steps`` has these places). The
commits that were made meanwhile are misdated. Among the others instants never go down, so a time finds one of them, by
halving; a misdated commit is found by its txid only.

Which ones are misdated? A step back can be read in two ways, with high and low the instants before and after it:

    ahead     10 11 12 [91 92] 13 14      the clock jumped up to high, and the step corrected it
    behind    80 81 82 [11 12] 83 84      the step was the mistake, and a jump up past high corrected that

The newest clock is believed: as long as no later commit has reached high, the commits before that are after low are
misdated. When one has, it may have grown there in its time, and nothing changes; but when it came there by a jump over most
of the way from low to high, and the commits before the step had not, the clock was behind.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from functools import cached_property
from itertools import pairwise
from typing import Final, NamedTuple

from cowfs.pages.reader import Reader
from cowfs.store.model.clock import CORRECTION
from cowfs.store.model.steps import read_steps
from cowfs.store.read.log import Dated, first_dated, first_later, last_dated

_FIRST: Final = 1  # the first txid that there can be


class Run(NamedTuple):
    """Commits from txid ``first`` to ``last``; ``since`` is the instant of the first one, in microseconds."""

    first: int
    last: int
    since: int


class Misdated(NamedTuple):
    """Commits that were made while the clock was wrong: ``was`` ahead, or behind, or this and that.

    ``step`` is the commit before which the clock was seen to go back, from the instant ``high`` to ``low``.
    """

    first: int
    last: int
    was: str
    step: int
    high: int
    low: int


class Gap(NamedTuple):
    """Time without a commit: from one instant to another, that of the commit ``txid``, or of none yet."""

    start: int
    end: int
    txid: int | None


class _Doubt(NamedTuple):
    """A step back from ``high`` to ``low`` that no commit after it has reached again.

    ``runs`` were right until then; ``resumed`` is the first instant in them that is after ``low``, and ``begun`` says
    whether there are any before it.
    """

    high: int
    low: int
    runs: list[Run]
    resumed: int
    begun: bool

    def was_behind(self, last: int) -> bool:
        """Whether the step was the mistake; ``last`` is the last instant before ``high`` was reached again."""
        most = (self.high - self.low) / 2
        return self.high - last >= most and not (self.begun and self.resumed - self.low >= most)


class Chronology:
    """The commits up to ``newest``, as the log of ``reader`` dates them; instants are in microseconds since 1970.

    Where the clock never went back, making one reads one record. Raises ``CorruptDatabase``.
    """

    def __init__(self, reader: Reader, newest: int) -> None:
        self._reader = reader
        self.newest = newest
        steps = read_steps(reader)  # in a write transaction maybe with that of the commit that is being made
        self._first = max(steps.floor, _FIRST)
        self._steps = [txid for txid in steps.txids if txid <= newest]

    @cached_property
    def runs(self) -> list[Run]:
        """The commits that are rightly dated, in whose order instants never go down; the newest is one of them."""
        if not self._steps:
            return [Run(self._first, self.newest, 0)]  # nothing asks since when
        starts = [self._first, *self._steps, self.newest + 1]
        runs: list[Run] = []
        doubts: list[_Doubt] = []  # the last is from the lowest
        for start, stop in pairwise(starts):
            begin = first_dated(self._reader, start, stop)
            if begin is None:
                continue
            if runs and begin.micros < (high := self._last_of(runs).micros):
                kept, resumed = self._upto(runs, begin.micros)
                doubts.append(_Doubt(high, begin.micros, runs, resumed, bool(kept)))
                runs = kept
            runs = [*runs, Run(start, stop - 1, begin.micros)]
            runs = self._settled(runs, doubts)
        return runs or [Run(self._first, self.newest, 0)]

    @cached_property
    def misdated(self) -> list[Misdated]:
        """The commits that are not rightly dated, the oldest first."""
        ends = [self._first - 1, *(run.last for run in self.runs)]
        between = zip(ends, self.runs, strict=False)
        return [self._misdated(end + 1, run.first - 1) for end, run in between if end + 1 < run.first]

    def at(self, micros: int) -> int | None:
        """Return the last commit rightly dated at or before an instant, of several the largest; None when there is none."""
        number = bisect_right([run.since for run in self.runs[1:]], micros)
        run = self.runs[number]
        later = first_later(self._reader, micros, run.first, run.last + 1)
        return later - 1 if later > run.first else None

    def dated_from(self, txid: int) -> Dated | None:
        """Return the first rightly dated commit from ``txid`` on; None when there is none."""
        for run in self.runs:
            dated = first_dated(self._reader, max(run.first, txid), run.last + 1)
            if dated is not None:
                return dated
        return None

    def is_misdated(self, txid: int) -> bool:
        """Whether a commit was made while the clock was wrong, as far as later ones show."""
        number = bisect_right(self.misdated, txid, key=lambda misdated: misdated.first) - 1
        return number >= 0 and txid <= self.misdated[number].last

    def ahead_of(self, micros: int) -> Run | None:
        """Return the newest commits if they are dated after ``micros``, by which the clock is behind, or was ahead then.

        ``since`` of what is returned is the instant of the newest. Small corrections do not count.
        """
        newest = last_dated(self._reader, self.runs[-1].first, self.newest + 1)
        if newest is None or newest.micros <= micros + CORRECTION:
            return None
        first = first_later(self._reader, micros + CORRECTION, self.runs[-1].first, self.newest + 1)
        return Run(first, self.newest, newest.micros)

    def doubt_after(self, txid: int, micros: int) -> Run | None:
        """Return the commits right after ``txid`` that no time finds, as seen at ``micros``; None when there are none."""
        for misdated in self.misdated:
            if misdated.first == txid + 1:
                return Run(misdated.first, misdated.last, misdated.low)
        ahead = self.ahead_of(micros)
        return ahead if ahead is not None and ahead.first == txid + 1 else None

    def gaps(self, since: int, until: int, longest: int) -> Iterator[Gap]:
        """Yield the gaps of more than ``longest`` between instants that follow each other, the last one being ``until``.

        They are those that end after ``since``, in no order.
        """
        last = self.at(until)
        if last is None:
            return
        first = self.at(since) or self.runs[0].first
        before: Dated | None = None
        for run in self.runs:
            start, stop = max(run.first, first), min(run.last, last) + 1
            low, high = first_dated(self._reader, start, stop), last_dated(self._reader, start, stop)
            if low is None or high is None:
                continue
            if before is not None and low.micros - before.micros > longest:
                yield Gap(before.micros, low.micros, low.txid)
            yield from self._gaps(low, high, longest)
            before = high
        if before is not None and until - before.micros > longest:
            yield Gap(before.micros, until, None)

    # -- inside --------------------------------------------------------------------------------------------------

    def _settled(self, runs: list[Run], doubts: list[_Doubt]) -> list[Run]:
        """Return the runs after deciding those of ``doubts`` whose high the last run has reached."""
        start, stop = runs[-1].first, runs[-1].last + 1
        while doubts:
            back = first_later(self._reader, doubts[-1].high - 1, start, stop)
            last = last_dated(self._reader, start, back)
            if back == stop or last is None:
                break
            doubt = doubts.pop()
            if doubt.was_behind(last.micros):
                begin = first_dated(self._reader, back, stop)
                runs = [*doubt.runs, Run(back, stop - 1, doubt.high if begin is None else begin.micros)]
        return runs

    def _upto(self, runs: list[Run], micros: int) -> tuple[list[Run], int]:
        """Return what of the runs is dated at or before ``micros``, and the first instant in them that is not."""
        kept = [run for run in runs if run.since <= micros]
        resumed = runs[len(kept)].since if len(kept) < len(runs) else None
        if kept:
            run = kept.pop()
            later = first_later(self._reader, micros, run.first, run.last + 1)
            kept.append(run._replace(last=later - 1))
            dated = first_dated(self._reader, later, run.last + 1)
            resumed = resumed if dated is None else dated.micros
        return kept, micros if resumed is None else resumed

    def _last_of(self, runs: list[Run]) -> Dated:
        last = last_dated(self._reader, runs[-1].first, runs[-1].last + 1)
        return last or Dated(runs[-1].first, runs[-1].since)

    def _misdated(self, first: int, last: int) -> Misdated:
        step = next((txid for txid in self._steps if first <= txid <= last + 1), last + 1)
        before, after = last_dated(self._reader, _FIRST, step), first_dated(self._reader, step, self.newest + 1)
        was = "ahead" if step == last + 1 else "behind" if step == first else "wrong"
        high = 0 if before is None else before.micros
        return Misdated(first, last, was, step, high, high if after is None else after.micros)

    def _gaps(self, low: Dated, high: Dated, longest: int) -> Iterator[Gap]:
        """Yield the long gaps between two commits of one run, halving what is longer."""
        if high.micros - low.micros <= longest:
            return
        middle = (low.txid + high.txid) // 2 + 1
        between = first_dated(self._reader, middle, high.txid) or last_dated(self._reader, low.txid + 1, middle)
        if between is None:
            yield Gap(low.micros, high.micros, high.txid)
        else:
            yield from self._gaps(low, between, longest)
            yield from self._gaps(between, high, longest)
