"""The one place where errors of py-lmdb and of the operating system become errors of cowfs."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import lmdb

from cowfs.engine.mapsize import address_space_limit, limit_text
from cowfs.errors import (
    AccessDenied,
    Closed,
    CorruptDatabase,
    CowfsError,
    DiskFull,
    EnvironmentFailure,
    NotADatabase,
    ReadersFull,
    UnsupportedFormat,
)

_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_CLOSED = "closed/deleted/dropped"  # py-lmdb's words for an object that may not be used any more
_MAP_TOO_SMALL = (lmdb.MapFullError, lmdb.MapResizedError, lmdb.MemoryError)
_ALMOST_FULL = 1 << 20  # bytes: LMDB reports a write that a full disk cut short as EIO


def domain_error(error: lmdb.Error | OSError, path: Path) -> CowfsError:
    """Return the error of cowfs that says what ``error`` means for the environment in ``path``."""
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error).removeprefix(f"{path}: ")
    if _CLOSED in text:
        return Closed(f"{path}: closed, or its transaction has ended")
    if isinstance(error, lmdb.ReadersFullError):
        return ReadersFull(f"{path}: all reader slots are taken by running processes; end a mount or a reader")
    if address_space_limit() is not None and (isinstance(error, _MAP_TOO_SMALL) or _says(text, errno.ENOMEM)):
        return EnvironmentFailure(f"{path}: no address space left: {limit_text()}")
    if isinstance(error, lmdb.MapFullError | lmdb.DiskError) or _no_room(error, path):
        return DiskFull(f"{path}: no space left on the filesystem")
    if isinstance(error, lmdb.CorruptedError | lmdb.PageNotFoundError):
        return CorruptDatabase(f"{path}: damaged ({text}); `cowfs check` says where")
    if isinstance(error, lmdb.VersionMismatchError):
        return UnsupportedFormat(f"{path}: written by another version of LMDB, or open in a process that uses one")
    if isinstance(error, lmdb.InvalidError):
        return NotADatabase(f"{path}: no LMDB database ({text})")
    if _says(text, errno.EROFS):
        return AccessDenied(f"{path}: no permission to write on a read-only filesystem; copy a snapshot, and write the copy")
    if isinstance(error, lmdb.ReadonlyError | lmdb.LockError | PermissionError):
        return AccessDenied(f"{path}: no permission ({text})")
    if _says(text, errno.ENODEV):
        return EnvironmentFailure(f"{path}: cannot be mapped into memory; below a mount take snapshots/<txid>")
    return EnvironmentFailure(f"{path}: {text}")


@contextmanager
def translated(path: Path) -> Iterator[None]:
    """Raise what fails inside the block as the error of cowfs that it means; for hot loops call ``domain_error``."""
    try:
        yield
    except (lmdb.Error, OSError) as error:
        raise domain_error(error, path) from error


def _no_room(error: lmdb.Error | OSError, path: Path) -> bool:
    text = str(error)
    if any(getattr(error, "errno", None) == number or _says(text, number) for number in _NO_ROOM):
        return True
    if not _says(text, errno.EIO):
        return False
    try:
        room = os.statvfs(path)
    except OSError:
        return False
    return room.f_bavail * room.f_frsize < _ALMOST_FULL


def _says(text: str, number: int) -> bool:
    """Whether the text of an error is that of an errno: py-lmdb's errors do not tell the number."""
    return os.strerror(number) in text
