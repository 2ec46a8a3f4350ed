"""Every form of transaction data: what it asserts and retracts."""

from __future__ import annotations

from typing import Any

import pytest

from cowfs import Datom, Ref, Store

from .conftest import MakeStore


def entity(store: Store, e: Any) -> dict[str, Any] | None:
    with store.db() as db:
        return db.entity_json(e)


def test_a_map_makes_an_entity(people: Store) -> None:
    report = people.transact([{":person/name": "Ann", "person/age": 30}])
    assert report.tempids == {}
    assert report.datom_count == 2
    assert entity(people, 1) == {":db/id": 1, ":person/age": 30, ":person/name": "Ann"}
    assert [tuple(datom) for datom in report.datoms] == [
        (1, ":person/name", "Ann", report.txid, True),
        (1, ":person/age", 30, report.txid, True),
    ]


def test_entity_ids_follow_the_highest(people: Store) -> None:
    report = people.transact([{":db/id": "new", ":person/name": "b"}, {":db/id": 41, ":person/name": "a"}])
    assert report.tempids == {"new": 42}
    assert people.transact([{":db/id": -1, ":person/name": "c"}]).tempids == {-1: 43}
    people.transact([[":db/add", 43, ":person/friend", 99]])
    assert people.transact([{":db/id": -1, ":person/name": "d"}]).tempids == {-1: 100}


def test_tempids_are_numbers_and_strings(people: Store) -> None:
    report = people.transact(
        [
            {"db/id": -1, ":person/name": "Ann", ":person/boss": "bob"},
            {":db/id": "bob", ":person/name": "Bob", ":person/friend": [-1, {":db/id": -1}]},
        ]
    )
    assert report.tempids == {-1: 1, "bob": 2}
    assert entity(people, 2) == {":db/id": 2, ":person/friend": [{":db/id": 1}], ":person/name": "Bob"}


def test_list_forms(people: Store) -> None:
    people.transact(
        [["db/add", 7, "person/tags", "a"], [":db/add", 7, ":person/tags", "b"], [":db/add", 7, ":person/age", 1]]
    )
    people.transact(
        [[":db/retract", 7, ":person/tags", "a"], ["db/retract", 7, "person/age"], [":db/retract", 7, "person/name"]]
    )
    assert entity(people, 7) == {":db/id": 7, ":person/tags": ["b"]}
    people.transact([["db/retractEntity", 7]])
    assert entity(people, 7) is None


def test_the_last_of_two_values_wins(people: Store) -> None:
    report = people.transact([[":db/add", 1, ":person/age", 1], {":db/id": 1, ":person/age": 2}])
    assert report.datoms == (Datom(1, ":person/age", 2, report.txid, True),)


def test_only_the_net_effect_counts(people: Store) -> None:
    first = people.transact([{":db/id": 1, ":person/age": 1, ":person/tags": ["a"]}])
    report = people.transact(
        [
            [":db/add", 1, ":person/age", 2],
            [":db/add", 1, ":person/age", 1],
            [":db/retract", 1, ":person/tags", "a"],
            [":db/add", 1, ":person/tags", "a"],
            [":db/add", 2, ":person/tags", "gone"],
            [":db/retract", 2, ":person/tags", "gone"],
        ]
    )
    assert report.datoms == ()
    with people.db() as db:
        assert {datom.tx for datom in db.datoms("eav")} == {first.txid}
        assert db.txid == report.txid
        row = db.log(report.txid)
        assert row is not None
        assert row.asserted == row.retracted == ()


def test_a_new_value_retracts_the_old_one(people: Store) -> None:
    first = people.transact([{":db/id": 1, ":person/age": 1}])
    report = people.transact([{":db/id": 1, ":person/age": 2}])
    assert report.datoms == (
        Datom(1, ":person/age", 2, report.txid, True),
        Datom(1, ":person/age", 1, report.txid, False),
    )
    with people.db() as db:
        row = db.log(report.txid)
    assert row is not None
    assert [datom.tx for datom in row.retracted] == [first.txid]


def test_cas(people: Store) -> None:
    people.transact([["db/cas", 1, ":person/age", None, 30]])
    people.transact([[":db/cas", 1, ":person/age", 30, 31], [":db/cas", 1, ":person/age", 31, 32]])
    people.transact([[":db/cas", 1, ":person/boss", None, "t"], [":db/add", "t", ":person/name", "Boss"]])
    people.transact([[":db/cas", 1, ":person/boss", 2, {":db/id": 1}]])
    assert entity(people, 1) == {":db/id": 1, ":person/age": 32, ":person/boss": {":db/id": 1}}


