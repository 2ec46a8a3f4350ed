"""A filesystem that keeps a journal of all that a disk would hold: writes, sizes, names, and what was synced when.

It passes everything through to a backing directory, in a process of its own, one request after another, so that the journal
has one order for all files:

    python -m tests.support.recorder BACKING MOUNTPOINT JOURNAL ROOM META

``recording`` mounts it for the length of a block. ``support.powercut`` makes of the journal what a loss of power can leave.
What it relies on:

1. The kernel writes through: write(2) has reached the journal when it returns. Stores to a shared mapping reach it when the
   kernel writes the page back, as it likes, and at the latest when it is synced or unmapped.
2. fsync, fdatasync, the writes of a descriptor with O_DSYNC and msync(MS_SYNC) all arrive as fsync, behind their writes.
3. There is no lock operation and no direct_io, so that locks and mappings are the kernel's own; LMDB works here.
4. No exception leaves an operation other than as an errno, or fusepy would answer with stale memory.

Hard and symbolic links are refused, and so is a new name in another directory.
"""

from __future__ import annotations

import errno
import os
import struct
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

from fuse import FUSE

from cowfs.mount import mountpoint
from tests.support.commands import CHECKOUT, LIMIT
from tests.support.mounted import unmount

_HEADER = struct.Struct("<BHQI")  # of an event: kind, length of its name, offset or size, length of its data
_STATUS = (
    "st_mode", "st_ino", "st_nlink", "st_uid", "st_gid", "st_size", "st_blocks", "st_blksize",
)  # fmt: skip
_TIMES = ("st_atime", "st_mtime", "st_ctime")
_SPACE = (
    "f_bsize", "f_frsize", "f_blocks", "f_bfree", "f_bavail", "f_files", "f_ffree", "f_favail", "f_namemax",
)  # fmt: skip
_PAGE = 4096
_META_PAGES = 2 * _PAGE


class Kind(IntEnum):
    """What an event is."""

    CREATE = 1
    MKDIR = 2
    REMOVE = 3  # of a file or a directory
    RENAME = 4  # the new name is in the data
    WRITE = 5
    TRUNCATE = 6
    SYNC = 7
    SYNC_DIRECTORY = 8


class Event(NamedTuple):
    """One event: names are relative to the mount, which itself is ``.``; ``number`` is an offset or a size."""

    kind: Kind
    name: str
    number: int = 0
    data: bytes = b""

    def __str__(self) -> str:
        text = f"{self.kind.name.lower()} {self.name}"
        if self.kind is Kind.WRITE:
            return f"{text} {self.number}+{len(self.data)}"
        return f"{text} {self.number}" if self.kind is Kind.TRUNCATE else text

    def pack(self) -> bytes:
        """Return the bytes that stand for the event in a journal."""
        name = os.fsencode(self.name)
        return _HEADER.pack(self.kind, len(name), self.number, len(self.data)) + name + self.data


def read_journal(path: Path) -> Iterator[Event]:
    """Yield the events in a journal; one that is only half written is not there yet."""
    with path.open("rb") as file:
        while len(header := file.read(_HEADER.size)) == _HEADER.size:
            kind, name_length, number, data_length = _HEADER.unpack(header)
            rest = file.read(name_length + data_length)
            if len(rest) < name_length + data_length:
                return
            yield Event(Kind(kind), os.fsdecode(rest[:name_length]), number, rest[name_length:])


@dataclass(frozen=True)
class Faults:
    """What of a disk fails: a file has room for ``room`` bytes, and every ``meta``-th write of a meta page fails.

    Of such a meta page nothing, a half, or all has been written in spite of the error. 0: nothing fails.
    """

    room: int = 0
    meta: int = 0


NO_FAULTS = Faults()


@dataclass(frozen=True)
class Recording:
    """A running recorder, or, after its block, what it has recorded."""

    point: Path
    journal: Path

    def events(self) -> Iterator[Event]:
        """Yield what has happened until now."""
        return read_journal(self.journal)


@contextmanager
def recording(directory: Path, faults: Faults = NO_FAULTS) -> Iterator[Recording]:
    """Record below ``directory/mnt`` for the length of the block; at its end nothing is mounted any more.

    What lies in ``directory/backing`` is there.

    Whoever works there is a process of its own, with a time limit: it hangs when the recorder does.
    """
    with serving(directory, "tests.support.recorder", directory / "journal", str(faults.room), str(faults.meta)) as point:
        yield Recording(point, directory / "journal")


@contextmanager
def serving(directory: Path, module: str, *arguments: Path | str) -> Iterator[Path]:
    """Yield ``directory/mnt``, where ``module`` serves ``directory/backing`` in a process of its own; then unmount it.

    The process is started with these two directories and ``arguments``, and must not complain.
    """
    backing, point = directory / "backing", directory / "mnt"
    backing.mkdir(exist_ok=True)
    point.mkdir()
    command = [sys.executable, "-m", module, *map(str, (backing, point, *arguments))]
    errors = directory / f"{module}.errors"
    with errors.open("wb") as output:
        process = subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
    with process:
        try:
            _wait_for_mount(point, process)
            yield point
        except BaseException:
            print(f"--- errors of {module}:\n{errors.read_text()}")
            raise
        finally:
            _take_away(point, process)
    assert errors.read_text() == "", f"{module} complained: {errors.read_text()}"


