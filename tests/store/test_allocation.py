"""Which ids new entities get, and which a transaction may choose."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from cowfs import Store
from cowfs.errors import CorruptDatabase, TransactionError
from cowfs.store.model.layout import ALLOCATED_KEY, META
from cowfs.store.model.values import MAX_CHOSEN, MAX_ENTITY
from cowfs.store.tx import allocation, tempids
from cowfs.store.tx.allocation import FOLLOWED, read_allocated

from .conftest import PEOPLE, MakeStore, findings


@contextmanager
def older_version() -> Iterator[None]:
    """Write as versions before this one did: every id could be chosen, and the next one was always the highest plus one."""
    with mock.patch.object(tempids, "MAX_CHOSEN", MAX_ENTITY), mock.patch.object(allocation, "FOLLOWED", MAX_ENTITY):
        yield


def new_ids(store: Store, count: int = 1) -> list[int]:
    data: list[Any] = [{":db/id": -n, ":person/age": n} for n in range(1, count + 1)]
    return list(store.transact(data).tempids.values())


def allocated(store: Store) -> int | None:
    with store.db() as db:
        return read_allocated(db.reader)


@pytest.mark.parametrize(
    "form",
    [
        {":db/id": "ID", ":person/age": 1},
        {":db/id": "ID"},
        {":person/boss": "ID"},
        {":person/friend": [1, {":db/id": "ID"}]},
        {":person/friend": [{":db/id": "ID", ":person/age": 1}]},
        {":undeclared": {":db/id": "ID"}},
        {":person/age": 1, ":person/_boss": "ID"},
        [":db/add", "ID", ":person/age", 1],
        [":db/add", 1, ":person/boss", "ID"],
        [":db/retract", "ID", ":person/age", 1],
        [":db/retract", 1, ":person/boss", "ID"],
        [":db/retractEntity", "ID"],
        [":db/cas", "ID", ":person/age", None, 1],
        [":db/cas", 1, ":person/boss", None, "ID"],
    ],
)
def test_ids_near_the_end_are_left_to_the_store(people: Store, form: Any) -> None:
    for number in (MAX_CHOSEN + 1, MAX_ENTITY):
        with pytest.raises(TransactionError, match=r"^form 0 .*: ids above 2\*\*52 are left to the store: use a tempid$"):
            people.transact([_with(form, number)])
    assert new_ids(people) == [1]
    people.transact([_with(form, MAX_CHOSEN)])


def _with(form: Any, number: int) -> Any:
    if isinstance(form, dict):
        return {key: _with(value, number) for key, value in form.items()}
    if isinstance(form, list):
        return [_with(value, number) for value in form]
    return number if form == "ID" else form


CHOSEN: dict[str, list[Any]] = {
    "an entity": [{":db/id": MAX_CHOSEN, ":person/name": "x"}],
    "a reference": [{":db/id": 1, ":person/boss": MAX_CHOSEN}],
    "the first that is not followed": [{":db/id": FOLLOWED + 1, ":person/name": "x"}],
}


@pytest.mark.parametrize("data", CHOSEN.values(), ids=CHOSEN.keys())
def test_an_id_near_the_end_does_not_end_allocation(tmp_path: Path, data: list[Any]) -> None:
    with Store.create(tmp_path / "db", PEOPLE, durability="none") as store:
        assert new_ids(store, 3) == [1, 2, 3]
        report = store.transact([{":db/id": "a", ":person/age": 1}, *data, {":db/id": "b", ":person/age": 2}])
        assert report.tempids == {"a": 4, "b": 5}
        store.transact([[":db/retractEntity", 5]])
        assert new_ids(store) == [6], "not again the id of an entity that was there"
        store.transact([{":db/id": 50, ":person/friend": 70}])
        store.transact([[":db/retractEntity", 50]])
        store.transact([[":db/retractEntity", data[0][":db/id"]]])
        assert new_ids(store) == [71]
        store.update_schema({":new": {}})
    with Store.open(tmp_path / "db", "none") as store:
        assert new_ids(store, 2) == [72, 73]
        assert findings(store) == []


def test_ids_that_are_followed_need_no_record(people: Store) -> None:
    people.transact([{":db/id": FOLLOWED, ":person/age": 1}])
    assert allocated(people) is None
    assert new_ids(people, 2) == [FOLLOWED + 1, FOLLOWED + 2]
    assert new_ids(people) == [FOLLOWED + 3]
    assert allocated(people) == FOLLOWED + 3
    people.transact([{":db/id": FOLLOWED + 5, ":person/boss": FOLLOWED + 4}])
    people.transact([{":db/id": FOLLOWED + 7, ":person/age": 1}, {":db/id": "t", ":person/age": 2}])
    with people.db() as db:
        assert list(db.entities(FOLLOWED + 3)) == [FOLLOWED + n for n in (3, 5, 6, 7)]


def test_a_store_of_an_older_version_has_room_again(people: Store) -> None:
    assert new_ids(people, 3) == [1, 2, 3]
    people.transact([{":db/id": 1, ":person/boss": 70}])
    people.transact([[":db/retract", 1, ":person/boss"], [":db/retractEntity", 3]])
    with older_version():
        people.transact([{":db/id": MAX_ENTITY, ":person/boss": MAX_ENTITY - 1}])
        with pytest.raises(TransactionError, match="no entity ids are left"):
            new_ids(people)
    assert allocated(people) is None
    assert new_ids(people, 2) == [71, 72], "70 was somebody, though it is not referred to any more"
    people.transact([[":db/add", MAX_ENTITY, ":person/age", 1], [":db/add", 1, ":person/boss", MAX_ENTITY]])
    people.transact([[":db/retractEntity", MAX_ENTITY]])
    assert new_ids(people) == [73]
    with people.db() as db:
        assert list(db.entities()) == [1, 2, 71, 72, 73]


def test_what_an_older_version_writes_meanwhile_is_not_taken(people: Store) -> None:
    people.transact([{":db/id": MAX_CHOSEN, ":person/age": 1}])
    assert new_ids(people) == [1]
    with older_version():
        people.transact([{":db/id": 3, ":person/boss": 5}, {":db/id": 4, ":likes": {":db/id": 7}}, {":person/age": 1}])
    assert new_ids(people, 4) == [2, 6, 8, 9]
    assert new_ids(people) == [10]
    with people.db() as db:
        assert db.state.max_entity == MAX_CHOSEN + 1


def test_an_exported_store_is_made_again(people: Store, make_store: MakeStore) -> None:
    people.transact([{":db/id": MAX_CHOSEN, ":person/age": 1}])
    new_ids(people, 2)
    with people.db() as db:
        documents = list(db.export())
        copy = make_store(db.schema.to_json())
    copy.transact(documents)
    assert new_ids(copy) == new_ids(people) == [3]


def test_when_no_ids_are_left_it_is_said(people: Store) -> None:
    people.transact([{":db/id": MAX_CHOSEN, ":person/age": 1}])
    with older_version():
        people.transact([{":db/id": MAX_ENTITY, ":person/age": 1}])
    _write(people, (MAX_ENTITY - 2).to_bytes(8, "big"))
    assert new_ids(people) == [MAX_ENTITY - 1]
    with pytest.raises(TransactionError, match="no entity ids are left"):
        new_ids(people)
    assert people.transact([{":db/id": 1, ":person/age": 1}]).tempids == {}


@pytest.mark.parametrize("record", [b"", b"short", (2**53).to_bytes(8, "big"), b"\xff" * 8])
def test_a_damaged_record_is_found(people: Store, record: bytes) -> None:
    people.transact([{":db/id": MAX_CHOSEN, ":person/age": 1}])
    _write(people, record)
    with pytest.raises(CorruptDatabase, match="the highest id that it gave is damaged"):
        new_ids(people)
    _write(people, (5).to_bytes(8, "big"))
    assert new_ids(people) == [6]


def _write(store: Store, record: bytes) -> None:
    with store.env.write() as txn:
        txn.put(META, ALLOCATED_KEY, record)
