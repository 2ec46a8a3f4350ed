"""Commands as a user types them: each has a time limit, and an exit code that it must end with."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from functools import cache
from pathlib import Path

from click.testing import CliRunner

from cowfs.cli.main import commands

CHECKOUT = Path(__file__).resolve().parents[2]
COWFS = (sys.executable, "-m", "cowfs.cli")
LIMIT = 240.0
"""Seconds after which something that a test waits for is taken to hang.

No test asks how fast anything is: on a busy machine all of it takes many times as long. So there is one limit for all.
"""

Completed = subprocess.CompletedProcess[str]
Argument = str | bytes | Path


def run(
    *command: Argument,
    code: int | None = 0,
    stdin: str | None = None,
    cwd: Path = CHECKOUT,
    limit: float = LIMIT,
    env: dict[str, str] | None = None,
) -> Completed:
    """Run ``command`` and return what it printed; it must end with exit code ``code`` (None: any) within ``limit``."""
    result = subprocess.run(
        command,
        cwd=cwd,
        input=stdin,
        stdin=subprocess.DEVNULL if stdin is None else None,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        timeout=limit,
        env={**os.environ, **(env or {})},
        check=False,
    )
    shown = [os.fsdecode(argument) for argument in command]
    assert code is None or result.returncode == code, f"{shown} ended with {result.returncode}: {result.stderr}"
    assert "Traceback" not in result.stderr + result.stdout, f"{shown}: {result.stderr}"
    return result


def cowfs(*arguments: Argument, code: int | None = 0, stdin: str | None = None, limit: float = LIMIT) -> str:
    """Run ``cowfs`` with ``arguments``; return its standard output."""
    return run(*COWFS, *arguments, code=code, stdin=stdin, limit=limit).stdout


def refused(*arguments: Argument, code: int, stdin: str | None = None) -> str:
    """Run a ``cowfs`` that must fail with exit code ``code``, one line on standard error, none else; return the line."""
    return one_line(run(*COWFS, *arguments, code=code, stdin=stdin))


def one_line(result: Completed) -> str:
    """Return the one line that a command which failed has printed, and hold that it printed no more."""
    assert result.stdout == "", result.stdout
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("cowfs: "), result.stderr
    assert len(lines[0]) > len("cowfs: ") + 10, result.stderr
    return lines[0]


def run_here(*arguments: Argument, code: int | None = 0, stdin: str | None = None) -> Completed:
    """Do what ``run`` does with a ``cowfs``, within this process, which saves the start of one."""
    shown = [os.fsdecode(argument) for argument in arguments]
    result = CliRunner().invoke(commands, shown, input=stdin)
    ended = f"{shown} ended with {result.exit_code}: {result.stderr} {result.exception!r}"
    assert code is None or result.exit_code == code, ended
    assert isinstance(result.exception, SystemExit | None), ended
    return Completed(shown, result.exit_code, result.stdout, result.stderr)


def cowfs_here(*arguments: Argument, code: int = 0, stdin: str | None = None) -> str:
    """Do what ``cowfs`` does, within this process."""
    return run_here(*arguments, code=code, stdin=stdin).stdout


def refused_here(*arguments: Argument, code: int, stdin: str | None = None) -> str:
    """Do what ``refused`` does, within this process."""
    return one_line(run_here(*arguments, code=code, stdin=stdin))


def python(program: str, *arguments: Argument, code: int | None = 0, limit: float = LIMIT) -> str:
    """Run a small Python program in a process of its own; return its standard output."""
    return run(sys.executable, "-c", textwrap.dedent(program), *arguments, code=code, limit=limit).stdout


def in_private_mounts(script: str, *arguments: Argument, code: int | None = 0, limit: float = LIMIT) -> Completed:
    """Run a bash script as root of a mount namespace of its own: what it mounts is gone when it ends."""
    lines = f"{WITHOUT_MOUNTS_OF_OTHERS}\nset -euo pipefail\n{textwrap.dedent(script)}"
    return run(*_with_private_mounts(), "bash", "-c", lines, "bash", *arguments, code=code, limit=limit)


def unprivileged() -> tuple[str, ...]:
    """Return what to put before a command in ``in_private_mounts``: it owns what is ours, and has no powers of root."""
    if _with_private_mounts()[0] == "sudo":
        return "setpriv", f"--reuid={os.geteuid()}", f"--regid={os.getegid()}", "--clear-groups"
    return "setpriv", "--bounding-set=-all", "--inh-caps=-all"


# A new mount namespace has a copy of each mount that there is just now, and keeps its daemon from ending.
WITHOUT_MOUNTS_OF_OTHERS = "umount --all --lazy --internal-only --types fuse.cowfs 2>/dev/null || true"


@cache
def _with_private_mounts() -> tuple[str, ...]:
    """Return what to put before a command. An ordinary user needs sudo where the kernel makes no namespace for users."""
    if os.geteuid() == 0:
        return "unshare", "--mount"
    as_root_of_its_own = "unshare", "--map-root-user", "--mount"
    if run(*as_root_of_its_own, "true", code=None).returncode == 0:
        return as_root_of_its_own
    kept = [f"{name}={os.environ[name]}" for name in ("PATH", "XDG_STATE_HOME") if name in os.environ]
    return "sudo", "-n", "env", *kept, "PYTHONDONTWRITEBYTECODE=1", "unshare", "--mount"
