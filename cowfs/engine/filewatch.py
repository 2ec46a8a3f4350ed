"""``FileWatch``: whether anybody else has written a file since we looked last, by inotify(7).

The kernel queues an event with each write(2), truncation or replacement, before that call returns, so no clock is needed to
order it. Stores to a mapping are not seen; nobody but LMDB maps a data file, and only for reading.
"""

from __future__ import annotations

import ctypes
import os
import sys
from fcntl import ioctl
from pathlib import Path
from termios import FIONREAD
from typing import Final

_IN_MODIFY: Final = 0x002
_IN_ATTRIB: Final = 0x004  # the last link was removed
_IN_MOVE_SELF: Final = 0x800
_BUFFER: Final = 1 << 12  # a multiple of an event's 16 bytes
_NOTHING: Final = bytes(4)

_libc = ctypes.CDLL(None, use_errno=True)


class FileWatch:
    """A watch of one file; where the system has none left, everything counts as changed. ``close`` it."""

    def __init__(self, path: Path) -> None:
        self._queued = bytearray(_NOTHING)  # a C int: the bytes that are queued
        self._fd = int(_libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC))
        if self._fd < 0:
            return
        if _libc.inotify_add_watch(self._fd, os.fsencode(path), _IN_MODIFY | _IN_ATTRIB | _IN_MOVE_SELF) < 0:
            self.close()

    def close(self) -> None:
        """End the watch."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def changed(self) -> bool:
        """Return whether the file may have been written since the last call."""
        if self._fd < 0:
            return True
        ioctl(self._fd, FIONREAD, self._queued)  # a third of what a read in vain costs
        if self._queued == _NOTHING:
            return False
        os.read(self._fd, int.from_bytes(self._queued, sys.byteorder))
        return True

    def skip(self) -> None:
        """Take what has been written so far as seen; ``changed`` looks at what follows."""
        try:
            while self._fd >= 0 and len(os.read(self._fd, _BUFFER)) == _BUFFER:
                pass
        except BlockingIOError:
            return
