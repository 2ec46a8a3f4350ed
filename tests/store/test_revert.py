from __future__ import annotations

import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from cowfs import Db, Store
from cowfs.errors import InputError, NotFound, SchemaError, TransactionError
from cowfs.store.history.retention import Retention
from cowfs.store.read.diff import diff
from cowfs.store.tx import revert as reverting
from cowfs.store.tx.revert import RevertReport

from .conftest import PEOPLE, MakeStore, findings
from .test_model import LONG, forms

Fact = tuple[int, str, Any]


def facts(db: Db, entity: int | None = None) -> set[Fact]:
    return {datom[:3] for datom in db.datoms("eav") if entity in (None, datom.e)}


def as_of(store: Store, txid: int) -> set[Fact]:
    with store.as_of(txid) as db:
        return facts(db)


def now(store: Store) -> set[Fact]:
    with store.db() as db:
        return facts(db)


def newest(store: Store) -> int:
    with store.db() as db:
        return db.txid


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(forms(), min_size=1, max_size=9), min_size=1, max_size=5), st.data())
def test_random_transactions(transactions: list[list[Any]], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as place, Store.create(Path(place, "db"), PEOPLE, durability="none") as store:
        history = {newest(store): now(store)}
        for change in transactions:
            try:
                report = store.transact(change)
                history[report.txid] = now(store)
            except TransactionError:
                event("refused")
        for _ in range(3):
            txid, before, last = data.draw(st.sampled_from(sorted(history))), now(store), newest(store)
            reverted = store.revert(txid).transaction
            assert now(store) == history[txid]
            assert (reverted is None) == (before == history[txid])
            if reverted is None:
                assert newest(store) == last
            else:
                assert reverted.txid == last + 1
                assert {datom[:3] for datom in reverted.datoms if datom.added} == history[txid] - before
                assert {datom[:3] for datom in reverted.datoms if not datom.added} == before - history[txid]
                history[reverted.txid] = now(store)
            assert findings(store) == []
        for txid, content in history.items():
            assert as_of(store, txid) == content


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(forms(), min_size=1, max_size=9), min_size=1, max_size=5), st.integers(1, 6), st.data())
def test_random_transactions_of_one_entity(transactions: list[list[Any]], entity: int, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as place, Store.create(Path(place, "db"), PEOPLE, durability="none") as store:
        txids = [newest(store)]
        for change in transactions:
            try:
                txids.append(store.transact(change).txid)
            except TransactionError:
                event("refused")
        txid, before = data.draw(st.sampled_from(txids)), now(store)
        expected = {fact for fact in as_of(store, txid) if fact[0] == entity} | {f for f in before if f[0] != entity}
        unique = [fact[1:] for fact in expected if ":db/unique" in PEOPLE[fact[1]]]
        if len(unique) > len(set(unique)):
            event("somebody else has it")
            with pytest.raises(TransactionError, match=rf"^commit {txid} cannot be restored: .* is unique"):
                store.revert(txid, entity)
            assert now(store) == before
        else:
            assert (store.revert(txid, entity).transaction is None) == (before == expected)
            assert now(store) == expected
        assert findings(store) == []


def test_all_of_it_and_back(people: Store) -> None:
    first = people.transact(
        [
            {
                ":db/id": 1,
                ":person/email": "ann@x",
                ":person/boss": 2,
                ":person/friend": [2, 3],
                ":person/parts": [10, 11],
                ":person/tags": ["", "a", LONG, LONG + "!" * 9000],
                ":person/place": [1.5, -0.0],
                ":person/main": 10,
            },
            {":db/id": 2, ":person/email": "bob@x", ":person/boss": 1},
            {":db/id": 10, ":person/name": "a part"},
            {":db/id": 11, ":person/name": LONG, ":person/parts": [12]},
            {":db/id": 12, ":person/age": -(2**63)},
        ]
    ).txid
    there = now(people)
    gone = people.transact([[":db/retractEntity", 1], [":db/retractEntity", 2]]).txid
    assert now(people) == set()
    report = people.revert(first).transaction
    assert report is not None
    assert report.tempids == {}
    assert now(people) == there
    assert people.revert(first) == RevertReport(None)
    assert people.revert(report.txid) == RevertReport(None)
    assert newest(people) == report.txid
    assert people.revert(gone).transaction is not None
    assert now(people) == set()
    assert as_of(people, first) == as_of(people, report.txid) == there


def test_new_entities_get_new_ids_after_a_revert(people: Store) -> None:
    before = newest(people)
    made = people.transact([{":db/id": -1, ":person/name": "Ann"}]).tempids[-1]
    people.revert(before)
    assert people.transact([{":db/id": -1, ":person/name": "Bob"}]).tempids[-1] > made


def test_unique_values_that_went_round(people: Store) -> None:
    txid = people.transact([{":db/id": e, ":person/email": f"{e}@x", ":person/code": e} for e in range(1, 6)]).txid
    there = now(people)
    people.transact([{":db/id": e, ":person/email": f"{e % 5 + 1}@x", ":person/code": 6 - e} for e in range(1, 6)])
    assert now(people) != there
    report = people.revert(txid).transaction
    assert report is not None
    assert report.datom_count == 2 * (5 + 4)  # of the codes that of entity 3 has stayed
    assert now(people) == there


def test_every_type_comes_back(make_store: MakeStore) -> None:
    values: dict[str, list[Any]] = {
        "string": ["", "a\0b", "ü" * 600],
        "keyword": [":a/b"],
        "symbol": ["a/b"],
        "boolean": [True, False],
        "long": [0, -(2**63), 2**63 - 1],
        "bigint": [10**400, -(10**400), 0],
        "double": ["NaN", "-Infinity", -0.0, 0.0, 0.1],
        "float": [0.1, "Infinity"],
        "bigdec": ["1.50", "-0", "1E+300"],
        "instant": ["0001-01-01", "9999-12-31T23:59:59.999999Z"],
        "uuid": ["00000000-0000-0000-0000-0000000000ff"],
        "uri": ["not a uri"],
        "bytes": ["AAAA", ""],
        "ref": [1, 99],
    }
    many = {":db/cardinality": ":db.cardinality/many"}
    schema: dict[str, dict[str, Any]] = {f":a/{kind}": {":db/valueType": f":db.type/{kind}", **many} for kind in values}
    schema[":a/tuple"] = {":db/valueType": ":db.type/tuple", ":db/tupleTypes": [":db.type/long", ":db.type/bigdec"]}
    store = make_store({**schema, ":a/untyped": many})
    data = [[":db/add", 1, f":a/{kind}", value] for kind, some in values.items() for value in some]
    data.append([":db/add", 1, ":a/tuple", [None, "1.0"]])
    data += [[":db/add", 1, ":a/untyped", value] for value in ("s", 1, 10**30, 1.5, True, {":db/id": 7})]
    txid = store.transact(data).txid
    with store.db() as old:
        store.transact([[":db/retractEntity", 1]])
        store.revert(txid)
        with store.db() as new:
            assert list(diff(old, new)) == []
            assert new.entity_json(1) == old.entity_json(1)


def test_one_entity(people: Store) -> None:
    txid = people.transact(
        [
            {":db/id": 1, ":person/name": "Ann", ":person/boss": 2},
            {":db/id": 2, ":person/name": "Bob", ":person/friend": [1]},
        ]
    ).txid
    people.transact([[":db/retractEntity", 1], [":db/add", 2, ":person/name", "Ben"]])
    people.revert(txid, 1)
    assert now(people) == {(1, ":person/name", "Ann"), (1, ":person/boss", 2), (2, ":person/name", "Ben")}
    assert people.revert(txid, 1) == RevertReport(None, 1)
    assert people.revert(txid, 77) == RevertReport(None)
    with pytest.raises(InputError, match="entity id"):
        people.revert(txid, 0)


def _referred(people: Store) -> int:
    """Return the commit at which entity 1, gone by now, was referred to by 2, 3, 4 (gone, too), by 5 and by itself."""
    txid = people.transact(
        [
            {":db/id": 1, ":person/name": "Ann", ":person/friend": [1]},
            {":db/id": 2, ":person/boss": 1, ":person/friend": [1, 3], ":person/notes": [{":db/id": 1}]},
            {":db/id": 3, ":person/main": 1, ":person/name": "Bob"},
            {":db/id": 4, ":person/friend": [1]},
            {":db/id": 5, ":person/friend": [1]},
        ]
    ).txid
    people.transact([[":db/retractEntity", 1], [":db/retractEntity", 4]])
    people.transact(
        [[":db/add", 2, ":person/boss", 3], [":db/add", 5, ":person/friend", 1], {":db/id": 6, ":person/boss": 1}]
    )
    return txid


def test_references_to_one_entity_are_counted(people: Store) -> None:
    txid = _referred(people)
    report = people.revert(txid, 1)
    assert report.transaction is not None
    assert report.transaction.datom_count == 2
    assert report.missing_references == 5  # three of 2, one of 3, one of 4
    assert people.revert(txid, 1) == RevertReport(None, 5)
    assert people.revert(txid).missing_references == 0
    assert people.revert(txid, 1) == RevertReport(None)


def test_references_to_one_entity_are_restored(people: Store) -> None:
    txid, before = _referred(people), newest(people)
    rehearsed = people.revert(txid, 1, with_references=True, dry_run=True)
    assert rehearsed.transaction is not None
    assert newest(people) == before
    report = people.revert(txid, 1, with_references=True)
    assert report.transaction is not None
    assert (report.transaction.txid, report.missing_references) == (before + 1, 1) == (rehearsed.transaction.txid, 1)
    assert report.transaction.datoms == rehearsed.transaction.datoms
    gone, stayed = {(4, ":person/friend", 1)}, {(6, ":person/boss", 1)}
    assert now(people) == (as_of(people, txid) - gone) | stayed
    assert people.revert(txid, 1, with_references=True) == RevertReport(None, 1)
    with pytest.raises(InputError, match="goes with an entity"):
        people.revert(txid, with_references=True)


def test_a_reference_that_cannot_come_back_is_refused(people: Store) -> None:
    txid = _referred(people)
    people.transact([{":db/id": 6, ":person/main": 1}])
    before = now(people)
    with pytest.raises(TransactionError, match=rf"^commit {txid} cannot be restored: .*:person/main is unique"):
        people.revert(txid, 1, with_references=True)
    assert now(people) == before


def test_a_dry_run_changes_nothing(people: Store) -> None:
    txid = people.transact([{":db/id": 1, ":person/name": "Ann"}]).txid
    people.transact([[":db/retractEntity", 1]])
    before = newest(people)
    reports = [people.revert(txid, dry_run=dry_run).transaction for dry_run in (True, True, False)]
    assert [report.txid for report in reports if report is not None] == [before + 1] * 3
    assert people.revert(txid, dry_run=True) == RevertReport(None)
    would, did = (people.transact([{":db/id": "x", ":person/new": 1}], dry_run=dry_run) for dry_run in (True, False))
    assert (would.txid, would.tempids, would.datoms) == (did.txid, did.tempids, did.datoms)
    assert did.txid == before + 2
    with pytest.raises(TransactionError, match=r"^form 0"):
        people.transact([7], dry_run=True)


def test_somebody_else_has_the_unique_value_by_now(people: Store) -> None:
    txid = people.transact([{":db/id": 1, ":person/email": "ann@x"}]).txid
    last = people.transact([[":db/retractEntity", 1], {":db/id": 2, ":person/email": "ann@x"}]).txid
    with pytest.raises(TransactionError, match=rf"commit {txid} .*:person/email is unique.* entity 1 and of entity 2"):
        people.revert(txid, 1)
    assert newest(people) == last


def test_a_commit_must_be_retained(people: Store) -> None:
    for number in range(10):
        people.transact([{":db/id": 1, ":person/age": number}])
    people.retain(Retention(commits=2))
    last = newest(people)
    for wrong in (0, 2, last + 1):
        with pytest.raises(NotFound, match="not retained"):
            people.revert(wrong)
    assert newest(people) == last


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ({":db/valueType": ":db.type/string"}, {":db/valueType": ":db.type/long"}, "valueType"),
        ({":db/valueType": ":db.type/string"}, {}, "valueType"),
        ({}, {":db/unique": ":db.unique/value"}, "unique"),
        ({":db/cardinality": ":db.cardinality/many"}, {}, "cardinality"),
    ],
)
def test_a_schema_that_takes_less_is_refused(
    make_store: MakeStore, before: dict[str, Any], after: dict[str, Any], named: str
) -> None:
    store = make_store({":a/b": before, ":a/other": {}})
    txid = store.transact([{":db/id": 1, ":a/b": "x"}, {":db/id": 2, ":a/b": "y", ":a/other": 1}]).txid
    store.transact([[":db/retractEntity", 1], [":db/retractEntity", 2]])
    store.update_schema({":a/b": after})
    last = newest(store)
    with pytest.raises(SchemaError, match=rf"^:a/b: values of commit {txid} .*:db/{named} has changed"):
        store.revert(txid)
    assert newest(store) == last
    store.update_schema({":a/b": before})
    store.revert(txid)
    assert now(store) == as_of(store, txid)


