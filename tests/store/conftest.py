"""Stores for tests; each is checked when its test has ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cowfs import Store
from cowfs.store.datomcheck import check_store

PEOPLE: dict[str, dict[str, Any]] = {
    ":person/email": {":db/valueType": ":db.type/string", ":db/unique": ":db.unique/identity"},
    ":person/code": {":db/valueType": ":db.type/long", ":db/unique": ":db.unique/value"},
    ":person/name": {":db/valueType": ":db.type/string"},
    ":person/age": {":db/valueType": ":db.type/long"},
    ":person/tags": {":db/valueType": ":db.type/string", ":db/cardinality": ":db.cardinality/many"},
    ":person/boss": {":db/valueType": ":db.type/ref"},
    ":person/friend": {":db/valueType": ":db.type/ref", ":db/cardinality": ":db.cardinality/many"},
    ":person/parts": {
        ":db/valueType": ":db.type/ref",
        ":db/cardinality": ":db.cardinality/many",
        ":db/isComponent": True,
    },
    ":person/place": {":db/valueType": ":db.type/tuple", ":db/tupleTypes": [":db.type/double", ":db.type/double"]},
    ":person/main": {":db/valueType": ":db.type/ref", ":db/unique": ":db.unique/identity"},
    ":person/notes": {":db/cardinality": ":db.cardinality/many"},
}

MakeStore = Callable[..., Store]


def findings(store: Store) -> list[str]:
    with store.db() as db:
        return list(check_store(db.reader, db.txnid))


@pytest.fixture
def make_store(tmp_path: Path) -> Iterator[MakeStore]:
    stores: list[Store] = []

    def make(schema: dict[str, dict[str, Any]] | None = None, *, strict: bool = False) -> Store:
        stores.append(Store.create(tmp_path / f"db{len(stores)}", schema, strict, "none"))
        return stores[-1]

    yield make
    for store in stores:
        assert findings(store) == []
        store.close()


@pytest.fixture
def people(make_store: MakeStore) -> Store:
    return make_store(PEOPLE)
