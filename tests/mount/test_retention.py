"""Which commits have a directory: those that the store retains, and of a foreign environment those that were seen."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import lmdb
import pytest

from cowfs import Store
from cowfs.store.history.retention import Retention
from tests.support import churn
from tests.support.commands import LIMIT, cowfs, cowfs_here, run
from tests.support.mounted import Mount, mounted
from tests.support.times import made_ago


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with contextlib.closing(Store.create(tmp_path / "db", {":note/text": {}}, durability="none")) as store:
        yield store
    churn.require_sound(tmp_path / "db")


def _commit(store: Store, count: int = 1) -> int:
    for number in range(count):
        txid = store.transact([{":note/text": f"note {number} " * 50}]).txid
    return txid


def _txid_of(directory: Path) -> int:
    return int(json.loads((directory / "snapshot.json").read_text())["txid"])


def _digest(directory: Path) -> str:
    return hashlib.sha256((directory / "data.mdb").read_bytes()).hexdigest()


def _becomes(condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + LIMIT
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


# -- a store -----------------------------------------------------------------------------------------------------------


def test_every_commit_has_a_directory_mounted_or_not_and_over_mounts(store: Store, tmp_path: Path) -> None:
    _commit(store, 20)
    cowfs("transact", tmp_path / "db", "-", stdin='[{":note/text": "by another process"}]')
    with mounted(tmp_path / "db", tmp_path / "mnt") as mount:
        assert mount.txids() == list(range(1, 23))
        digests = [_digest(mount.snapshot(txid)) for txid in mount.txids()]
        newest = _commit(store, 5)
        assert mount.txids() == list(range(1, newest + 1))
        assert all(_txid_of(mount.snapshot(txid)) == txid for txid in mount.txids())
    _commit(store, 30)
    with mounted(tmp_path / "db", tmp_path / "mnt") as mount:
        assert mount.txids() == list(range(1, newest + 31))
        assert [_digest(mount.snapshot(txid)) for txid in range(1, 23)] == digests
        for txid in (1, 7, newest, newest + 30):
            cowfs_here("check", mount.snapshot(txid))


def test_history_takes_one_reader_slot_and_the_mount_another(store: Store, tmp_path: Path) -> None:
    _commit(store, 200)
    with mounted(tmp_path / "db", tmp_path / "mnt") as mount:
        for txid in mount.txids():
            assert (mount.snapshot(txid) / "data.mdb").stat().st_size > 0
        slots = list(store.env._table.slots())
        assert len(slots) <= 1 + 2 * 2, "the pin; for each of two processes its own, and LMDB's"


def test_what_is_given_up_has_no_directory(store: Store, tmp_path: Path) -> None:
    newest = _commit(store, 50)
    with mounted(tmp_path / "db", tmp_path / "mnt") as mount:
        store.retain(Retention(commits=10))
        assert mount.txids() == list(range(newest - 9, newest + 2))
        for call in (Path.stat, os.listdir, lambda path: (path / "data.mdb").open("rb")):
            with pytest.raises(FileNotFoundError):
                call(mount.snapshot(newest - 11))


def test_a_commit_with_an_open_file_stays(store: Store, tmp_path: Path) -> None:
    old = _commit(store, 3)
    with mounted(tmp_path / "db", tmp_path / "mnt") as mount:
        content = (mount.snapshot(old) / "data.mdb").read_bytes()
        with (mount.snapshot(old) / "data.mdb").open("rb", buffering=0) as file:
            _commit(store, 30)
            store.retain(Retention(commits=2))
            newest = _commit(store, 40)
            assert mount.txids() == list(range(old, newest + 1)), "who holds one holds all after it"
            assert file.read() == content
            assert _txid_of(mount.snapshot(old)) == old
        assert _becomes(lambda: _held_by(store, mount) == newest)
        store.retain(Retention(commits=2))
        assert _becomes(lambda: mount.txids() == [newest - 1, newest, newest + 1])


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


@pytest.mark.parametrize("place", ["1", "latest", "ago/0s", "mine"])
def test_a_commit_stays_for_a_process_that_listed_it(store: Store, tmp_path: Path, place: str) -> None:
    _commit(store, 3)
    with mounted(tmp_path / "db", tmp_path / "mnt") as mount:
        if place == "mine":
            (mount.snapshots / "mine").mkdir()
        shown = _txid_of(mount.snapshots / place)
        with _lister(mount.snapshots / place):
            if place == "mine":
                store.unname("mine")
            _commit(store, 30)
            store.retain(Retention(commits=2))
            newest = _commit(store, 20)
            assert mount.txids()[0] == shown
        assert _becomes(lambda: _held_by(store, mount) == newest)
        store.retain(Retention(commits=2))
        assert _becomes(lambda: mount.txids() == [newest - 1, newest, newest + 1])


def test_listing_live_holds_nothing(store: Store, tmp_path: Path) -> None:
    with mounted(tmp_path / "db", tmp_path / "mnt") as mount:
        for _ in range(10):
            newest = _commit(store)
            assert "data.mdb" in os.listdir(mount.live)
            assert mount.txids()[-1] == newest
        assert _becomes(lambda: _held_by(store, mount) == newest)


def _held_by(store: Store, mount: Mount) -> int:
    """Return the oldest txid that the mount holds, 0 when it holds none at this moment."""
    return min((txid for pid, txid in store.env.readers() if pid == mount.daemon.pid), default=0)


def test_a_bounded_history_uses_its_space_again(tmp_path: Path) -> None:
    """What is retained is bounded: a writer that goes on and on does not fill the disk."""
    with contextlib.closing(
        Store.create(tmp_path / "db", {":note/text": {}}, durability="none", retention=Retention(commits=16))
    ) as store:
        entity = store.transact([{":db/id": -1, ":note/text": "x" * 50_000}]).tempids[-1]
        with mounted(tmp_path / "db", tmp_path / "mnt") as mount:
            size = 0
            for number in range(300):
                store.transact([[":db/add", entity, ":note/text", f"{number:05}" * 10_000]])
                if number % 10 == 0:
                    assert mount.live.exists()
                if number == 150:
                    size = (mount.live / "data.mdb").stat().st_size
            grown = (mount.live / "data.mdb").stat().st_size - size
            log_rows = 150 * 60_000
            assert grown < 3 * log_rows
            assert len(mount.txids()) <= 16 + 128 + 1
    churn.require_sound(tmp_path / "db")


# -- names -------------------------------------------------------------------------------------------------------------


def test_mkdir_names_the_newest_commit_and_rmdir_gives_the_name_back(store: Store, tmp_path: Path) -> None:
    txid = _commit(store, 5)
    with mounted(tmp_path / "db", tmp_path / "mnt") as mount:
        run("mkdir", mount.snapshots / "before-upgrade")
        assert _txid_of(mount.snapshots / "before-upgrade") == txid
        assert "before-upgrade" in os.listdir(mount.snapshots)
        (named,) = json.loads(cowfs("snapshot", "list", tmp_path / "db", "--json"))
        assert (named["name"], named["txid"]) == ("before-upgrade", txid)
        newest = _commit(store, 40)
        store.retain(Retention(commits=0))
        run("rsync", "-a", mount.snapshots / "before-upgrade", tmp_path / "backup")
        run("rsync", "-a", mount.snapshot(txid), tmp_path / "backup")
        cowfs_here("check", tmp_path / "backup" / "before-upgrade")
        copies = [(tmp_path / "backup" / name / "data.mdb").read_bytes() for name in ("before-upgrade", str(txid))]
        assert copies[0] == copies[1]
        with lmdb.open(str(mount.snapshots / "before-upgrade"), readonly=True, lib_version=0) as env:
            assert env.info()["last_txnid"] == txid, "it can be mapped"
        run("rmdir", mount.snapshots / "before-upgrade")
        assert max(os.listdir(mount.snapshots)) == "latest"
        assert _becomes(lambda: _held_by(store, mount) > newest)
        store.retain(Retention(commits=0))
        assert _becomes(lambda: txid not in mount.txids())


@pytest.fixture(scope="module")
def still(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """A mount of a store with one commit, in which no test makes another."""
    directory = tmp_path_factory.mktemp("still")
    Store.create(directory / "db", durability="none").close()
    with mounted(directory / "db", directory / "mnt") as mount:
        yield mount
        assert mount.txids() == [1]
    churn.require_sound(directory / "db")


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("12", "File exists|Invalid argument"),
        ("99999999999999999999999", "Invalid argument"),
        ("007", "Invalid argument"),
        (".hidden", "Invalid argument"),
        ("a\nb", "Invalid argument"),
        (" x", "Invalid argument"),
        ("latest", "File exists"),
        ("at", "File exists"),
        ("x" * 256, "File name too long|Invalid argument"),
        ("latest/new", "Read-only file system"),
        ("nowhere/new", "No such file"),
    ],
)
def test_wrong_names_are_refused(still: Mount, name: str, answer: str) -> None:
    result = run("mkdir", "--", f"{still.snapshots}/{name}", code=1)
    assert any(text in result.stderr for text in answer.split("|")), result.stderr
    assert still.txids() == [1]


def test_what_has_no_name_is_not_removed(still: Mount) -> None:
    for place in ("1", "latest", "at", "ago"):
        with pytest.raises(OSError, match="Read-only"):
            (still.snapshots / place).rmdir()
    assert still.txids() == [1]


def test_a_name_is_given_once(store: Store, tmp_path: Path) -> None:
    with mounted(tmp_path / "db", tmp_path / "mnt") as mount:
        (mount.snapshots / "twice").mkdir()
        with pytest.raises(FileExistsError):
            (mount.snapshots / "twice").mkdir()


def test_mkdir_beside_a_writer_that_does_not_end_is_busy_not_hung(store: Store, tmp_path: Path) -> None:
    with mounted(tmp_path / "db", tmp_path / "mnt") as mount, store.env.write():
        result = run("mkdir", mount.snapshots / "name", code=1)
        assert "busy" in result.stderr
        assert mount.live.exists()


def test_a_name_given_anew_shows_the_new_commit_but_not_to_an_open_file(store: Store, tmp_path: Path) -> None:
    with mounted(tmp_path / "db", tmp_path / "mnt") as mount:
        directory = mount.snapshots / "name"
        directory.mkdir()
        old = (directory / "data.mdb").read_bytes()
        with (directory / "data.mdb").open("rb", buffering=0) as file:
            store.unname("name")
            newest = _commit(store, 10)
            store.name("name", "somebody")
            assert (directory / "data.mdb").read_bytes() == old, "as long as a file is open"
            assert file.read() == old
        assert _txid_of(directory) == newest
        assert (directory / "data.mdb").read_bytes() == (mount.snapshot(newest) / "data.mdb").read_bytes() != old


def _delete(mount: Mount, name: str, how: str) -> None:
    if how == "rmdir":
        (mount.snapshots / name).rmdir()
    else:
        cowfs("snapshot", "delete", mount.database, name)


@pytest.mark.parametrize("how", ["rmdir", "cowfs snapshot delete"])
def test_an_open_file_stays_whole_when_the_name_of_its_snapshot_is_deleted(store: Store, tmp_path: Path, how: str) -> None:
    _commit(store, 3)
    with mounted(tmp_path / "db", tmp_path / "mnt") as mount:
        directory = mount.snapshots / "name"
        directory.mkdir()
        expected = (directory / "data.mdb").read_bytes()
        with (directory / "data.mdb").open("rb", buffering=0) as file, (directory / "schema.json").open("rb") as other:
            begin, before = file.read(4096), os.fstat(file.fileno())
            _delete(mount, "name", how)
            _commit(store, 3)
            store.retain(Retention(commits=0))
            assert "name" not in os.listdir(mount.snapshots)
            assert "name" not in os.listdir(mount.point / "browse")
            assert os.fstat(file.fileno()) == before
            rest = subprocess.run(["cat"], stdin=file, stdout=subprocess.PIPE, check=True)
            assert begin + rest.stdout == expected
            assert os.fstat(file.fileno()).st_size == len(expected) == before.st_size
            assert subprocess.run(["cat"], stdin=other, stdout=subprocess.PIPE, check=True).stdout
            run("ls", directory, code=2)
            assert directory.exists() == (how != "rmdir"), "for the process that has a file open"
            run("mkdir", directory)
            assert "name" in os.listdir(mount.snapshots)
        assert (directory / "data.mdb").read_bytes() != expected


def test_a_removed_directory_is_gone_for_the_process_that_had_it_open_and_can_be_made_again(
    store: Store, tmp_path: Path
) -> None:
    with mounted(tmp_path / "db", tmp_path / "mnt") as mount:
        directory = mount.snapshots / "name"
        directory.mkdir()
        assert "data.mdb" in os.listdir(directory)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        before = os.fstat(descriptor)
        directory.rmdir()
        assert os.fstat(descriptor) == before
        assert not directory.exists()
        directory.mkdir()
        assert "data.mdb" in os.listdir(directory)
        os.close(descriptor)


def test_rsync_ends_well_when_the_name_of_what_it_copies_is_deleted(store: Store, tmp_path: Path) -> None:
    """`rmdir` is refused meanwhile: after it the kernel would find nothing in the directory, whatever the mount says."""
    store.transact([{":note/text": "x" * 3_000_000}])
    with mounted(tmp_path / "db", tmp_path / "mnt") as mount:
        directory = mount.snapshots / "name"
        directory.mkdir()
        expected = _digest(directory)
        (tmp_path / "copy").mkdir()
        command = ["rsync", "-a", "--bwlimit=6m", str(directory), str(tmp_path / "copy")]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as rsync:
            assert _becomes(lambda: bool(list((tmp_path / "copy").glob("name/.data.mdb.*"))))
            assert "busy" in run("rmdir", directory, code=1).stderr
            _delete(mount, "name", "cowfs snapshot delete")
            _commit(store, 3)
            store.retain(Retention(commits=0))
            _output, errors = rsync.communicate(timeout=LIMIT)
        assert (rsync.returncode, errors) == (0, "")
        assert _digest(tmp_path / "copy" / "name") == expected
        assert sorted(os.listdir(tmp_path / "copy" / "name")) == ["data.mdb", "schema.json", "snapshot.json"]
        assert not directory.exists()


# -- moments -----------------------------------------------------------------------------------------------------------


def test_commits_are_found_by_instant_and_by_age_but_not_listed(tmp_path: Path) -> None:
    with made_ago(hours=1), Store.create(tmp_path / "db", {":note/text": {}}, durability="none") as store:
        first = store.transact([{":note/text": "first"}])
    with Store.open(tmp_path / "db", "none") as store:
        second = store.transact([{":note/text": "second"}])
    with mounted(tmp_path / "db", tmp_path / "mnt") as mount:
        for report in (first, second):
            assert _txid_of(mount.snapshots / "at" / report.instant.strftime("%Y-%m-%dT%H:%M:%S.%fZ")) == report.txid
        assert _txid_of(mount.snapshots / "ago" / "1m") == first.txid
        assert _txid_of(mount.snapshots / "ago" / "0s") == second.txid
        assert _txid_of(mount.snapshots / "at" / "2999-01-01") == second.txid
        assert _txid_of(mount.snapshots / "at" / "2999-01-01T10:00") == second.txid
        for missing in ("at/1999-01-01", "at/yesterday", "at/2026-13-01", "ago/5", "ago/5y", "ago/m", "at/", "ago/"):
            if missing.endswith("/"):
                assert os.listdir(mount.snapshots / missing) == []
            else:
                assert not (mount.snapshots / missing).exists()
        assert not {"at", "ago"} & set(os.listdir(mount.snapshots))
        run("rsync", "-a", mount.snapshots / "ago" / "0s", tmp_path / "copy")
        assert (tmp_path / "copy" / "0s" / "data.mdb").read_bytes() == (
            mount.snapshot(second.txid) / "data.mdb"
        ).read_bytes()
    churn.require_sound(tmp_path / "db")


def test_of_commits_of_one_instant_the_last_is_found(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now)
    reports = [store.transact([{":note/text": f"note {number}"}]) for number in range(5)]
    monkeypatch.undo()
    store.transact([{":note/text": "later"}])
    assert {report.instant for report in reports} == {reports[0].instant}
    with mounted(tmp_path / "db", tmp_path / "mnt") as mount:
        instant = reports[0].instant.strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        assert _txid_of(mount.snapshots / "at" / instant) == reports[-1].txid


# -- a foreign environment ---------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _foreign(path: Path) -> Iterator[Callable[[], int]]:
    """A plain environment, and a function that makes one commit in it."""
    path.mkdir()
    with lmdb.open(str(path), lib_version=0, sync=False, map_size=1 << 30) as env:

        def commit() -> int:
            with env.begin(write=True) as txn:
                txn.put(b"key", b"%d" % txn.id())
                return int(txn.id())

        commit()
        yield commit
    churn.require_sound(path)


@pytest.mark.parametrize("keep", [0, 3])
def test_keep_says_how_many_older_commits_of_a_foreign_environment_have_a_directory(tmp_path: Path, keep: int) -> None:
    with _foreign(tmp_path / "db") as commit, mounted(tmp_path / "db", tmp_path / "mnt", f"--keep={keep}") as mount:
        for _ in range(10):
            newest = commit()
            assert _txid_of(mount.live) == newest
        assert mount.txids() == list(range(newest - keep, newest + 1))
        with pytest.raises(FileNotFoundError):
            mount.snapshot(newest - keep - 1).stat()
        for name in ("name", "at/2999-01-01"):
            assert not (mount.snapshots / name).exists()
        assert "Read-only" in run("mkdir", mount.snapshots / "name", code=1).stderr


def test_a_foreign_environment_may_have_more_directories_than_reader_slots(tmp_path: Path) -> None:
    """A plain environment has 126 reader slots; one of them holds as many commits as the mount is to keep."""
    with _foreign(tmp_path / "db") as commit, mounted(tmp_path / "db", tmp_path / "mnt", "--keep=1000") as mount:
        for _ in range(300):
            newest = commit()
            assert (mount.live / "data.mdb").stat().st_size > 0
        assert mount.txids() == list(range(newest - 300, newest + 1))
