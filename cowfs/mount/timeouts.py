"""``EntryTimeout``: how long the kernel may remember a name, for each path by itself.

libfuse has one entry_timeout for the whole mount, which it copies into each reply after the operation has returned. Requests
are answered one at a time here, so it is set before each return: to an hour for names below a frozen commit, to nothing for
all others. A walk over a frozen tree then needs one request for a file, not one more for each directory on the way to it.
Attributes are never remembered: owner and mode are those of the database file at each look.

Where the number is in libfuse's ``struct fuse`` is found, not assumed: the mount begins with an odd value, which must be
there once. Where it is not, everything stays as it would be with a timeout of nothing.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

_HOUR: Final = 3600.0
_SEARCHED: Final = 2048  # bytes
MARK: Final = "0.00000003713"  # seconds: as good as nothing, should it stay


class EntryTimeout:
    """The timeout of a running mount that was begun with the option ``entry_timeout=MARK``."""

    def __init__(self, fuse: int) -> None:
        """``fuse`` is the address of libfuse's ``struct fuse``."""
        at = _find(_read(fuse, _SEARCHED), float(MARK))
        self._field = None if at is None else ctypes.c_double.from_address(fuse + at)
        self.set(frozen=False)

    @property
    def known(self) -> bool:
        """Whether the number was found."""
        return self._field is not None

    def set(self, *, frozen: bool) -> None:
        """Let the kernel remember the name that the operation at hand looks up, or not."""
        if self._field is not None:
            self._field.value = _HOUR if frozen else 0.0


def _read(address: int, size: int) -> bytes:
    """Return what is in our own memory, less where it ends before: a pointer that goes astray would end the process."""
    try:
        descriptor = os.open("/proc/self/mem", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # a process that has changed its user may not
        return b""
    try:
        return os.pread(descriptor, size, address)
    finally:
        os.close(descriptor)


def _find(memory: bytes, value: float) -> int | None:
    """Return where in ``memory`` the number is; None where it is not, or not only once."""
    mark = struct.pack("d", value)
    at = memory.find(mark)
    return at if at >= 0 and at % 8 == 0 and memory.find(mark, at + 1) < 0 else None
