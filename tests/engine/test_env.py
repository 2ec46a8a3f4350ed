from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import lmdb
import pytest

from cowfs.engine import env as env_module
from cowfs.engine.env import Env
from cowfs.engine.holds import Hold
from cowfs.engine.locktable import LockTable
from cowfs.engine.translate import domain_error
from cowfs.errors import (
    AccessDenied,
    Closed,
    CorruptDatabase,
    CowfsError,
    DiskFull,
    EnvironmentFailure,
    InputError,
    InvalidTarget,
    NotADatabase,
    ReadersFull,
    UnsupportedFormat,
)
from cowfs.pages.image import pages_in_use
from cowfs.pages.pagecheck import check_pages
from tests.support.commands import CHECKOUT, LIMIT, in_private_mounts, python
from tests.support.writer import require_certified, writing


@pytest.fixture
def env(tmp_path: Path) -> Iterator[Env]:
    with Env.create(tmp_path / "db", durable=False) as env:
        put(env, b"key", b"value")
        yield env


def put(env: Env, key: bytes, value: bytes) -> int:
    with env.write() as txn:
        txn.create([b"a"])
        txn.put(b"a", key, value)
    return txn.txnid


# -- opening ------------------------------------------------------------------------------------------------------


def test_one_process_opens_an_environment_once(env: Env, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(env.path)
    for path in (env.path, tmp_path / "link"):
        with Env.open(path, durable=False) as again:
            assert again is env
    with Env.open(env.path, durable=False, readonly=True) as again:
        assert again is env
    with pytest.raises(InputError, match="another durability"):
        Env.open(env.path)
    put(env, b"still", b"open")


def test_the_last_close_closes(tmp_path: Path) -> None:
    first = Env.create(tmp_path / "db")
    second = Env.open(tmp_path / "db")
    first.close()
    put(second, b"key", b"value")
    second.close()
    with Env.open(tmp_path / "db") as third, third.hold() as hold:
        assert third is not first
        assert hold.get(b"a", b"key") == b"value"


def test_an_environment_opened_read_only_is_not_written(tmp_path: Path) -> None:
    Env.create(tmp_path / "db").close()
    with Env.open(tmp_path / "db", readonly=True) as env:
        with env.hold() as hold:
            assert list(hold.databases()) == []
        with pytest.raises(AccessDenied, match="opened read-only"), env.write():
            pass
        with pytest.raises(InputError, match="already open in this process, read-only"):
            Env.open(tmp_path / "db")


def test_a_use_after_a_fork_is_refused(tmp_path: Path) -> None:
    program = """
        import os, sys
        from pathlib import Path
        from cowfs.errors import EnvironmentFailure
        from cowfs.engine.env import Env
        path = Path(sys.argv[1])
        env = Env.create(path)
        if os.fork() == 0:
            for use in (env.hold, env.write().__enter__, lambda: Env.open(path)):
                try:
                    use()
                except EnvironmentFailure as error:
                    print(error, flush=True)
            os._exit(0)
        os.wait()
        with env.write() as txn:
            txn.put(b"", b"key", b"value")
        env.close()
    """
    assert python(program, tmp_path / "db").count("opened before a fork") == 3


def test_a_new_environment_needs_a_place_of_its_own(tmp_path: Path, env: Env) -> None:
    (tmp_path / "file").touch()
    for place, text in ((env.path, "not empty"), (tmp_path / "file", "in the way"), (tmp_path / "file" / "x", "parent")):
        with pytest.raises(InvalidTarget, match=text):
            Env.create(place)
    for place in (Path("/proc/nothing"), tmp_path / ("x" * 300)):
        with pytest.raises(EnvironmentFailure):
            Env.create(place)
    with pytest.raises(NotADatabase, match="the file is empty"):
        Env.open(tmp_path / "file")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (lmdb.ReadersFullError("x"), ReadersFull),
        (lmdb.MapFullError("x"), DiskFull),
        (lmdb.DiskError("x"), DiskFull),
        (lmdb.Error("mdb_txn_commit: No space left on device"), DiskFull),
        (OSError(122, "Disk quota exceeded"), DiskFull),
        (lmdb.Error("mdb_txn_commit: Input/output error"), EnvironmentFailure),
        (lmdb.CorruptedError("x"), CorruptDatabase),
        (lmdb.PageNotFoundError("x"), CorruptDatabase),
        (lmdb.VersionMismatchError("x"), UnsupportedFormat),
        (lmdb.InvalidError("x"), NotADatabase),
        (lmdb.ReadonlyError("x"), AccessDenied),
        (lmdb.LockError("x"), AccessDenied),
        (PermissionError(13, "x"), AccessDenied),
        (lmdb.Error("mdb_env_open: Read-only file system"), AccessDenied),
        (lmdb.Error("mdb_env_open: No such device"), EnvironmentFailure),
        (lmdb.BadTxnError("x"), EnvironmentFailure),
    ],
)
def test_foreign_errors_become_ours(tmp_path: Path, error: lmdb.Error | OSError, expected: type[CowfsError]) -> None:
    assert type(domain_error(error, tmp_path)) is expected
    assert type(domain_error(error, tmp_path / "gone")) is expected


