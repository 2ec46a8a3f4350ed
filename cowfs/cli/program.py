"""A command as the process that a shell starts: what it does with signals and standard streams, and what it ends with.

A signal ends it as it ends any program, after it has cleaned up. So does a pipe that nobody reads any more, silently. When
standard output cannot be written otherwise, it is one line and exit code 1, whatever the command itself has achieved.
"""

from __future__ import annotations

import errno
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

from cowfs.cli import output, signals
from cowfs.cli.output import OutputFailed, complain
from cowfs.cli.signals import SignalReceived


def run(command: Callable[[], object]) -> NoReturn:
    """Run ``command``, which may exit, and end the process."""
    output.install()
    try:
        signals.install(_say_at_last)
        code = _code(command)
        sys.stdout.flush()
        signals.allow()
    except OutputFailed as failure:
        code = _end(failure)
    except SignalReceived as received:
        _say(received.done)
        signals.die_of(received.number)
    sys.exit(code)


def _code(command: Callable[[], object]) -> int | str | None:
    """Return the exit code of a command."""
    try:
        command()
    except SystemExit as exited:
        return exited.code
    return 0


def _end(failure: OutputFailed) -> int:
    if failure.error.errno == errno.EPIPE:
        signals.die_of(signal.SIGPIPE)
    done = f" ({failure.done})" if failure.done else ""
    complain(f"cowfs: standard output: {failure.error.strerror}{done}")
    return 1


def _say_at_last(done: str) -> None:
    """Say it beside a main thread that will not go on."""
    output.end_drawing()
    _say(done)


def _say(done: str) -> None:
    if done:
        complain(f"cowfs: {done}")
