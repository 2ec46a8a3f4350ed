"""One damaged meta page: everything reads the commit of the other, ``problems`` names it, and writing is LMDB's decision."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import lmdb
import pytest

from cowfs.engine.env import Env
from cowfs.engine.opening import reading
from cowfs.errors import CorruptDatabase, DatabaseError
from cowfs.pages.datafile import DataFile
from cowfs.pages.format import MAX_TXNID, META_SIZE
from tests.support.environments import findings, stock

LAST = 7
SLOTS = {"older": (LAST - 1) & 1, "newer": LAST & 1}
LAST_PGNO, TXNID = 136, 144
HARMLESS = {  # of the older page: LMDB looks at none of it
    "pages of a tree that the page does not have": (LAST_PGNO, 1, 8),
    "no freelist": (44, 0, 2),
    "a root page out of range": (128, 2**40, 8),
    "more pages than the file can have": (LAST_PGNO, 2**46, 8),
    "an older transaction than it can be": (TXNID, 2, 8),
    "a map of nothing": (32, 0, 8),
}
FATAL = {  # LMDB would not open the file, or take the damaged page for the newest
    "no magic": (16, 0, 4),
    "another data version": (20, 2, 4),
    "no meta page": (10, 2, 2),
    "the largest transaction id": (TXNID, 2**64 - 1, 8),
    "the largest but one": (TXNID, 2**64 - 2, 8),
    "one more than there can be": (TXNID, MAX_TXNID + 1, 8),
}


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cowfs.pages.datafile._PATIENCE", ())


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("written")
    with stock(path) as env:
        for number in range(1, LAST + 1):
            with env.begin(write=True) as txn:
                for key in range(300):
                    txn.put(b"%03d" % key, b"%d" % number * 20)
    (path / "lock.mdb").unlink()
    return path


def poke(path: Path, slot: int, offset: int, value: int, size: int) -> None:
    with open(path / "data.mdb", "r+b") as file:
        file.seek(slot * 4096 + offset)
        file.write(value.to_bytes(size, "little"))


def commit(path: Path) -> int:
    """Return the number of the commit that everything reads."""
    with DataFile(path) as file:
        assert file.newest_txnid() == file.newest_root().txnid
    with reading(path) as reader:
        assert reader.get(b"", b"000") == b"%d" % reader.root.txnid * 20
        return reader.root.txnid


@pytest.mark.parametrize("locked", [False, True])
@pytest.mark.parametrize("damage", [*HARMLESS.values(), *FATAL.values()], ids=[*HARMLESS, *FATAL])
@pytest.mark.parametrize("which", SLOTS)
def test_the_newest_valid_page_is_read(
    written: Path, damaged: Path, which: str, damage: tuple[int, int, int], locked: bool
) -> None:
    shutil.copytree(written, damaged, dirs_exist_ok=True)
    if locked:
        with stock(damaged):
            pass
    poke(damaged, SLOTS[which], *damage)
    lowered = damage[:2] == (TXNID, 2)
    assert commit(damaged) == (LAST if which == "older" or damage[0] == 32 else LAST - 1)
    with DataFile(damaged) as file:
        problems = file.meta_pages().problems()
    assert [page for page, _text in problems] == ([] if damage[0] == 32 else [SLOTS[which]]) or lowered, problems


@pytest.mark.parametrize("damage", HARMLESS.values(), ids=HARMLESS)
def test_writing_goes_on_where_lmdb_would_and_heals_the_page(
    written: Path, tmp_path: Path, damage: tuple[int, int, int]
) -> None:
    path = tmp_path / "db"
    shutil.copytree(written, path)
    poke(path, SLOTS["older"], *damage)
    with Env.open(path) as env, env.write() as txn:
        assert txn.txnid == LAST + 1
        txn.put(b"", b"new", b"value")
    with DataFile(path) as file:
        assert file.meta_pages().problems() == []
    assert findings(path) == []
    with lmdb.open(str(path), readonly=True, lib_version=0) as stock_env, stock_env.begin() as stock_txn:
        assert stock_txn.get(b"new") == b"value"


@pytest.mark.parametrize("damage", [*HARMLESS.values(), *FATAL.values()], ids=[*HARMLESS, *FATAL])
@pytest.mark.parametrize("which", SLOTS)
def test_writing_is_refused_where_lmdb_would_go_astray(
    written: Path, damaged: Path, which: str, damage: tuple[int, int, int]
) -> None:
    if damage[0] == 32 or damage[:2] == (TXNID, 2) or (which == "older" and damage in HARMLESS.values()):
        return  # see above
    shutil.copytree(written, damaged, dirs_exist_ok=True)
    poke(damaged, SLOTS[which], *damage)
    before = (damaged / "data.mdb").read_bytes()
    with pytest.raises(DatabaseError, match=f"page {SLOTS[which]}: damaged meta page"):
        Env.open(damaged)
    assert (damaged / "data.mdb").read_bytes() == before


def test_a_lost_commit_is_reported(written: Path, damaged: Path, caplog: pytest.LogCaptureFixture) -> None:
    shutil.copytree(written, damaged, dirs_exist_ok=True)
    poke(damaged, SLOTS["newer"], 16, 0, 4)
    with caplog.at_level(logging.WARNING):
        assert commit(damaged) == LAST - 1
    assert "a later one may be lost" in caplog.text


def test_without_any_valid_page_nothing_is_read(written: Path, damaged: Path) -> None:
    shutil.copytree(written, damaged, dirs_exist_ok=True)
    for slot in (0, 1):
        poke(damaged, slot, 44, 0, 2)
    with pytest.raises(CorruptDatabase, match="page 0: the freelist cannot have the flags"):
        commit(damaged)


@pytest.mark.parametrize("page_size", [512, 8192, 3])
def test_a_damaged_page_size_is_found_by_the_other_page(written: Path, damaged: Path, page_size: int) -> None:
    for slot in (0, 1):
        shutil.copytree(written, damaged, dirs_exist_ok=True)
        poke(damaged, slot, 40, page_size, 4)
        assert commit(damaged) == (LAST if slot == SLOTS["older"] else LAST - 1)


def test_swapped_transaction_ids_are_damage(written: Path, damaged: Path) -> None:
    shutil.copytree(written, damaged, dirs_exist_ok=True)
    poke(damaged, 0, TXNID, 5, 8)
    poke(damaged, 1, TXNID, 4, 8)
    with pytest.raises(CorruptDatabase, match="page 0: transaction 5 belongs into the other"):
        commit(damaged)


def test_a_page_damaged_while_it_is_open_costs_the_last_commit(written: Path, damaged: Path) -> None:
    shutil.copytree(written, damaged, dirs_exist_ok=True)
    with Env.open(damaged) as env:
        with env.hold() as hold:
            assert hold.root.txnid == LAST
        poke(damaged, SLOTS["newer"], LAST_PGNO, 1, 8)
        with env.hold() as hold:
            assert (hold.root.txnid, hold.get(b"", b"000")) == (LAST - 1, b"%d" % (LAST - 1) * 20)
        assert env.newest_txnid() == LAST - 1


def test_no_transaction_goes_beyond_the_last_id(written: Path, damaged: Path) -> None:
    shutil.copytree(written, damaged, dirs_exist_ok=True)
    poke(damaged, 1, TXNID, MAX_TXNID, 8)
    poke(damaged, 0, TXNID, MAX_TXNID - 1, 8)
    before = (damaged / "data.mdb").read_bytes()[: 4096 + META_SIZE]
    with Env.open(damaged) as env, pytest.raises(CorruptDatabase, match="no transaction ids"), env.write():
        pass
    assert (damaged / "data.mdb").read_bytes()[: 4096 + META_SIZE] == before
