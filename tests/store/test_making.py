"""A store is made whole or not at all; one whose making was cut off is made by whoever opens it next."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path

import lmdb
import pytest

import cowfs
from cowfs import Store
from cowfs.engine import making
from cowfs.engine.env import Env
from cowfs.engine.making import blank_file
from cowfs.errors import Busy, CowfsError, InvalidTarget, NotADatabase
from cowfs.pages.unfinished import is_unfinished
from tests.support import disk
from tests.support.commands import COWFS, LIMIT, cowfs_here, in_private_mounts, python, refused_here, run
from tests.support.recorder import recording

from .conftest import findings

SCHEMA = {":name": {":db/unique": ":db.unique/identity"}}
BLANK = blank_file(4096)


def with_store(path: Path) -> None:
    """Hold that there is a whole store, and that it works."""
    with Store.open(path, "none") as store:
        assert list(store.schema) == [":name"]
        assert store.transact([{":name": "Ann"}]).txid == 2
        assert findings(store) == []


def is_store(path: Path) -> bool:
    try:
        Store.open(path, "none").close()
    except NotADatabase:
        return False
    return True


def by_init(path: Path) -> None:
    (path.parent / "schema.json").write_text('{"name": {":db/unique": ":db.unique/identity"}}')
    cowfs_here("init", path, "--schema", path.parent / "schema.json")


def by_open(path: Path) -> None:
    cowfs.open(path, SCHEMA, durability="none").close()


MAKERS: list[Callable[[Path], None]] = [by_init, by_open]

# What LMDB, or we, may leave of a data file: parts of two blank meta pages, each sector there or not.
DATA: dict[str, bytes | None] = {
    "no data": None,
    "no bytes": b"",
    "whole": BLANK,
    "one page": BLANK[:4096],
    "the second page": bytes(4096) + BLANK[4096:],
    "the first page": BLANK[:4096] + bytes(4096),
    "zeros": bytes(8192),
    "some zeros": bytes(5000),
    "other page size": blank_file(16384),
    "one sector": BLANK[:512],
}
LOCKS: dict[str, bytes | None] = {"no lock": None, "no bytes": b"", "zeros": bytes(8192), "noise": os.urandom(40_000)}


@pytest.mark.parametrize(("data", "lock"), list(product(DATA, LOCKS)))
@pytest.mark.parametrize("maker", MAKERS)
def test_what_was_cut_off_is_made(tmp_path: Path, data: str, lock: str, maker: Callable[[Path], None]) -> None:
    path = tmp_path / "db"
    path.mkdir()
    for name, content in (("data.mdb", DATA[data]), ("lock.mdb", LOCKS[lock]), ("data.mdb.new", DATA["one page"])):
        if content is not None:
            (path / name).write_bytes(content)
    assert is_unfinished(path)
    if data not in ("whole", "other page size", "the second page", "the first page", "one sector", "one page"):
        with pytest.raises(NotADatabase, match="`cowfs init` makes it"):
            Store.open(path)
    maker(path)
    with_store(path)
    assert sorted(os.listdir(path)) == ["data.mdb", "lock.mdb"]


@pytest.mark.parametrize("maker", MAKERS)
def test_what_a_first_commit_left_that_could_not_write_its_meta_page_is_made(
    tmp_path: Path, maker: Callable[[Path], None]
) -> None:
    """LMDB takes the transaction id and the last page back, and leaves the roots of the trees."""
    Env.create(tmp_path / "db", durable=False).close()
    data = bytearray(BLANK + bytes(8192))
    data[4096 + 128 : 4096 + 136] = (2).to_bytes(8, "little")  # the root of the main tree
    (tmp_path / "db" / "data.mdb").write_bytes(data)
    maker(tmp_path / "db")
    with_store(tmp_path / "db")


def test_what_is_something_else_is_left_alone(tmp_path: Path) -> None:
    Store.create(tmp_path / "store", durability="none").close()
    foreign: dict[str, dict[str, bytes]] = {
        "text": {"data.mdb": b"hello"},
        "more": {"data.mdb": b"", "notes": b""},
        "longer": {"data.mdb": bytes(70_000)},
        "store": {"data.mdb": (tmp_path / "store" / "data.mdb").read_bytes()},
        "noise": {"data.mdb": os.urandom(8192)},
        "a later transaction": {"data.mdb": BLANK[:144] + b"\2" + BLANK[145:]},
    }
    for name, files in foreign.items():
        path = tmp_path / f"foreign {name}"
        path.mkdir()
        for file, content in files.items():
            (path / file).write_bytes(content)
        assert "not empty" in refused_here("init", path, code=2), name
        assert {file.name: file.read_bytes() for file in path.iterdir()} == files
    (tmp_path / "fifo").mkdir()
    os.mkfifo(tmp_path / "fifo" / "data.mdb")
    assert "not empty" in refused_here("init", tmp_path / "fifo", code=2)


def test_lmdb_opens_what_we_make(tmp_path: Path) -> None:
    Env.create(tmp_path / "db").close()
    with lmdb.open(str(tmp_path / "db"), map_size=0, lib_version=0) as env:
        assert (env.info()["last_txnid"], env.info()["map_size"], env.stat()["psize"]) == (0, 1 << 40, 4096)
        with env.begin(write=True) as txn:
            txn.put(b"key", b"value")
    assert (tmp_path / "db" / "data.mdb").stat().st_mode & 0o777 == (tmp_path / "db" / "lock.mdb").stat().st_mode & 0o777


def test_beside_somebody_who_is_just_making_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stock LMDB has made lock.mdb, and holds it, and data.mdb is empty still."""
    monkeypatch.setattr(making, "_PATIENCE", 0.05)
    with lmdb.open(str(tmp_path / "db"), lib_version=0):
        content = (tmp_path / "db" / "data.mdb").read_bytes()
        (tmp_path / "db" / "data.mdb").write_bytes(b"")
        with pytest.raises(Busy, match="somebody else is just making a database there"):
            Store.create(tmp_path / "db", durability="none")
        (tmp_path / "db" / "data.mdb").write_bytes(content)
    by_open(tmp_path / "db")
    with_store(tmp_path / "db")


