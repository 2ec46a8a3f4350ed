"""However the path of an environment is written, and whichever layout LMDB has given it: a reader is safe, or says not."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import lmdb
import pytest

from cowfs.engine.env import Env
from cowfs.engine.location import locate
from cowfs.engine.opening import reading
from cowfs.errors import Busy, CorruptDatabase, EnvironmentFailure, NotADatabase
from cowfs.pages.pagecheck import check_pages
from tests.support.environments import MAP_SIZE
from tests.support.retained import Told, stock_process

# -- where it lies ------------------------------------------------------------------------------------------------


def make(path: Path, *, subdir: bool = True) -> None:
    with lmdb.open(str(path), subdir=subdir, max_dbs=8, map_size=MAP_SIZE, sync=False, lib_version=0) as env:
        database = env.open_db(b"a")
        for number in range(20):
            with env.begin(write=True) as txn:
                txn.put(b"%d" % number, b"first %d" % number + bytes(1000), db=database)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with an environment in either layout, and links to both; it is the working directory."""
    make(tmp_path / "db")
    make(tmp_path / "file.mdb", subdir=False)
    (tmp_path / "links").mkdir()
    (tmp_path / "links" / "to db").symlink_to("../db")
    (tmp_path / "links" / "to data").symlink_to("../db/data.mdb")
    (tmp_path / "links" / "again").symlink_to("to data")
    (tmp_path / "links" / "to file").symlink_to("../file.mdb")
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "data.mdb").symlink_to("../file.mdb")
    monkeypatch.chdir(tmp_path)
    return tmp_path


# each is written by one program, and read by others under other names
SPELLINGS = {
    "db": [
        "db",
        "db/",
        "./db",
        "db/data.mdb",
        "db/../db//data.mdb",
        "links/to db",
        "links/to db/data.mdb",
        "links/to db/../db",
        "links/to data",
        "links/again",
    ],
    "file.mdb": ["file.mdb", "./file.mdb", "links/to file", "linked", "linked/data.mdb"],
}
PAIRS = [(written, read) for written, all_read in SPELLINGS.items() for read in all_read]


@pytest.mark.parametrize(("written", "read"), PAIRS)
def test_the_lock_of_every_spelling_is_the_writers(place: Path, written: str, read: str) -> None:
    for path in (Path(read), place / read):
        found = locate(path)
        assert found.has_lock
        assert found.lock == place / ("db/lock.mdb" if written == "db" else "file.mdb-lock")
        assert found.data == place / ("db/data.mdb" if written == "db" else "file.mdb")
        assert found.other_locks == ()
        assert found.is_directory == (written == "db")
        assert found.path.resolve() == place / written


def test_a_path_is_printed_as_it_was_typed_where_lmdb_takes_it_so(place: Path) -> None:
    for text in ("db", "links/to db", "file.mdb", "."):
        os.chdir(place / "db" if text == "." else place)
        assert str(locate(Path(text)).path) == text
    os.chdir(place / "db")
    assert locate(Path("data.mdb")).path == Path()
    assert locate(place / "links" / "to data").path == place / "db"


def test_what_is_not_there_has_a_place_all_the_same(place: Path) -> None:
    for text, lock in (("nothing", "nothing-lock"), ("nothing/data.mdb", "nothing/lock.mdb"), ("links", "links/lock.mdb")):
        assert (locate(Path(text)).lock, locate(Path(text)).has_lock) == (place / lock, False)
        with pytest.raises(NotADatabase):
            Env.open(Path(text))
    (place / "round").symlink_to("round")
    with pytest.raises(EnvironmentFailure, match="symbolic links"):
        Env.open(Path("round"))


# -- beside a writer ----------------------------------------------------------------------------------------------


@pytest.fixture(params=SPELLINGS)
def writer(place: Path, request: pytest.FixtureRequest) -> Iterator[tuple[str, Told]]:
    with stock_process(place / request.param, subdir=request.param == "db") as told:
        yield request.param, told


def test_a_reader_is_safe_under_every_name(place: Path, writer: tuple[str, Told]) -> None:
    """Each reads, sees thirty commits which leave none of its pages alone, and looks at all pages after that."""
    name, told = writer
    for read in SPELLINGS[name]:
        with reading(Path(read)) as reader:
            before = list(reader.scan(b"a"))
            assert f"{reader.root.txnid}\n" in told.do("answer = env.readers()"), read
            told.do("write(30)")
            assert list(check_pages(reader.file, reader.root)) == [], read
            assert list(reader.scan(b"a")) == before
    assert sorted(os.listdir(place / "links")) == ["again", "to data", "to db", "to file"], "no lock file was made there"
    assert os.listdir(place / "linked") == ["data.mdb"]


def test_writing_under_every_name_takes_turns(place: Path, writer: tuple[str, Told]) -> None:
    name, told = writer
    for number, read in enumerate(SPELLINGS[name]):
        with Env.open(Path(read), durable=False) as env:
            with env.write() as txn:
                txn.put(b"a", b"own %d" % number, read.encode())
            assert told.do("answer = write(1)") == txn.txnid + 1
    with reading(place / name) as reader:
        assert [value.decode() for _key, value in reader.scan(b"a", b"own", b"own\xff")] == SPELLINGS[name]


