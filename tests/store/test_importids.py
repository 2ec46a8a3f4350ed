"""What entity ids mean in an import into a store that has entities of its own."""

from __future__ import annotations

from typing import Any

import pytest

from cowfs import Store
from cowfs.errors import EntityTaken, TransactionError
from cowfs.store.tx.importids import NewEntities, OwnEntities

from .conftest import PEOPLE, MakeStore

EXPORT: list[dict[str, Any]] = [
    {":db/id": 1, ":person/name": "Ann", ":person/boss": {":db/id": 2}, ":person/friend": [{":db/id": 1}, {":db/id": 3}]},
    {":db/id": 2, ":person/name": "Bob", ":person/email": "bob@x", ":person/notes": [{":db/id": 3}, 3, "3"]},
    {":db/id": 3, ":person/name": "Eve", ":person/parts": [{":db/id": 4, ":person/name": "part", ":person/age": 4}]},
]


@pytest.fixture
def full(people: Store) -> Store:
    """A store with entities 1 and 2, and a reference to 3, which has nothing."""
    people.transact([{":db/id": 1, ":person/name": "invoice 1"}, {":db/id": 2, ":person/code": 2, ":person/friend": [1, 3]}])
    return people


def exported(store: Store) -> list[dict[str, Any]]:
    with store.db() as db:
        return list(db.export())


# -- refused ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "form",
    [
        {":db/id": 2, ":person/name": "x"},
        {"db/id": 2, ":person/name": "x"},
        {":person/name": "x", ":person/parts": [{":db/id": 2, ":person/name": "x"}]},
        {":person/name": "x", ":person/_boss": 2},
        {":person/name": "x", ":person/_boss": [{":db/id": 2}]},
        {":person/name": "x", ":person/parts": [{":person/name": "y", ":person/_boss": 2}]},
        [":db/add", 9, ":person/friend", {":db/id": 2, ":person/name": "x"}],
    ],
)
def test_a_map_that_names_an_entity_of_the_store_is_refused(full: Store, form: Any) -> None:
    before, ids = exported(full), OwnEntities()
    for data in ([{":person/name": "fine"}, form], [form]):
        with pytest.raises(EntityTaken, match=r"^entity 2 has data that this import did not make$") as refused:
            full.transact(data, ids=ids)
        assert refused.value.form == len(data) - 1
    assert exported(full) == before


@pytest.mark.parametrize(
    "form",
    [
        {":db/id": 3, ":person/name": "x"},  # it was referred to, and has nothing
        {":db/id": 9, ":person/name": "x", ":person/friend": [1, {":db/id": 2}]},
        {":db/id": [":person/code", 2], ":person/name": "x"},
        {":person/email": "x", ":person/boss": 2},
        [":db/add", 2, ":person/name", "x"],
        [":db/retractEntity", 2],
        {":db/id": -2, ":person/name": "x"},
        {":db/id": 2},
    ],
)
def test_what_means_an_entity_of_the_store_is_taken(full: Store, form: Any) -> None:
    full.transact([form], ids=OwnEntities())


def test_entities_of_the_import_itself_are_named_again(full: Store) -> None:
    ids = OwnEntities()
    full.transact(
        [{":db/id": 7, ":person/name": "x", ":person/friend": [{":db/id": 8}]}, [":db/add", 9, ":person/age", 1]], ids=ids
    )
    full.transact(
        [{":db/id": 7, ":person/age": 1}, {":db/id": 8, ":person/age": 1}, {":db/id": 9, ":person/age": 2}], ids=ids
    )
    (made,) = full.transact([{":db/id": -1, ":person/name": "y"}], ids=ids).tempids.values()
    with pytest.raises(EntityTaken, match=rf"^entity {made} "):
        full.transact([{":db/id": made, ":person/name": "the entity of a line, by chance"}], ids=ids)


def test_what_was_refused_is_not_of_the_import(full: Store) -> None:
    ids = OwnEntities()
    with pytest.raises(TransactionError):
        full.transact([{":db/id": 7, ":person/name": "x"}, [":db/explode"]], ids=ids)
    full.transact([{":db/id": 7, ":person/name": "another's"}])
    with pytest.raises(EntityTaken, match=r"^entity 7 "):
        full.transact([{":db/id": 7, ":person/name": "x"}], ids=ids)


def test_skipped_lines_are_of_the_import(full: Store) -> None:
    ids = OwnEntities()
    for form in *EXPORT, [":db/add", 2, ":person/age", 1], 7, [], {":db/id": True}, [":db/add"]:
        ids.skip(form)
    full.transact([{":db/id": 2, ":person/name": "x"}], ids=ids)
    full.transact([{":db/id": 1, ":person/parts": [{":db/id": 4, ":person/name": "x"}]}], ids=ids)
    other = OwnEntities()
    other.skip({":person/friend": [{":db/id": 1}]})
    with pytest.raises(EntityTaken):
        full.transact([{":db/id": 1, ":person/name": "x"}], ids=other)


# -- renumbered ---------------------------------------------------------------------------------------------------------


def _renumbered(document: Any, ids: dict[int, int]) -> Any:
    if isinstance(document, list):
        return [_renumbered(part, ids) for part in document]
    if isinstance(document, dict):
        return {key: ids[part] if key == ":db/id" else _renumbered(part, ids) for key, part in document.items()}
    return document


