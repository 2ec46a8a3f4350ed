"""Which commits keep a directory: the newest, so many behind it, and what is in use."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cowfs import Store
from tests import churn
from tests.commands import cowfs
from tests.mounted import Mount, mounted

_SOON = 5.0  # seconds


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with contextlib.closing(Store.create(tmp_path / "db", {":note/text": {}}, durability="none")) as store:
        yield store


def _commit(store: Store, count: int = 1) -> int:
    for number in range(count):
        txid = store.transact([{":note/text": f"note {number} " * 50}]).txid
    return txid


def _commit_and_look(store: Store, mount: Mount, count: int) -> int:
    """Commit, and look after each, so that each commit is seen and gets its directory."""
    for _ in range(count):
        txid = _commit(store)
        assert json.loads((mount.live / "snapshot.json").read_text())["txid"] == txid
    return txid


def _becomes(condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + _SOON
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


@pytest.mark.parametrize("keep", [0, 3])
def test_keep_says_how_many_older_commits_have_a_directory(store: Store, tmp_path: Path, keep: int) -> None:
    with mounted(tmp_path / "db", tmp_path / "mnt", f"--keep={keep}") as mount:
        newest = _commit_and_look(store, mount, 10)
        assert mount.txids() == list(range(newest - keep, newest + 1))
        with pytest.raises(FileNotFoundError):
            mount.snapshot(newest - keep - 1).stat()


def test_a_commit_with_an_open_file_stays(store: Store, tmp_path: Path) -> None:
    with mounted(tmp_path / "db", tmp_path / "mnt", "--keep=2") as mount:
        old = _commit_and_look(store, mount, 1)
        content = (mount.snapshot(old) / "data.mdb").read_bytes()
        with (mount.snapshot(old) / "data.mdb").open("rb", buffering=0) as file:
            newest = _commit_and_look(store, mount, 30)
            assert mount.txids() == [old, newest - 2, newest - 1, newest]
            assert file.read() == content
            assert json.loads((mount.snapshot(old) / "snapshot.json").read_text())["txid"] == old
        assert _becomes(lambda: mount.txids() == [newest - 2, newest - 1, newest])


@contextlib.contextmanager
def _lister(directory: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has listed ``directory`` and closed it again, and does nothing more."""
    program = "import os, sys; os.listdir(sys.argv[1]); print(flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", program, str(directory)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            process.stdout.readline()
            yield process
        finally:
            process.kill()


@pytest.mark.parametrize("name", ["txid", "latest"])
def test_a_commit_stays_for_a_process_that_listed_it(store: Store, tmp_path: Path, name: str) -> None:
    with mounted(tmp_path / "db", tmp_path / "mnt", "--keep=2") as mount:
        old = _commit_and_look(store, mount, 1)
        with _lister(mount.snapshot(old) if name == "txid" else mount.latest):
            newest = _commit_and_look(store, mount, 30)
            assert mount.txids() == [old, newest - 2, newest - 1, newest]
        assert _becomes(lambda: mount.txids() == [newest - 2, newest - 1, newest])


def test_listing_live_holds_nothing(store: Store, tmp_path: Path) -> None:
    with mounted(tmp_path / "db", tmp_path / "mnt", "--keep=0") as mount:
        for _ in range(10):
            newest = _commit(store)
            assert len(os.listdir(mount.live)) == 3
            assert mount.txids() == [newest]
        readers = json.loads(cowfs("status", "--json", tmp_path / "db"))["readers"]
        assert [reader["txnid"] for reader in readers if reader["pid"] == mount.daemon.pid] == [newest]


def test_commits_that_nobody_saw_have_no_directory_but_space_is_used_again(store: Store, tmp_path: Path) -> None:
    """What the mount holds is bounded: a writer that goes on and on does not fill the disk."""
    entity = store.transact([{":db/id": -1, ":note/text": "x" * 50_000}]).tempids[-1]
    with mounted(tmp_path / "db", tmp_path / "mnt", "--keep=1") as mount:
        size = 0
        for number in range(300):
            store.transact([[":db/add", entity, ":note/text", f"{number:05}" * 10_000]])
            if number % 10 == 0:
                assert mount.live.exists()
            if number == 150:
                size = (mount.live / "data.mdb").stat().st_size
        grown = (mount.live / "data.mdb").stat().st_size - size
        log_rows = 150 * 60_000
        assert grown < 2 * log_rows
        assert len(mount.txids()) <= 3


def test_more_commits_than_reader_slots_cost_the_oldest_their_directory(tmp_path: Path) -> None:
    """A plain environment has 126 reader slots; a mount that is to keep more than that keeps what it can."""
    churn.create("plain", tmp_path / "db")
    with churn.writing("plain", tmp_path / "db", tmp_path / "journal", seed=4, commits=400, pause=0.004) as writer:
        writer.wait_for(1)  # it was the first to open the environment, so the reader slots are as many as it wants
        with mounted(tmp_path / "db", tmp_path / "mnt", "--keep=1000") as mount:
            while len(writer.acknowledged()) < 400:
                writer.require_running()
                assert (mount.live / "data.mdb").stat().st_size > 0
            newest = max(writer.acknowledged())
            assert json.loads((mount.live / "snapshot.json").read_text())["txid"] == newest
            assert 50 < len(mount.txids()) <= 126
            assert max(mount.txids()) == newest
