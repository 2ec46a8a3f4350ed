"""``cowfs demo``: the whole story on real data, in a real mount, in under a minute."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path

import click

from cowfs.cli.demo import geonames
from cowfs.cli.demo.writer import Entry, read_journal
from cowfs.cli.output import announce, echo, reporting
from cowfs.engine.env import Env
from cowfs.engine.opening import reading
from cowfs.engine.stage import allowed, deferred
from cowfs.errors import CorruptDatabase, CowfsError, EnvironmentFailure
from cowfs.mount import mountpoint
from cowfs.mount.callers import Process
from cowfs.store.read.db import Db

_STEP_LIMIT = 300  # seconds
_ENDS_WITHIN = 10.0  # seconds that a process may take to clean up
_WRITER_WARM_UP = 0.5


@click.command()
@click.option("--keep", is_flag=True, help="Keep the database and the backups, to look at.")
@click.option(
    "--data",
    metavar="DIR",
    type=click.Path(readable=False, path_type=Path),
    help="Only write the cities and their schema into DIR, as files for `cowfs import` and `cowfs init`.",
)
def demo(keep: bool, data: Path | None) -> None:
    """Import the world's cities, mount them, back them up, restore.

    The database is written while it is backed up; the backups are checked and compared.
    """
    if data is not None:
        if keep:
            raise click.BadParameter("it runs no demo, and does not go with --keep", param_hint="--data")
        _write_data(data)
        return
    for tool in ("rsync", "tar"):
        if shutil.which(tool) is None:
            raise EnvironmentFailure(f"{tool} is not installed; the demo copies with the real tools")
    with deferred():
        directory = Path(tempfile.mkdtemp(prefix="cowfs-demo-"))
        demonstration = _Demo(directory)
        try:
            with allowed():
                demonstration.run()
        finally:
            demonstration.end()
            if keep:
                echo(f"left in {directory}")
            else:
                shutil.rmtree(directory)


def _write_data(directory: Path) -> None:
    schema, data, entities = geonames.write(directory)
    commands = (["init", "geo", "--schema", str(schema)], ["import", "geo", str(data)])
    following = " && ".join(shlex.join(["cowfs", *command]) for command in commands)
    with reporting(f"{directory} is written"):
        echo(f"{directory}: {entities:,} entities; next: {following}")


def _wait_for(journal: Path, writer: subprocess.Popen[bytes]) -> None:
    """Wait until the writer has committed, however busy the machine is, and for a moment more."""
    while writer.poll() is None and not (journal.exists() and journal.stat().st_size):
        time.sleep(0.01)
    time.sleep(_WRITER_WARM_UP)


class _Demo:
    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._database = directory / "db"
        self._point = directory / "mnt"

    def run(self) -> None:
        announce(f"In {self._directory}:")
        self._import()
        self._point.mkdir()
        (self._directory / "from-tar").mkdir()
        self._cowfs("mount", "db", "mnt")
        with self._writer() as journal:
            self._run("rsync", "-a", "mnt/snapshots/latest", "backup/")
            self._run("tar", "-C", "mnt/snapshots", "-cf", "latest.tar", "latest")
            time.sleep(_WRITER_WARM_UP)
        self._run("tar", "-C", "from-tar", "-xf", "latest.tar")
        self._cowfs("check", "backup/latest")
        self._cowfs("check", "from-tar/latest")
        self._cowfs("restore", "backup/latest", "restored")
        acknowledged = read_journal(journal)
        for copy in ("restored", "from-tar/latest"):
            self._compare(copy, acknowledged)
        self._cowfs("umount", "mnt")

    def end(self) -> None:
        """See to it that nothing is mounted any more, and that the mount's process has ended."""
        with ExitStack() as watched:
            daemons = []
            for pid in self._readers():
                with suppress(ProcessLookupError):
                    daemons.append(watched.enter_context(closing(Process(pid))))
            with suppress(CowfsError):
                mountpoint.unmount(self._point, lazy=True)
            until = time.monotonic() + _ENDS_WITHIN
            while time.monotonic() < until and not all(daemon.ended() for daemon in daemons):
                time.sleep(0.01)

    def _readers(self) -> list[int]:
        """Return the processes that have the database open: the mount's, as the writer has ended."""
        try:
            with Env.open(self._database, readonly=True) as env:
                return [pid for pid, _txnid in env.readers() if pid != os.getpid()]
        except CowfsError:  # there is no database yet
            return []

    def _import(self) -> None:
        _schema, _data, entities = geonames.write(self._directory)
        self._cowfs("init", "db", "--schema", "schema.json")
        seconds = self._cowfs("import", "db", "geonames.jsonl")
        with reading(self._database) as reader:
            datoms = Db(reader, reader.root.txnid).datom_count
        announce(f"      {entities:,} entities, {datoms:,} datoms, {datoms / seconds:,.0f} datoms a second")

    @contextmanager
    def _writer(self) -> Iterator[Path]:
        """Run the writer beside the block; yield the path of its journal."""
        journal = self._directory / "journal"
        command = [sys.executable, "-m", "cowfs.cli.demo.writer", str(self._database), str(journal), "1"]
        announce("      a writer in another process begins to commit, and goes on")
        with subprocess.Popen(command, stdin=subprocess.PIPE) as process:  # which is closed, and waited for, at the end
            _wait_for(journal, process)
            yield journal
        announce(f"      the writer stops after {len(read_journal(journal))} commits")

    def _compare(self, copy: str, acknowledged: list[Entry]) -> None:
        """Hold a copy against what the writer acknowledged: all of it up to the copy's txid, nothing after it."""
        with reading(self._directory / copy) as reader:
            db = Db(reader, reader.root.txnid)
            expected = {entry.city: entry.population for entry in acknowledged if entry.txid <= db.txid}
            for city, population in expected.items():
                found = (db.entity([":city/id", city]) or {}).get(":city/population")
                if found != population:
                    raise CorruptDatabase(f"{copy}: city {city} has {found} inhabitants, acknowledged were {population}")
            commits = sum(entry.txid <= db.txid for entry in acknowledged)
            later = len(acknowledged) - commits
        if db.txid > acknowledged[-1].txid or not commits or not later:
            raise CorruptDatabase(f"{copy}: txid {db.txid} does not lie within the writer's work")
        announce(f"      {copy}: txid {db.txid}, all {commits} acknowledged commits up to it, none of the {later} after it")

    def _cowfs(self, *arguments: str) -> float:
        return self._run("cowfs", *arguments)

    def _run(self, *command: str) -> float:
        """Run a command in the demo's directory, show it with the seconds it took and what it printed."""
        program = [sys.executable, "-m", "cowfs.cli"] if command[0] == "cowfs" else [command[0]]
        begin = time.perf_counter()
        with _ended([*program, *command[1:]], self._directory) as process:
            try:
                printed, _none = process.communicate(timeout=_STEP_LIMIT)
            except subprocess.TimeoutExpired:
                raise EnvironmentFailure(f"{command[0]} has not ended within {_STEP_LIMIT} s") from None
        seconds = time.perf_counter() - begin
        announce(f"{seconds:6.2f} s  $ {shlex.join(command)}")
        for line in printed.splitlines():
            announce(f"      {line}")
        if process.returncode != 0:
            raise EnvironmentFailure(f"{command[0]} ended with exit code {process.returncode}")
        return seconds


@contextmanager
def _ended(command: list[str], directory: Path) -> Iterator[subprocess.Popen[str]]:
    """Start a command in ``directory``. When the block ends early so does the command, which cleans up behind itself.

    A mount has its log there, too.
    """
    state = {**os.environ, "XDG_STATE_HOME": str(directory / "state")}
    with subprocess.Popen(
        command, cwd=directory, env=state, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        try:
            yield process
        except BaseException:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=_ENDS_WITHIN)
            process.kill()
            raise
