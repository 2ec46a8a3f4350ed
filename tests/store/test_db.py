"""``Db``: reads of one commit, over any reader."""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from cowfs import Datom, Db, Ref, Store, schema_json
from cowfs.errors import InputError, NotFound

from .conftest import PEOPLE, MakeStore

FAMILY: list[Any] = [
    {":db/id": 1, ":person/name": "Ann", ":person/email": "a@x", ":person/friend": [2, 3], ":person/tags": ["b", "a"]},
    {":db/id": 2, ":person/name": "Bob", ":person/boss": 1, ":person/parts": [4, 5]},
    {":db/id": 3, ":person/name": "Cid", ":person/boss": 1, ":person/age": 9},
    {":db/id": 4, ":person/name": "hand", ":person/parts": [6]},
    {":db/id": 5, ":person/name": "foot"},
    {":db/id": 6, ":person/name": "finger", ":person/parts": [2]},
]


@pytest.fixture
def family(people: Store) -> Store:
    people.transact(FAMILY)
    return people


def test_datoms_by_components(family: Store) -> None:
    with family.db() as db:
        tx = db.txid
        assert list(db.datoms("eav", 3, ":person/age")) == [Datom(3, ":person/age", 9, tx, True)]
        assert [datom.v for datom in db.datoms("eav", 1, "person/tags")] == ["a", "b"]
        assert [datom.a for datom in db.datoms("eav", [":person/email", "a@x"], "person/tags", "b")] == [":person/tags"]
        assert [datom.e for datom in db.datoms("ave", ":person/boss", 1)] == [2, 3]
        assert [datom.e for datom in db.datoms("ave", ":person/boss", {":db/id": 1}, 3)] == [3]
        assert [datom.v for datom in db.datoms("ave", ":person/name")] == ["Ann", "Bob", "Cid", "finger", "foot", "hand"]
        assert len(list(db.datoms("eav"))) == len(list(db.datoms("ave"))) == db.datom_count == 18
        assert (
            list(db.datoms("eav", 99))
            == list(db.datoms("eav", 2**60))
            == list(db.datoms("eav", ["person/email", "b"]))
            == []
        )
        assert db.count("person/name") == 6
        assert db.count(":person/code") == 0


def test_datoms_refuses_what_it_does_not_know(family: Store) -> None:
    wrong: list[tuple[Any, ...]] = [("vae",), ("eav", 1, 2), ("ave", "x y"), ("eav", 1, ":person/age", "x"), ("ave", 1)]
    with family.db() as db:
        for arguments in [*wrong, ("eav", "x"), ("eav", 1, ":person/age", 1, 1), ("eav", [":person/name", "Ann"])]:
            with pytest.raises(InputError):
                db.datoms(*arguments)
        with pytest.raises(NotFound, match=r"^no attribute :x\\n$"):
            db.count("x\n")


UNUSED: dict[str, Callable[[Db], Any]] = {
    "eav": lambda db: list(db.datoms("eav", 1, ":new")),
    "eav with a value": lambda db: list(db.datoms("eav", 1, "new", "x")),
    "ave": lambda db: list(db.datoms("ave", ":new")),
    "ave with a value": lambda db: list(db.datoms("ave", ":new", {":db/id": 1}, 1)),
    "range": lambda db: list(db.range(":new", 1, 2)),
    "count": lambda db: list(range(db.count(":new"))),
    "column size": lambda db: list(range(db.column_size("new"))),
    "pull": lambda db: db.pull([":new"], 1),
    "pull a pattern": lambda db: db.pull([{":new": [":person/name"]}], 1),
    "pull the reverse": lambda db: db.pull([":new/_one"], 1),
    "pull a pattern of the reverse": lambda db: db.pull([{"_new": ["*"]}], 1),
    "pull with options": lambda db: db.pull([[":new", ":limit", 5]], 1),
}


@pytest.mark.parametrize("read", UNUSED.values(), ids=UNUSED.keys())
def test_an_attribute_that_nobody_has_used_is_empty(make_store: MakeStore, read: Callable[[Db], Any]) -> None:
    for strict in (False, True):
        store = make_store(PEOPLE, strict=strict)
        store.transact(FAMILY)
        with store.db() as db:
            if strict:
                with pytest.raises(NotFound, match=r"^no attribute :new"):
                    read(db)
            else:
                assert not read(db)
            assert db.schema.to_json() == PEOPLE


def test_parts_of_a_pull_that_nobody_has_used_are_left_out(family: Store) -> None:
    with family.db() as db:
        pattern = [":person/name", ":new", [":nick", ":default", "?"], {":person/boss": [":new"]}]
        assert db.pull(pattern, 2) == {":person/name": "Bob", ":nick": "?"}
        with pytest.raises(NotFound, match=r"^no attribute :new$"):
            db.entid([":new", "x"])


def test_references_of_an_attribute_without_a_type_have_a_reverse(family: Store) -> None:
    family.transact([{":db/id": 3, ":likes": {":db/id": 1}}, {":db/id": 4, ":likes": 1}])
    with family.db() as db:
        assert db.pull([{":_likes": [":person/name"]}], 1) == {":_likes": [{":person/name": "Cid"}]}


