"""``cowfs restore``: what it writes, where, with which permissions, and what it leaves when it ends early."""

from __future__ import annotations

import fcntl
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cowfs import Store
from cowfs.store.history.retention import Retention
from tests.support.commands import COWFS, cowfs_here, in_private_mounts, refused_here, run_here

PAGE = 4096


@pytest.fixture(scope="module")
def emptied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store most of whose pages are free."""
    path = tmp_path_factory.mktemp("emptied") / "db"
    with Store.create(path, durability="none", retention=Retention(commits=0)) as store:
        for start in range(1, 4001, 1000):
            store.transact([{":db/id": n, ":n": n, ":text": f"{n} " * 60} for n in range(start, start + 1000)])
        store.transact([[":db/retractEntity", n] for n in range(20, 4001)])
        for n in range(4):
            store.transact([{":n": n}])
    (path / "lock.mdb").unlink()
    return path


@pytest.fixture
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def on_disk(path: Path) -> int:
    return path.stat().st_blocks * 512


def test_free_pages_take_no_room(emptied: Path, tmp_path: Path) -> None:
    cowfs_here("restore", emptied, tmp_path / "new")
    source, made = emptied / "data.mdb", tmp_path / "new/data.mdb"
    assert made.stat().st_size >= source.stat().st_size
    assert on_disk(made) < source.stat().st_size // 2
    assert cowfs_here("export", tmp_path / "new") == cowfs_here("export", emptied)
    cowfs_here("check", tmp_path / "new")


def test_a_compacted_file_has_no_free_pages_and_the_same_txid(emptied: Path, tmp_path: Path) -> None:
    printed = cowfs_here("restore", "--compact", emptied, tmp_path / "new")
    txid = cowfs_here("check", emptied).split("txid ")[1].split(",")[0]
    assert f"txid {txid}, checked" in printed
    assert (tmp_path / "new/data.mdb").stat().st_size < on_disk(emptied / "data.mdb") // 2
    assert cowfs_here("export", tmp_path / "new") == cowfs_here("export", emptied)
    assert f"txid {int(txid) + 1} " in cowfs_here("transact", tmp_path / "new", stdin='[{"n": 1}]')
    cowfs_here("check", tmp_path / "new")
    assert os.listdir(tmp_path / "new") != ["data.mdb.compact"]
    refused_here("restore", "--compact", "--no-check", emptied, tmp_path / "other", code=2)


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o000], indirect=True)
@pytest.mark.parametrize(
    ("directory", "file"), [(0o700, 0o600), (0o755, 0o644), (0o770, 0o660), (0o555, 0o444), (0o2750, 0o640)]
)
def test_permissions_are_those_of_the_backup_less_the_umask(
    emptied: Path, tmp_path: Path, umask: None, directory: int, file: int
) -> None:
    backup = tmp_path / "backup"
    cowfs_here("restore", emptied, backup)
    (backup / "data.mdb").chmod(file)
    backup.chmod(directory)
    now = os.umask(0)
    os.umask(now)
    cowfs_here("restore", backup, tmp_path / "new")
    assert mode(tmp_path / "new") == (directory & 0o777 | 0o700) & ~now
    assert mode(tmp_path / "new/data.mdb") == (file | 0o600) & ~now
    cowfs_here("restore", backup / "data.mdb", tmp_path / "from-file")
    assert mode(tmp_path / "from-file/data.mdb") == (file | 0o600) & ~now
    assert mode(tmp_path / "from-file") & 0o077 & ~(file & 0o044 | (file & 0o044) >> 2) == 0
    backup.chmod(0o755)


def test_an_access_control_list_grants_nothing_to_others(emptied: Path, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    cowfs_here("restore", emptied, backup)
    user, group, mask, other = (0x01, 6, -1), (0x04, 4, -1), (0x10, 4, -1), (0x20, 4, -1)
    entries = (user, (0x02, 0, 65534), group, mask, other)
    packed = b"\2\0\0\0" + b"".join(
        tag.to_bytes(2, "little") + rights.to_bytes(2, "little") + (number % 2**32).to_bytes(4, "little")
        for tag, rights, number in entries
    )
    os.setxattr(backup / "data.mdb", "system.posix_acl_access", packed)
    cowfs_here("restore", backup, tmp_path / "new")
    assert (mode(tmp_path / "new"), mode(tmp_path / "new/data.mdb")) == (0o700, 0o600)


def test_an_empty_directory_is_filled_and_keeps_its_mode(
    emptied: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "volume/lost+found").mkdir(parents=True)
    (tmp_path / "volume").chmod(0o711)
    inode = (tmp_path / "volume").stat().st_ino
    cowfs_here("restore", emptied, tmp_path / "volume")
    assert ((tmp_path / "volume").stat().st_ino, mode(tmp_path / "volume")) == (inode, 0o711)
    cowfs_here("check", tmp_path / "volume")
    refused_here("restore", emptied, tmp_path / "volume", code=2)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    cowfs_here("restore", emptied, ".")
    cowfs_here("check", tmp_path / "here")


def test_a_mount_point_is_filled_and_the_bytes_go_there(emptied: Path, tmp_path: Path) -> None:
    script = """
        mkdir "$1/volume" && mount -t tmpfs -o size=64m none "$1/volume"
        {python} -m cowfs.cli restore "$2" "$1/volume"
        {python} -m cowfs.cli check "$1/volume"
        stat -c %s "$1/volume/data.mdb"
        ls -A "$1" "$1/volume"
    """
    shown = in_private_mounts(script.format(python=sys.executable), tmp_path, emptied).stdout
    assert ": ok (" in shown
    assert shown.split("\n")[-4:-1] == ["", f"{tmp_path}/volume:", "data.mdb"]
    assert os.listdir(tmp_path / "volume") == []


def test_a_full_disk_leaves_nothing(emptied: Path, tmp_path: Path) -> None:
    script = """
        mkdir "$1/volume" && mount -t tmpfs -o size=128k none "$1/volume"
        {python} -m cowfs.cli restore "$2" "$1/volume" || echo "exit $?"
        {python} -m cowfs.cli restore "$2" "$1/volume/new" || echo "exit $?"
        ls -A "$1/volume"
    """
    result = in_private_mounts(script.format(python=sys.executable), tmp_path, emptied)
    assert result.stdout.split("\n") == ["exit 1", "exit 1", ""]
    assert [line.split(": ")[-1] for line in result.stderr.splitlines()] == ["no space left on the filesystem"] * 2


def test_a_damaged_backup_leaves_an_empty_directory_empty(emptied: Path, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    cowfs_here("restore", emptied, backup)
    with open(backup / "data.mdb", "r+b") as file:
        data = file.read()
        leaf = next(at for at in range(2 * PAGE, len(data), PAGE) if data[at + 10] == 2)
        file.seek(leaf + 16)
        file.write(b"\xff" * 64)
    (tmp_path / "volume").mkdir()
    for target in ("volume", "new"):
        assert run_here("restore", backup, tmp_path / target, code=1).stderr
    assert sorted(os.listdir(tmp_path)) == ["backup", "volume"]
    assert os.listdir(tmp_path / "volume") == []


@pytest.mark.parametrize("target", ["new", "volume"])
def test_what_a_killed_restore_has_left_is_removed_by_the_next(emptied: Path, tmp_path: Path, target: str) -> None:
    """Only of one that is dead: what another one is writing is locked."""
    (tmp_path / "volume").mkdir()
    place = tmp_path / "volume" if target == "volume" else tmp_path
    program = f"""if True:
        import os, signal, sys
        from pathlib import Path
        from cowfs.backup.staging import Access, staged
        with staged(Path(sys.argv[1]), Access.of(Path(sys.argv[2]))) as data:
            data.write_bytes(bytes(10000))
            os.kill(os.getpid(), {int(signal.SIGKILL)})
    """
    killed = subprocess.run([sys.executable, "-c", program, tmp_path / target, emptied], check=False)
    assert killed.returncode == -signal.SIGKILL
    (left,) = [name for name in os.listdir(place) if ".restore-" in name]
    data = place / left if target == "volume" else place / left / "data.mdb"
    with open(data) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if target == "new":
            cowfs_here("restore", emptied, tmp_path / "new")
            (tmp_path / "new/data.mdb").unlink()
            (tmp_path / "new").rmdir()
        assert data.exists()
    subprocess.run([*COWFS, "restore", emptied, tmp_path / target], check=True)
    assert not [name for name in os.listdir(place) if ".restore-" in name]
    cowfs_here("check", tmp_path / target)
