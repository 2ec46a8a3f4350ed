"""The clock: the one place that asks the system what time it is, and what a commit's instant becomes.

The instant of a commit is what the clock said when it was made, also when that is before the instant of the commit before
it: a clock that was wrong once must not date every later commit. So instants may go down, and the order of commits is that
of their txids. ``chronology`` finds commits by time all the same.

Clocks are put back by less than a second as a matter of course. Such a correction is no error to remember: a commit up to
``CORRECTION`` before its predecessor gets the predecessor's instant.
"""

from __future__ import annotations

import time
from datetime import datetime
from typing import Final

from cowfs.store.model.encoding import instant_of

CORRECTION: Final = 1_000_000
"""Microseconds by which instants may be ahead of the clock, or of each other, though the clock is right."""


def now_micros() -> int:
    """Return the time in microseconds since 1970, UTC."""
    return time.time_ns() // 1000


def now() -> datetime:
    """Return the time."""
    return instant_of(now_micros())


def instant_after(last: int) -> int:
    """Return the instant of a commit that is made now, after one whose instant is ``last``; both in microseconds."""
    micros = now_micros()
    return last if last - CORRECTION <= micros < last else micros


def age(instant: datetime, moment: datetime) -> float | None:
    """Return how many seconds before ``moment`` an instant was; None when it is after it: some clock was wrong."""
    seconds = (moment - instant).total_seconds()
    return None if seconds < -CORRECTION / 1_000_000 else max(round(seconds, 3), 0.0)