def test_ranges_of_values(family: Store) -> None:
    with family.db() as db:
        assert [datom.v for datom in db.range("person/name", "Bob", "foot")] == ["Bob", "Cid", "finger"]
        assert [datom.v for datom in db.range("person/name", "foo")] == ["foot", "hand"]
        assert [datom.e for datom in db.range("person/name", None, "B")] == [1]
        assert len(list(db.range("person/name"))) == 6


def test_entities_in_blocks(family: Store) -> None:
    with family.db() as db:
        assert list(db.entities()) == [1, 2, 3, 4, 5, 6]
        assert list(db.entities(3, 5)) == [3, 4]
        assert next(db.entities(7), None) is None
        assert next(db.entities(4)) == 4


def test_entity_documents(family: Store) -> None:
    with family.db() as db:
        document = db.entity(1)
        assert document == {
            ":db/id": 1,
            ":person/email": "a@x",
            ":person/friend": [2, 3],
            ":person/name": "Ann",
            ":person/tags": ["a", "b"],
        }
        assert document is not None
        assert list(document) == [":db/id", ":person/email", ":person/friend", ":person/name", ":person/tags"]
        assert all(isinstance(value, Ref) for value in document[":person/friend"])
        assert db.entity_json([":person/email", "a@x"]) == document | {":person/friend": [{":db/id": 2}, {":db/id": 3}]}
        assert db.entity(99) is db.entity_json([":person/email", "b@x"]) is db.entity(0) is None


def test_lookups(family: Store) -> None:
    with family.db() as db:
        assert db.entid(17) == 17
        assert db.entid(("person/email", "a@x")) == 1
        assert db.entid(["person/code", 1]) is None
        for lookup in ("x", True, ["person/email"], ["person/name", "Ann"], ["person/email", 5], ["no", 1], [{}, 1]):
            with pytest.raises(InputError):
                db.entid(lookup)


BOB = {
    ":db/id": 2,
    ":person/boss": {":db/id": 1},
    ":person/name": "Bob",
    ":person/parts": [
        {
            ":db/id": 4,
            ":person/name": "hand",
            ":person/parts": [{":db/id": 6, ":person/name": "finger", ":person/parts": [{":db/id": 2}]}],
        },
        {":db/id": 5, ":person/name": "foot"},
    ],
}


@pytest.mark.parametrize(
    ("pattern", "e", "result"),
    [
        (["person/name", ":person/age"], 1, {":person/name": "Ann"}),
        ([":person/age"], 1, None),
        ([":person/age"], 99, None),
        ([":person/age", {":person/boss": [":person/name"]}, ":person/_parts"], 1, None),
        ([], 1, None),
        ([":db/id"], 1, {":db/id": 1}),
        ([":db/id", ":person/age"], 1, {":db/id": 1}),
        ([":db/id", ":person/age"], 99, None),
        (["*"], 2**70, None),
        ([":person/name"], 0, None),
        ([":person/_boss"], -1, None),
        ([{":person/boss": [":person/age"]}], 2, None),
        ([[":person/age", ":default", 0]], 1, {":person/age": 0}),
        (["*"], 99, None),
        (["*"], ["person/email", "no"], None),
        ([":db/id", "person/tags"], ["person/email", "a@x"], {":db/id": 1, ":person/tags": ["a", "b"]}),
        ([":person/friend"], 1, {":person/friend": [{":db/id": 2}, {":db/id": 3}]}),
        ([{":person/friend": ["person/name"]}], 1, {":person/friend": [{":person/name": "Bob"}, {":person/name": "Cid"}]}),
        ([{":person/friend": [":person/age"]}], 1, {":person/friend": [{":person/age": 9}]}),
        ([{":person/boss": [":person/name"]}], 2, {":person/boss": {":person/name": "Ann"}}),
        ([":person/_boss"], 1, {":person/_boss": [{":db/id": 2}, {":db/id": 3}]}),
        ([{"person/_boss": [":person/age"]}], 1, {":person/_boss": [{":person/age": 9}]}),
        ([":person/_parts"], 6, {":person/_parts": {":db/id": 4}}),
        ([[":person/friend", ":limit", 1]], 1, {":person/friend": [{":db/id": 2}]}),
        ([["person/tags", "limit", 1], ["person/age", ":default", 0]], 1, {":person/tags": ["a"], ":person/age": 0}),
        ([[":person/_boss", ":limit", 1, ":pull", [":person/name"]]], 1, {":person/_boss": [{":person/name": "Bob"}]}),
        (["*"], 2, BOB),
        ([":person/parts"], 2, {":person/parts": BOB[":person/parts"]}),
        (
            ["*", {":person/parts": [":person/name"]}],
            2,
            BOB | {":person/parts": [{":person/name": "hand"}, {":person/name": "foot"}]},
        ),
    ],
)
def test_pull(family: Store, pattern: list[Any], e: Any, result: Any) -> None:
    with family.db() as db:
        found = db.pull(pattern, e)
    assert found == result
    assert json.loads(json.dumps(found)) == result


