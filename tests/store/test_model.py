"""Random transactions against a naive model: same facts, same reads, same refusals; refused ones change nothing."""

from __future__ import annotations

import tempfile
from itertools import groupby
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from cowfs import Db, Store
from cowfs.errors import TransactionError
from cowfs.pages.btree import TreeReader
from cowfs.pages.datafile import DataFile
from cowfs.store.datomcheck import check_store
from cowfs.store.tx import allocation

from .conftest import PEOPLE, findings
from .model import MANY, Model, Refused

LONG = "long " * 100  # its key value is digested
BARE = "bare"
ENTITIES = st.integers(-3, 6).filter(bool)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    ":person/email": st.sampled_from(["a@x", "b@x", "c@x", LONG + "@x"]),
    ":person/code": st.integers(1, 4),
    ":person/name": st.sampled_from(["Ann", "Bob", "", LONG]),
    ":person/tags": st.sampled_from(["", "t\0", "t", LONG[:466], LONG + "1", LONG + "2", LONG + "0" * 5000]),
    ":person/notes": st.sampled_from([":person/email", "a@x", "person/email", "b@x", "person/code"]),
    ":person/boss": ENTITIES,
    ":person/friend": ENTITIES,
    ":person/parts": ENTITIES,
}


@st.composite
def forms(draw: st.DrawFn) -> list[Any]:
    """Draw one list form."""
    kind = draw(st.sampled_from([":db/add"] * 6 + [":db/retract", ":db/retract", "all", ":db/retractEntity", ":db/cas"]))
    e = draw(ENTITIES)
    a = draw(st.sampled_from(sorted(VALUES)))
    if kind == ":db/retractEntity":
        return [kind, e]
    if kind == "all":
        return [":db/retract", e, a]
    if kind == ":db/cas":
        return [kind, e, ":person/name", draw(st.none() | VALUES[":person/name"]), draw(VALUES[":person/name"])]
    return [kind, e, a, draw(VALUES[a])]


@st.composite
def lists_of_values(draw: st.DrawFn) -> list[list[Any]]:
    """Draw the adds that a list of values in a map is."""
    e, a = draw(ENTITIES), draw(st.sampled_from(sorted(MANY)))
    return [[":db/add", e, a, value] for value in draw(st.lists(VALUES[a], min_size=2, max_size=3))]


@st.composite
def adds_taken_back(draw: st.DrawFn) -> list[list[Any]]:
    """Draw an add that the same transaction takes back, around a reference to its entity."""
    e, a = draw(ENTITIES), draw(st.sampled_from([":person/boss", ":person/friend"]))
    takes_back = draw(st.sampled_from([[":db/retract", e, ":person/tags", "t"], [":db/retractEntity", e]]))
    return draw(st.permutations([[":db/add", e, ":person/tags", "t"], takes_back, [":db/add", draw(ENTITIES), a, e]]))


def transactions(most: int) -> st.SearchStrategy[list[list[Any]]]:
    """Draw a transaction of list forms, and of ids alone: ``BARE`` and the id."""
    single = forms() | ENTITIES.map(lambda e: [BARE, e])
    parts = st.lists(single.map(lambda form: [form]) | lists_of_values() | adds_taken_back(), max_size=most)
    return parts.map(lambda each: [form for part in each for form in part])


def as_lists(data: list[list[Any]]) -> list[Any]:
    """Return the transaction as the store takes it."""
    return [{":db/id": form[1]} if form[0] == BARE else form for form in data]


def as_maps(data: list[list[Any]]) -> list[Any]:
    """Return the same transaction with its adds written as maps, those that follow each other as lists of many values."""
    written: list[Any] = []
    for (kind, e, a), group in groupby(data, key=lambda form: (*form[:2], form[2] if len(form) > 2 else None)):
        forms = list(group)
        if kind != ":db/add":
            written += as_lists(forms)
        elif a in MANY:
            written.append({":db/id": e, a[1:]: [form[3] for form in forms]})
        else:
            written += [{":db/id": e, a[1:]: form[3]} for form in forms]
    return written


def compare(db: Db, model: Model) -> None:
    facts = {(d.e, d.a, d.v): d.tx for d in db.datoms("eav")}
    assert facts == model.facts
    ave = list(db.datoms("ave"))
    assert {(d.e, d.a, d.v): d.tx for d in ave} == model.facts
    assert len(ave) == len(facts) == db.datom_count
    assert db.state.max_entity == model.highest
    for e in range(1, model.highest + 2):
        assert db.entity(e) == model.entity(e)
    assert list(db.entities()) == sorted({e for e, _a, _v in facts})
    for name in VALUES:
        column = [(d.v, d.e) for d in db.datoms("ave", name)]
        assert column == sorted((v, e) for e, a, v in facts if a == name)
        assert db.count(name) == len(column)


def transact(store: Store, model: Model, data: list[Any], *, maps: bool) -> None:
    before = dict(model.facts)
    try:
        expected = model.transact(data, store.env.newest_txnid() + 1)
    except Refused as refused:
        event(f"refused: {refused}")
        with pytest.raises(TransactionError, match=r"^form \d+ "):
            store.transact(as_maps(data) if maps else as_lists(data))
        return
    report = store.transact(as_maps(data) if maps else as_lists(data))
    assert report.tempids == expected
    added = {(d.e, d.a, d.v) for d in report.datoms if d.added}
    removed = {(d.e, d.a, d.v) for d in report.datoms if not d.added}
    assert added == model.facts.keys() - before.keys()
    assert removed == before.keys() - model.facts.keys()


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(transactions(7), st.booleans(), st.booleans()), min_size=1, max_size=6),
    st.sampled_from([allocation.FOLLOWED, 2]),
)
def test_random_transactions(drawn: list[tuple[list[Any], bool, bool]], followed: int) -> None:
    with tempfile.TemporaryDirectory() as place, mock.patch.object(allocation, "FOLLOWED", followed):
        store = Store.create(Path(place, "db"), PEOPLE, durability="none")
        model = Model(followed)
        for data, maps, reopen in drawn:
            transact(store, model, data, maps=maps)
            if reopen:
                store.close()
                store = Store.open(Path(place, "db"), "none")
            with store.db() as db:
                compare(db, model)
            assert findings(store) == []
        store.close()
        with DataFile(Path(place, "db")) as file:
            root = file.newest_root()
            reader = TreeReader(file, root)
            compare(Db(reader, root.txnid), model)
            assert list(check_store(reader, root.txnid)) == []


@settings(max_examples=25, deadline=None)
@given(st.lists(transactions(9), min_size=1, max_size=5))
def test_export_makes_the_same_store_again(drawn: list[list[Any]]) -> None:
    with tempfile.TemporaryDirectory() as place:
        store = Store.create(Path(place, "one"), PEOPLE, durability="none")
        for data in drawn:
            try:
                store.transact(as_lists(data))
            except TransactionError:
                event("refused")
        with store.db() as db:
            documents = list(db.export())
            facts = {datom[:3] for datom in db.datoms("ave")}
            copy = Store.create(Path(place, "two"), db.schema.to_json(), durability="none")
        copy.transact(documents)
        with copy.db() as db:
            assert {datom[:3] for datom in db.datoms("ave")} == facts
            assert list(db.export()) == documents
        assert findings(copy) == []
        copy.close()
        store.close()
