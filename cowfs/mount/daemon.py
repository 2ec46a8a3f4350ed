"""The life of a mount: open the database, serve, unmount, close; in the foreground, or in a process of its own.

The environment is opened in the process that serves, never before a fork (locks are not inherited). A background mount is a
new process that runs the same command in the foreground; it says through a pipe when it is usable, or why it is not.
"""

from __future__ import annotations

import logging
import os
import select
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from cowfs.commits.opened import open_commits
from cowfs.engine.env import Env
from cowfs.engine.location import locate
from cowfs.errors import AccessDenied, CowfsError, MountError
from cowfs.mount import mountpoint, timeouts
from cowfs.mount.housekeeper import Housekeeper
from cowfs.mount.operations import Filesystem
from cowfs.views.tree import Tree

log = logging.getLogger("cowfs.mount")

DEFAULT_KEEP = 64
_READY_WITHIN = 60.0
_ENDS_WITHIN = 10.0
_READY = b"ready"
# what fstab and systemd add for themselves, and what says no more than how we mount anyway
_NOT_FOR_FUSE = frozenset({"_netdev", "auto", "noauto", "user", "users", "nouser", "nofail", "defaults", "ro", "rw"})
_NOT_FOR_FUSE_PREFIXES = ("x-", "comment=")


@dataclass(frozen=True)
class MountOptions:
    """How to mount: how many commits of an environment that is no store keep a directory, and options for libfuse."""

    keep: int = DEFAULT_KEEP
    fuse: tuple[str, ...] = ()


def serve(database: Path, point: Path, options: MountOptions, ready: Callable[[], None]) -> None:
    """Mount ``database`` at ``point`` and serve until it is unmounted or a SIGTERM, SIGINT or SIGHUP comes.

    ``ready`` is called when the mount is usable. Raises ``InvalidTarget``, ``MountError``, and what opening raises.
    """
    mountpoint.require_fuse()
    mountpoint.prepare(point, database)
    env = open_for_mount(database)
    try:
        history = open_commits(env, options.keep)
        try:
            _serve(Tree(history), env, point, options, ready)
        finally:
            history.close()
    finally:
        env.close()


def open_for_mount(database: Path) -> Env:
    """Open ``database``, for reading only where the user has no permission to write it.

    Even then its lock file must be writable: without a reader slot there nothing holds a commit against writers.
    """
    try:
        return Env.open(database)
    except AccessDenied:
        pass
    try:
        return Env.open(database, readonly=True)
    except AccessDenied as error:
        where = locate(database)
        if not os.access(where.data, os.R_OK) or os.access(where.lock, os.W_OK):
            raise
        raise AccessDenied(f"{where.lock}: no permission to write it, which a mount needs to hold commits") from error


def start(command: list[str], arguments: list[str], log_path: Path) -> None:
    """Run ``command --ready-fd N -- arguments``, a foreground mount, in the background; return when it is usable.

    Its log goes to ``log_path``. Raises ``MountError`` with the line that it failed with.
    """
    log_file = _open_log(log_path)
    reading, writing = os.pipe()
    with log_file, os.fdopen(reading, "rb") as report:
        begin = log_file.tell()
        process = subprocess.Popen(
            [*command, "--ready-fd", str(writing), "--", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=log_file,
            pass_fds=[writing],
            start_new_session=True,
            cwd="/",
        )
        os.close(writing)
        try:
            reported = bool(select.select([report], [], [], _READY_WITHIN)[0])
            message = report.read() if reported else b""
        except BaseException:
            _end(process)
            raise
        if not reported:
            _end(process)
            raise MountError(f"the mount did not become usable within {_READY_WITHIN:.0f} s; see {log_path}")
    if message != _READY:
        process.wait()
        reason = os.fsdecode(message) or f"the mount ended at once; see {log_path}"
        raise MountError(" ".join([reason, *_said_by_libfuse(log_path, begin)]))
    process.returncode = 0  # it goes on without us: nobody waits for it


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a mount that nobody waits for any more: it unmounts."""
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(_ENDS_WITHIN)


def _open_log(path: Path) -> BinaryIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab")
    except OSError as error:
        raise MountError(f"{path}: cannot write the log there ({error.strerror}); choose a place with --log") from None


def _said_by_libfuse(log_path: Path, begin: int) -> list[str]:
    """Return what libfuse or fusermount wrote to the log from ``begin`` on: they know why the kernel refused."""
    with log_path.open("rb") as log_file:
        log_file.seek(begin)
        lines = log_file.read().decode(errors="replace").splitlines()
    return [f"({line})" for line in lines if line.startswith(("fuse: ", "fusermount"))][-1:]


def report_ready(descriptor: int) -> None:
    """Tell the process that started this one that the mount is usable. Raises ``BrokenPipeError`` when that is gone."""
    try:
        os.write(descriptor, _READY)
    finally:
        os.close(descriptor)


def report_failure(descriptor: int, error: CowfsError) -> None:
    """Tell the process that started this one why there will be no mount. Raises ``BrokenPipeError`` when that is gone."""
    try:
        os.write(descriptor, os.fsencode(str(error)))
    finally:
        os.close(descriptor)


def _serve(tree: Tree, env: Env, point: Path, options: MountOptions, ready: Callable[[], None]) -> None:
    filesystem = Filesystem(tree, env, lambda: begin())
    housekeeper = Housekeeper(filesystem, tree.history, env, point)

    begun = False

    def begin() -> None:
        nonlocal begun
        begun = True
        housekeeper.start()
        log.info("%s is mounted at %s", env.path, point)
        ready()

    try:
        filesystem.serve(str(point), _fuse_options(env, options))
    except RuntimeError as error:
        if not begun:
            raise MountError(f"{point}: libfuse could not mount (its code {error})") from error
        # the kernel may cut the connection instead of closing it, when the last file of a detached mount is closed
        log.info("%s: the connection to the kernel was cut", point)
    finally:
        housekeeper.stop()
        filesystem.walks.close()
        log.info("%s is no longer mounted at %s", env.path, point)


def _fuse_options(env: Env, options: MountOptions) -> dict[str, str | bool]:
    """Return the options for libfuse: ours, then the user's."""
    result: dict[str, str | bool] = {
        "fsname": str(env.path.resolve()).replace("\\", "\\\\").replace(",", "\\,"),
        "subtype": "cowfs",
        "use_ino": True,
        **timeouts.OPTIONS,
    }
    for option in options.fuse:
        name, equals, value = option.partition("=")
        if name in _NOT_FOR_FUSE or name.startswith(_NOT_FOR_FUSE_PREFIXES):
            continue
        result[name] = value if equals else True
    if "allow_other" in result or "allow_root" in result:
        result["default_permissions"] = True
    return result
