"""``Hold``: a root that is held, and its reader."""

from __future__ import annotations

import lmdb

from cowfs.errors import EnvironmentFailure
from cowfs.pages.datafile import DataFile
from cowfs.pages.layout import Root
from cowfs.pages.tree import TreeReader


class Hold(TreeReader):
    """The newest root at the time of ``Env.hold``, held by a read transaction: its pages stay until ``close``.

    It is read by our own reader, not through the transaction: LMDB opens the handle of a named database only under the
    write lock, so reading through it would wait for writers; and it trusts its pages, a corrupt one can crash the process.
    """

    def __init__(self, file: DataFile, raw: lmdb.Transaction[bytes], root: Root) -> None:
        super().__init__(file, root)
        self._raw: lmdb.Transaction[bytes] | None = raw

    def __enter__(self) -> Hold:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let the root go; closing twice does nothing. What was read from it stays valid: it was copied."""
        self.file = _released
        if self._raw is not None:
            self._raw.abort()
            self._raw = None  # its slot in the table of readers, too


class _Released(DataFile):
    """What a closed ``Hold`` reads from: its root may be gone, so nothing."""

    def __init__(self) -> None:
        self.fd = -1
        self.page_size = 0

    def pread(self, count: int, offset: int) -> bytes:
        raise EnvironmentFailure("the root of this reader was let go: it is closed")


_released = _Released()