def test_a_schema_that_takes_more_is_fine(make_store: MakeStore) -> None:
    store = make_store({":a/b": {":db/unique": ":db.unique/identity"}, ":a/c": {}})
    txid = store.transact([{":db/id": 1, ":a/b": "x", ":a/c": 1}]).txid
    store.transact([[":db/retractEntity", 1], {":db/id": 2, ":a/new": "not in the schema then"}])
    store.update_schema({":a/b": {":db/doc": "a"}, ":a/c": {":db/cardinality": ":db.cardinality/many"}})
    store.revert(txid)
    assert now(store) == as_of(store, txid)
    assert ":a/new" in store.schema


@contextmanager
def _interrupted(monkeypatch: pytest.MonkeyPatch, store: Store, data: list[Any]) -> Iterator[list[int]]:
    """Let another thread begin to transact ``data`` while a revert computes; yield the txids that it got."""
    txids: list[int] = []
    writer = threading.Thread(target=lambda: txids.append(store.transact(data).txid))

    def during(*given: Any) -> Any:
        if not writer.ident:
            writer.start()
            writer.join(0.2)
            assert writer.is_alive()  # it waits for us
        return diff(*given)

    monkeypatch.setattr(reverting, "diff", during)
    yield txids
    writer.join(10)
    assert len(txids) == 1


