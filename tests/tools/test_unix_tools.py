"""Tools that copy, list and search a mount that stands still: complete, without a warning, and the same every time."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from cowfs import Store
from tests.support import copies
from tests.support.commands import run
from tests.support.mounted import Mount, mounted

_NEEDLE = "a needle in the hay"
_FILES = ["data.mdb", "schema.json", "snapshot.json"]


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("unix") / "db"
    with Store.create(path, {":note/text": {}}, durability="none") as store:
        for number in range(60):
            store.transact([{":note/text": f"note {number} " * 20}])
        store.transact([{":note/text": _NEEDLE}])
    return path


@pytest.fixture(scope="module")
def mount(database: Path) -> Iterator[Mount]:
    with mounted(database, database.with_name("mnt")) as mount:
        yield mount


@pytest.fixture(scope="module")
def commit(mount: Mount) -> Path:
    return mount.snapshot(mount.txids()[-1])


@pytest.mark.parametrize(
    "tool",
    [copies.rsync, copies.rsync_contents, copies.rsync_inplace, copies.tar, copies.cp_archive, copies.cp_recursive],
)
@pytest.mark.parametrize("name", ["commit", "latest"])
def test_a_copy_is_complete(mount: Mount, commit: Path, tmp_path: Path, tool: copies.Copy, name: str) -> None:
    source = commit if name == "commit" else mount.latest
    tool(source, tmp_path)
    copy = tmp_path / source.name
    assert sorted(path.name for path in copy.iterdir()) == _FILES
    for file in _FILES:
        assert (copy / file).read_bytes() == (commit / file).read_bytes()
        if tool is not copies.cp_recursive:
            assert (copy / file).stat().st_mtime == (commit / file).stat().st_mtime


def test_rsync_finds_nothing_to_do_the_second_time(commit: Path, tmp_path: Path) -> None:
    copies.rsync(commit, tmp_path)
    for options in ("-ai", "-aci", "-acixHAX"):
        copies.silent(run("rsync", options, "--delete", commit, f"{tmp_path}/"))


def test_find_sees_every_file_once(mount: Mount) -> None:
    names = run("find", mount.point, "-type", "f").stdout.splitlines()
    images = [name for name in names if name.startswith(str(mount.snapshots))]
    assert len(names) == len(set(names))
    assert len(images) == 3 * (1 + len(mount.txids()))
    directories = run("find", mount.snapshots, "-type", "d").stdout.splitlines()
    assert len(directories) == 2 + len(mount.txids())


def test_listing_tools_agree_with_stat(commit: Path) -> None:
    listed = run("ls", "-lR", "--time-style=+%s", commit)
    assert listed.stderr == ""
    sizes = {words[6]: int(words[4]) for line in listed.stdout.splitlines() if len(words := line.split()) == 7}
    assert sizes == {file: (commit / file).stat().st_size for file in _FILES}
    for file in _FILES:
        shown = run("stat", "--format=%s %Y %i %F", commit / file).stdout.split(" ", 3)
        status = (commit / file).stat()
        assert shown == [str(status.st_size), str(int(status.st_mtime)), str(status.st_ino), "regular file\n"]


def test_du_tells_of_the_pages_in_use(commit: Path) -> None:
    image = commit / "data.mdb"
    used = int(run("du", "-B1", image).stdout.split()[0])
    assert used == image.stat().st_blocks * 512
    assert 0 < used <= image.stat().st_size
    assert int(run("du", "-sB1", commit).stdout.split()[0]) >= used


def test_df_tells_of_the_filesystem_below(database: Path, mount: Mount) -> None:
    assert run("df", "--output=size,itotal", mount.point).stdout == run("df", "--output=size,itotal", database).stdout
    source, kind = run("df", "--output=source,fstype", mount.point).stdout.splitlines()[1].split()
    assert (source, kind) == (str(database.resolve()), "fuse.cowfs")
    # 0x65735546 is FUSE_SUPER_MAGIC; stat calls it fuseblk up to coreutils 9.4, then fuse
    assert run("stat", "-f", "--format=%t", mount.point).stdout == "65735546\n"


def test_grep_finds_what_is_in_there(mount: Mount, commit: Path) -> None:
    found = run("grep", "-r", "--files-with-matches", _NEEDLE, commit).stdout
    assert found == f"{commit}/data.mdb\n"
    copies.silent(run("grep", "-r", _NEEDLE + "s", mount.snapshots, code=1))


def test_nothing_changes_from_look_to_look_or_from_mount_to_mount(database: Path, tmp_path: Path) -> None:
    looks = []
    for _ in range(2):
        with mounted(database, tmp_path / "mnt") as mount:
            commit = mount.snapshot(mount.txids()[-1])
            looks += [_look(commit), _look(commit)]
    assert looks == looks[:1] * 4


def test_names_below_latest_are_the_same_files_while_nothing_is_committed(mount: Mount) -> None:
    assert _look(mount.latest) == _look(mount.latest)
    for directory in (mount.live / "entities" / "0-999", mount.point / "browse" / "latest" / "log" / "0-999"):
        assert _look(directory) == _look(directory)


def test_owner_group_and_mode_are_those_of_the_database_without_write_bits_for_others(database: Path, mount: Mount) -> None:
    file = database / "data.mdb"
    before = stat.S_IMODE(file.stat().st_mode)
    try:
        for mode in (0o644, 0o660, 0o600, 0o444):
            file.chmod(mode)
            for image in (mount.live / "data.mdb", mount.snapshot(mount.txids()[-1]) / "data.mdb"):
                status = image.stat()
                assert status.st_mode & 0o222 == mode & 0o200
                assert stat.S_IMODE(status.st_mode) & ~mode == 0
                assert status.st_mode & 0o400
                assert (status.st_uid, status.st_gid) == (file.stat().st_uid, file.stat().st_gid)
                assert bool(status.st_mode & 0o004) == (mode & 0o004 != 0 and database.stat().st_mode & 0o001 != 0)
            assert mount.live.stat().st_mode & 0o222 == database.stat().st_mode & 0o200
    finally:
        file.chmod(before)


def _look(directory: Path) -> dict[str, tuple[int | str, ...]]:
    """Return all that a tool could notice of a directory and its files, short of the mount's device number."""
    looks: dict[str, tuple[int | str, ...]] = {".": _status(directory)}
    for name in sorted(os.listdir(directory)):
        looks[name] = (*_status(directory / name), hashlib.sha256((directory / name).read_bytes()).hexdigest())
    return looks


def _status(path: Path) -> tuple[int, ...]:
    status = path.stat()
    times = (status.st_mtime_ns, status.st_ctime_ns)
    return (
        status.st_ino,
        status.st_mode,
        status.st_nlink,
        status.st_uid,
        status.st_gid,
        status.st_size,
        status.st_blocks,
        *times,
    )
