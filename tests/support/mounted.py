"""``mounted``: what ``cowfs mount`` mounts in the background, always unmounted.

Whatever happens in the block, the mount is taken away and its daemon is seen to end. A daemon that outlives its mount, or
that logs anything worse than INFO which the test has not declared, fails the test.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cowfs.mount import mountpoint
from tests.support.commands import LIMIT, Argument, cowfs_here, run

_RECORD = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} cowfs\[(\d+)\] ([A-Z]+) (.*)$")


@dataclass
class Daemon:
    """The process behind a mount, watched so that its id cannot be mistaken for another's."""

    pid: int
    pidfd: int = field(init=False)

    def __post_init__(self) -> None:
        self.pidfd = os.pidfd_open(self.pid)

    def ends(self, within: float = LIMIT) -> bool:
        """Wait for the process to end; return whether it did."""
        ended = bool(select.select([self.pidfd], [], [], within)[0])
        if ended:
            with contextlib.suppress(ChildProcessError):  # not of a process that was mounted from here, or seen before
                os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        return ended

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        signal.pidfd_send_signal(self.pidfd, number)

    def close(self) -> None:
        """Stop watching."""
        os.close(self.pidfd)


@dataclass
class Mount:
    """A running mount: its paths, its log, its daemon."""

    database: Path
    point: Path
    log: Path
    daemon: Daemon

    @property
    def live(self) -> Path:
        return self.point / "live"

    @property
    def snapshots(self) -> Path:
        return self.point / "snapshots"

    @property
    def latest(self) -> Path:
        return self.point / "snapshots" / "latest"

    def snapshot(self, txid: int) -> Path:
        return self.point / "snapshots" / str(txid)

    def txids(self) -> list[int]:
        """Return the txids that are listed, ascending."""
        return sorted(int(name) for name in os.listdir(self.snapshots) if name != "latest")

    def kill(self) -> None:
        """Kill the daemon with SIGKILL and see it end."""
        self.daemon.signal(signal.SIGKILL)
        assert self.daemon.ends(), "a killed daemon does not end"

    def is_mounted(self) -> bool:
        return mountpoint.mounted_at(self.point) is not None


@contextmanager
def mounted(database: Path, point: Path, *options: Argument, declared: Sequence[str] = ()) -> Iterator[Mount]:
    """Mount ``database`` at ``point`` (made if need be) for the length of the block.

    ``declared`` are regular expressions for the log's warnings and errors that the test expects.
    """
    with contextlib.suppress(FileExistsError):
        os.mkdir(point)  # noqa: PTH102 - Path.mkdir would ask what is mounted there: it may be dead
    log = log_of(point)
    begin = log.stat().st_size if log.exists() else 0
    cowfs_here("mount", database, point, "--log", log, *options)
    with serving(database, point, begin, declared) as mount:
        yield mount


def log_of(point: Path) -> Path:
    """Return where the log of a mount at ``point`` is."""
    return point.with_name(f"{point.name}.log")


@contextmanager
def serving(database: Path, point: Path, begin: int = 0, declared: Sequence[str] = ()) -> Iterator[Mount]:
    """Take over a mount that a test has made itself, with its log in ``log_of(point)``, from ``begin`` on."""
    log = log_of(point)
    mount = Mount(database, point, log, Daemon(_pid_in(log)))
    try:
        yield mount
    except BaseException:
        print(f"--- log of {point}:\n{log.read_text()}")
        raise
    finally:
        _take_away(mount)
    undeclared = complaints(log.read_text()[begin:], declared)
    assert not undeclared, "the daemon complained: " + "\n".join(undeclared)


def unmount(point: Path) -> None:
    """Take away whatever is mounted at ``point``, gently, else with force."""
    for flag in ("-u", "-uz"):
        if mountpoint.mounted_at(point) is not None:
            run("fusermount", flag, point, code=None)
    assert mountpoint.mounted_at(point) is None, f"{point} cannot be unmounted"


def complaints(log: str, declared: Sequence[str] = ()) -> list[str]:
    """Return the records of a daemon's log that are worse than INFO, or no records at all, and were not declared."""
    records: list[tuple[str, list[str]]] = []
    for line in log.splitlines():
        match = _RECORD.match(line)
        if match is not None:
            records.append((match[2], [line]))
        elif records and records[-1][0] != "INFO":
            records[-1][1].append(line)  # the traceback of the record above
        else:
            records.append(("", [line]))
    texts = ["\n".join(lines) for level, lines in records if level != "INFO"]
    return [text for text in texts if not any(re.search(pattern, text) for pattern in declared)]


def _pid_in(log: Path) -> int:
    for line in reversed(log.read_text().splitlines()):
        match = _RECORD.match(line)
        if match is not None and " is mounted at " in match[3]:
            return int(match[1])
    raise AssertionError(f"the log does not say that it is mounted: {log.read_text()}")


def _take_away(mount: Mount) -> None:
    try:
        unmount(mount.point)
        ended = mount.daemon.ends()
        if not ended:
            with contextlib.suppress(ProcessLookupError):
                mount.daemon.signal(signal.SIGKILL)
        assert ended, f"the daemon of {mount.point} outlives its mount"
    finally:
        mount.daemon.close()
