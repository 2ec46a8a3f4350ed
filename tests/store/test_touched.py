"""Who was touched last, against a model that compares all datoms before and after."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cowfs import Db, Store
from cowfs.errors import NotFound, TransactionError
from cowfs.store.model.layout import TOUCHED

from .conftest import PEOPLE, findings
from .test_model import forms


def facts(db: Db) -> set[tuple[int, str, Any]]:
    return {datom[:3] for datom in db.datoms("eav")}


def remembered(store: Store) -> dict[int, int]:
    with store.db() as db:
        return {int.from_bytes(e, "big"): int.from_bytes(tx, "big") for e, tx in db.reader.scan(TOUCHED)}


@settings(max_examples=80, deadline=None)
@given(st.lists(st.lists(forms(), min_size=1, max_size=6), min_size=1, max_size=10))
def test_random_transactions(transactions: list[list[Any]]) -> None:
    with tempfile.TemporaryDirectory() as place, Store.create(Path(place, "db"), PEOPLE, durability="none") as store:
        expected: dict[int, int] = {}
        before: set[tuple[int, str, Any]] = set()
        for data in transactions:
            try:
                report = store.transact(data)
            except TransactionError:
                continue
            with store.db() as db:
                now = facts(db)
                expected |= dict.fromkeys((e for e, _a, _v in now ^ before), report.txid)
                expected = {e: expected[e] for e in {e for e, _a, _v in now}}
                assert {e: db.last_touched(e) for e in expected} == expected
                assert all(db.last_touched(e) is None for e in range(1, 20) if e not in expected)
                before = now
            assert remembered(store).keys() <= expected.keys()
        assert findings(store) == []


def test_only_what_the_datoms_do_not_tell_is_remembered(people: Store) -> None:
    people.transact([{":db/id": n, ":person/name": "Ann", ":person/email": f"{n}@x", ":person/age": n} for n in (1, 2, 3)])
    people.transact([{":db/id": 1, ":person/name": "Bob"}, [":db/retractEntity", 2]])
    with people.db() as db:
        assert db.reader.get(TOUCHED, b"\0" * 7 + b"\1") is None
        assert db.last_touched(2) is None
        assert db.last_touched([":person/email", "2@x"]) is None
    assert remembered(people) == {}
    txid = people.transact([[":db/retract", 1, ":person/age"], [":db/retract", 3, ":person/age", 9]]).txid
    assert remembered(people) == {1: txid}
    with people.db() as db:
        assert db.last_touched([":person/email", "1@x"]) == txid
        assert db.last_touched(3) == txid - 2
        with pytest.raises(NotFound):
            db.last_touched([":person/none", 1])
    people.transact([[":db/retractEntity", 1]])
    assert remembered(people) == {}


def test_references_that_fall_touch_who_had_them(people: Store) -> None:
    people.transact([{":db/id": 1, ":person/name": "Ann", ":person/friend": [2]}, {":db/id": 2, ":person/name": "Bob"}])
    txid = people.transact([[":db/retractEntity", 2]]).txid
    with people.db() as db:
        assert db.last_touched(1) == txid


@pytest.mark.parametrize(
    ("key", "data", "finding"),
    [
        (b"\0" * 7 + b"\2", b"\0" * 7 + b"\1", "touched, entity 2: it has no datoms"),
        (b"\0" * 7 + b"\1", b"\0" * 7 + b"\x09", "touched, entity 1: transaction 9 has not been"),
        (b"\0" * 7 + b"\1", b"\0" * 8, "touched, entity 1: transaction 0 has not been"),
        (b"\xff" * 8, b"\0" * 7 + b"\1", f"touched: no entity has the id {2**64 - 1}"),
        (b"x", b"yz", "touched: an entry of 1 and 2 bytes is none"),
    ],
)
def test_what_cannot_be_is_found(tmp_path: Path, key: bytes, data: bytes, finding: str) -> None:
    with Store.create(tmp_path / "db", PEOPLE, durability="none") as store:
        store.transact([{":db/id": 1, ":person/name": "Ann"}])
        with store.env.write() as txn:
            txn.create((TOUCHED,))
            txn.put(TOUCHED, key, data)
        assert findings(store) == [finding]
