"""Upserts, lookup refs and uniqueness."""

from __future__ import annotations

from typing import Any

import pytest

from cowfs import Store
from cowfs.errors import TransactionError

from .conftest import MakeStore

MANY = {":db/cardinality": ":db.cardinality/many"}
UNIQUE = {":db/unique": ":db.unique/identity"}


def test_an_identity_value_names_the_entity_that_has_it(people: Store) -> None:
    people.transact([{":db/id": 7, ":person/email": "a@x"}])
    report = people.transact(
        [{":db/id": "t", ":person/email": "a@x", ":person/age": 1}, [":db/add", "t", ":person/name", "A"]]
    )
    assert report.tempids == {"t": 7}
    with people.db() as db:
        assert db.entity(7) == {":db/id": 7, ":person/age": 1, ":person/email": "a@x", ":person/name": "A"}


def test_two_tempids_with_one_new_identity_are_one_entity(people: Store) -> None:
    report = people.transact(
        [
            {":db/id": -1, ":person/email": "a@x"},
            {":db/id": -2, ":person/email": "a@x", ":person/age": 5},
            {":person/email": "a@x", ":person/name": "A"},
        ]
    )
    assert report.tempids == {-1: 1, -2: 1}
    with people.db() as db:
        assert db.entity(1) == {":db/id": 1, ":person/age": 5, ":person/email": "a@x", ":person/name": "A"}


def test_a_tempid_joins_an_explicit_entity_of_the_same_transaction(people: Store) -> None:
    report = people.transact([[":db/add", -1, ":person/email", "a@x"], [":db/add", 9, ":person/email", "a@x"]])
    assert report.tempids == {-1: 9}


def test_the_entity_before_wins_over_the_transaction(people: Store) -> None:
    people.transact([{":db/id": 1, ":person/email": "a@x"}])
    report = people.transact(
        [[":db/retract", 1, ":person/email", "a@x"], {":db/id": -1, ":person/email": "a@x", ":person/age": 1}]
    )
    assert report.tempids == {-1: 1}


def test_unique_values_can_be_swapped(people: Store) -> None:
    people.transact(
        [{":db/id": 1, ":person/email": "a@x", ":person/code": 1}, {":db/id": 2, ":person/email": "b@x", ":person/code": 2}]
    )
    people.transact(
        [
            {":db/id": 1, ":person/email": "b@x", ":person/code": 2},
            {":db/id": 2, ":person/email": "a@x", ":person/code": 1},
        ]
    )
    with people.db() as db:
        assert db.entid([":person/email", "a@x"]) == 2
        assert db.entid([":person/code", 2]) == 1


def test_lookup_refs_stand_for_entities(people: Store) -> None:
    people.transact([{":db/id": 1, ":person/email": "a@x", ":person/code": 5}])
    a = ["person/email", "a@x"]
    people.transact(
        [{":db/id": a, ":person/friend": a, ":person/boss": [":person/code", 5]}, [":db/add", a, ":person/age", 1]]
    )
    people.transact([{":db/id": 2, ":person/friend": [a, 2]}, [":db/cas", a, ":person/age", 1, 2]])
    with people.db() as db:
        assert db.entity(1) == {
            ":db/id": 1,
            ":person/age": 2,
            ":person/boss": 1,
            ":person/code": 5,
            ":person/email": "a@x",
            ":person/friend": [1],
        }
        assert db.entity(2) == {":db/id": 2, ":person/friend": [1, 2]}
    people.transact([[":db/retractEntity", a]])
    with people.db() as db:
        assert list(db.entities()) == [2]


def test_a_lookup_ref_finds_an_entity_of_the_same_transaction(people: Store) -> None:
    people.transact(
        [
            {":person/name": "first", ":person/boss": [":person/email", "b@x"], ":person/friend": [[":person/code", 3]]},
            {":person/email": "b@x", ":person/code": 3},
        ]
    )
    with people.db() as db:
        assert db.entity(1) == {":db/id": 1, ":person/boss": 2, ":person/friend": [2], ":person/name": "first"}