def nested(depth: int) -> list[Any]:
    pattern: list[Any] = [":db/id"]
    for _ in range(depth):
        pattern = [{":person/boss": pattern}]
    return pattern


@pytest.mark.parametrize(
    ("pattern", "line"),
    [
        ("*", "a pull pattern is a list, not a string"),
        ([":a b"], "no attribute :a b"),
        ([":db/ident"], "no attribute :db/ident"),
        ([":person/__boss"], "no attribute :person/_boss"),
        ([":person/_name"], "only a reference has a reverse, and :person/name is none"),
        ([{":person/name": ["*"]}], ":person/name is no reference, so it takes no pattern"),
        ([{":person/friend": 5}], "a pull pattern is a list, not an integer"),
        ([5], 'a pull pattern has "*", attributes'),
        ([[":person/friend", ":limit", 0]], 'a pull pattern has "*", attributes'),
        ([[":person/friend", ":limit"]], 'a pull pattern has "*", attributes'),
        ([[":person/friend", ":nope", 1]], 'a pull pattern has "*", attributes'),
        ([[5, ":limit", 1]], "an integer where an attribute is due"),
        (nested(150), "a pull pattern nests more than 100 levels"),
    ],
)
def test_a_wrong_pattern(family: Store, pattern: Any, line: str) -> None:
    family.transact([[":db/add", 1, ":person/boss", 1]])
    with family.db() as db, pytest.raises(InputError) as caught:
        db.pull(pattern, 1)
    assert line in str(caught.value)


def test_components_in_components_end_somewhere(people: Store) -> None:
    form: dict[str, Any] = {":person/name": "last"}
    for _ in range(2000):
        form = {":person/parts": form}
    people.transact([form])
    with people.db() as db:
        pulled = db.pull(["*"], 1)
    for _ in range(101):
        assert pulled is not None
        (pulled,) = pulled[":person/parts"]
    assert pulled == {":db/id": 102}


def test_a_db_is_frozen(family: Store) -> None:
    with family.db() as before:
        document, count = before.entity(1), before.datom_count
        report = family.transact([[":db/retractEntity", 1], {":new": 1}])
        assert (before.entity(1), before.datom_count, ":new" in before.schema) == (document, count, False)
        assert before.log(report.txid) is None
        with family.db() as after:
            assert after.entity(1) is None
            assert after.txid == before.txid + 1 == report.txid
            assert after.instant == report.instant


def test_an_empty_db(make_store: MakeStore) -> None:
    with make_store().db() as db:
        assert (db.txid, db.datom_count, dict(db.schema)) == (1, 0, {})
        assert [row.instant for row in db.transactions()] == [db.instant], "when it was made"
        assert not [*db.entities(), *db.datoms("eav"), *db.export()]
        assert repr(db) == "<Db txid=1 datoms=0>"


def test_a_dropped_db_lets_its_root_go(family: Store) -> None:
    db = family.db()
    held = family.env.readers()
    assert held == [(os.getpid(), db.txid)]
    family.transact([{":db/id": 1, ":person/age": 1}])
    closed = family.db()
    assert family.env.readers() == held, "a process holds all from the oldest on"
    del db
    gc.collect()
    assert [txnid for _pid, txnid in family.env.readers()] == [closed.txid]
    closed.close()
    closed.close()
    assert family.env.readers() == []


def test_the_closer_is_called_once(family: Store) -> None:
    calls: list[int] = []
    with family.env.hold() as hold:
        with Db(hold, hold.root.txnid, lambda: calls.append(1)) as db:
            assert db.count(":person/name") == 6
        db.close()
    assert calls == [1]


def test_the_log(family: Store) -> None:
    report = family.transact([[":db/retract", 3, ":person/age"], {":db/id": 3, ":person/name": "Cyd"}])
    with family.db() as db:
        first = db.txid - 1
        row = db.log(report.txid)
        assert row is not None
        assert row.asserted == (Datom(3, ":person/name", "Cyd", report.txid, True),)
        assert row.retracted == (Datom(3, ":person/name", "Cid", first, False), Datom(3, ":person/age", 9, first, False))
        assert row.instant == report.instant
        assert abs((row.instant - datetime.now(UTC)).total_seconds()) < 60
        assert [found.txid for found in db.transactions()] == [1, first, report.txid]
        assert [found.txid for found in db.transactions(reverse=True)] == [report.txid, first, 1]
        assert [found.txid for found in db.transactions(report.txid)] == [report.txid]
        assert [found.txid for found in db.transactions(2, report.txid)] == [first]
        assert db.log(0) is db.log(-1) is db.log(2**64) is db.log(report.txid + 1) is None


def test_export_is_transaction_data(family: Store, make_store: MakeStore) -> None:
    with family.db() as db:
        lines = [json.dumps(document) for document in db.export()]
        schema = json.loads(json.dumps(schema_json(db)))
    assert schema == PEOPLE
    copy = make_store(schema)
    copy.transact([json.loads(line) for line in lines])
    with copy.db() as db:
        assert [json.dumps(document) for document in db.export()] == lines
