"""``Program``: the program ``cowfs``, run many times for the start of one, with whatever standard streams a test wants.

A process that has loaded cowfs forks for each run; the child opens its streams by name and is the program from there on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.support.commands import Argument

CLOSED = None
BROKEN_PIPE = "a pipe that nobody reads"

Stream = str | Path | None
"""A file to open, or one of the above."""

_SERVER = """
import json, os, sys
import cowfs.cli.main

def attach(descriptor, name):
    if name is None:
        os.close(descriptor)
    elif name.startswith("a pipe"):
        reading, writing = os.pipe()
        os.dup2(writing, descriptor)
        os.close(reading)
        os.close(writing)
    else:
        flags = os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_CREAT | os.O_APPEND
        os.dup2(os.open(name, flags | os.O_NOCTTY, 0o644), descriptor)

def be_the_program(job):
    named = sorted(enumerate(job["streams"]), key=lambda stream: stream[1] is None)  # those to be closed come last
    for descriptor, name in named:
        attach(descriptor, name)
    os.closerange(3, 100)
    sys.stdin, sys.stdout, sys.stderr = [
        None if name is None else open(descriptor, "r" if descriptor == 0 else "w", closefd=False)
        for descriptor, name in enumerate(job["streams"])
    ]
    sys.argv[1:] = job["arguments"]
    cowfs.cli.main.main()

for line in iter(sys.stdin.readline, ""):
    child = os.fork()
    if child == 0:
        be_the_program(json.loads(line))
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@dataclass(frozen=True)
class Program:
    """Runs the program; ``directory`` is for what it says."""

    server: subprocess.Popen[str]
    directory: Path

    def run(self, *arguments: Argument, stdin: Stream = os.devnull, stdout: Stream = os.devnull) -> tuple[int, str]:
        """Return the exit code, negative for a signal, and what was printed on standard error."""
        said = self.directory / "stderr"
        said.unlink(missing_ok=True)
        code = self.run_with(arguments, (stdin, stdout, said))
        return code, said.read_text()

    def run_with(self, arguments: tuple[Argument, ...], streams: tuple[Stream, Stream, Stream]) -> int:
        """Return the exit code of a run with the three streams."""
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        names = [stream if stream is None else str(stream) for stream in streams]
        job = {"arguments": [os.fsdecode(argument) for argument in arguments], "streams": names}
        self.server.stdin.write(json.dumps(job) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())


@contextmanager
def program(directory: Path) -> Iterator[Program]:
    """Yield a ``Program`` that writes below ``directory``."""
    command = [sys.executable, "-c", _SERVER]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        yield Program(server, directory)
