"""Processes that use the mount: which one a request came from, and when it ends."""

from __future__ import annotations

import os
import select
import time
from pathlib import Path

_REMEMBERED = 1.0  # seconds that a thread's process is remembered: thread ids are used again, but not that soon
_MAX_REMEMBERED = 4096


class ProcessIds:
    """From thread ids, which FUSE gives, to process ids."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[int, float]] = {}

    def of(self, tid: int) -> int:
        """Return the process that thread ``tid`` belongs to; 0 when it is not (or no longer) to be seen from here."""
        now = time.monotonic()
        pid, until = self._known.get(tid, (0, 0.0))
        if now < until:
            return pid
        pid = _read_thread_group(tid)
        if len(self._known) >= _MAX_REMEMBERED:
            self._known.clear()
        self._known[tid] = (pid, now + _REMEMBERED)
        return pid


class Process:
    """A running process, watched through a pidfd: its id may be used again, the descriptor knows the difference."""

    def __init__(self, pid: int) -> None:
        """Raise ``ProcessLookupError`` when there is no such process (any more)."""
        self._fd = os.pidfd_open(pid)
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)

    def ended(self) -> bool:
        """Whether the process has ended."""
        return bool(self._poll.poll(0))

    def close(self) -> None:
        """Stop watching."""
        os.close(self._fd)


def _read_thread_group(tid: int) -> int:
    try:
        status = Path(f"/proc/{tid}/status").read_bytes()
    except OSError:
        return 0
    for line in status.splitlines():
        if line.startswith(b"Tgid:"):
            return int(line[5:])
    return 0
