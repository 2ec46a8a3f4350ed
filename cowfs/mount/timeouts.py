"""``Timeouts``: how long the kernel may remember a name and its attributes, for each path by itself.

libfuse has one entry_timeout and one attr_timeout for the whole mount, which it copies into each reply after the operation
has returned. Requests are answered one at a time here, so both are set before each return:

- The name of a directory below a frozen commit: an hour. A walk then needs one request for a file, not one more for each
  directory on the way to it.
- The attributes of a file there: to the next tick of the kernel's clock (1 to 10 ms), the shortest time it knows. They come
  with each look at its name; the stat or the open that it was for need not ask for them again.
- Everything else: not at all. What moves shows another commit to the next who looks, and to another process, though the
  kernel has one node for it. And as each look at a file is a look at its name, a change of the owner or the mode of the
  database, which are those of all files, holds at once.

Where the two numbers are in libfuse's ``struct fuse`` is found, not assumed: the mount begins with odd values, each of which
must be there once. Where they are not, everything stays as it would be with timeouts of nothing.
"""

from __future__ import annotations

import ctypes
import os
import struct
from typing import Final

_HOUR: Final = 3600.0  # seconds
_TICK: Final = 1e-9  # seconds, which the kernel rounds up
_SEARCHED: Final = 2048  # bytes
_NAME_MARK: Final = "0.00000003713"  # seconds: as good as nothing, should they stay
_ATTRIBUTES_MARK: Final = "0.00000004729"

OPTIONS: Final = {
    "entry_timeout": _NAME_MARK,
    "attr_timeout": _ATTRIBUTES_MARK,
    "ac_attr_timeout": "0",  # for an option that is not used; it would be another place with the mark
    "negative_timeout": "0",
}
"""The mount options that a mount must have for ``Timeouts`` to find its own."""


class Timeouts:
    """The timeouts of a running mount that was begun with ``OPTIONS``."""

    def __init__(self, fuse: int) -> None:
        """``fuse`` is the address of libfuse's ``struct fuse``."""
        memory = _read(fuse, _SEARCHED)
        places = [_find(memory, float(mark)) for mark in (_NAME_MARK, _ATTRIBUTES_MARK)]
        self._fields = [ctypes.c_double.from_address(fuse + at) for at in places if at is not None]
        if len(self._fields) < len(places):
            self._fields = []
        self.set(name=False, attributes=False)

    @property
    def known(self) -> bool:
        """Whether the numbers were found."""
        return bool(self._fields)

    def set(self, *, name: bool, attributes: bool) -> None:
        """Let the kernel remember what the operation at hand answers: the name that it looks up, the attributes."""
        if self._fields:
            self._fields[0].value = _HOUR if name else 0.0
            self._fields[1].value = _TICK if attributes else 0.0


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
