"""A directory of a commit is an LMDB environment to everybody who knows LMDB."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import churn, stock
from tests.support.commands import python, run
from tests.support.mounted import Mount, mounted

_COMMITS = 30


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """A plain environment, mounted after its thirtieth commit."""
    directory = tmp_path_factory.mktemp("stock")
    churn.create("plain", directory / "db")
    with churn.writing("plain", directory / "db", directory / "journal", seed=3, commits=_COMMITS) as writer:
        writer.wait_for(_COMMITS)
    with mounted(directory / "db", directory / "mnt") as mount:
        yield mount


@pytest.fixture(scope="module")
def commit(mount: Mount) -> Path:
    assert mount.txids() == [_COMMITS + 1]
    return mount.snapshot(_COMMITS + 1)


def test_py_lmdb_opens_it_with_its_default_locking(commit: Path) -> None:
    program = """
        import lmdb, sys
        with lmdb.open(sys.argv[1], readonly=True, max_dbs=2) as env:
            print(env.info()["last_txnid"])
            for name in (b"even", b"odd"):
                with env.begin(db=env.open_db(name, create=False)) as txn:
                    for key, value in txn.cursor():
                        print(key.decode(), value.decode())
        """
    txid, *lines = python(program, commit).splitlines()
    model = churn.Model(3).at(_COMMITS + 1)
    assert int(txid) == model.txid
    assert dict(line.split(" ") for line in lines) == model.items


def test_the_books_of_mdb_stat_balance(commit: Path) -> None:
    assert stock.require_balance(commit) == _COMMITS + 1


def test_mdb_dump_gives_what_it_gives_on_the_database(mount: Mount, commit: Path) -> None:
    dumps = [run("mdb_dump", "-a", directory).stdout for directory in (commit, mount.database)]
    of_commit, of_database = [re.sub("^maxreaders=.*$", "", dump, flags=re.MULTILINE) for dump in dumps]
    assert of_commit == of_database
    assert len(of_commit) > 100_000


def test_mdb_copy_compacts_it(commit: Path, tmp_path: Path) -> None:
    (tmp_path / "compact").mkdir()
    run("mdb_copy", "-c", commit, tmp_path / "compact")
    assert churn.contents(tmp_path / "compact")[1] == churn.Model(3).at(_COMMITS + 1).digest


def test_the_image_can_be_mapped(commit: Path) -> None:
    program = """
        import hashlib, mmap, pathlib, sys
        path = pathlib.Path(sys.argv[1], "data.mdb")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as map:
            print(len(map) == path.stat().st_size, hashlib.sha256(map).digest() == hashlib.sha256(file.read()).digest())
        """
    assert python(program, commit) == "True True\n"


def test_the_live_directory_cannot_be_mapped_and_says_so(mount: Mount) -> None:
    program = """
        import errno, mmap, pathlib, sys
        with pathlib.Path(sys.argv[1], "data.mdb").open("rb") as file:
            try:
                mmap.mmap(file.fileno(), 0, mmap.MAP_SHARED, mmap.PROT_READ)
            except OSError as error:
                print(errno.errorcode[error.errno])
        """
    for directory in (mount.live, mount.latest):
        assert python(program, directory) == "ENODEV\n"


def test_an_environment_that_mdb_load_made_mounts_images_only(tmp_path: Path) -> None:
    database = tmp_path / "db"
    database.mkdir()
    run(
        "mdb_load",
        "-T",
        database,
        stdin="VERSION=3\nformat=print\ntype=btree\nmapsize=1048576\nHEADER=END\n k\n v\nDATA=END\n",
    )
    with mounted(database, tmp_path / "mnt") as mount:
        (txid,) = mount.txids()
        for directory in (mount.live, mount.latest, mount.snapshot(txid)):
            assert {path.name for path in directory.iterdir()} - {"README"} == {"data.mdb", "snapshot.json"}
            summary = json.loads((directory / "snapshot.json").read_text())
            assert (summary["txid"], "datoms" in summary) == (txid, False)
        assert stock.opened(mount.snapshot(txid)) == stock.opened(database)
