"""From ``cowfs mount`` to the end of its daemon: signals, places that will do and places that will not."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import lmdb
import pytest

from cowfs import Store
from cowfs.mount import mountpoint
from tests.support.commands import (
    CHECKOUT,
    COWFS,
    LIMIT,
    cowfs,
    cowfs_here,
    in_private_mounts,
    one_line,
    refused,
    refused_here,
    run,
    unprivileged,
)
from tests.support.mounted import complaints, log_of, mounted, serving, unmount
from tests.support.users import User, ordinary_user

_CUT = "fuse: reading device: Software caused connection abort"  # how libfuse sees the end of a detached mount, at times
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("life") / "db"
    with Store.create(path, {":note/text": {}}, durability="none") as store:
        store.transact([{":note/text": "x" * 300_000}])
    return path


@pytest.fixture
def user(tmp_path: Path) -> Iterator[User]:
    with ordinary_user(tmp_path / "home") as user:
        yield user


@pytest.fixture
def point(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "mnt"
    path.mkdir()
    yield path
    unmount(path)


@contextmanager
def _foreground(database: Path, *points: Path) -> Iterator[list[subprocess.Popen[str]]]:
    """Run a ``cowfs mount -f`` at each point; in the block they are usable, after the block they are gone."""
    with ExitStack() as stack:
        processes = []
        for point in points:
            point.mkdir(exist_ok=True)
            command = [*COWFS, "mount", "-f", str(database), str(point)]
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            processes.append(stack.enter_context(process))
            stack.callback(_gone, process, point)
        until = time.monotonic() + LIMIT
        for process, point in zip(processes, points, strict=True):
            while mountpoint.mounted_at(point) is None or not (point / "live/data.mdb").exists():
                assert time.monotonic() < until, "the mount does not become usable"
                assert process.poll() is None, "the mount ended at once"
                time.sleep(0.02)
        yield processes


def _gone(process: subprocess.Popen[str], point: Path) -> None:
    unmount(point)
    if process.poll() is None:
        time.sleep(0.2)
        process.kill()


def _ends_clean(process: subprocess.Popen[str], point: Path) -> None:
    """Hold that a foreground mount ends by itself, with exit code 0, unmounted and without complaint."""
    assert process.wait(LIMIT) == 0
    assert mountpoint.mounted_at(point) is None
    assert process.stderr is not None
    log = process.stderr.read()
    assert complaints(log) == []
    assert "is no longer mounted" in log


def test_mount_returns_when_it_is_usable(database: Path, point: Path) -> None:
    cowfs("mount", database, point, "--log", log_of(point))
    with serving(database, point) as mount:
        assert json.loads((mount.live / "snapshot.json").read_text())["txid"] == 2


def test_umount_ends_the_foreground_mount(database: Path, point: Path) -> None:
    with _foreground(database, point) as [process]:
        assert cowfs("umount", point) == ""
        _ends_clean(process, point)


@pytest.mark.parametrize("number", _SIGNALS, ids=lambda number: number.name)
def test_a_signal_ends_the_mount_the_first_time(database: Path, tmp_path: Path, number: signal.Signals) -> None:
    """Four mounts for each signal: two idle ones, one with a file open, one that is being read."""
    points = [tmp_path / f"mnt{index}" for index in range(4)]
    with _foreground(database, *points) as processes, ExitStack() as stack:
        for index, point in enumerate(points):
            if index % 3 == 1:
                stack.enter_context((point / "live/data.mdb").open("rb", buffering=0)).read(100)
            elif index % 3 == 2:
                stack.enter_context(_reader(point))
        for process in processes:
            process.send_signal(number)
        for process, point in zip(processes, points, strict=True):
            _ends_clean(process, point)


@contextmanager
def _reader(point: Path) -> Iterator[None]:
    """Read in the mount without a pause, in a process of its own, until the mount is gone."""
    program = """
import os, sys
try:
    while os.path.ismount(sys.argv[1]):
        with open(sys.argv[1] + "/live/data.mdb", "rb", buffering=0) as file:
            while file.read(65536):
                pass
except OSError:
    pass