_MAKER = """
import sys
from cowfs import Store
from cowfs.errors import CowfsError
sys.stdin.readline()
try:
    Store.create(sys.argv[1], {":name": {":db/unique": ":db.unique/identity"}}, durability="none").close()
    print("made")
except CowfsError as error:
    print(type(error).__name__)
"""


def test_of_several_that_make_it_at_once_one_does(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _MAKER, str(tmp_path / "db")]
    makers = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    for maker in makers:
        assert maker.stdin is not None
        maker.stdin.write("\n")
        maker.stdin.flush()
    said = sorted(maker.communicate(timeout=LIMIT)[0].strip() for maker in makers)
    assert said == ["InvalidTarget"] * 3 + ["made"]
    with_store(tmp_path / "db")


# -- failures -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["fsync", "rename", "open"])
def test_a_failure_leaves_nothing_behind(tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = getattr(os, call)
    place = tmp_path / "new" / "deeper" / "db"
    failed = 0
    for at in range(40):
        calls = 0

        def failing(*args: object, at: int = at, **options: object) -> object:
            nonlocal calls
            calls += 1
            if calls == at + 1:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return real(*args, **options)

        with monkeypatch.context() as patch:
            patch.setattr(os, call, failing)
            try:
                Store.create(place, SCHEMA, durability="none").close()
            except CowfsError:
                failed += 1
        if calls <= at:
            break
        assert os.listdir(tmp_path) == [], at
    assert failed > 0


def test_an_empty_directory_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_args: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    (tmp_path / "db").mkdir()
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CowfsError, match="no space left"):
        Store.create(tmp_path / "db")
    assert os.listdir(tmp_path / "db") == []


def test_what_somebody_else_has_written_meanwhile_is_not_removed(tmp_path: Path) -> None:
    made = making.make_environment(tmp_path / "db")
    by_open(tmp_path / "db")
    made.undo()
    with pytest.raises(InvalidTarget, match="not empty"):
        Store.create(tmp_path / "db")
    with_store(tmp_path / "db")


def test_init_on_a_disk_that_is_too_small(tmp_path: Path) -> None:
    script = """
        mount -t tmpfs -o size=16k tmpfs /mnt
        code=0; "$@" init /mnt/db 2>&1 || code=$?
        echo "$code|$(ls -A /mnt)"
        mount -o remount,size=1m /mnt
        "$@" init /mnt/db
        "$@" check /mnt/db
        """
    line, left, made, check = in_private_mounts(script, *COWFS).stdout.splitlines()
    assert line.startswith("cowfs: /mnt/db")
    assert line.endswith(": no space left on the filesystem"), "of a transaction it says nothing"
    assert left == "1|"
    assert "a new database" in made
    assert "ok (" in check


def test_init_with_too_little_address_space(tmp_path: Path) -> None:
    script = 'ulimit -v 90000; exec "$@"'
    result = run("bash", "-c", script, "bash", *COWFS, "init", tmp_path / "db", code=1)
    assert "`ulimit -v`" in result.stderr
    assert os.listdir(tmp_path) == []


# -- loss of power ------------------------------------------------------------------------------------------------

_RECORDED = """
import sys
from pathlib import Path
from cowfs import Store
(Path(sys.argv[1]) / "acknowledged").write_text("0 nothing\\n")
Store.create(Path(sys.argv[1]) / "db", {":name": {":db/unique": ":db.unique/identity"}}).close()
"""


def test_a_loss_of_power_while_it_is_made(tmp_path: Path) -> None:
    with recording(tmp_path) as recorded:
        python(_RECORDED, recorded.point)
    events = list(recorded.events())
    left = set()
    for number, cut in enumerate(disk.cuts(events, 1, 40)):
        for maker in MAKERS:
            place = tmp_path / f"cut {number} {maker.__name__}"
            place.mkdir()
            cut.restore(place)
            path = place / "db"
            left.add(tuple(sorted(file.name for file in path.iterdir())) if path.exists() else None)
            if maker is by_open or not is_store(path):
                maker(path)
            with_store(path)
            shutil.rmtree(place)
    assert len(left) > 2, left
