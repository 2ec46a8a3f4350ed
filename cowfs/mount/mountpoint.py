"""The mount point: what is mounted where, whether a place will do, and how to free it."""

from __future__ import annotations

import errno
import os
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import NamedTuple

from cowfs.errors import InvalidTarget, MountError, NotFound

TYPE = "fuse.cowfs"
_OCTAL = re.compile(r"\\([0-7]{3})")
_MAX_SYMLINKS = 40
_GONE_WITHIN = 10.0  # seconds that an unmounted place may take to leave the table


class Mounted(NamedTuple):
    """One line of the kernel's table of mounts: mount point, filesystem type, and source (the database)."""

    point: Path
    kind: str
    source: str


def mounts() -> list[Mounted]:
    """Return what is mounted, in the order of mounting. The format is that of proc(5), mountinfo."""
    found = []
    for line in Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines():
        left, _, right = line.partition(" - ")
        kind, source = right.split(" ")[:2]
        found.append(Mounted(Path(_unescape(left.split(" ")[4])), kind, _unescape(source)))
    return found


def mounted_at(point: Path) -> Mounted | None:
    """Return what is mounted at ``point`` (the topmost, when several are), or None."""
    real = _real(point)
    return next((mount for mount in reversed(mounts()) if mount.point == real), None)


def mounts_of(database: Path) -> list[Mounted]:
    """Return the cowfs mounts of ``database``."""
    return [mount for mount in mounts() if mount.kind == TYPE and mount.source == str(database.resolve())]


def prepare(point: Path, database: Path) -> None:
    """See to it that ``database`` can be mounted at ``point``: clear a dead mount, refuse what cannot be.

    Raises ``InvalidTarget`` with what to do.
    """
    try:
        _prepare(point, database)
    except OSError as error:
        raise InvalidTarget(f"{point}: {error.strerror}") from error


def _prepare(point: Path, database: Path) -> None:
    _clear_dead_mount(point)
    mount = mounted_at(point)
    if mount is not None and mount.kind == TYPE:
        raise InvalidTarget(f"{point}: {mount.source} is mounted here already; `cowfs umount {point}` unmounts it")
    if not point.exists():
        raise InvalidTarget(f"{point}: no such directory; make it with `mkdir {point}`")
    if not point.is_dir():
        raise InvalidTarget(f"{point}: not a directory")
    inside, outside = point.resolve(), database.resolve()
    if inside == outside or outside in inside.parents:
        raise InvalidTarget(f"{point}: lies inside the database {database}; mount it somewhere else")
    if next(point.iterdir(), None) is not None:
        raise InvalidTarget(f"{point}: not empty; mount on an empty directory")
    if not os.access(point, os.W_OK):
        raise InvalidTarget(f"{point}: no permission to mount here (it must be writable for you)")


def require_fuse() -> None:
    """Raise ``MountError`` with what to do when this machine cannot mount with FUSE."""
    try:
        os.close(os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        if error.errno in (errno.EACCES, errno.EPERM):
            raise MountError("/dev/fuse: no permission; your administrator decides who may mount with FUSE") from None
        raise MountError("/dev/fuse: there is none; `modprobe fuse`, or give the container the device") from None
    if shutil.which("fusermount") is None and os.geteuid() != 0:
        raise MountError("fusermount is not installed; install the package `fuse` (or fuse3)")


def unmount(point: Path, *, lazy: bool = False) -> None:
    """Unmount the cowfs mount at ``point``; return when it has left the table of mounts.

    Raises ``NotFound`` when there is none, ``MountError`` when it is busy (``lazy`` detaches it even so).
    """
    mount = mounted_at(point)
    if mount is None or mount.kind != TYPE:
        raise NotFound(f"{point}: no cowfs is mounted here")
    result = _fusermount(mount.point, lazy=lazy)
    if result.returncode != 0:
        reason = result.stderr.strip() or f"exit code {result.returncode}"
        if "busy" in reason:
            raise MountError(f"{point}: busy, a process has a file or its working directory in it (`fuser -vm {point}`)")
        raise MountError(f"{point}: {reason}")
    deadline = time.monotonic() + _GONE_WITHIN
    while mounted_at(point) == mount and time.monotonic() < deadline:
        time.sleep(0.01)


def _clear_dead_mount(point: Path) -> None:
    """Detach a mount whose process is gone: it answers ENOTCONN to everything."""
    try:
        point.stat()
    except OSError as error:
        if error.errno == errno.ENOTCONN and (mount := mounted_at(point)) is not None and mount.kind == TYPE:
            _fusermount(mount.point, lazy=True)


def _fusermount(point: Path, *, lazy: bool) -> subprocess.CompletedProcess[str]:
    command = ["fusermount", "-uz" if lazy else "-u", str(point)]
    if shutil.which("fusermount") is None:
        command = ["umount", *(["-l"] if lazy else []), str(point)]
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


def _real(point: Path) -> Path:
    """Return ``point`` without symlinks. Other than resolve() this does not ask what is mounted there: it may be dead."""
    path = os.path.abspath(point)  # noqa: PTH100
    for _ in range(_MAX_SYMLINKS):
        parent, name = os.path.split(path)
        path = os.path.join(os.path.realpath(parent), name)  # noqa: PTH118
        try:
            path = os.path.normpath(os.path.join(os.path.dirname(path), os.readlink(path)))  # noqa: PTH115, PTH118, PTH120
        except OSError:
            break
    return Path(path)


def _unescape(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match[1], 8)), text)
