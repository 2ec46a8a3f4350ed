"""A filesystem on which one call fails, the one that was asked for: the n-th that changes something.

    python -m tests.support.failing BACKING MOUNTPOINT PLAN

It passes everything through, like ``support.recorder``, whose rules hold here, too; directories get new names as well. The
plan is a file beside the mount: which call fails, and how. ``Faults`` writes it, and reads what was struck. A mapped file
that the kernel writes back arrives as a write, and its msync as an fsync, so those fail here as they do on a bad disk.
"""

from __future__ import annotations

import errno
import os
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

from tests.support.recorder import Kind, Recorder, name_in, serve, serving

_PLAN = struct.Struct("<QQIB")  # serial number of the plan, which call fails (0: none does), errno, how
_CHANGING: Final = frozenset(
    ("create", "mkdir", "unlink", "rmdir", "rename", "write", "truncate", "fsync", "fsyncdir", "chmod", "chown", "utimens")
)


class How(IntEnum):
    """How a call fails."""

    CLEANLY = 0  # nothing is done
    HALFWAY = 1  # of a write, the first half is done
    AFTER = 2  # it is done, and fails all the same


@dataclass(frozen=True)
class Faults:
    """The faults of a mounted filesystem: ``point`` is where it is mounted. Only one process at a time may plan."""

    point: Path
    plan: Path

    @contextmanager
    def failing(self, number: int, code: int, how: How = How.CLEANLY) -> Iterator[None]:
        """Let the call ``number`` of the block, counted from 1, fail with the errno ``code``."""
        self._write(number, code, how)
        try:
            yield
        finally:
            self._write(0, 0, How.CLEANLY)

    def struck(self) -> str | None:
        """Return the label of the call that failed in the last block, like "write db/data.mdb: EIO"; None when none did."""
        serial, *_rest = _PLAN.unpack(self.plan.read_bytes())
        label = _label_of(self.plan, serial - 1)
        return label.read_text() if label.exists() else None

    def _write(self, number: int, code: int, how: How) -> None:
        serial, *_rest = _PLAN.unpack(self.plan.read_bytes())
        self.plan.write_bytes(_PLAN.pack(serial + 1, number, code, how))


@contextmanager
def failing_filesystem(directory: Path) -> Iterator[Faults]:
    """Mount one below ``directory`` for the length of the block; whoever works there is a process of its own."""
    plan = directory / "plan"
    plan.write_bytes(_PLAN.pack(0, 0, 0, How.CLEANLY))
    with serving(directory, "tests.support.failing", plan) as point:
        yield Faults(point, plan)


class FailingOperations(Recorder):
    """The operations, one of which fails. There is no journal."""

    def __init__(self, backing: Path, plan: Path) -> None:
        self._backing = backing
        self._plan_path = plan
        self._plan = os.open(plan, os.O_RDONLY | os.O_CLOEXEC)
        self._serial = self._done = 0

    def __call__(self, operation: str, *arguments: Any) -> Any:
        """Run one operation, or fail."""
        how, code = self._fate(operation, *arguments) if operation in _CHANGING else (None, 0)
        if how is How.HALFWAY and operation == "write":
            path, data, *rest = arguments
            super().__call__(operation, path, data[: len(data) // 2], *rest)
        elif how is How.AFTER:
            super().__call__(operation, *arguments)
        if how is not None:
            raise OSError(code, os.strerror(code))
        return super().__call__(operation, *arguments)

    def rename(self, old: str, new: str) -> None:
        self._below(old).rename(self._below(new))

    def _fate(self, operation: str, path: str, *_rest: Any) -> tuple[How | None, int]:
        serial, number, code, how = _PLAN.unpack(os.pread(self._plan, _PLAN.size, 0))
        if serial != self._serial:
            self._serial, self._done = serial, 0
        self._done += 1
        if self._done != number:
            return None, 0
        label = f"{operation} {name_in(path)} {errno.errorcode[code]}"
        _label_of(self._plan_path, serial).write_text(label)
        return How(how), code

    def _record(self, kind: Kind, path: str, number: int = 0, data: bytes = b"") -> None:
        """Keep no journal."""


def _label_of(plan: Path, serial: int) -> Path:
    return plan.with_name(f"struck-{serial}")


if __name__ == "__main__":
    _backing, _point, _plan = (Path(argument).resolve() for argument in sys.argv[1:])
    serve(FailingOperations(_backing, _plan), _point)