def test_references_can_be_identities(people: Store) -> None:
    people.transact([{":db/id": 1, ":person/name": "x"}, {":db/id": 2, ":person/main": 1}])
    report = people.transact([{":db/id": -1, ":person/main": 1, ":person/age": 1}])
    assert report.tempids == {-1: 2}
    report = people.transact(
        [
            {":db/id": "a", ":person/main": "b"},
            {":db/id": "b", ":person/main": "c", ":person/email": "b@x"},
            {":db/id": "d", ":person/main": "e"},
            {":db/id": "e", ":person/email": "b@x"},
            [":db/add", "c", ":person/name", "c"],
        ]
    )
    assert report.tempids["a"] == report.tempids["d"]
    assert report.tempids["b"] == report.tempids["e"]
    assert len(set(report.tempids.values())) == 3


def test_a_chain_of_reference_identities_ends_at_the_database(people: Store) -> None:
    people.transact(
        [{":db/id": 1, ":person/email": "a@x"}, {":db/id": 2, ":person/main": 1}, {":db/id": 3, ":person/main": 2}]
    )
    report = people.transact(
        [{":db/id": "z", ":person/main": "y"}, {":db/id": "y", ":person/main": "x"}, {":db/id": "x", ":person/email": "a@x"}]
    )
    assert report.tempids == {"z": 3, "y": 2, "x": 1}


def test_a_value_that_was_freed_can_be_taken(people: Store) -> None:
    people.transact([{":db/id": 1, ":person/code": 1}])
    people.transact([[":db/retractEntity", 1], {":db/id": "n", ":person/code": 1}])
    with people.db() as db:
        assert db.entid([":person/code", 1]) == 2


@pytest.mark.parametrize("attribute", [":person/email", ":person/code"])
def test_uniqueness_within_one_transaction(people: Store, attribute: str) -> None:
    value = {":person/email": "a@x", ":person/code": 1}[attribute]
    with pytest.raises(TransactionError, match=rf"^form 1 .*{attribute} is unique, .* of entity 1 and of entity 2$"):
        people.transact([[":db/add", 1, attribute, value], [":db/add", 2, attribute, value]])
    with people.db() as db:
        assert db.datom_count == 0


@pytest.mark.parametrize("name", ["email", ":email"])
@pytest.mark.parametrize("declared", [True, False])
def test_a_list_of_values_is_no_lookup_ref(make_store: MakeStore, name: str, declared: bool) -> None:
    tags = MANY | ({":db/valueType": ":db.type/string"} if declared else {})
    store = make_store({":email": UNIQUE, ":tags": tags})
    store.transact([{"email": "phone"}, {"name": "x", "tags": [name, "phone"]}])
    store.transact([{":email": "new", ":tags": (name, "new")}, {":db/id": 2, ":tags": [name, "nobody"]}])
    with store.db() as db:
        documents = list(db.export())
    assert documents[1:] == [
        {":db/id": 2, ":name": "x", ":tags": sorted([name, "phone", "nobody"])},
        {":db/id": 3, ":email": "new", ":tags": [name, "new"]},
    ]
    copy = make_store(store.schema.to_json())
    copy.transact(documents)
    with copy.db() as db:
        assert list(db.export()) == documents


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        ({"one": [":email", "phone"]}, ':one: a list, and the attribute has one value (a reference is {":db/id": ...})'),
        ({"one": ["email", "phone"]}, ':one: a list, and the attribute has one value (a reference is {":db/id": ...})'),
        ({"many": [[":email", "phone"]]}, ":many: a list needs a declared type"),
        ([":db/add", 1, ":one", ["email", "phone"]], ":one: a list needs a declared type"),
        ([":db/add", 1, ":many", [":email", "phone"]], ":many: a list needs a declared type"),
        ([":db/retract", 1, ":many", ["email", "phone"]], ":many: a list needs a declared type"),
        ([":db/cas", 1, ":one", ["email", "phone"], "x"], ":one: a list needs a declared type"),
        ([":db/cas", 1, ":one", None, [":email", "phone"]], ":one: a list needs a declared type"),
    ],
)
def test_where_a_list_can_be_no_value_it_is_refused(make_store: MakeStore, form: Any, reason: str) -> None:
    store = make_store({":email": UNIQUE, ":many": MANY})
    store.transact([{":email": "phone"}])
    with pytest.raises(TransactionError) as caught:
        store.transact([form])
    assert reason in str(caught.value)


