"""Named snapshots in the store: one key a name, at the same cost however many there are."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cowfs import Store
from cowfs.engine.writetxn import WriteTxn
from cowfs.errors import CorruptDatabase, NameTaken, NotFound, WrongName
from cowfs.pages.datafile import DataFile
from cowfs.store.history.named import NAME_KEYS, ONE_RECORD_KEY, NamedSnapshot, checked
from cowfs.store.history.retention import Retention, StoreRetention
from cowfs.store.model.layout import META
from tests.support import churn

_NOW = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store of five commits."""
    with Store.create(tmp_path / "db", durability="none") as store:
        for number in range(4):
            store.transact([{":note/number": number}])
        yield store
    churn.require_sound(tmp_path / "db")


def _names(store: Store) -> dict[str, int]:
    with store.timeline() as timeline:
        return {name: snapshot.txid for name, snapshot in timeline.named.items()}


def _keys(store: Store) -> list[bytes]:
    with store.env.hold() as hold:
        return [key for key in hold.keys(META) if key.startswith(ONE_RECORD_KEY)]


@pytest.mark.parametrize("name", ["5m", "1w2d", "2026-11-22", "2026-11-22T10:00:00.5Z", "0001-01-01T00:00+23:00", "latest"])
def test_names_that_mean_another_commit_are_wrong(name: str) -> None:
    with pytest.raises(WrongName):
        checked(name)


@pytest.mark.parametrize("name", ["5", "5 m", "5M", "v5m", "2026-11", "2026-11-22 evening", "Latest", "ago 5m"])
def test_names_that_look_like_a_time_and_spell_none_are_taken(name: str) -> None:
    if name == "5":
        with pytest.raises(WrongName):
            checked(name)
    else:
        assert checked(name) == name


def test_each_name_has_a_key_of_its_own(store: Store) -> None:
    longest = "é" * 127 + "e"  # 255 bytes
    for txid, name in ((5, longest), (2, "b"), (2, "a")):
        store.name(name, "me", txid=txid)
    assert _names(store) == {"a": 2, "b": 2, longest: 5}
    assert _keys(store) == [NAME_KEYS + name.encode() for name in ("a", "b", longest)]
    assert store.unname("b").txid == 2
    assert _keys(store) == [NAME_KEYS + name.encode() for name in ("a", longest)]


def test_one_name_is_found_without_reading_the_others(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(200):
        store.name(f"name {number}", "me", reason="x" * 200)
    pages: list[int] = []
    page = DataFile.page
    put = WriteTxn.put
    written: list[int] = []

    def counted_page(self: DataFile, pgno: int) -> bytes:
        pages.append(pgno)
        return page(self, pgno)

    def counted_put(self: WriteTxn, name: bytes, key: bytes, value: bytes) -> None:
        written.append(len(value))
        put(self, name, key, value)

    monkeypatch.setattr(DataFile, "page", counted_page)
    monkeypatch.setattr(WriteTxn, "put", counted_put)
    with store.timeline() as timeline:
        found = timeline.snapshot("name 77")
        assert found is not None
        assert timeline.snapshot("name 777") is None
        assert timeline.snapshot("\udcff") is None
        assert timeline.snapshot("x" * 5000) is None
    assert len(set(pages)) < 20
    store.name("one more", "me")
    store.unname("one more")
    assert sum(written) < 10_000
    assert len(_names(store)) == 200


def test_the_one_record_of_an_older_version_is_read_and_taken_apart(store: Store) -> None:
    old = {
        name: json.loads(NamedSnapshot(name, txid, _NOW, "me", "why", expires).pack())
        for name, txid, expires in (
            ("a", 2, None),
            ("b", 3, _NOW + timedelta(days=9999)),
            ("gone", 3, _NOW - timedelta(9999)),
        )
    }
    with store.env.write() as txn:
        txn.put(META, ONE_RECORD_KEY, json.dumps(old).encode())
    assert _names(store) == {"a": 2, "b": 3}
    with pytest.raises(NameTaken):
        store.name("a", "me")
    assert _keys(store) == [ONE_RECORD_KEY], "nothing was committed"
    store.retain(Retention(commits=0))
    assert next(iter(_names(store).values())) == 2, "they hold what they name"
    assert store.unname("b").reason == "why"
    assert _names(store) == {"a": 2}
    assert _keys(store) == [NAME_KEYS + b"a", NAME_KEYS + b"gone"], "what expired goes when that is sure"


def test_damaged_names_are_corrupt(store: Store) -> None:
    for key in (NAME_KEYS + b"x", ONE_RECORD_KEY):
        for data in (b"{", b"[]", b'{"txid": 1}', b'{"x": 3}', b"\xff"):
            with store.env.write() as txn:
                txn.put(META, key, data)
            with pytest.raises(CorruptDatabase):
                _names(store)
        with store.env.write() as txn:
            txn.delete(META, key)


def test_a_name_whose_commit_was_given_up_is_free(store: Store) -> None:
    store.name("mine", "me", txid=2)
    while store.env.give_up_history(StoreRetention(store.env.file.page_size, without="mine")):
        pass
    assert _names(store) == {}
    with store.timeline() as timeline:
        assert timeline.snapshot("mine") is None
    newest = store.transact([{":note/number": 9}]).txid
    assert store.name("mine", "me").txid == newest
    assert _names(store) == {"mine": newest}
    assert store.unname("mine").txid == newest
    with pytest.raises(NotFound):
        store.unname("mine")