def test_an_attribute_that_nobody_has_used_has_no_values(people: Store) -> None:
    retractions = [[":db/retract", 1, ":new"], ["db/retract", 1, "new", "x"], [":db/retract", 1, ":new", {":db/id": 7}]]
    assert people.transact(retractions).datoms == ()
    assert ":new" not in people.schema, "nothing was asserted"
    report = people.transact([[":db/cas", 1, "new", None, "a"], *retractions[1:], [":db/cas", 1, ":new", "a", "b"]])
    assert [datom.v for datom in report.datoms] == ["b"]
    assert people.schema.to_json()[":new"] == {}
    assert people.transact([retractions[0], {":db/id": 2, ":new": "c"}]).datom_count == 2
    assert entity(people, 1) is None


def test_what_is_asserted_by_any_form_makes_a_new_entity(people: Store) -> None:
    people.transact([{":db/id": 1, ":person/email": "a@x"}])
    report = people.transact(
        [
            {":db/id": "cas"},
            {":db/id": "reverse"},
            {":db/id": "known", ":person/tags": []},
            {":db/id": 1, ":person/boss": "known", ":person/_boss": "reverse", ":person/friend": ["cas", 99]},
            [":db/cas", "cas", ":person/age", None, 1],
            [":db/add", "known", ":person/email", "a@x"],
        ]
    )
    assert report.tempids == {"cas": 100, "reverse": 101, "known": 1}
    gone = [[":db/add", "t", ":person/age", 1], [":db/add", 1, ":person/boss", "t"], [":db/retractEntity", "t"]]
    people.transact([*gone, [":db/add", 1, ":person/boss", 1]])
    with people.db() as db:
        assert db.entity(1) == {":db/id": 1, ":person/boss": 1, ":person/email": "a@x", ":person/friend": [99, 100]}


def test_an_entity_that_is_named_by_id_need_have_nothing(people: Store) -> None:
    people.transact([{":db/id": 50}, {":db/id": 60, ":person/tags": []}, [":db/retract", 70, ":person/age"]])
    report = people.transact([{":db/id": "t", ":person/boss": 7}])
    assert report.tempids == {"t": 8}, "the ids that were only named were not taken"
    data = [{":db/id": name, ":person/age": 1} for name in ("a", "b", "c")]
    report = people.transact([*data, {":db/id": 9}, [":db/retractEntity", 11], [":db/retract", 12, ":person/age"]])
    assert report.tempids == {"a": 10, "b": 13, "c": 14}, "what is said of an id is not said of a new entity"


def test_nested_maps_are_entities(people: Store) -> None:
    people.transact([{":person/name": "a", ":person/parts": [{":person/name": "b", ":person/boss": {":person/name": "c"}}]}])
    with people.db() as db:
        assert [datom.v for datom in db.datoms("ave", ":person/name")] == ["a", "b", "c"]
        assert db.entity(1) == {":db/id": 1, ":person/name": "a", ":person/parts": [2]}
        assert db.entity(2) == {":db/id": 2, ":person/boss": 3, ":person/name": "b"}


def test_maps_may_nest_without_end(people: Store) -> None:
    form: dict[str, Any] = {":person/name": "last"}
    for _ in range(20_000):
        form = {":person/boss": form}
    assert len(people.transact([form]).datoms) == 20_001


def test_reverse_attributes(people: Store) -> None:
    people.transact([{":db/id": 1, ":person/email": "a@x"}, {":db/id": 2, ":person/name": "Bob"}])
    people.transact([{":person/name": "Cid", "person/_friend": [[":person/email", "a@x"], 2, {":person/name": "Dan"}]}])
    people.transact([{":db/id": 2, ":person/_boss": [":person/email", "a@x"]}])
    with people.db() as db:
        assert [datom.e for datom in db.datoms("ave", ":person/friend", 3)] == [1, 2, 4]
        assert db.entity(1) == {":db/id": 1, ":person/boss": 2, ":person/email": "a@x", ":person/friend": [3]}