def test_a_stale_lock_file_of_the_other_layout_does_not_mislead(place: Path, writer: tuple[str, Told]) -> None:
    name, told = writer
    data = place / ("db/data.mdb" if name == "db" else "file.mdb")
    if name == "db":
        lmdb.open(str(data), subdir=False, lib_version=0).close()
        assert (place / "db" / "data.mdb-lock").exists()
    else:
        lmdb.open(str(place / "linked"), lib_version=0).close()
    for read in SPELLINGS[name]:
        with reading(Path(read)) as reader:
            told.do("write(30)")
            assert list(check_pages(reader.file, reader.root)) == [], read
    with Env.open(place / name, durable=False) as env, env.write() as txn:
        txn.put(b"a", b"own", b"value")
    assert told.do("answer = write(1)") == txn.txnid + 1


def test_a_writer_in_the_other_layout_is_joined_by_any_name(place: Path) -> None:
    with stock_process(place / "db" / "data.mdb", subdir=False) as told:
        for read in SPELLINGS["db"]:
            with Env.open(Path(read), durable=False) as env, env.write() as txn:
                txn.put(b"a", b"own", b"value")
            assert told.do("answer = write(1)") == txn.txnid + 1


def test_a_reader_is_safe_from_whichever_program_comes_later(place: Path) -> None:
    """Two lock files, nobody has the environment open, and then somebody comes by the second of them."""
    lmdb.open(str(place / "db" / "data.mdb"), subdir=False, lib_version=0).close()
    for name in ("db", "db/data.mdb"):
        with reading(place / "db") as reader, stock_process(place / name, subdir=name == "db") as told:
            told.do("write(30)")
            assert list(check_pages(reader.file, reader.root)) == [], name


def test_two_writers_that_do_not_see_each_other_are_reported(place: Path) -> None:
    with stock_process(place / "db"), stock_process(place / "db" / "data.mdb", subdir=False):
        for path in (place / "db", place / "db" / "data.mdb"):
            with pytest.raises(EnvironmentFailure, match="open under two names at once"), reading(path):
                pass
            with pytest.raises(EnvironmentFailure, match="open under two names at once"):
                Env.open(path)


# -- without a lock file ------------------------------------------------------------------------------------------


def lock_is_removed(place: Path) -> str:
    (place / "db" / "lock.mdb").unlink()
    return "db"


def hard_link(place: Path) -> str:
    os.link(place / "db" / "data.mdb", place / "linked.mdb")
    return "linked.mdb"


HIDDEN: list[Callable[[Path], str]] = [lock_is_removed, hard_link]


@pytest.mark.parametrize("hide", HIDDEN)
def test_a_writer_whose_lock_cannot_be_found_is_noticed(place: Path, hide: Callable[[Path], str]) -> None:
    with stock_process(place / "db") as told:
        hidden = place / hide(place)
        with reading(hidden) as reader:
            reader.require_steady()
            assert len(list(reader.scan(b"a"))) == 20
        with pytest.raises(Busy, match="somebody is writing it"), reading(hidden) as reader:
            told.do("write(30)")
        with pytest.raises(Busy, match="somebody is writing it"), reading(hidden) as reader:
            told.do("write(30)")
            raise CorruptDatabase("it seems so", 7)
        with pytest.raises(Busy, match="somebody is writing it"), reading(hidden) as reader:
            told.do("write(30)")
            for _finding in check_pages(reader.file, reader.root):
                reader.require_steady()
        with pytest.raises(ZeroDivisionError), reading(hidden):
            told.do("write(30)")
            raise ZeroDivisionError


def test_a_copy_is_read_as_it_lies_and_nothing_is_made_beside_it(place: Path) -> None:
    (place / "copy").mkdir()
    for copy in (place / "copy" / "data.mdb", place / "copy" / "other.mdb"):
        copy.write_bytes((place / "db" / "data.mdb").read_bytes())
        with reading(copy) as reader:
            assert len(list(reader.scan(b"a"))) == 20
    assert sorted(os.listdir(place / "copy")) == ["data.mdb", "other.mdb"]


# -- in one process -----------------------------------------------------------------------------------------------


def test_lmdb_in_this_process_keeps_its_locks(place: Path) -> None:
    """Closing any descriptor of the lock file would drop them all."""
    with stock_process() as other:
        with lmdb.open(str(place / "db"), lib_version=0):
            for _ in range(2):
                with pytest.raises(EnvironmentFailure, match="already open in this process"):
                    Env.open(place / "db", readonly=True)
            assert in_use(other, place)
        assert not in_use(other, place)
        with Env.open(place / "db", readonly=True) as env:
            plain = lmdb.open(str(place / "db"), lib_version=0)
            env.hold().close()
        assert in_use(other, place)
        plain.close()
        assert not in_use(other, place)


def in_use(other: Told, place: Path) -> bool:
    """Ask another process whether anybody has the environment open."""
    asking = "from cowfs.engine.locktable import LockTable; answer = LockTable(given[0]).in_use()"
    return bool(other.do(asking, place / "db" / "lock.mdb"))


def test_an_environment_does_not_depend_on_the_working_directory(place: Path) -> None:
    with Env.open(Path("db"), durable=False) as env:
        os.chdir("/")
        with env.write() as txn:
            txn.put(b"a", b"from", b"elsewhere")
        with env.hold() as hold:
            assert hold.get(b"a", b"from") == b"elsewhere"
        assert env.newest_txnid() == txn.txnid
