"""Wrong transaction data: one line that names form, attribute and reason, and nothing is changed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cowfs import Store
from cowfs.errors import TransactionError

from .conftest import MakeStore

DEEP: Any = []
for _ in range(5000):
    DEEP = [DEEP]


@pytest.mark.parametrize(
    ("form", "reason"),
    [
        (5, "a form is a map or a list"),
        ({}, "a map without attributes"),
        ({":person/name": 5}, ":person/name: an integer where a string is due"),
        ({"person/name": None}, ":person/name: null where a string is due"),
        (
            {":person/name": ["a"]},
            "a list where a string is due; for many values declare :db/cardinality :db.cardinality/many",
        ),
        ({":new": ["a"]}, ":new: a list, and the attribute has one value; for many values declare :db/cardinality"),
        ({":new": None}, ":new: null is no value"),
        ({":new": {":x": 1}}, ":new: a map for an attribute that is not declared :db/valueType :db.type/ref"),
        ({":new": b"x"}, ":new: a bytes needs a declared type: declare :db/valueType"),
        ({":a b": 1}, ":a b: an attribute's name is name or namespace/name"),
        ({"a\nb": 1}, r":a\nb: an attribute's name is name or namespace/name"),
        ({"\ud800": 1}, r":\ud800: a lone surrogate, which is no text"),
        ({"a\u2028": 1}, r":a\u2028: an attribute's name"),
        ({"x" * 300: 1}, "x…: an attribute's name has at most 255 bytes"),
        ({5: 1}, "an attribute's name is a string"),
        ({":db/ident": 1}, ":db/ident: the namespace db is reserved"),
        ({":person/_name": 1}, ":person/_name: only a reference has a reverse, and :person/name is none"),
        ({":person/_no": 1}, ":person/_no: no attribute :person/no"),
        ({":person/boss": {}}, ":person/boss: a map without attributes"),
        ({":person/boss": [1, 2]}, ":person/boss: a list that is no lookup ref, and the attribute has one value"),
        ({":person/boss": ":ann"}, ':person/boss: no entity is named ":ann"; a tempid begins without a colon'),
        ({":person/friend": [":person/name", "x"]}, ":person/friend: no entity is named"),
        ({":person/_friend": ":ann", ":person/age": 1}, 'no entity is named ":ann"'),
        ({":db/id": ":ann", ":person/age": 1}, 'no entity is named ":ann"'),
        ([":db/add", ":ann", ":person/age", 1], 'no entity is named ":ann"'),
        ([":db/add", "\ud800", ":person/age", 1], "a lone surrogate, which is no text"),
        ({":db/id": 1, "db/id": 2, ":person/age": 1}, ":db/id is there twice, with and without its colon"),
        ({":person/boss": {":db/id": 1, "db/id": 2}}, ":db/id is there twice, with and without its colon"),
        ({":person/boss": True}, ":person/boss: a boolean where an entity is due"),
        ({":person/boss": 0}, ":person/boss: an entity id is 1 to 2**53-1"),
        ({":person/boss": [":person/email", "no@x"]}, "a lookup ref to an entity that does not exist"),
        ({":person/boss": [":person/email", 5]}, "lookup ref :person/email: an integer where a string is due"),
        ({":person/boss": {":person/name": 1}}, ":person/name: an integer where a string is due"),
        ({":person/place": [1]}, ":person/place: a tuple of 2 elements is due, not of 1"),
        ({":db/id": 2**53, ":person/name": "x"}, "an entity id is 1 to 2**53-1"),
        ({":db/id": 10**5000, ":person/name": "x"}, "an entity id is 1 to 2**53-1"),
        ({":db/id": -(10**5000), ":person/name": "x"}, "a tempid is a string, or -1 to -2**63"),
        ({":db/id": 1.5}, "a number with a fraction where an entity is due"),
        ({":db/id": [":person/name", "x"], ":person/age": 1}, ":person/name is not unique, so it names no entity"),
        ({":db/id": ["x", 1], ":person/age": 1}, "no attribute :x"),
        ([], "no operation; there are :db/add, :db/retract, :db/retractEntity, :db/cas"),
        ([":db/ad", 1, ":person/age", 1], "no operation"),
        ([{}], "no operation"),
        ([":db/add", 1, ":person/age"], ":db/add takes an entity, an attribute and a value"),
        ([":db/retract", 1], ":db/retract takes an entity, an attribute and, unless all go, a value"),
        ([":db/retractEntity"], ":db/retractEntity takes an entity"),
        ([":db/cas", 1, ":person/age", 1], ":db/cas takes an entity, an attribute, the old and the new value"),
        ([":db/add", 1, ":person/age", None], ":person/age: null is no value"),
        ([":db/add", 1, ":person/tags", ["a"]], ":person/tags: a list where a string is due"),
        ([":db/add", 1, 5, 6], "an integer: an attribute's name is a string"),
        ([":db/retract", 1, ":a b", 6], ":a b: no attribute :a b"),
        ([":db/retract", 1, 5], "no attribute an integer"),
        ([":db/retract", 1, ":new", [1]], ":new: a list needs a declared type"),
        ([":db/cas", 1, ":new", 1, 2], ":new of entity 1 is null, not 1"),
        ([":db/cas", 1, ":a b", None, 2], ":a b: an attribute's name is name or namespace/name"),
        ([":db/retract", -1, ":person/age"], "nothing is asserted of tempid -1, so it is no entity"),
        ([":db/retract", 1, ":person/boss", {":person/name": "x"}], "a map with attributes can only be added"),
        ([":db/add", 1, ":person/boss", "t"], "nothing is asserted of tempid 't', so it is no entity"),
        ([":db/cas", 1, ":person/age", 7, 8], ":person/age of entity 1 is 30, not 7"),
        ([":db/cas", 1, ":person/age", None, 8], ":person/age of entity 1 is 30, not null"),
        ([":db/cas", 1, ":person/name", "x", "y"], ':person/name of entity 1 is null, not "x"'),
        ([":db/cas", 1, ":person/age", 30, None], ":person/age: the new value is null"),
        ([":db/cas", 1, ":person/age", "x", 8], ":person/age: a string where a long is due"),
        ([":db/cas", 1, ":person/tags", "x", "y"], ":person/tags: :db/cas is for attributes with one value"),
        ({":person/code": 5}, ":person/code is unique, and 5 would be that of entity 1 and of entity 3"),
        (
            [":db/add", 2, ":person/email", "a@x"],
            ':person/email is unique, and "a@x" would be that of entity 1 and of entity 2',
        ),
        ({":db/id": -1, ":person/email": "a@x", ":person/main": 2}, "upserts contradict each other: entity 1 and entity 2"),
        ([":db/add", 1, ":person/tags", DEEP], "a list where a string is due"),
        ({":new": DEEP}, ":new: a list, and the attribute has one value"),
    ],
)
def test_a_wrong_form(people: Store, form: Any, reason: str) -> None:
    people.transact(
        [{":db/id": 1, ":person/age": 30, ":person/email": "a@x", ":person/code": 5}, {":db/id": 2, ":person/main": 2}]
    )
    with people.db() as db:
        before = db.txid, list(db.datoms("eav")), db.schema.to_json(), db.state
    with pytest.raises(TransactionError) as caught:
        people.transact([{":db/id": 1, ":person/tags": ["changed"], ":undeclared": 1}, form])
    line = str(caught.value)
    assert line.startswith("form 1 ")
    assert caught.value.form == 1
    assert reason in line
    assert line.isprintable()
    assert len(line) < 300
    with people.db() as db:
        assert (db.txid, list(db.datoms("eav")), db.schema.to_json(), db.state) == before


NOTHING = [
    ([{":db/id": -1}], 0, "of tempid -1,"),
    ([{":db/id": -1}, [":db/add", -2, ":person/boss", -1]], 0, "of tempid -1,"),
    ([[":db/add", -2, ":person/boss", -1], {":db/id": -1}], 0, "of tempid -1,"),
    ([{":person/age": 1}, {":db/id": "t", ":person/tags": [], ":person/friend": []}], 1, "of tempid 't',"),
    ([{":person/age": 1}, {":person/tags": []}], 1, "of the map's entity,"),
    ([{":person/age": 1, ":person/boss": {":person/tags": []}}], 0, "of the map's entity,"),
    ([{":person/age": 1, ":person/parts": [{":db/id": "t"}]}], 0, "of tempid 't',"),
    ([{":person/age": 1, ":person/parts": [{":db/id": "t", ":person/tags": []}]}], 0, "of tempid 't',"),
    ([{":db/id": "t", ":person/_boss": 1}], 0, "of tempid 't',"),
    ([{":person/_boss": {":person/age": 1}}], 0, "of the map's entity,"),
    ([[":db/add", 1, ":new", {":db/id": "t"}], {":db/id": "t"}], 0, "of tempid 't',"),
    ([[":db/add", 1, ":person/boss", "t"], [":db/retract", "t", ":person/age", 1]], 0, "of tempid 't',"),
    ([{":db/id": "t"}, [":db/retract", "t", ":person/age"], [":db/retractEntity", "t"]], 0, "of tempid 't',"),
    ([[":db/retract", "t", ":person/email", "a@x"], {":db/id": "t"}], 0, "of tempid 't',"),
    ([[":db/retract", 1, ":person/boss", "t"], {":db/id": "t"}], 0, "of tempid 't',"),
    ([[":db/cas", 1, ":person/boss", None, "t"], {":db/id": "t"}], 0, "of tempid 't',"),
    ([[":db/cas", 1, ":person/boss", "t", 1], {":db/id": "t"}], 0, "of tempid 't',"),
]


@pytest.mark.parametrize(("data", "form", "reason"), NOTHING)
def test_a_new_entity_has_something(people: Store, data: list[Any], form: int, reason: str) -> None:
    people.transact([{":db/id": 1, ":person/email": "a@x"}])
    with pytest.raises(TransactionError, match=rf"^form {form} .*: nothing is asserted {reason} so it is no entity$"):
        people.transact(data)
    with people.db() as db:
        assert (db.datom_count, db.state.max_entity) == (1, 1)


LEFT = [
    [[":db/add", "t", ":person/age", 1], [":db/retract", "t", ":person/age", 1], [":db/add", 1, ":person/boss", "t"]],
    [[":db/add", 1, ":person/boss", "t"], [":db/add", "t", ":person/age", 1], [":db/retract", "t", ":person/age"]],
    [{":db/id": "t", ":person/age": 1}, [":db/retractEntity", "t"], {":db/id": 1, ":person/friend": [1, "t"]}],
    [{":db/id": "t", ":person/age": 1}, [":db/retractEntity", "t"], [":db/cas", 1, ":person/boss", None, "t"]],
    [{":person/boss": {":db/id": "t", ":person/age": 1}}, [":db/retract", "t", ":person/age"]],
]


@pytest.mark.parametrize("data", LEFT)
def test_no_reference_is_left_to_a_new_entity_of_which_nothing_is(people: Store, data: list[Any]) -> None:
    people.transact([{":db/id": 1, ":person/email": "a@x"}])
    with pytest.raises(
        TransactionError, match=r"^form \d .*: a reference to a new entity of which nothing is left$"
    ) as caught:
        people.transact(data)
    assert ":person/boss" in str(data[caught.value.form or 0]) or ":person/friend" in str(data[caught.value.form or 0])
    with people.db() as db:
        assert db.datom_count == 1


@pytest.mark.parametrize("name", ["datomic.tx", ":db/current-tx", "db/current-tx", "datascript.tx"])
@pytest.mark.parametrize(
    "form",
    [
        {":db/id": "TX", ":person/name": "x"},
        {"db/id": "TX", "undeclared": "x"},
        {":db/id": "TX"},
        {":person/boss": "TX"},
        {":person/friend": ["TX", 1]},
        {":person/friend": [{":db/id": "TX"}]},
        {":person/friend": {":db/id": "TX", ":person/name": "x"}},
        {":undeclared": {":db/id": "TX"}},
        {":person/age": 1, ":person/_boss": "TX"},
        [":db/add", "TX", ":person/name", "x"],
        [":db/add", 1, ":person/boss", "TX"],
        [":db/retract", "TX", ":person/name", "x"],
        [":db/retract", 1, ":person/boss", "TX"],
        [":db/retract", "TX", ":person/name"],
        [":db/retractEntity", "TX"],
        [":db/cas", "TX", ":person/age", None, 1],
        [":db/cas", 1, ":person/boss", None, "TX"],
    ],
)
def test_transactions_are_not_entities(people: Store, name: str, form: Any) -> None:
    spelled = json.loads(json.dumps(form).replace("TX", name))
    with pytest.raises(TransactionError, match=r"^form 0 .*transactions are not entities in this version$"):
        people.transact([spelled])
    with people.db() as db:
        assert db.datom_count == 0


@pytest.mark.parametrize("data", [{}, "x", None, 5])
def test_data_that_is_no_list(people: Store, data: Any) -> None:
    with pytest.raises(TransactionError, match=r"^transaction data is a list of forms, not "):
        people.transact(data)


def test_a_strict_store_takes_declared_attributes_only(make_store: MakeStore) -> None:
    store = make_store({":a": {}}, strict=True)
    store.transact([{":a": 1}])
    with pytest.raises(TransactionError, match=r"^form 0 .*: :b: not in the schema, and this store takes declared"):
        store.transact([{":b": 1}])
    with pytest.raises(TransactionError, match=r"^form 0 .*: :b: not in the schema"):
        store.transact([[":db/cas", 1, ":b", None, 1]])
    for form in ([":db/retract", 1, ":b"], [":db/retract", 1, "b", 1]):
        with pytest.raises(TransactionError, match=r"^form 0 .*no attribute :b$"):
            store.transact([form])
    assert store.schema.strict
    assert list(store.schema) == [":a"]
