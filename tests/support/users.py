"""``ordinary_user``: somebody without privileges, whoever runs the tests.

Run by an ordinary user, the tests are that user. Run by root they are nobody, in a mount namespace where the checkout, the
Python that runs and the test's directory can be reached though they lie below a directory that is closed to others (/root,
or pytest's own below /tmp), and where /dev/fuse is open to all. What a user mounts is seen by that user's commands only,
and is gone at the end; files are seen by the test, too.
"""

from __future__ import annotations

import os
import shlex
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.commands import CHECKOUT, COWFS, LIMIT, WITHOUT_MOUNTS_OF_OTHERS, Argument, Completed, run
from tests.support.mounted import complaints, log_of

_NOBODY = 65534
_DEVICE = Path("/dev/fuse")


@dataclass(frozen=True)
class User:
    """An ordinary user, who owns the directory ``home``; commands run there unless they are given another one."""

    uid: int
    gid: int
    home: Path
    prefix: tuple[str, ...] = ()

    def run(
        self,
        *command: Argument,
        code: int | None = 0,
        stdin: str | None = None,
        cwd: Path | None = None,
        limit: float = LIMIT,
    ) -> Completed:
        """Do what ``tests.support.commands.run`` does, as this user."""
        where = ("env", f"--chdir={cwd or self.home}")
        own = {"HOME": str(self.home), "XDG_STATE_HOME": str(self.home / "state"), "TMPDIR": str(self.home)}
        return run(*self.prefix, *where, *command, code=code, stdin=stdin, limit=limit, env=own)

    def cowfs(self, *arguments: Argument, code: int | None = 0, stdin: str | None = None) -> Completed:
        """Run ``cowfs`` as this user."""
        return self.run(*COWFS, *arguments, code=code, stdin=stdin)

    def python(self, program: str, *arguments: Argument, code: int | None = 0) -> str:
        """Run a small Python program as this user; return its standard output."""
        return self.run(sys.executable, "-c", program, *arguments, code=code).stdout

    def own(self, *paths: Path) -> None:
        """Give ``paths`` and all below them to this user."""
        if os.geteuid() == 0:
            run("chown", "-R", f"{self.uid}:{self.gid}", *paths)

    @contextmanager
    def mounted(self, database: Path, point: Path, *options: Argument) -> Iterator[Path]:
        """Mount ``database`` as this user for the length of the block; yield the mount point."""
        log = log_of(point)
        self.run("mkdir", "-p", point)
        self.cowfs("mount", database, point, "--log", log, *options)
        try:
            yield point
        finally:
            self.run("sh", "-c", 'fusermount -u "$1" || fusermount -uz "$1"', "sh", point)
            print(f"--- log of {point}:\n{log.read_text()}")
        assert complaints(log.read_text()) == []


@contextmanager
def ordinary_user(home: Path) -> Iterator[User]:
    """Yield an ordinary user whose home directory is ``home``, which is made if need be and given to that user."""
    home.mkdir(exist_ok=True)
    home.chmod(0o755)
    if os.geteuid() != 0:
        yield User(os.geteuid(), os.getegid(), home)
        return
    os.chown(home, _NOBODY, _NOBODY)
    with _namespace(home) as pid:
        enter = ("nsenter", f"--mount=/proc/{pid}/ns/mnt")
        become = ("setpriv", f"--reuid={_NOBODY}", f"--regid={_NOBODY}", "--clear-groups")
        yield User(_NOBODY, _NOBODY, home, (*enter, *become))


@contextmanager
def _namespace(home: Path) -> Iterator[int]:
    """Yield the id of a process in a mount namespace of its own, which ends with the block."""
    with tempfile.TemporaryDirectory() as stage:
        script = "\n".join(
            [
                WITHOUT_MOUNTS_OF_OTHERS,
                "set -euo pipefail",
                *_opened(Path(stage), [*_program(), home]),
                "echo ready",
                "exec cat",
            ]
        )
        command = ["unshare", "--mount", "--propagation", "private", "bash", "-c", script]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n", "the mount namespace cannot be made"
            yield process.pid


def _program() -> list[Path]:
    """Return what must be readable to run ``cowfs`` from this checkout with this Python."""
    prefixes = dict.fromkeys(Path(prefix) for prefix in (sys.prefix, sys.base_prefix))
    return [CHECKOUT / "cowfs", *(path for prefix in prefixes for path in sorted(prefix.iterdir()))]


def _opened(stage: Path, needed: list[Path]) -> list[str]:
    """Return commands that make ``needed`` reachable for everybody, and the FUSE device usable.

    A closed directory on the way is covered by an empty one that is open, and what is needed is mounted into that.
    """
    lines = [f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(str(stage))}"]
    closed = {path: top for path in needed if (top := _closed_above(path)) is not None}
    for number, path in enumerate(closed):
        lines += _bind(path, stage / str(number), path.is_dir())
    lines += [f"mount -t tmpfs -o mode=755 tmpfs {shlex.quote(str(top))}" for top in dict.fromkeys(closed.values())]
    for number, path in enumerate(closed):
        lines += _bind(stage / str(number), path, path.is_dir())
    if stat.S_IMODE(_DEVICE.stat().st_mode) & 0o006 != 0o006:
        device = shlex.quote(str(stage / "fuse"))
        lines.append(f"mknod -m 666 {device} c 10 229 && mount --bind {device} {_DEVICE}")
    return lines


def _bind(source: Path, target: Path, directory: bool) -> list[str]:
    parent, quoted = shlex.quote(str(target.parent)), shlex.quote(str(target))
    made = f"mkdir -p {quoted}" if directory else f"mkdir -p {parent} && touch {quoted}"
    return [made, f"mount --rbind {shlex.quote(str(source))} {quoted}"]


def _closed_above(path: Path) -> Path | None:
    """Return the topmost directory above ``path`` that others may not enter."""
    return next((parent for parent in reversed(path.parents) if not parent.stat().st_mode & stat.S_IXOTH), None)