@pytest.mark.parametrize("batch", [1, 2, 3])
@pytest.mark.parametrize("backwards", [False, True])
def test_an_export_gets_new_ids(full: Store, make_store: MakeStore, batch: int, backwards: bool) -> None:
    source = make_store(PEOPLE)
    source.transact(EXPORT)
    lines, before, ids = exported(source), exported(full), NewEntities()
    forms = lines[::-1] if backwards else lines
    for first in range(0, len(forms), batch):
        full.transact(forms[first : first + batch], ids=ids)
    ids.require_complete()
    assert sorted(ids.renumbered) == [1, 2, 3, 4]
    assert sorted(ids.renumbered.values()) == [4, 5, 6, 7]
    after = {document[":db/id"]: document for document in exported(full)}
    assert [after.pop(document[":db/id"]) for document in before] == before
    for line in lines:
        copied = after.pop(ids.renumbered[line[":db/id"]])
        references = {key: sorted(value, key=str) if isinstance(value, list) else value for key, value in copied.items()}
        expected = _renumbered(line, ids.renumbered)
        assert references == {key: sorted(v, key=str) if isinstance(v, list) else v for key, v in expected.items()}
    assert after == {}


def test_every_place_of_an_id_is_renumbered(full: Store) -> None:
    ids = NewEntities()
    full.transact(
        [
            [":db/add", 2, ":person/friend", 1],
            [":db/add", 1, ":person/boss", {":db/id": 2}],
            {":db/id": 3, ":person/_friend": [1], ":person/name": "x", ":person/tags": ["1"]},
            {"db/id": 2, ":person/parts": [{":db/id": 5, ":person/age": 1}], ":person/notes": [1, {":db/id": 1}]},
            {":db/id": "t", ":person/friend": [1, [":person/code", 2]]},
        ],
        ids=ids,
    )
    full.transact([[":db/retract", 1, ":person/boss", 2], [":db/cas", 3, ":person/name", "x", "y"]], ids=ids)
    full.transact([[":db/retractEntity", 5], {":db/id": 2**53 - 1, ":person/boss": 3}], ids=ids)
    ids.require_complete()
    one, two, three, last = (ids.renumbered[number] for number in (1, 2, 3, 2**53 - 1))
    documents = {document[":db/id"]: document for document in exported(full)}
    assert ":person/boss" not in documents[one]
    assert documents[one][":person/friend"] == [{":db/id": three}]
    assert documents[two][":person/notes"] == [1, {":db/id": one}]
    assert documents[three] == {":db/id": three, ":person/name": "y", ":person/tags": ["1"]}
    assert documents[last][":person/boss"] == {":db/id": three}
    (referrer,) = (d for d in documents.values() if {":db/id": 2} in d.get(":person/friend", []))
    assert {":db/id": one} in referrer[":person/friend"]


def test_a_unique_value_leads_to_the_entity_of_the_store(full: Store) -> None:
    full.transact([{":db/id": 2, ":person/email": "bob@x"}])
    ids = NewEntities()
    full.transact(EXPORT, ids=ids)
    assert ids.renumbered[2] == 2
    with full.db() as db:
        assert db.entity(2) is not None
        assert db.entity(ids.renumbered[1])[":person/boss"] == 2  # type: ignore[index]


def test_a_unique_value_comes_too_late_for_an_entity_that_has_an_id(full: Store) -> None:
    full.transact([{":db/id": 2, ":person/email": "bob@x"}])
    ids = NewEntities()
    full.transact(EXPORT[:1], ids=ids)
    with pytest.raises(TransactionError, match=":person/email is unique"):
        full.transact(EXPORT[1:], ids=ids)


def test_references_that_lead_nowhere_are_said(full: Store) -> None:
    ids = NewEntities()
    full.transact(EXPORT[:1], ids=ids)
    with pytest.raises(
        TransactionError, match=r"^entity 2 of the data \(and 1 more\) is referred to, and no line defines it$"
    ):
        ids.require_complete()
    full.transact(EXPORT[2:], ids=ids)
    with pytest.raises(TransactionError, match=r"^entity 2 of the data is referred to, and no line defines it$"):
        ids.require_complete()
    full.transact(EXPORT[1:2], ids=ids)
    ids.require_complete()


def test_a_failed_batch_leaves_no_ids(full: Store) -> None:
    ids = NewEntities()
    with pytest.raises(TransactionError):
        full.transact([*EXPORT, [":db/explode"]], ids=ids)
    assert ids.renumbered == {}
    ids.require_complete()
    full.transact([{":person/name": "another's"}])
    full.transact(EXPORT, ids=ids)
    assert min(ids.renumbered.values()) == 5


# -- rehearsed ----------------------------------------------------------------------------------------------------------


def test_a_rehearsal_goes_on_where_it_was(full: Store) -> None:
    before = exported(full)
    with full.db() as db:
        txid = db.txid
    for ids in (OwnEntities(), NewEntities(), None):
        with full.rehearsal() as rehearsal:
            first = rehearsal.transact([{":db/id": 7, ":person/email": "x", ":person/new": 1}], ids=ids)
            second = rehearsal.transact([{":db/id": 7, ":person/age": 1}, {":person/email": "x", ":person/new": 2}], ids=ids)
            assert {datom.e for datom in (*first.datoms, *second.datoms)} == {4 if isinstance(ids, NewEntities) else 7}
            assert first.txid == second.txid == txid + 1
            assert [datom.added for datom in second.datoms] == [True, True, False]
            with pytest.raises(TransactionError):
                rehearsal.transact([[":db/explode"]], ids=ids)
            for _ in range(20):
                assert rehearsal.transact([{":person/name": "more"}], ids=ids).txid == txid + 1
    assert exported(full) == before
    assert full.transact([{":person/name": "x"}]).txid == txid + 1