def test_an_environment_whose_file_was_replaced_says_so(env: Env) -> None:
    with pytest.raises(EnvironmentFailure, match="removed or replaced"), kept_aside(env.path / "data.mdb"):
        env.newest_txnid()
    assert env.newest_txnid() == 1


@contextmanager
def kept_aside(file: Path) -> Iterator[None]:
    aside = file.rename(file.with_suffix(".aside"))
    try:
        yield
    finally:
        aside.rename(file)


# -- writing ------------------------------------------------------------------------------------------------------


def test_a_transaction_sees_itself_and_is_seen_after_its_commit(env: Env) -> None:
    with env.hold() as before, env.write() as txn:
        txn.create([b"b"])
        txn.put_many(b"b", [(b"%d" % number, b"x") for number in range(9)])
        assert txn.delete(b"b", b"3")
        assert not txn.delete(b"b", b"3")
        assert (txn.get(b"b", b"1"), txn.get(b"b", b"3"), txn.get(b"b", b"")) == (b"x", None, None)
        assert [key for key, _value in txn.scan(b"b", b"2", b"6")] == [b"2", b"4", b"5"]
        assert before.get(b"b", b"1") is None
        with env.hold() as meanwhile:
            assert meanwhile.root == before.root
    with env.hold() as after:
        assert after.root.txnid == env.newest_txnid() == txn.txnid == before.root.txnid + 1
        assert len(list(after.scan(b"b"))) == 8
        assert list(check_pages(env.file, after.root)) == []


def test_an_exception_undoes_the_transaction(env: Env) -> None:
    content = (env.path / "data.mdb").read_bytes()
    with pytest.raises(ZeroDivisionError), env.write() as txn:
        txn.create([b"b"])
        txn.put(b"a", b"key", b"other")
        txn.put(b"b", b"key", b"other")
        raise ZeroDivisionError
    assert (env.path / "data.mdb").read_bytes() == content
    with env.write() as txn:
        assert (txn.get(b"a", b"key"), txn.get(b"b", b"key")) == (b"value", None)
        with pytest.raises(EnvironmentFailure, match="there is no database 'b'"):
            txn.put(b"b", b"key", b"value")
        txn.create([b"b"])
        txn.put(b"b", b"key", b"value")


def test_an_aborted_transaction_may_end_its_block(env: Env) -> None:
    with env.write() as txn:
        txn.put(b"a", b"key", b"other")
        txn.abort()
        txn.abort()
        txn.commit()
    with env.hold() as hold:
        assert hold.get(b"a", b"key") == b"value"


def test_what_lmdb_refuses_is_an_error_of_ours(env: Env) -> None:
    with env.write() as txn:
        for key in (b"", b"x" * 512):
            with pytest.raises(EnvironmentFailure, match="BAD_VALSIZE"):
                txn.put(b"a", key, b"value")
        with pytest.raises(EnvironmentFailure):
            txn.create([b"%d" % number for number in range(40)])
        txn.abort()
    with pytest.raises(Closed):
        txn.get(b"a", b"key")


