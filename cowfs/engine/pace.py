"""``Watch``: when the bounds of the history are looked at again, for what has happened since the last look.

A look costs some reads, so not every commit takes one. What may happen between two looks is a part of each bound, the
``Pace``: commits, pages freed, time. Counting the pages costs reads, too, so it is done only when they may be enough: what a
write transaction has put says how many pages it can have freed at most. After a commit of another process all is counted.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from math import inf

from cowfs.pages.datafile import DataFile
from cowfs.pages.freelist import freed_in_last_leaf


@dataclass(frozen=True, slots=True)
class Pace:
    """What may happen before the bounds are looked at again: commits, pages that they free, seconds."""

    commits: float = inf
    pages: float = inf
    seconds: float = inf


class Watch:
    """What has happened since the last look, for one open environment; only used under the write lock."""

    def __init__(self, file: DataFile) -> None:
        self._file = file
        self._pace = Pace()
        self._own = -1  # the last commit of this process
        self._most = 0  # pages at most that were freed since the last look
        self._looked = -1  # at which commit
        self._looked_at = -inf  # on the monotonic clock: a process that begins does not know, and looks

    def quiet(self, newest: int, meta: bytes) -> bool:
        """Return whether it is certain that no look is due at the commit ``newest``, whose root ``meta`` describes."""
        if newest != self._own:
            return False
        if self._most >= self._pace.pages:
            freed = freed_in_last_leaf(self._file, meta, self._looked)
            if freed is None:
                return False
            self._most = freed
        return not self._due(newest)

    def due(self, newest: int, looked: int, pages: int, pace: Pace) -> bool:
        """Return whether a look is due: the last one was at the commit ``looked``, and ``pages`` were freed since then."""
        self._pace, self._looked, self._most = pace, looked, pages
        return self._due(newest)

    def looked(self, newest: int, pace: Pace) -> None:
        """Begin to count again: the bounds were looked at, at the commit ``newest``."""
        self._pace, self._looked, self._most = pace, newest, 0
        self._looked_at = time.monotonic()
        self._own = -1  # until it is committed: an aborted look has given nothing up

    def committed(self, txnid: int, most: int) -> None:
        """Take note of a commit of this process, which has freed at most so many pages."""
        self._own = txnid
        self._most += most

    def _due(self, newest: int) -> bool:
        pace = self._pace
        return (
            self._most >= pace.pages
            or newest - self._looked >= pace.commits
            or time.monotonic() - self._looked_at > pace.seconds
        )
