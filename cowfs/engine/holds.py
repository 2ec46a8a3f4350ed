"""``Holds``: what a process holds; ``Hold``: one root that is held, and its reader."""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from cowfs.engine.locktable import IDLE
from cowfs.pages.btree import TreeReader
from cowfs.pages.datafile import DataFile
from cowfs.pages.format import Root


class Holds:
    """The txnids that one process holds, as often as it does: all of them by the one reader slot at the oldest.

    ``publish`` sets the slot. Safe for several threads, and for the collector of garbage, which may come at any time.
    """

    def __init__(self, publish: Callable[[int], None]) -> None:
        self._publish = publish
        self._counts: Counter[int] = Counter()
        self._oldest = IDLE  # as published last
        self._lock = threading.RLock()

    def add(self, txnid: int) -> None:
        """Hold every root from ``txnid`` on. Raises what publishing raises; nothing is held then."""
        with self._lock:
            self._counts[txnid] += 1  # first: the collector may come while we publish, and let go what was the oldest
            try:
                self._publish_oldest()
            except BaseException:
                self._discard(txnid)
                raise

    def remove(self, txnid: int) -> None:
        """Undo one ``add``."""
        with self._lock:
            self._discard(txnid)
            self._publish_oldest()

    def _discard(self, txnid: int) -> None:
        self._counts[txnid] -= 1
        if not self._counts[txnid]:
            del self._counts[txnid]

    def _publish_oldest(self) -> None:
        while (oldest := min(self._counts, default=IDLE)) != self._oldest:  # again when the collector came meanwhile
            self._publish(oldest)
            self._oldest = oldest


class Hold(TreeReader):
    """A root that is held, from ``Env.hold``: its pages stay until ``close``.

    It is read by our own reader, not through a transaction of LMDB: that opens the handle of a named database only under
    the write lock, so reading through it would wait for writers; and it trusts its pages, a corrupt one can crash the
    process.
    """

    def __init__(self, file: DataFile, root: Root, release: Callable[[], None]) -> None:
        super().__init__(file, root)
        self._release = weakref.finalize(self, release)
        self._release.atexit = False

    def __enter__(self) -> Hold:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the root go; closing twice does nothing. What was read from it stays valid: it was copied."""
        self.file = _RELEASED
        self._release()


class _Released(DataFile):
    """What a closed ``Hold`` reads from: its root may be gone, so everything raises ``Closed``."""

    def __init__(self) -> None:
        self.path = Path("this reader of a commit")
        self.page_size = 0
        self.close()


_RELEASED = _Released()
