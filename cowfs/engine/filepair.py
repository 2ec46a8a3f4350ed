"""``FilePair``: whether the data file and the lock file that are open still have their names, and go together.

Files are replaced while they are open: a backup is put in place of data.mdb, lock.mdb is deleted since it looks like
rubbish. A process that goes on with the old ones works where nobody else looks: commits are lost, readers hold nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

from cowfs.engine.locktable import PIN, LockTable
from cowfs.errors import CorruptDatabase, EnvironmentFailure
from cowfs.pages.datafile import DataFile


class FilePair:
    """The two files of an open environment ``path``; they outlive this object."""

    def __init__(self, path: Path, file: DataFile, table: LockTable) -> None:
        self._path = path
        self._file = file
        self._table = table
        self._data_name = str(file.path.absolute())  # whatever the working directory will be; text is faster than a Path
        self._data = file_identity(file.status())

    def require_in_place(self) -> None:
        """Raise ``EnvironmentFailure`` when another file, or none, has the name of one of the two."""
        self.require_data_in_place()
        if not self._table.in_place():
            raise _replaced(self._table.path)

    def require_data_in_place(self) -> None:
        """Raise ``EnvironmentFailure`` when another file, or none, has the name of the data file; at the price of a stat."""
        try:
            in_place = file_identity(os.stat(self._data_name)) == self._data  # noqa: PTH116 - at every request
        except OSError:
            in_place = False
        if not in_place:
            raise _replaced(self._file.path)

    def require_match(self) -> None:
        """Raise ``EnvironmentFailure`` when the table of readers is that of another data file.

        It announces the newest commit of the file that its users have open, or the one before while one is committing. LMDB
        does not compare: it would go on from a wrong root of the file that is there now.
        """
        before = self._table.newest_txnid()
        newest = self._file.newest_txnid()
        after = self._table.newest_txnid()
        lost = 1 if newest < before and self._file.meta_pages().problems() else 0  # its newest meta page is damaged
        if not before - lost <= newest <= after + 1:
            raise self._mismatch()

    def require_base(self, txnid: int) -> None:
        """Raise unless ``txnid``, from which LMDB's write transaction goes on, is the newest commit of the file in place.

        Under the write lock. Raises ``EnvironmentFailure``, and ``CorruptDatabase`` where a meta page is damaged.
        """
        self.require_in_place()
        if max(self._file.raw_txnids()) == txnid:  # all that LMDB itself goes by, and cheap: this is in every transaction
            return
        newest = self._file.newest_txnid()
        self._file.settled_meta_pages().require_writable()
        if newest < txnid:
            raise CorruptDatabase(f"{self._path}: neither meta page is that of the newest transaction, {txnid}")
        if newest > txnid:
            raise self._mismatch()

    def _mismatch(self) -> EnvironmentFailure:
        pids = sorted({slot.pid for slot in self._table.slots() if slot.process != PIN} - {os.getpid()})
        users = f"process {', '.join(map(str, pids))}" if pids else "another process"
        return EnvironmentFailure(
            f"{self._path}: {self._table.path.name} does not match {self._file.path.name}, which was replaced while {users} "
            "had it open; end that first, then try again"
        )


def file_identity(status: os.stat_result) -> tuple[int, int]:
    """Return what tells a file from every other one."""
    return status.st_dev, status.st_ino


def _replaced(path: Path) -> EnvironmentFailure:
    return EnvironmentFailure(f"{path}: removed or replaced since it was opened; open it again")
