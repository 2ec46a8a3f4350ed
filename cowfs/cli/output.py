"""Standard output and standard error of a command.

What can be wrong with them is told apart here, and nowhere else: a pipe that was closed, a full disk, a terminal that is
gone, a descriptor that was closed from the start. The first write to standard output that fails raises ``OutputFailed``,
which is no ``OSError``, so that nobody takes it for trouble with the data; later ones do nothing. What cannot be written
to standard error is lost.

Output is UTF-8, and file names that are not go out byte for byte. A terminal gets its own encoding, and escapes for what
is not to be shown as it is (``cowfs.escaping``).
"""

from __future__ import annotations

import codecs
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, TextIO

from cowfs.cli import signals
from cowfs.cli.signals import EndedEarly
from cowfs.escaping import escape, escaped

_ERRORS = "cowfs.output"
_SHOW_CURSOR = "\x1b[?25h"  # which a progress bar hides


class OutputFailed(EndedEarly):
    """Standard output cannot be written."""

    def __init__(self, error: OSError) -> None:
        super().__init__()
        self.error = error


def install() -> None:
    """Make standard output and standard error those described above, for the rest of the process."""
    _fill_descriptors()
    codecs.register_error(_ERRORS, _encode_anyway)
    terminal = getattr(sys.stdout, "encoding", "utf-8")
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115 - for the rest of the process
    sys.stdout = _stream(_Descriptor(1), terminal, _ERRORS)
    sys.stderr = _stream(_Tolerant(2), terminal, "backslashreplace")  # a log is text


def echo(line: object = "") -> None:
    """Print a line on standard output: on a terminal it stays one line, whatever is in it."""
    text = str(line)
    sys.stdout.write((escaped(text) if isinstance(sys.stdout, _Terminal) else text) + "\n")


def announce(line: object) -> None:
    """Print a line that somebody waits for, or that must not be lost: at once."""
    echo(line)
    sys.stdout.flush()


def echo_document(text: str) -> None:
    """Print a text of several lines, such as JSON, on standard output."""
    sys.stdout.write(f"{text}\n")


def complain(line: str) -> None:
    """Print a line on standard error, where people read it: it has no controls, and comes after all that was printed."""
    try:
        sys.stdout.flush()
    finally:
        sys.stderr.write(f"{escaped(line)}\n")
        sys.stderr.flush()


@contextmanager
def reporting(done: object) -> Iterator[None]:
    """Print in the block what was done for good. When that cannot be printed, or a signal comes, ``str(done)`` is said."""
    with signals.saying(done):
        signals.allow()
        yield
        sys.stdout.flush()


def progress_stream() -> TextIO | Any:
    """Return standard error without escapes, for what draws on a terminal."""
    return _Unescaped(sys.stderr) if isinstance(sys.stderr, _Terminal) else sys.stderr


def end_drawing() -> None:
    """End a line that the main thread draws on, and will not come back to."""
    if isinstance(sys.stderr, _Terminal) and sys.stderr.drawn:
        sys.stderr.write_unescaped(_SHOW_CURSOR + "\n")


class _Descriptor(io.RawIOBase):
    """The descriptor of a standard stream. It outlives this object."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._failed = False

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def write(self, data: Any) -> int:
        """Write some of ``data``; return how much."""
        if self._failed:
            return len(data)
        try:
            return self._write(data)
        except OSError as error:
            self._failed = True
            self._fail(error)
            return len(data)

    def _write(self, data: Any) -> int:
        while True:
            try:
                return os.write(self._descriptor, data)
            except BlockingIOError:  # another program that has it open made it so
                select.select([], [self._descriptor], [])

    def _fail(self, error: OSError) -> None:
        raise OutputFailed(error) from None


class _Tolerant(_Descriptor):
    """One of which nothing is said when it fails: there is nowhere to say it."""

    def _fail(self, error: OSError) -> None:
        pass


class _Terminal(io.TextIOWrapper):
    drawn = False

    def write(self, text: str) -> int:
        """Write a text, which may have several lines."""
        super().write(escaped(text, keep="\n"))
        return len(text)

    def write_unescaped(self, text: str) -> int:
        """Write a text as it is."""
        self.drawn = True
        return super().write(text)


class _Unescaped:
    """A terminal as a file that drawing goes to."""

    def __init__(self, terminal: _Terminal) -> None:
        self.write = terminal.write_unescaped
        self.flush = terminal.flush
        self.isatty = terminal.isatty


def _stream(descriptor: _Descriptor, encoding: str, errors: str) -> io.TextIOWrapper:
    if descriptor.isatty():
        return _Terminal(io.BufferedWriter(descriptor), encoding, errors, "\n", line_buffering=True)
    each_line = isinstance(descriptor, _Tolerant)
    return io.TextIOWrapper(io.BufferedWriter(descriptor), "utf-8", errors, "\n", line_buffering=each_line)


def _encode_anyway(error: UnicodeError) -> tuple[bytes, int]:
    """Encode what has no encoding: a byte of a file name as itself, all else as its escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    piece = error.object[error.start : error.end]
    return b"".join(
        os.fsencode(char) if "\udc80" <= char <= "\udcff" else escape(char).encode() for char in piece
    ), error.end


def _fill_descriptors() -> None:
    """Open what of the first three descriptors is closed, so that no database gets the number of standard output.

    They are opened the wrong way round: using them fails as it did before.
    """
    for descriptor, mode in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, mode)
            os.dup2(opened, descriptor)
            if opened != descriptor:
                os.close(opened)
