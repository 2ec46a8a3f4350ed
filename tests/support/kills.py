"""What must be true after SIGKILL, wherever it strikes: a writer, a writer under a mount, a mount under rsync."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.support import churn
from tests.support.commands import LIMIT
from tests.support.copies import check_copies, rsync
from tests.support.mounted import Mount, mounted

_MAX_COMMITS = 30  # before a writer is killed; each must have made one


def kill_writers(kind: str, directory: Path, seed: int, rounds: int, mount: Mount | None = None) -> int:
    """Start a writer of ``directory/db`` and kill it after some commits, ``rounds`` times; return how many there were.

    After each kill what was acknowledged is there at once, and nothing else but, perhaps, the one commit after it.
    """
    choice, model, total = random.Random(seed), churn.Model(seed), 0
    database = directory / "db"
    for number in range(rounds):
        journal = directory / f"journal-{seed}-{number}"
        with _to_be_killed(kind, database, journal, seed) as writer:
            writer.wait_for(choice.randint(1, _MAX_COMMITS))
            time.sleep(choice.random() * 0.02)
        acknowledged = writer.acknowledged()
        total += len(acknowledged)
        txid, digest = churn.contents(database)
        assert txid in (max(acknowledged), max(acknowledged) + 1), f"{txid} found, {max(acknowledged)} acknowledged"
        for earlier in range(min(acknowledged), max(acknowledged) + 1):
            assert acknowledged[earlier] == model.at(earlier).digest, f"the writer itself lost its way at {earlier}"
        assert digest == model.at(txid).digest, f"transaction {txid} is not what was written"
        churn.require_sound(database)
        if mount is not None:
            copy = directory / f"copy-{seed}-{number}"
            rsync(mount.latest, copy)
            assert check_copies([copy / "latest"], {txid: digest}) == [txid]
    return total


@contextmanager
def _to_be_killed(kind: str, database: Path, journal: Path, seed: int) -> Iterator[churn.Writer]:
    writer = churn.start(kind, database, journal, seed, commits=20_000, pause=0.0)
    with writer.process:
        try:
            yield writer
            writer.require_running()
        finally:
            writer.process.kill()


def kill_mount_under_rsync(directory: Path, seed: int) -> None:
    """Kill a mount while ``rsync -a --delete`` copies from it over an older copy, and somebody writes.

    rsync fails, the older copy is as it was, the writer notices nothing, and the next mount serves.
    """
    choice = random.Random(seed)
    database, point, target = directory / f"db-{seed}", directory / f"mnt-{seed}", directory / f"backup-{seed}"
    churn.create("store-none", database)
    with churn.writing("store-none", database, directory / f"journal-{seed}", seed, pause=0.01) as writer:
        writer.wait_for(100)
        with mounted(database, point) as mount:
            rsync(mount.latest, target)
            before = {path.name: path.read_bytes() for path in (target / "latest").iterdir()}
            writer.wait_for(10)
            # Slow enough to be disturbed, and no slower: of what it cannot read rsync sends zeros, at the same speed.
            command = ["rsync", "-a", "--delete", "--whole-file", "--bwlimit=8m", str(mount.latest), f"{target}/"]
            with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
                try:
                    _wait_for_temporary(target / "latest", before, process)
                    time.sleep(choice.random() * 0.5)
                    mount.kill()
                    _output, errors = process.communicate(timeout=LIMIT)
                finally:
                    process.kill()
            assert process.returncode != 0, "rsync thinks that it copied everything"
            assert "rsync" in errors
        assert {path.name: path.read_bytes() for path in (target / "latest").iterdir()} == before
        writer.wait_for(10)
        with mounted(database, point) as mount:
            rsync(mount.latest, target)
        writer.wait_for(1)
        check_copies([target / "latest"], writer.acknowledged())


def _wait_for_temporary(directory: Path, before: dict[str, bytes], process: subprocess.Popen[str]) -> None:
    """Wait until rsync has begun a file: it writes to a temporary name."""
    until = time.monotonic() + LIMIT
    while set(os.listdir(directory)) <= set(before):
        assert process.poll() is None, "rsync was too fast to be disturbed"
        assert time.monotonic() < until, "rsync does not begin"
        time.sleep(0.005)