def test_nobody_writes_between_comparing_and_writing(people: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    txid = people.transact([{":db/id": 1, ":person/name": "Ann"}]).txid
    people.transact([[":db/add", 1, ":person/name", "Anne"]])
    with _interrupted(monkeypatch, people, [[":db/add", 1, ":person/tags", "late"]]) as late:
        report = people.revert(txid).transaction
    assert report is not None
    assert as_of(people, report.txid) == as_of(people, txid)
    assert late == [report.txid + 1]
    assert now(people) == {(1, ":person/name", "Ann"), (1, ":person/tags", "late")}


def test_beside_a_writer(people: Store) -> None:
    txid = people.transact([{":db/id": e, ":person/code": e} for e in range(1, 20)]).txid
    content, stop = now(people), threading.Event()

    def write() -> None:
        for number in range(1, 4000):
            if stop.is_set():
                break
            people.transact([{":db/id": e, ":person/code": (e + number) % 19 + 1} for e in range(1, 20)])

    writer = threading.Thread(target=write)
    writer.start()
    try:
        reports = [people.revert(txid).transaction for _ in range(100)]
    finally:
        stop.set()
        writer.join()
    done = [report.txid for report in reports if report is not None]
    assert done
    for each in done:
        assert as_of(people, each) == content


def test_what_is_reverted_to_is_not_given_up_meanwhile(people: Store) -> None:
    txid = people.transact([{":db/id": e, ":person/name": LONG} for e in range(1, 300)]).txid
    content = now(people)
    for number in range(260):
        people.transact([{":db/id": 1, ":person/age": number}])
    people.retain(Retention(commits=newest(people) + 1 - txid))
    people.transact([[":db/retractEntity", e] for e in range(1, 300)])
    people.revert(txid)
    assert now(people) == content
