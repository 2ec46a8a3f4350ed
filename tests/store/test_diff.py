from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from cowfs import Datom, Db, Store
from cowfs.errors import InputError, TransactionError
from cowfs.pages.btree import TreeReader
from cowfs.pages.datafile import DataFile
from cowfs.store.read.diff import diff, schema_diff

from .conftest import PEOPLE, MakeStore, findings
from .test_model import LONG, forms

Fact = tuple[int, str, Any]


def facts(db: Db) -> dict[Fact, Datom]:
    return {datom[:3]: datom for datom in db.datoms("eav")}


def require_difference(old: Db, new: Db) -> None:
    """Hold that ``diff`` tells what the sets of all datoms tell, in the order of the index."""
    before, after = facts(old), facts(new)
    found = list(diff(old, new))
    assert {datom[:3] for datom in found if datom.added} == after.keys() - before.keys()
    assert {datom[:3] for datom in found if not datom.added} == before.keys() - after.keys()
    assert len({datom[:3] for datom in found}) == len(found)
    for datom in found:
        assert datom.tx == (after if datom.added else before)[datom[:3]].tx
    ids = {attribute.name: attribute.id for db in (old, new) for attribute in db.schema.values()}
    order = [(datom.e, ids[datom.a], datom.v) for datom in found]
    assert order == sorted(order)
    for entity in {datom.e for datom in found}:
        assert list(diff(old, new, entity)) == [datom for datom in found if datom.e == entity]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(forms(), min_size=1, max_size=9), min_size=1, max_size=6))
def test_random_transactions(transactions: list[list[Any]]) -> None:
    with tempfile.TemporaryDirectory() as place, Store.create(Path(place, "db"), PEOPLE, durability="none") as store:
        commits = [store.db()]
        for data in transactions:
            try:
                store.transact(data)
            except TransactionError:
                event("refused")
            else:
                commits.append(store.db())
        for old in commits:
            for new in commits:
                require_difference(old, new)
        with DataFile(Path(place, "db")) as file:  # other readers of the same root: both are read whole
            other = Db(TreeReader(file, file.newest_root()), commits[-1].txnid)
            for db in commits:
                assert list(diff(db, other)) == list(diff(db, commits[-1]))
                assert list(diff(other, db)) == list(diff(commits[-1], db))
        assert findings(store) == []
        for db in commits:
            db.close()


def test_what_was_retracted_and_asserted_again_is_no_change(people: Store) -> None:
    txid = people.transact([{":db/id": 1, ":person/name": "Ann", ":person/tags": ["a", LONG]}]).txid
    people.transact([[":db/retractEntity", 1]])
    people.transact([{":db/id": 1, ":person/name": "Ann", ":person/tags": ["a", LONG]}])
    with people.as_of(txid) as old, people.db() as new:
        assert facts(old)[1, ":person/name", "Ann"].tx != facts(new)[1, ":person/name", "Ann"].tx
        assert list(diff(old, new)) == []
        assert list(diff(new, old)) == []


def test_long_values_are_in_the_order_of_their_values(people: Store) -> None:
    shared = "x" * 480
    values = sorted(shared + f"{number:03}" * 30 for number in range(50))
    people.transact([[":db/add", 1, ":person/tags", value] for value in values[::3]])
    with people.db() as old:
        people.transact([[":db/retract", 1, ":person/tags", value] for value in values[::6]])
        people.transact([[":db/add", 1, ":person/tags", value] for value in values])
        with people.db() as new:
            assert [datom.v for datom in diff(old, new)] == [value for value in values if value not in values[::3]]
            require_difference(old, new)


def test_an_entity_must_be_one(people: Store) -> None:
    with people.db() as db:
        assert list(diff(db, db, 2**53 - 1)) == []
        for wrong in (0, -1, 2**53):
            with pytest.raises(InputError, match="entity id"):
                diff(db, db, wrong)


def test_commits_live_as_long_as_their_difference_is_read(people: Store) -> None:
    txid = people.transact([{":db/id": number, ":person/name": "Ann"} for number in range(1, 2000)]).txid
    people.transact([[":db/retractEntity", number] for number in range(1, 2000)])
    assert len(list(diff(people.as_of(txid), people.db()))) == 1999
    assert len(list(diff(people.as_of(txid), people.db(), 3))) == 1


def test_stores_whose_attributes_have_other_ids(make_store: MakeStore) -> None:
    one = make_store({":a": {}, ":b": {}, ":only/one": {}})
    other = make_store({":only/other": {}, ":b": {}, ":a": {}})
    one.transact([{":db/id": 1, ":a": "same", ":b": 1, ":only/one": True}, {":db/id": 7, ":a": "x"}])
    other.transact([{":db/id": 1, ":a": "same", ":b": 2, ":only/other": True}, {":db/id": 3, ":b": 1}])
    with one.db() as old, other.db() as new:
        assert [(datom.e, datom.a, datom.v, datom.added) for datom in diff(old, new)] == [
            (1, ":only/other", True, True),
            (1, ":b", 1, False),
            (1, ":b", 2, True),
            (1, ":only/one", True, False),
            (3, ":b", 1, True),
            (7, ":a", "x", False),
        ]


def test_definitions(people: Store) -> None:
    with people.db() as old:
        people.update_schema({":person/name": {":db/valueType": ":db.type/string", ":db/doc": "full"}})
        people.transact([{":person/note": "undeclared"}])
        with people.db() as new:
            name = {":db/valueType": ":db.type/string"}
            assert schema_diff(old, new) == {
                ":person/name": (name, {**name, ":db/doc": "full"}),
                ":person/note": (None, {}),
            }
            assert schema_diff(new, old)[":person/note"] == ({}, None)
            assert schema_diff(new, new) == {}


def test_one_entity_of_many_is_found_by_few_pages(make_store: MakeStore, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make_store({":note/text": {}})
    for first in range(1, 100_001, 10_000):
        store.transact([{":db/id": number, ":note/text": f"{number}"} for number in range(first, first + 10_000)])
    with store.db() as old:
        store.transact([[":db/add", 50_000, ":note/text", "other"]])
        with store.db() as new:
            reads: list[int] = []
            pread = os.pread

            def counted(fd: int, size: int, offset: int) -> bytes:
                reads.append(offset)
                return pread(fd, size, offset)

            monkeypatch.setattr(os, "pread", counted)
            assert [(datom.e, datom.v, datom.added) for datom in diff(old, new)] == [
                (50_000, "50000", False),
                (50_000, "other", True),
            ]
            assert len(reads) < 25
