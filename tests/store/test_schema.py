"""Schemas: definitions, their canonical form, and which changes the data allows."""

from __future__ import annotations

from typing import Any

import pytest

from cowfs import Store
from cowfs.errors import CorruptDatabase, SchemaError
from cowfs.store.model.schema import Attribute, Schema, parse_record

from .conftest import PEOPLE, MakeStore

STRING = {":db/valueType": ":db.type/string"}
MANY = {":db/cardinality": ":db.cardinality/many"}
UNIQUE = {":db/unique": ":db.unique/identity"}


def test_colons_may_be_left_out_and_defaults_vanish() -> None:
    attribute = Attribute.parse(
        1,
        ":a",
        {
            "db/valueType": "db.type/ref",
            "db/cardinality": "db.cardinality/one",
            "db/isComponent": True,
            "db/index": False,
            "db/unique": None,
            "db/doc": "",
        },
    )
    assert attribute.properties == {":db/valueType": ":db.type/ref", ":db/isComponent": True, ":db/doc": ""}
    assert (attribute.type, attribute.many, attribute.unique, attribute.component) == ("ref", False, None, True)


@pytest.mark.parametrize(
    ("definition", "line"),
    [
        (5, ":a: a definition is a map of properties, not an integer"),
        ({":db/colour": "red"}, ":a: unknown property :db/colour"),
        ({5: "red"}, ":a: unknown property :5"),
        ({":db/valueType": ":db.type/text"}, ":a: :db/valueType is one of :db.type/string, "),
        ({":db/valueType": ["x"]}, ", not a list"),
        ({":db/cardinality": "many"}, ':a: :db/cardinality is one of :db.cardinality/one, :db.cardinality/many, not "many"'),
        ({":db/unique": True}, ":a: :db/unique is one of :db.unique/identity, :db.unique/value, not a boolean"),
        ({":db/isComponent": "yes"}, ":a: :db/isComponent cannot be a string"),
        ({":db/isComponent": True}, ":a: :db/isComponent needs :db/valueType :db.type/ref"),
        ({":db/doc": 5}, ":a: :db/doc cannot be an integer"),
        ({":db/tupleAttrs": [":b", ":c"]}, ":a: :db/tupleAttrs (a composite of other attributes) is not supported"),
        ({":db/valueType": ":db.type/tuple"}, ":a: a tuple needs :db/tupleType or :db/tupleTypes, one of them"),
        ({":db/tupleType": ":db.type/long"}, ":a: :db/tupleType needs :db/valueType :db.type/tuple"),
        ({":db/valueType": ":db.type/tuple", ":db/tupleTypes": "x"}, ":a: :db/tupleTypes cannot be a string"),
        ({":db/valueType": ":db.type/tuple", ":db/tupleTypes": [":db.type/long"]}, ":a: :db/tupleTypes lists 2 to 8 types"),
        (
            {":db/valueType": ":db.type/tuple", ":db/tupleType": ":db.type/ref"},
            ":a: a tuple cannot hold elements of :db.type/ref",
        ),
    ],
)
def test_a_wrong_definition(definition: Any, line: str) -> None:
    with pytest.raises(SchemaError) as caught:
        Attribute.parse(1, ":a", definition)
    assert line in str(caught.value)


@pytest.mark.parametrize(
    "name", ["", ":", "a b", "a/b/c", "a/", "/b", "a\0", "a/_b", "_a", "db/x", "db.x/y", "x" * 255, "\ud800", 5]
)
def test_a_wrong_name(make_store: MakeStore, name: Any) -> None:
    with pytest.raises(SchemaError):
        make_store({name: {}})


@pytest.mark.parametrize("name", ["a", "a/b", ":a.b/c-d", "é", "a:b", "x_y/z", "_", "x" * 254])
def test_a_right_name(make_store: MakeStore, name: str) -> None:
    store = make_store({name: {}})
    assert list(store.schema) == [":" + name.removeprefix(":")]


def test_a_schema_is_a_mapping_that_knows_both_spellings(people: Store) -> None:
    schema = people.schema
    assert schema["person/age"] is schema[":person/age"]
    assert list(schema) == sorted(PEOPLE)
    assert "person/nope" not in schema
    assert schema.to_json() == PEOPLE
    assert list(schema.to_json()) == sorted(PEOPLE)
    assert Schema().to_json() == {}


@pytest.mark.parametrize("schema", [5, [], {"a": {}, ":a": {}}, {"a": 5}])
def test_a_wrong_schema_makes_no_store(make_store: MakeStore, schema: Any) -> None:
    with pytest.raises(SchemaError):
        make_store(schema or [1])


def test_a_new_attribute(make_store: MakeStore) -> None:
    store = make_store({":a": STRING})
    store.transact([{":a": "x", ":b": 1}])
    before = store.db()
    after = store.update_schema({"c": MANY})
    assert after.to_json() == store.schema.to_json() == {":a": STRING, ":b": {}, ":c": MANY}
    with before, store.db() as db:
        assert db.txid == before.txid + 1
        assert list(before.schema) == [":a", ":b"]
        row = db.log(db.txid)
        assert row is not None
        assert row.asserted == ()
        assert db.instant == row.instant


def test_the_same_definition_is_no_change(make_store: MakeStore) -> None:
    store = make_store({":a": STRING | {":db/cardinality": ":db.cardinality/one"}})
    store.update_schema({"a": {"db/valueType": "db.type/string"}})
    with store.db() as db:
        assert db.txid == 1


@pytest.mark.parametrize(
    ("old", "new", "allowed"),
    [
        (STRING, STRING | MANY, True),
        (STRING | MANY, STRING, False),
        (STRING, STRING | UNIQUE, False),
        (STRING | UNIQUE, STRING, True),
        (STRING, {":db/valueType": ":db.type/long"}, False),
        (STRING, {}, False),
        ({}, STRING, False),
        (STRING, STRING | {":db/doc": "new", ":db/index": True}, True),
    ],
)
def test_changes_with_data(make_store: MakeStore, old: dict[str, Any], new: dict[str, Any], allowed: bool) -> None:
    store = make_store({":a": old})
    unique = ":db/unique" in old
    store.transact([[":db/add", 1, ":a", "x"], [":db/add", 2, ":a", "y" if unique else "x"], [":db/add", 2, ":a", "z"]])
    store.transact([[":db/add", 2, ":a", "y" if unique else "x"]])
    if allowed:
        assert store.update_schema({":a": new})[":a"].properties == new
        return
    with pytest.raises(SchemaError, match=r"^:a: "):
        store.update_schema({":b": {}, ":a": new})
    assert store.schema.to_json() == {":a": old}


def test_changes_that_the_data_allow(make_store: MakeStore) -> None:
    store = make_store({":a": STRING | MANY, ":b": STRING, ":c": {}})
    store.transact([{":a": ["x"], ":b": "1", ":c": 5}, {":a": ["x"], ":b": "2"}])
    store.transact([[":db/retract", 1, ":c"]])
    schema = {":a": STRING, ":b": STRING | UNIQUE, ":c": STRING}
    assert store.update_schema(schema).to_json() == schema
    store.transact([{":b": "1", ":c": "typed", ":a": "y"}])
    with store.db() as db:
        assert db.entity(1) == {":db/id": 1, ":a": "y", ":b": "1", ":c": "typed"}


def test_a_damaged_record_is_found() -> None:
    for data in (b"", b"[]", b"{}", b'{"name": ":a", "x": 1}', b'{"name": 5}', b"\xff"):
        with pytest.raises(CorruptDatabase, match="attribute 1 record is damaged"):
            parse_record(b"attribute/\0\0\0\1", data)