def test_retract_entity_takes_references_and_components_along(people: Store) -> None:
    people.transact(
        [
            {":db/id": 1, ":person/name": "whole", ":person/parts": [2, 3]},
            {":db/id": 2, ":person/name": "part", ":person/parts": [4]},
            {":db/id": 3, ":person/parts": [1]},
            {":db/id": 4, ":person/name": "part of part"},
            {":db/id": 5, ":person/friend": [1, 2, 6], ":person/boss": 1, "any": {":db/id": 4}},
            {":db/id": 6, ":person/name": "friend"},
        ]
    )
    people.transact([[":db/add", 7, ":person/boss", 1], [":db/retractEntity", 1], [":db/add", 8, ":person/boss", 1]])
    with people.db() as db:
        assert [(datom.e, datom.a, datom.v) for datom in db.datoms("eav")] == [
            (5, ":person/friend", 6),
            (6, ":person/name", "friend"),
            (8, ":person/boss", 1),
        ]


def test_tuples_and_many_tuples(make_store: MakeStore) -> None:
    pair = {":db/valueType": ":db.type/tuple", ":db/tupleType": ":db.type/long"}
    store = make_store({":one": pair, ":many": pair | {":db/cardinality": ":db.cardinality/many"}})
    store.transact([{":one": [1, 2], ":many": [[3, 4], (1, None)]}, {":one": (5, 6), ":many": [7, 8]}])
    assert entity(store, 1) == {":db/id": 1, ":many": [[1, None], [3, 4]], ":one": [1, 2]}
    assert entity(store, 2) == {":db/id": 2, ":many": [[7, 8]], ":one": [5, 6]}


def test_undeclared_attributes_are_registered(make_store: MakeStore) -> None:
    store = make_store()
    store.transact(
        [{"db/id": 1, "a": 1, "b/c": "x", ":d": 1.5, "e": True, "f": {":db/id": 1}, "g": 2**70}, [":db/add", 1, "h", "y"]]
    )
    assert store.schema.to_json() == {name: {} for name in (":a", ":b/c", ":d", ":e", ":f", ":g", ":h")}
    document = {":db/id": 1, ":a": 1, ":b/c": "x", ":d": 1.5, ":e": True, ":f": {":db/id": 1}, ":g": 2**70, ":h": "y"}
    assert entity(store, 1) == document
    with store.db() as db:
        python = db.entity(1)
    assert python is not None
    assert isinstance(python[":f"], Ref)
    store.transact([python, document])
    assert entity(store, 1) == document


def test_a_document_can_be_transacted_back(people: Store) -> None:
    people.transact([{":db/id": 1, ":person/tags": ["a", "b"], ":person/friend": [1, 2], ":person/place": [1, 2.5]}])
    old = entity(people, 1)
    people.transact([[":db/retractEntity", 1]])
    people.transact([old])
    assert entity(people, 1) == old


def test_an_empty_transaction_is_one(people: Store) -> None:
    before = people.transact([]).txid
    report = people.transact([])
    assert report.txid == before + 1
    with people.db() as db:
        assert [row.txid for row in db.transactions()] == [1, before, report.txid]
        assert db.instant == report.instant


def test_values_of_python(make_store: MakeStore) -> None:
    store = make_store({":bytes": {":db/valueType": ":db.type/bytes", ":db/unique": ":db.unique/identity"}})
    report = store.transact([{":db/id": "x", ":bytes": b"\0\xff"}])
    with store.db() as db:
        assert db.entid([":bytes", b"\0\xff"]) == db.entid([":bytes", "AP8="]) == report.tempids["x"]


LONG = "a" * 5000


@pytest.mark.parametrize("many", [True, False])
def test_long_values(make_store: MakeStore, many: bool) -> None:
    text = {":db/valueType": ":db.type/string", ":db/unique": ":db.unique/identity"}
    store = make_store({":text": text | ({":db/cardinality": ":db.cardinality/many"} if many else {})})
    texts = [LONG + "2", LONG + "1", LONG[:466], LONG[:465], LONG[:480], LONG]
    for number, value in enumerate(texts, 1):
        store.transact([[":db/add", 1 if many else number, ":text", value]])
    with store.db() as db:
        assert [datom.v for datom in db.datoms("ave", ":text")] == sorted(texts)
        assert [datom.v for datom in db.datoms("eav")] == (sorted(texts) if many else texts)
        for number, value in enumerate(texts, 1):
            e = 1 if many else number
            assert db.entid([":text", value]) == e
            assert [datom.v for datom in db.datoms("ave", ":text", value)] == [value]
            assert [datom.v for datom in db.datoms("eav", e, ":text", value)] == [value]
            assert [datom.v for datom in db.range(":text", value)] == [v for v in sorted(texts) if v >= value]
            assert [datom.v for datom in db.range(":text", None, value)] == [v for v in sorted(texts) if v < value]
    report = store.transact([[":db/retract", 1, ":text", texts[0]]])
    assert [datom.v for datom in report.datoms] == [texts[0]]