def _wait_for_mount(point: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until the mount is in the kernel's table: what is asked before the recorder serves waits for it."""
    until = time.monotonic() + LIMIT
    while mountpoint.mounted_at(point) is None:
        assert process.poll() is None, f"the recorder ended with {process.returncode}"
        assert time.monotonic() < until, f"{point} is not mounted after {LIMIT} s"
        time.sleep(0.01)


def _take_away(point: Path, process: subprocess.Popen[bytes]) -> None:
    """Unmount, and end the process: it would go on as long as another mount namespace has a copy of the mount."""
    try:
        unmount(point)
    finally:
        process.kill()
        process.wait(LIMIT)
        unmount(point)


class Recorder:
    """The operations, as fusepy calls them: a path begins with a slash, a handle is a descriptor of the backing file."""

    use_ns = True
    _faults = NO_FAULTS
    _commits = 0

    def __init__(self, backing: Path, journal: Path, faults: Faults = NO_FAULTS) -> None:
        self._backing = backing
        self._faults = faults
        self._journal = os.open(journal, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def __call__(self, operation: str, *arguments: Any) -> Any:
        """Run one operation (rule 4)."""
        try:
            return getattr(self, operation)(*arguments)
        except OSError as error:
            if error.errno is not None and error.errno > 0:
                raise
            traceback.print_exc()
        except BaseException:
            traceback.print_exc()
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    # -- what a disk would hold ----------------------------------------------------------------------------------

    def create(self, path: str, mode: int) -> int:
        descriptor = os.open(self._below(path), os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        self._record(Kind.CREATE, path)
        return descriptor

    def mkdir(self, path: str, mode: int) -> None:
        self._below(path).mkdir(mode)
        self._record(Kind.MKDIR, path)

    def unlink(self, path: str) -> None:
        self._below(path).unlink()
        self._record(Kind.REMOVE, path)

    def rmdir(self, path: str) -> None:
        self._below(path).rmdir()
        self._record(Kind.REMOVE, path)

    def rename(self, old: str, new: str) -> None:
        if self._below(old).parent != self._below(new).parent:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        self._below(old).rename(self._below(new))
        self._record(Kind.RENAME, old, data=os.fsencode(name_in(new)))

    def write(self, path: str, data: bytes, offset: int, descriptor: int) -> int:
        if self._faults.room and offset + len(data) > self._faults.room:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        part = self._part_written(path, offset, len(data))
        written = os.pwrite(descriptor, data[:part], offset)
        self._record(Kind.WRITE, path, offset, data[:written])
        if part is not None:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return written

    def truncate(self, path: str, size: int, descriptor: int | None = None) -> None:
        os.truncate(self._below(path) if descriptor is None else descriptor, size)
        self._record(Kind.TRUNCATE, path, size)

    def fsync(self, path: str, _datasync: int, _descriptor: int) -> None:
        self._record(Kind.SYNC, path)

    def fsyncdir(self, path: str, _datasync: int, _descriptor: int) -> None:
        self._record(Kind.SYNC_DIRECTORY, path)

    # -- everything else -----------------------------------------------------------------------------------------

    def open(self, path: str, flags: int) -> int:
        """The kernel sees to appending, truncating and syncing; with O_APPEND here, pwrite would ignore its offset."""
        return os.open(self._below(path), flags & os.O_ACCMODE | os.O_CLOEXEC)

    def read(self, _path: str, size: int, offset: int, descriptor: int) -> bytes:
        return os.pread(descriptor, size, offset)

    def release(self, _path: str, descriptor: int) -> None:
        os.close(descriptor)

    def getattr(self, path: str, descriptor: int | None = None) -> dict[str, int]:
        status = self._below(path).lstat() if descriptor is None else os.fstat(descriptor)
        times = {name: getattr(status, f"{name}_ns") for name in _TIMES}
        return {name: getattr(status, name) for name in _STATUS} | times

    def statfs(self, path: str) -> dict[str, int]:
        status = os.statvfs(self._below(path))
        return {name: getattr(status, name) for name in _SPACE}

    def readdir(self, path: str, _handle: int) -> list[str]:
        return [".", "..", *os.listdir(self._below(path))]

    def chmod(self, path: str, mode: int) -> None:
        self._below(path).chmod(mode)

    def chown(self, path: str, owner: int, group: int) -> None:
        os.chown(self._below(path), owner, group)

    def utimens(self, path: str, times: tuple[int, int] | None) -> None:
        now = time.time_ns()
        os.utime(self._below(path), ns=times or (now, now))

    # -- inside --------------------------------------------------------------------------------------------------

    def _part_written(self, path: str, offset: int, size: int) -> int | None:
        """Return how much of a meta page is written before the disk fails; None when it does not."""
        if not self._faults.meta or not path.endswith("data.mdb") or offset >= _META_PAGES or size >= _PAGE:
            return None
        self._commits += 1
        failures, rest = divmod(self._commits, self._faults.meta)
        return None if rest else (0, size // 2, size)[failures % 3]

    def _below(self, path: str) -> Path:
        return self._backing / name_in(path)

    def _record(self, kind: Kind, path: str, number: int = 0, data: bytes = b"") -> None:
        event = Event(kind, name_in(path), number, data).pack()
        if os.write(self._journal, event) != len(event):
            raise OSError(errno.ENOSPC, "the journal has no room")


def name_in(path: str) -> str:
    return path.strip("/") or "."


def serve(operations: Recorder, mountpoint: Path) -> None:
    """Serve ``operations`` until they are unmounted."""
    os.umask(0)  # the kernel has applied the caller's
    FUSE(
        operations,
        str(mountpoint),
        foreground=True,
        nothreads=True,
        kernel_cache=True,
        big_writes=True,
        use_ino=True,
    )


if __name__ == "__main__":
    _backing, _point, _journal = (Path(argument).resolve() for argument in sys.argv[1:4])
    serve(Recorder(_backing, _journal, Faults(*map(int, sys.argv[4:]))), _point)
