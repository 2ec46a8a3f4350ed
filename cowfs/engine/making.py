"""``make_environment``: an empty environment where there is none, or where one was left unfinished: whole, or not at all.

The data file gets its name when it is on disk, and the directory is put on disk after that, so a loss of power leaves no
data.mdb of ours, or a whole one. What it, or a failure, leaves beside is made whole by whoever makes the environment next.

Only one process makes it: the one that has byte 0 of lock.mdb alone, as LMDB's own first opener has.
"""

from __future__ import annotations

import mmap
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from cowfs.engine.locktable import LockTable, sync_directory
from cowfs.engine.mapsize import FULL
from cowfs.engine.translate import domain_error, translated
from cowfs.errors import AccessDenied, Busy, DatabaseError, InvalidTarget
from cowfs.pages.datafile import DataFile
from cowfs.pages.format import INTEGER_KEY, MAX_PAGE_SIZE, META_SIZE, NO_PAGE, Root, TreeInfo, pack_meta
from cowfs.pages.unfinished import DATA_NAME, LOCK_NAME, NEW_NAME, is_unfinished

_BEGIN: Final = slice(16, 24)  # of a meta page: magic and version
_TXNID: Final = slice(144, 152)
_PATIENCE: Final = 2.0  # seconds for another process that is making it, or has just opened it
_POLL_INTERVAL: Final = 0.01


class MadeEnvironment:
    """What ``make_environment`` has made in ``path``, to be undone when nothing comes of it."""

    def __init__(self, path: Path, directories: list[Path]) -> None:
        self._path = path
        self._directories = directories  # that were made for it, the innermost first
        self._made_files = False

    def undo(self) -> None:
        """Remove what was made, unless somebody has committed to it, or has it open, by now. Raises nothing."""
        table = LockTable(self._path / LOCK_NAME)
        with suppress(Exception):
            if self._made_files and table.begin_alone():
                if is_free(self._path):
                    self._remove_files()
                table.end_alone()
        for directory in self._directories:
            with suppress(OSError):
                directory.rmdir()

    def make_files(self, *, durable: bool) -> None:
        """Make the data file, unless somebody else was faster; ``durable`` puts it on disk.

        Raises ``InvalidTarget``, ``Busy``, ``DiskFull``.
        """
        table = LockTable(self._path / LOCK_NAME)
        self._made_files = not (self._path / LOCK_NAME).exists()
        until = time.monotonic() + _PATIENCE
        while not table.begin_alone():
            if _is_empty_environment(self._path):
                return
            if time.monotonic() > until:
                raise Busy(f"{self._path}: somebody else is just making a database there; try again")
            time.sleep(_POLL_INTERVAL)
        try:
            if not _is_empty_environment(self._path):
                _require_free(self._path)
                self._made_files = True
                self._write_files(durable=durable)
        finally:
            (self._path / NEW_NAME).unlink(missing_ok=True)
            table.end_alone()

    def _write_files(self, *, durable: bool) -> None:
        new = self._path / NEW_NAME
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        with open(descriptor, "wb") as file:
            file.write(blank_file(min(mmap.PAGESIZE, MAX_PAGE_SIZE)))
            file.flush()
            if durable:
                os.fsync(file.fileno())
        new.rename(self._path / DATA_NAME)
        sync_directory(self._path)
        for directory in self._directories or [self._path]:
            sync_directory(directory.resolve().parent)

    def _remove_files(self) -> None:
        for name in (NEW_NAME, DATA_NAME, LOCK_NAME):
            (self._path / name).unlink(missing_ok=True)


def is_free(path: Path) -> bool:
    """Return whether ``make_environment`` can make an environment in ``path``: nobody has committed anything there."""
    try:
        return not path.exists() or is_unfinished(path) or _is_empty_environment(path)
    except OSError:
        return False


def make_environment(path: Path, *, durable: bool = True) -> MadeEnvironment:
    """Make an empty environment in the directory ``path``, which does not exist, is empty, or was left unfinished.

    An environment without any entry is left as it is. ``durable=False`` does without fsync. When it fails nothing is left
    behind. Raises ``InvalidTarget``, ``AccessDenied``, ``Busy``, ``DiskFull``.
    """
    made = MadeEnvironment(path, _make_directories(path))
    try:
        with translated(path):
            if not _is_empty_environment(path):
                _require_free(path)
            made.make_files(durable=durable)
    except BaseException:
        made.undo()
        raise
    return made


def blank_file(page_size: int) -> bytes:
    """Return a data file without a commit, as LMDB begins one."""
    free = TreeInfo(page_size, INTEGER_KEY, 0, 0, 0, 0, 0, NO_PAGE)
    root = Root(0, page_size, FULL, 1, free, TreeInfo(0, 0, 0, 0, 0, 0, 0, NO_PAGE))
    return pack_meta(root, 0) + pack_meta(root, 1)


def _make_directories(path: Path) -> list[Path]:
    """Make ``path``, and what is missing above it; return the directories that were made, the innermost first."""
    try:
        missing = [directory for directory in (path, *path.parents) if not directory.exists()]
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise InvalidTarget(f"{path}: a file is in the way") from None
    except NotADirectoryError:
        raise InvalidTarget(f"{path}: its parent is not a directory") from None
    except PermissionError:
        raise AccessDenied(f"{path}: no permission to make a database there") from None
    except OSError as error:
        raise domain_error(error, path) from error
    return missing


def _is_empty_environment(path: Path) -> bool:
    """Return whether there is an environment, whole and without any entry: one that was made, and not begun to be used."""
    try:
        with DataFile(path / DATA_NAME) as file:
            root, sound = file.newest_root(), not file.settled_meta_pages().problems()
            return root.main.entries == 0 and (sound or _nothing_committed(file, root))
    except DatabaseError:
        return False


def _nothing_committed(file: DataFile, root: Root) -> bool:
    """Return whether the second meta page is what a first commit leaves that could not write it: LMDB undoes half of it."""
    first, second = file.pread(META_SIZE, 0), file.pread(META_SIZE, root.page_size)
    return root.txnid == 0 and second[_BEGIN] == first[_BEGIN] and second[_TXNID] == bytes(8)


def _require_free(path: Path) -> None:
    if not is_unfinished(path):
        raise InvalidTarget(f"{path}: not empty, a new database needs a directory of its own")
