"""The one table from errors of cowfs to errnos."""

from __future__ import annotations

import errno

from cowfs import errors

ERRNOS: dict[type[errors.CowfsError], int] = {
    errors.NotADatabase: errno.EIO,
    errors.CorruptDatabase: errno.EIO,
    errors.UnsupportedFormat: errno.EIO,
    errors.SchemaError: errno.EINVAL,
    errors.TransactionError: errno.EINVAL,
    errors.EntityTaken: errno.EEXIST,
    errors.NotFound: errno.ENOENT,
    errors.WrongName: errno.EINVAL,
    errors.NameTaken: errno.EEXIST,
    errors.ReadOnly: errno.EROFS,
    errors.InvalidTarget: errno.EINVAL,
    errors.Closed: errno.EBADF,
    errors.AccessDenied: errno.EACCES,
    errors.DiskFull: errno.ENOSPC,
    errors.ReadersFull: errno.EAGAIN,
    errors.Busy: errno.EBUSY,
    errors.EnvironmentFailure: errno.EIO,
    errors.MountError: errno.EIO,
}


def errno_of(error: BaseException) -> int:
    """Return the positive errno for ``error``: by the table, the error's own where it is an OSError, else EIO."""
    if isinstance(error, errors.CowfsError):
        return ERRNOS.get(type(error), errno.EIO)
    if isinstance(error, OSError) and error.errno is not None and error.errno > 0:
        return error.errno
    return errno.EIO
