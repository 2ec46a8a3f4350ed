"""Files that are replaced, or removed, while they are open: said plainly, and nothing is written where nobody looks."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cowfs.engine.env import Env
from cowfs.engine.locktable import _TXNID
from cowfs.engine.opening import reading
from cowfs.errors import CorruptDatabase, EnvironmentFailure
from tests.support.retained import cowfs_process, stock_process


def put(env: Env, key: bytes, value: bytes) -> int:
    with env.write() as txn:
        txn.create([b"a"])
        txn.put(b"a", key, value)
    return txn.txnid


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with Env.create(tmp_path / "db", durable=False) as env:
        for number in range(10):
            put(env, b"key", b"value %d" % number)
    return tmp_path / "db"


def another_file(path: Path, commits: int) -> Path:
    """Make another data file, with other commits in it."""
    other = path.parent / "other"
    with Env.create(other, durable=False) as env:
        for _ in range(commits):
            put(env, b"key", b"another")
    return other / "data.mdb"


def replaced(path: Path) -> None:
    another_file(path, 3).rename(path / "data.mdb")


def removed(path: Path) -> None:
    (path / "data.mdb").rename(path.parent / "data.mdb")


def lock_removed(path: Path) -> None:
    (path / "lock.mdb").unlink()


def lock_replaced(path: Path) -> None:
    shutil.copy(path / "lock.mdb", path.parent / "lock.mdb")
    (path.parent / "lock.mdb").rename(path / "lock.mdb")


DEEDS: list[Callable[[Path], None]] = [replaced, removed, lock_removed, lock_replaced]


@pytest.mark.parametrize("deed", DEEDS)
@pytest.mark.parametrize("readonly", [False, True])
def test_an_environment_whose_files_are_not_in_place_says_so(
    path: Path, deed: Callable[[Path], None], readonly: bool
) -> None:
    with Env.open(path, readonly=readonly, durable=False) as env, env.hold() as held:
        deed(path)
        with pytest.raises(EnvironmentFailure, match="removed or replaced since it was opened; open it again"):
            env.hold()
        if not readonly:
            before = held.root
            for write in (lambda: put(env, b"key", b"lost"), env.claim_pin, env.give_up_history):
                with pytest.raises(EnvironmentFailure, match="removed or replaced"):
                    write()
            assert env.file.newest_root() == before
        if deed in (replaced, removed):
            with pytest.raises(EnvironmentFailure, match="removed or replaced"):
                env.newest_txnid()
        assert held.get(b"a", b"key") == b"value 9", "what is held stays"


@pytest.mark.parametrize("commits", [3, 4, 30, 31])
def test_whoever_opens_beside_a_process_with_the_old_file_is_told(path: Path, commits: int) -> None:
    """The lock file announces commits of a file that is not there any more: LMDB would write on from a wrong root."""
    with cowfs_process(path) as old:
        old.do("hold = env.hold()")
        another_file(path, commits).rename(path / "data.mdb")
        content = (path / "data.mdb").read_bytes()
        for opening in (lambda: reading(path).__enter__(), lambda: Env.open(path), lambda: Env.open(path, readonly=True)):
            with pytest.raises(EnvironmentFailure, match=f"does not match data.mdb, .* process {old.pid} had it open"):
                opening()
        assert (path / "data.mdb").read_bytes() == content
    with Env.open(path, durable=False) as env:
        assert put(env, b"key", b"on") == commits + 1


def test_a_process_that_was_fooled_at_first_does_not_write(path: Path) -> None:
    """Two files that are at the same commit cannot be told apart, until somebody commits to the old one."""
    with stock_process(path) as old:
        another_file(path, 10).rename(path / "data.mdb")
        with Env.open(path, durable=False) as env:
            env.hold().close()
            old.do("write(5)")
            with pytest.raises(CorruptDatabase, match="neither meta page is that of the newest transaction"):
                put(env, b"key", b"value")
            with pytest.raises(CorruptDatabase, match="neither meta page is that of the newest transaction"):
                env.hold()
        with pytest.raises(EnvironmentFailure, match="does not match"):
            Env.open(path)
    with Env.open(path, durable=False) as env, env.hold() as hold:
        assert hold.get(b"a", b"key") == b"another"


def test_a_commit_that_nobody_announced_is_no_mismatch(path: Path) -> None:
    """Of a writer that was killed while it ended its commit."""
    with cowfs_process(path) as other:
        other.do(f"env._table._words[{_TXNID // 8}] -= 1")
        with reading(path) as reader:
            assert reader.root.txnid == 9
        other.do("end()")
    with Env.open(path, durable=False) as env:
        assert put(env, b"key", b"on") == 11


def test_a_restored_directory_is_another_database(path: Path) -> None:
    with Env.open(path, durable=False) as old, old.hold() as hold:
        copy = path.with_name("copy")
        copy.mkdir()
        shutil.copy(path / "data.mdb", copy)
        path.rename(path.with_name("old"))
        copy.rename(path)
        with Env.open(path, durable=False) as new:
            assert new is not old
            assert put(new, b"key", b"new") == 11
        with pytest.raises(EnvironmentFailure, match="removed or replaced"):
            old.hold()
        assert hold.get(b"a", b"key") == b"value 9"