def test_a_reference_of_an_attribute_without_a_type_is_a_map(make_store: MakeStore) -> None:
    store = make_store({":email": UNIQUE, ":many": MANY})
    ann = {":db/id": [":email", "ann"]}
    store.transact([{":email": "ann", ":many": [ann, {"db/id": "bob"}]}, {":db/id": "bob", ":one": ann}])
    store.transact([[":db/retract", 1, ":many", ann], [":db/cas", 2, ":one", ann, {":db/id": 2}]])
    with store.db() as db:
        assert db.entity(1) == {":db/id": 1, ":email": "ann", ":many": [2]}
        assert db.entity(2) == {":db/id": 2, ":one": 2}


@pytest.mark.parametrize("name", ["friend", "_friend"])
def test_two_tempids_are_not_taken_for_a_lookup_ref(make_store: MakeStore, name: str) -> None:
    store = make_store({":email": UNIQUE, ":friend": MANY | {":db/valueType": ":db.type/ref"}})
    store.transact([{":email": "x"}])
    tempids = [{":db/id": "email", "n": 2}, {":db/id": "x", "n": 3}]
    form = {"n": 4, name: ["email", "x"]}
    for data in ([*tempids, form], [form, *tempids]):
        with pytest.raises(
            TransactionError, match=r'"email" is a tempid here, .* lookup ref is \[":email", \.\.\.\]$'
        ) as caught:
            store.transact(data)
        assert caught.value.form == data.index(form)
    maps = [{"db/id": "email"}, {"db/id": "x"}]
    store.transact([*tempids, {"n": 4, name: [":email", "x"]}, {"n": 5, name: maps}, {"n": 6, name: ["x", "email"]}])
    store.transact([{"n": 7, name: ["email", "x"]}, {":db/id": "x", "n": 8}])
    with store.db() as db:
        pattern = [":friend" if name == "_friend" else ":_friend"]
        found = {e: [ref[":db/id"] for ref in (db.pull(pattern, e) or {":": []}).popitem()[1]] for e in range(1, 9)}
    assert found == {1: [4, 7], 2: [5, 6], 3: [5, 6], 4: [], 5: [], 6: [], 7: [], 8: []}


def test_untyped_attributes_can_be_unique(make_store: MakeStore) -> None:
    store = make_store({":key": {":db/unique": ":db.unique/identity"}})
    store.transact([{":key": 1, ":n": 1}, {":key": "1", ":n": 2}, {":key": 1.0, ":n": 3}, {":key": True, ":n": 4}])
    store.transact([{":key": "1", ":n": 5}])
    with store.db() as db:
        assert [db.entid([":key", key]) for key in (1, "1", 1.0, True)] == [1, 2, 3, 4]
        assert db.entity(2) == {":db/id": 2, ":key": "1", ":n": 5}


def test_a_value_that_begins_like_another_is_not_that_one(make_store: MakeStore) -> None:
    store = make_store({":key": {":db/valueType": ":db.type/string", ":db/unique": ":db.unique/identity"}})
    store.transact([{":key": "\0"}, {":key": "a\0" + "b" * 600}])
    with store.db() as db:
        assert db.entid([":key", ""]) is None
        assert db.entid([":key", "a"]) is None
        assert list(db.datoms("ave", ":key", "")) == []
        assert db.entid([":key", "\0"]) == 1