def test_a_full_disk_leaves_what_was_committed(tmp_path: Path) -> None:
    """On a filesystem of 2 MiB, full in the middle of a commit, and again, until something is deleted."""
    program = """
        import sys
        from pathlib import Path
        from cowfs.errors import DiskFull
        from cowfs.pages.pagecheck import check_pages
        from cowfs.engine.env import Env
        from cowfs.pages.image import pages_in_use
        model, path = {}, Path(sys.argv[1]) / "db"
        full = 0
        with Env.create(path, durable=sys.argv[2] == "durable") as env:
            with env.write() as txn:
                txn.create([b"a"])
            for number in range(400):
                changes = {b"%d" % key: b"%d" % number * 9000 for key in (number, number + 1, number + 2)}
                try:
                    with env.write() as txn:
                        for key, value in changes.items():
                            txn.put(b"a", key, value)
                    model |= changes
                except DiskFull:
                    full += 1
                with env.hold() as hold:
                    assert dict(hold.scan(b"a")) == model
                if full == 3:
                    break
            assert full == 3 and len(model) > 20, (full, len(model))
            for key in sorted(model)[:20]:
                with env.write() as txn:
                    txn.delete(b"a", key)
                del model[key]
        with Env.open(path) as env, env.hold() as hold:
            assert dict(hold.scan(b"a")) == model
            assert list(check_pages(env.file, hold.root)) == []
            assert hold.root.pages > pages_in_use(hold)
        print("well")
    """
    script = (
        'mount -t tmpfs -o size=2m tmpfs "$1"; for durable in durable not; do "$2" -c "$3" "$1" $durable; rm -r "$1"/*; done'
    )
    assert in_private_mounts(script, tmp_path, sys.executable, dedented(program)).stdout == "well\nwell\n"


def dedented(program: str) -> str:
    return "\n".join(line.removeprefix(" " * 8) for line in program.splitlines())


def test_a_writer_killed_in_the_middle_leaves_its_last_commit(tmp_path: Path) -> None:
    Env.create(tmp_path / "db").close()
    for seed in range(6):
        with writing(["nosync", "dropping", "writemap"][seed % 3], tmp_path / "db", seed) as process:
            time.sleep(0.02 * seed)
            process.kill()
            process.wait(LIMIT)
        with Env.open(tmp_path / "db", durable=False) as env:
            with env.hold() as hold:
                require_certified(hold, hold.root.txnid)
                assert list(check_pages(env.file, hold.root)) == []
            with env.write() as txn:
                require_certified(txn, txn.txnid - 1)
                txn.abort()


# -- holding ------------------------------------------------------------------------------------------------------


def test_a_hold_stays_what_it_was(env: Env) -> None:
    """Under commits that rewrite and delete everything, from this process and through another hold's end."""
    with env.hold() as hold:
        before = list(hold.scan(b"a"))
        for number in range(50):
            put(env, b"%d" % (number % 5), b"%d" % number * 3000)
            env.hold().close()
        assert list(hold.scan(b"a")) == before == [(b"key", b"value")]
        assert list(check_pages(env.file, hold.root)) == []
        assert env.newest_txnid() == hold.root.txnid + 50
        assert (os.getpid(), hold.root.txnid) in env.readers()
    assert env.readers() == []


def test_a_closed_hold_says_so(env: Env) -> None:
    hold = env.hold()
    scan = hold.scan(b"a")
    hold.close()
    hold.close()
    for read in (
        lambda: next(scan),
        lambda: hold.get(b"a", b"key"),
        lambda: list(hold.databases()),
        lambda: pages_in_use(hold),
    ):
        with pytest.raises(Closed, match="closed"):
            read()


def test_a_dropped_hold_lets_go(env: Env) -> None:
    env.hold()
    assert env.readers() == []


@pytest.mark.parametrize("style", ["nosync", "writemap"])
def test_a_hold_taken_beside_a_fast_writer_is_of_one_commit(tmp_path: Path, style: str) -> None:
    Env.create(tmp_path / "db").close()
    with writing(style, tmp_path / "db", 7) as process, Env.open(tmp_path / "db", readonly=True) as env:
        seen = set[int]()
        while len(seen) < 200:
            with env.hold() as hold:
                require_certified(hold, hold.root.txnid)
                seen.add(hold.root.txnid)
                assert env.newest_txnid() >= hold.root.txnid
            assert process.poll() is None, "the writer writes all the time"


