from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cowfs.engine.env import Env, require_whole
from cowfs.engine.opening import reading
from cowfs.errors import (
    AccessDenied,
    Closed,
    CorruptDatabase,
    DatabaseError,
    EnvironmentFailure,
    NotADatabase,
    UnsupportedFormat,
)
from cowfs.pages.datafile import DataFile
from tests.support.commands import python
from tests.support.environments import empty_file, stock


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cowfs.pages.datafile._PATIENCE", ())


def refused(path: Path, error: type[Exception], text: str) -> None:
    """Hold that every way to read ``path`` raises the same."""

    def whole(path: Path) -> None:
        with DataFile(path) as file:
            require_whole(file)

    def read(path: Path) -> None:
        with reading(path):
            pass

    for opener in (whole, read, Env.open):
        with pytest.raises(error, match=text):
            opener(path)
    with pytest.raises(error, match=text):
        Env.open(path, readonly=True)
    assert not (path / "lock.mdb").exists()


def file_with(damaged: Path, content: bytes) -> Path:
    (damaged / "data.mdb").write_bytes(content)
    return damaged


@pytest.mark.parametrize(
    ("content", "error", "text"),
    [
        (b"", NotADatabase, "empty"),
        (b"x", NotADatabase, "ends inside meta page 0"),
        (b"This is no database but a text.\n" * 500, NotADatabase, "magic"),
        (bytes(100_000), NotADatabase, "magic"),
        (b"SQLite format 3\0".ljust(8192, b"\0"), NotADatabase, "magic"),
        (empty_file(4096)[:4096].replace(b"\xef\xbe", b"\0\0") * 2, NotADatabase, "magic"),
        (empty_file(8192)[:8192], CorruptDatabase, "page 1: .*missing"),
    ],
)
def test_what_is_no_data_file_is_named(damaged: Path, content: bytes, error: type[DatabaseError], text: str) -> None:
    refused(file_with(damaged, content), error, text)


def test_a_missing_file_or_directory_is_named(damaged: Path) -> None:
    refused(damaged, NotADatabase, "there is no data.mdb")
    refused(damaged / "nowhere", NotADatabase, "no database here")


@pytest.mark.parametrize("make", [Path.mkdir, lambda path: os.mkfifo(path), lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_regular_file_is_named(damaged: Path, make: Callable[[Path], None]) -> None:
    make(damaged / "data.mdb")
    refused(damaged, NotADatabase, "not a regular file")


def test_a_data_file_of_lmdb_1_is_named_with_its_version(damaged: Path) -> None:
    with stock(damaged, lib_version=1) as env, env.begin(write=True) as txn:
        txn.put(b"key", b"value")
    (damaged / "lock.mdb").unlink()
    refused(damaged, UnsupportedFormat, "data version 3")


def test_no_permission_is_named(tmp_path: Path) -> None:
    """Of a directory that nobody may enter, nor the owner, and of one in there; root becomes nobody."""
    with stock(tmp_path / "db"):
        pass
    (tmp_path / "db").chmod(0o000)
    program = """
        import os, sys
        from pathlib import Path
        from cowfs.errors import AccessDenied
        from cowfs.engine.env import Env
        from cowfs.engine.opening import reading
        path = Path(sys.argv[1])
        os.chdir(path.parent)
        if os.geteuid() == 0:
            os.setresuid(65534, 65534, 65534)
        for place in (path, path / "no"):
            for opener in (lambda path: reading(path).__enter__(), Env.open, Env.create):
                try:
                    opener(place)
                except AccessDenied as error:
                    print(error)
    """
    try:
        assert len(python(program, tmp_path / "db").splitlines()) == 6
    finally:
        (tmp_path / "db").chmod(0o755)


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A data file with no free page at its end."""
    path = tmp_path_factory.mktemp("grown")
    with stock(path) as env:
        for number in range(3):
            with env.begin(write=True) as txn:
                for key in range(20):
                    txn.put(b"%d" % key, b"%d" % number * 2000)
    return (path / "data.mdb").read_bytes()


def lengths(size: int) -> list[int]:
    edges = [*range(0, size, 4096), 1, 15, 16, 151, 152, 4096 + 151, 4096 + 152]
    near = {edge + step for edge in edges for step in (-1, 0, 1)}
    return sorted(length for length in near if 0 <= length < size)


def test_a_file_truncated_anywhere_is_named_and_never_mapped(damaged: Path, grown: bytes) -> None:
    for length in lengths(len(grown)):
        expected = NotADatabase if length < 152 else CorruptDatabase
        refused(file_with(damaged, grown[:length]), expected, "missing|ends|empty|cannot be the last page")


def test_a_truncation_beside_us_is_an_error_not_a_crash(damaged: Path, grown: bytes) -> None:
    with DataFile(file_with(damaged, grown)) as file:
        root = file.newest_root()
        os.truncate(damaged / "data.mdb", 3 * 4096 + 100)
        with pytest.raises(CorruptDatabase, match=f"page {root.main.root}: missing"):
            file.page(root.main.root)
        with pytest.raises(CorruptDatabase, match="page 4: missing"):
            file.header(4)
        os.truncate(damaged / "data.mdb", 0)
        with pytest.raises(CorruptDatabase, match="page 1: missing"):
            file.newest_txnid()
        with pytest.raises(NotADatabase, match="ends inside meta page 0"):
            file.newest_root()


def test_the_newest_root_is_that_of_the_higher_transaction(tmp_path: Path) -> None:
    with stock(tmp_path) as env, DataFile(tmp_path) as file:
        for number in range(1, 6):
            with env.begin(write=True) as txn:
                txn.put(b"key", b"value %d" % number)
            root = file.newest_root()
            assert (root.txnid, file.meta(number & 1)) == (number, root)
            assert file.newest_txnid() == number


def test_a_meta_page_that_a_commit_is_rewriting_is_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cowfs.pages.datafile._PATIENCE", (0.0,) * 3)
    with stock(tmp_path), DataFile(tmp_path) as file:
        whole, pread, torn = file.newest_root(), DataFile.pread, [b"torn"]

        def torn_at_first(self: DataFile, count: int, offset: int) -> bytes:
            page = pread(self, count, offset)
            return page[:40] + torn.pop() + page[44:] if torn else page

        monkeypatch.setattr(DataFile, "pread", torn_at_first)
        assert file.newest_root() == whole
        assert torn == []


def test_a_closed_file_says_so(tmp_path: Path) -> None:
    with stock(tmp_path), DataFile(tmp_path) as file:
        file.close()
        file.close()
        with pytest.raises(Closed, match="closed"):
            file.pread(1, 0)
        with pytest.raises(Closed, match="closed"):
            file.readinto(memoryview(bytearray(1)), 0)


def test_what_the_system_refuses_is_named(damaged: Path) -> None:
    (damaged / "data.mdb").symlink_to("data.mdb")
    with pytest.raises(EnvironmentFailure, match="symbolic links"):
        DataFile(damaged)
    with pytest.raises((NotADatabase, EnvironmentFailure, AccessDenied)):
        DataFile(damaged / ("x" * 300))
