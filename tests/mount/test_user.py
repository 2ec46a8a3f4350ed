"""An ordinary user mounts, copies, and owns the copies: they can be used, copied over and deleted."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from cowfs import Store
from tests.support.commands import cowfs_here, one_line
from tests.support.users import User, ordinary_user

# What somebody does with a database of his own: write it with cowfs, and with LMDB.
_USE = """
import lmdb, sys
from cowfs import Store
with Store.open(sys.argv[1]) as store:
    print(store.transact([{":note/text": "in the copy"}]).txid)
with lmdb.open(sys.argv[1], max_dbs=8, lib_version=0) as env, env.begin(write=True) as txn:
    txn.drop(env.open_db(b"another", txn=txn))
"""
_WRITES = """
import errno, os, sys
for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_WRONLY | os.O_CREAT, os.O_WRONLY | os.O_APPEND):
    for path in sys.argv[1:]:
        try:
            os.close(os.open(path, flags, 0o644))
        except OSError as error:
            print(errno.errorcode[error.errno])
"""


@pytest.fixture(scope="module")
def user(tmp_path_factory: pytest.TempPathFactory) -> Iterator[User]:
    """A user with a database, which is mounted."""
    with ordinary_user(tmp_path_factory.mktemp("user") / "home") as user:
        with Store.create(user.home / "db", {":note/text": {}}, durability="none") as store:
            store.transact([{":note/text": "first"}])
            store.transact([{":note/text": "second"}])
        user.own(user.home / "db")
        with user.mounted(user.home / "db", user.home / "mnt"):
            yield user
        cowfs_here("check", user.home / "db")


_TOOLS = {
    "rsync": "rsync -a mnt/snapshots/{commit} {copy}/",
    "cp": "cp -a mnt/snapshots/{commit} {copy}/",
    "tar": "tar -C mnt/snapshots -cf - {commit} | tar -C {copy} -xf -",
    "a browse tree": "mkdir {copy}/{commit} && cp -a mnt/snapshots/{commit}/. mnt/browse/{commit}/. {copy}/{commit}/",
}


def _copied(user: User, tool: str, commit: str) -> Path:
    copy = Path(user.run("mktemp", "-d", user.home / "copy.XXXX").stdout.strip())
    user.run("bash", "-c", "set -o pipefail; " + _TOOLS[tool].format(commit=commit, copy=copy.name))
    return copy / commit


@pytest.mark.parametrize(("tool", "commit"), [("rsync", "latest"), ("cp", "3"), ("tar", "latest"), ("a browse tree", "3")])
def test_a_copy_is_written_by_cowfs_and_lmdb_and_deleted(user: User, tool: str, commit: str) -> None:
    copy = _copied(user, tool, commit)
    assert user.python(_USE, copy) == "4\n"
    cowfs_here("check", copy)
    user.run("rm", "-r", copy.parent)
    assert not copy.parent.exists()


def test_a_copy_is_restored_and_so_is_the_mount(user: User) -> None:
    copy = _copied(user, "cp", "3")
    for backup in (copy, user.home / "mnt/snapshots/3"):
        user.cowfs("restore", backup, "new")
        assert user.python(_USE, user.home / "new") == "4\n"
        cowfs_here("check", user.home / "new")
        user.run("rm", "-r", "new")
    user.run("rm", "-r", copy.parent)


def test_rsync_copies_over_what_it_has_copied(user: User) -> None:
    user.run("mkdir", "over")
    for commit in ("1", "2", "3", "3"):
        user.run("touch", "over/stray")
        user.run("rsync", "-a", "--delete", f"mnt/snapshots/{commit}/", "over/")
        assert not (user.home / "over/stray").exists()
        cowfs_here("check", user.home / "over")
    user.run("rm", "-r", "over")


def test_a_rotation_of_hard_links(user: User) -> None:
    """As rsnapshot does it: four backups, of which the oldest is deleted each time."""
    user.run("mkdir", "day")
    for number, commit in enumerate(("1", "2", "2", "3")):
        link = [f"--link-dest=../{number - 1}"] if number else []
        user.run("rsync", "-a", *link, f"mnt/snapshots/{commit}/", f"day/{number}/")
        cowfs_here("check", user.home / "day" / str(number))
    inodes = [(user.home / "day" / str(number) / "data.mdb").stat().st_ino for number in range(4)]
    assert len(set(inodes)) == 3, "two backups of one commit share its file"
    user.run("rm", "-r", "day/0", "day/1")
    user.run("mv", "day/2", "day/1")
    cowfs_here("check", user.home / "day/1")
    user.run("rm", "-r", "day")


def test_writing_in_the_mount_is_refused_all_the_same(user: User) -> None:
    files = [f"mnt/{path}" for path in ("live/data.mdb", "snapshots/3/data.mdb", "snapshots/latest/schema.json")]
    assert user.python(_WRITES, *files).split() == ["EROFS"] * 15
    answer = user.run("rm", "-rf", "mnt/snapshots/3", code=1).stderr
    assert answer.count("Read-only file system") == len(answer.splitlines()) == 3
    line = one_line(user.cowfs("transact", "mnt/snapshots/3", "-", code=1, stdin="[]"))
    assert line.endswith("no permission to write on a read-only filesystem; copy a snapshot, and write the copy")


_MODES = (
    (0o755, 0o644, "755 644"),
    (0o700, 0o600, "700 600"),
    (0o2775, 0o664, "755 644"),
    (0o750, 0o440, "750 440"),
    (0o555, 0o400, "500 400"),
    (0o777, 0o666, "755 644"),
    (0o711, 0o640, "750 640"),
)


def test_the_write_bits_are_the_owner_s_as_the_database_has_them(user: User) -> None:
    database = user.home / "db"
    before = [(path, stat.S_IMODE(path.stat().st_mode)) for path in (database / "data.mdb", database)]
    try:
        for directory, file, shown in _MODES:
            (database / "data.mdb").chmod(file)
            database.chmod(directory)
            for place in ("snapshots/3/data.mdb", "snapshots/latest/data.mdb", "live/data.mdb", "browse/3/snapshot.json"):
                path = Path("mnt", place)
                assert user.run("stat", "-c", "%a", path.parent, path).stdout.split() == shown.split()
    finally:
        for path, mode in before:
            path.chmod(mode)