def test_a_writer_too_fast_for_us_is_held_off_for_one_look(env: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[Hold | None] = []
    capture = Env._capture

    def unlucky(self: Env) -> Hold | None:
        looks.append(None)
        return capture(self) if len(looks) > env_module._CAPTURES_BESIDE_WRITERS else None

    monkeypatch.setattr(Env, "_capture", unlucky)
    with env.hold() as hold:
        assert hold.get(b"a", b"key") == b"value"
    monkeypatch.setattr(Env, "_capture", lambda _self: None)
    with pytest.raises(CorruptDatabase, match="neither meta page"):
        env.hold()
    env.readonly = True
    with pytest.raises(EnvironmentFailure, match="too fast"):
        env.hold()
    env.readonly = False


def test_a_meta_page_damaged_beside_us_is_an_error(env: Env) -> None:
    with env.hold() as hold:
        place, stored = (hold.root.txnid & 1) * 4096 + 144, hold.root.txnid.to_bytes(8, "little")
    with open(env.path / "data.mdb", "r+b", buffering=0) as data:
        os.pwrite(data.fileno(), bytes(8), place)
        with pytest.raises(CorruptDatabase, match="neither meta page"):
            env.hold()
        os.pwrite(data.fileno(), stored, place)
    env.hold().close()


def test_a_commit_between_the_looks_is_noticed(env: Env, monkeypatch: pytest.MonkeyPatch) -> None:
    """First two commits before the meta page is read, then one after it was read."""
    look, commits = LockTable.newest_txnid, iter([(0, 2), (0, 0), (1, 0), (0, 0), (0, 0)])

    def late(self: LockTable) -> int:
        before, after = next(commits)
        write(before)
        txnid = look(self)
        write(after)
        return txnid

    def write(commits: int) -> None:
        for _ in range(commits):
            put(env, b"key", b"value after %d" % env.newest_txnid())

    monkeypatch.setattr(LockTable, "newest_txnid", late)
    with env.hold() as hold:
        assert (hold.root.txnid, hold.get(b"a", b"key")) == (4, b"value after 3")
    assert list(commits) == []


HOLDER = """
import sys
from pathlib import Path
from cowfs.engine.env import Env
env = Env.open(Path(sys.argv[1]), readonly=True)
holds = [env.hold() for _ in range(int(sys.argv[2]))]
print("held", flush=True)
sys.stdin.read()
"""


STOCK_HOLDER = """
import sys
import lmdb
env = lmdb.open(sys.argv[1], max_readers=4, lib_version=0)
holds = [env.begin() for _ in range(int(sys.argv[2]))]
print("held", flush=True)
sys.stdin.read()
"""


@contextmanager
def held_elsewhere(path: Path, count: int, holder: str = HOLDER) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-c", holder, str(path), str(count)]
    with subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        try:
            assert process.stdout.readline() == b"held\n"
            yield process
        finally:
            with suppress(BrokenPipeError):
                process.stdin.close()
            process.kill()
            process.wait(LIMIT)


def test_full_reader_slots_are_an_error_until_one_is_let_go(tmp_path: Path) -> None:
    """LMDB's first opener says how many there are; whoever comes later has to live with it. A process needs one."""
    program = """
        import sys
        from pathlib import Path
        from cowfs.errors import ReadersFull
        from cowfs.engine.env import Env
        try:
            with Env.open(Path(sys.argv[1]), readonly=True) as env:
                print(env.hold().root.txnid)
        except ReadersFull as error:
            print(error)
    """
    path = tmp_path / "db"
    path.mkdir()
    with held_elsewhere(path, 3, STOCK_HOLDER):
        with Env.open(path, readonly=True) as env:
            holds = [env.hold() for _ in range(20)]
            assert len(env.readers()) == 4
            assert "all reader slots are taken" in python(program, path)
            for hold in holds:
                hold.close()
            assert len(env.readers()) == 3
        assert python(program, path) == "0\n"


def test_slots_of_killed_processes_are_freed(tmp_path: Path) -> None:
    Env.create(tmp_path / "db").close()
    with Env.open(tmp_path / "db", durable=False) as env:
        with held_elsewhere(tmp_path / "db", 510, STOCK_HOLDER) as process:
            process.send_signal(signal.SIGKILL)
            process.wait(LIMIT)
        assert len(env.readers()) == 510
        with env.hold() as hold:
            assert env.readers() == [(os.getpid(), hold.root.txnid)]
        with held_elsewhere(tmp_path / "db", 5) as process:
            process.kill()
            process.wait(LIMIT)
        put(env, b"key", b"value")
        assert env.readers() == [], "a write frees them, too: else the file only grows"