"""
    with subprocess.Popen([sys.executable, "-c", program, str(point)]) as process:
        try:
            yield
            process.wait(LIMIT)
        finally:
            process.kill()


def test_a_signal_ends_a_mount_that_was_detached_while_in_use(database: Path, tmp_path: Path) -> None:
    with (
        mounted(database, tmp_path / "mnt", declared=["fuse: failed to unmount", _CUT]) as mount,
        (mount.live / "data.mdb").open("rb", buffering=0) as file,
    ):
        cowfs_here("umount", "--lazy", mount.point)
        assert len(file.read(100)) == 100
        mount.daemon.signal(signal.SIGTERM)
        assert mount.daemon.ends()


def test_a_busy_mount_is_not_unmounted_but_can_be_detached(database: Path, tmp_path: Path) -> None:
    with mounted(database, tmp_path / "mnt", declared=[_CUT]) as mount:
        with (mount.live / "data.mdb").open("rb", buffering=0) as file:
            assert "busy" in refused_here("umount", mount.point, code=1)
            assert mount.is_mounted()
            assert len(file.read(100)) == 100
            assert cowfs_here("umount", "--lazy", mount.point) == ""
            assert not mount.is_mounted()
            assert os.listdir(mount.point) == []
            assert not mount.daemon.ends(0.3)
            assert len(file.read(100)) == 100
        assert mount.daemon.ends()


def test_umount_where_nothing_is_mounted(point: Path, tmp_path: Path) -> None:
    for path in (point, tmp_path / "missing", Path("/proc")):
        assert "no cowfs is mounted" in refused_here("umount", path, code=2)


def test_a_second_mount_on_the_same_place_is_refused(database: Path, tmp_path: Path) -> None:
    with mounted(database, tmp_path / "mnt") as mount:
        assert "mounted here already" in refused_here("mount", database, mount.point, code=2)
        assert "mounted here already" in refused("mount", "-f", database, mount.point, code=2)
        assert (mount.live / "data.mdb").exists()


def test_one_database_at_two_places(database: Path, tmp_path: Path) -> None:
    with mounted(database, tmp_path / "one") as one, mounted(database, tmp_path / "two") as two:
        assert (one.latest / "data.mdb").read_bytes() == (two.latest / "data.mdb").read_bytes()
        places = json.loads(cowfs_here("status", "--json", database))["mounts"]
        assert sorted(places) == [str(one.point), str(two.point)]


def test_a_dead_mount_answers_enotconn_and_is_cleared_by_the_next_mount(database: Path, tmp_path: Path) -> None:
    with mounted(database, tmp_path / "mnt") as mount:
        mount.kill()
        with pytest.raises(OSError, match=os.strerror(errno.ENOTCONN)) as caught:
            os.listdir(mount.point)
        assert caught.value.errno == errno.ENOTCONN
        with mounted(database, mount.point) as again:
            assert json.loads((again.live / "snapshot.json").read_text())["txid"] == 2
        assert not mount.is_mounted()


def test_a_dead_mount_can_be_unmounted(database: Path, tmp_path: Path) -> None:
    with mounted(database, tmp_path / "mnt") as mount:
        mount.kill()
        assert cowfs_here("umount", mount.point) == ""
        assert not mount.is_mounted()


@pytest.mark.parametrize(
    ("where", "reason"),
    [
        ("db", "inside the database"),
        ("db/mnt", "inside the database"),
        ("full", "not empty"),
        ("missing", "no such directory"),
        ("file", "not a directory"),
        ("file/mnt", "no such directory"),
        ("dangling", "no such directory"),
    ],
)
def test_places_that_will_not_do(tmp_path: Path, where: str, reason: str) -> None:
    Store.create(tmp_path / "db", durability="none").close()
    (tmp_path / "db/mnt").mkdir()
    (tmp_path / "full/x").mkdir(parents=True)
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "nowhere")
    assert reason in refused_here("mount", tmp_path / "db", tmp_path / where, code=2)
    assert mountpoint.mounted_at(tmp_path / where) is None


def test_a_symlink_to_a_mount_point_will_do(database: Path, tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    cowfs("mount", database, tmp_path / "link", "--log", tmp_path / "log")
    try:
        assert (tmp_path / "real/live/data.mdb").exists()
        assert "mounted here already" in refused_here("mount", database, tmp_path / "link", code=2)
    finally:
        unmount(tmp_path / "real")


@pytest.mark.parametrize("name", [b"\xff\xfe db", "dätabase".encode(), b"a,b=c\\d e", b"-f"])
def test_names_of_every_kind(tmp_path: Path, name: bytes) -> None:
    """The names of the database and of the mount point are bytes, and reach libfuse through commas and backslashes."""
    directory = os.fsencode(tmp_path)
    database, point = Path(os.fsdecode(directory + b"/" + name)), Path(os.fsdecode(directory + b"/mnt " + name))
    Store.create(database, durability="none").close()
    with mounted(database, point) as mount:
        assert mount.txids() == [1]
        assert json.loads(cowfs("status", "--json", database))["mounts"] == [str(point)]


def test_a_store_that_a_newer_cowfs_wrote_is_refused(tmp_path: Path, point: Path) -> None:
    database = tmp_path / "db"
    Store.create(database, durability="none").close()
    with lmdb.open(str(database), max_dbs=8) as env:
        meta = env.open_db(b"cowfs", create=False)
        with env.begin(write=True, db=meta) as txn:
            txn.put(b"format", b'{"version": 2, "strict": false}')
    for line in (refused_here("mount", database, point, code=1), refused("mount", "-f", database, point, code=1)):
        assert "newer cowfs" in line
        assert "format 2" in line
    assert mountpoint.mounted_at(point) is None


@pytest.mark.parametrize("name", ["missing", "empty", "file", "text"])
def test_what_is_no_database_is_refused(tmp_path: Path, point: Path, name: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("hello")
    (tmp_path / "text").mkdir()
    (tmp_path / "text/data.mdb").write_text("hello, this is no database\n" * 1000)
    refused_here("mount", tmp_path / name, point, code=1)
    assert mountpoint.mounted_at(point) is None


def test_a_wrong_mount_option_is_refused(database: Path, point: Path) -> None:
    line = refused_here("mount", "-o", "no_such_option", database, point, code=1)
    assert "no_such_option" in line
    assert mountpoint.mounted_at(point) is None


def test_options_from_fstab_are_taken(database: Path, tmp_path: Path) -> None:
    """An ordinary user may let others in only where /etc/fuse.conf says so, but may have the kernel look at the modes."""
    others = "allow_other" if os.geteuid() == 0 else "default_permissions"
    with mounted(database, tmp_path / "mnt", "-o", "ro,noauto,user,x-systemd.automount,_netdev", "-o", others) as mount:
        shown = run("findmnt", "-n", "-o", "OPTIONS", mount.point).stdout
        assert others in shown
        assert "default_permissions" in shown


def test_the_log_says_when_it_was_mounted_and_unmounted(database: Path, tmp_path: Path) -> None:
    with mounted(database, tmp_path / "mnt") as mount:
        pass
    first, last = mount.log.read_text().splitlines()
    assert first.endswith(f"{database} is mounted at {mount.point}")
    assert last.endswith(f"{database} is no longer mounted at {mount.point}")


def test_a_log_that_cannot_be_written_is_one_line(database: Path, point: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused_here("mount", "--log", tmp_path / "file/log", database, point, code=1)
    result = run(*COWFS, "mount", database, point, code=1, env={"XDG_STATE_HOME": str(tmp_path / "file")})
    assert str(tmp_path / "file") in one_line(result)
    assert mountpoint.mounted_at(point) is None


# -- the device, and permissions: in a mount namespace of its own ---------------------------------------------------------


_WITHOUT_DEVICE = """
    mount -t tmpfs tmpfs /mnt
    for device in null zero random urandom; do
        touch "/mnt/$device"
        mount --bind "/dev/$device" "/mnt/$device"
    done
    mount --rbind /mnt /dev
    exec "$@" </dev/null
    """
_ANOTHER_DEVICE = """
    mount --bind /dev/null /dev/fuse
    exec "$@" </dev/null
    """


@pytest.mark.parametrize(
    ("script", "reason"), [(_WITHOUT_DEVICE, "/dev/fuse: there is none"), (_ANOTHER_DEVICE, "could not mount")]
)
def test_a_machine_without_fuse_says_so_in_one_line(database: Path, point: Path, script: str, reason: str) -> None:
    result = in_private_mounts(script, *COWFS, "mount", database, point, code=1)
    assert reason in one_line(result)


def test_no_permission_for_the_device_is_one_line(database: Path, point: Path) -> None:
    with_device = """
        exec 3</dev/null
        mount -t tmpfs tmpfs /mnt
        touch /mnt/fuse
        chmod 000 /mnt/fuse
        mount --bind /mnt/fuse /dev/fuse
        exec "$@" <&3
        """
    for options in ([], ["-f"]):
        result = in_private_mounts(with_device, *unprivileged(), *COWFS, "mount", *options, database, point, code=1)
        assert "/dev/fuse: no permission" in one_line(result)


def test_no_permission_for_the_database_or_the_mount_point_is_one_line(user: User) -> None:
    for directory in ("point", "closed", "closed/point"):
        (user.home / directory).mkdir()
    for path in ("db", "closed/db"):
        Store.create(user.home / path, durability="none").close()
    user.own(user.home)
    for closed, mode, database, point in (
        ("point", 0o555, "db", "point"),
        ("point", 0o333, "db", "point"),
        ("closed", 0o000, "db", "closed/point"),
        ("closed", 0o000, "closed/db", "point"),
        ("db", 0o000, "db", "point"),
        ("db/data.mdb", 0o000, "db", "point"),
        ("db/lock.mdb", 0o444, "db", "point"),
    ):
        before = (user.home / closed).stat().st_mode
        (user.home / closed).chmod(mode)
        line = one_line(user.cowfs("mount", user.home / database, user.home / point, code=None))
        (user.home / closed).chmod(before)
        assert "permission" in line.lower()
        assert str(user.home / Path(closed).parts[0]) in line
    assert user.run("findmnt", "-t", "fuse.cowfs", "-R", user.home, code=None).stdout == ""


def test_an_ordinary_user_mounts_what_he_may_read(user: User) -> None:
    """Readable but not writable: only the mounting user gets in, and sees what the database is."""
    database, point = user.home / "db", user.home / "mnt"
    Store.create(database, durability="none").close()
    (database / "data.mdb").chmod(0o444)
    (database / "lock.mdb").chmod(0o666)
    with user.mounted(database, point):
        assert user.run("ls", point / "snapshots").stdout == "1\nlatest\n"
        user.run("cmp", point / "live/data.mdb", point / "snapshots/1/data.mdb")
        shown = user.run("stat", "-c", "%a %u %g", point / "live/data.mdb").stdout
        assert shown == f"444 {os.geteuid()} {os.getegid()}\n"


def test_the_checkout_stays_clean_of_mounts() -> None:
    assert [mount for mount in mountpoint.mounts() if CHECKOUT in mount.point.parents] == []
