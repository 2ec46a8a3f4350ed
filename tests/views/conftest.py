"""Stores and histories for tests of views; each store is checked when its test has ended."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from cowfs import Store
from cowfs.commits.retained import RetainedCommits
from cowfs.engine.env import Env
from cowfs.pages.pagecheck import check_pages
from cowfs.store.datomcheck import check_store

MANY = {":db/cardinality": ":db.cardinality/many"}
SCHEMA: dict[str, dict[str, Any]] = {":item/name": {":db/valueType": ":db.type/string", ":db/unique": ":db.unique/identity"}}
PEOPLE: dict[str, dict[str, Any]] = {
    ":a/first": {},
    ":person/email": {":db/valueType": ":db.type/string", ":db/unique": ":db.unique/identity"},
    ":person/name": {":db/valueType": ":db.type/string"},
    ":person/tags": {":db/valueType": ":db.type/string", **MANY},
    ":person/friend": {":db/valueType": ":db.type/ref", **MANY},
    ":person/boss": {":db/valueType": ":db.type/ref"},
    ":person/born": {":db/valueType": ":db.type/instant"},
    ":person/weight": {":db/valueType": ":db.type/double"},
    ":person/wealth": {":db/valueType": ":db.type/bigdec"},
    ":person/key": {":db/valueType": ":db.type/bytes"},
    ":person/kind": {":db/valueType": ":db.type/keyword"},
    ":person/place": {":db/valueType": ":db.type/tuple", ":db/tupleTypes": [":db.type/double", ":db.type/string"]},
    ":any": MANY,
}


@contextmanager
def fresh(path: Path, schema: dict[str, dict[str, Any]]) -> Iterator[Store]:
    """Make a store, whose pages and datoms are checked at the end."""
    with Store.create(path, schema, durability="none") as store:
        yield store
        require_sound(store.env)
        with store.db() as db:
            assert list(check_store(db.reader, db.txnid)) == []


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store with one transaction."""
    with fresh(tmp_path / "store", SCHEMA) as store:
        add(store, "first")
        yield store


@pytest.fixture
def history(store: Store) -> Iterator[RetainedCommits]:
    """The history of ``store``, which a module may define for itself."""
    history = RetainedCommits(store.env)
    yield history
    history.close()
    assert store.env.readers() == []


@pytest.fixture
def foreign(tmp_path: Path) -> Iterator[Env]:
    """An environment that is no store."""
    with Env.create(tmp_path / "foreign", durable=False) as env:
        put(env, b"first")
        yield env
        require_sound(env)


def require_sound(env: Env) -> None:
    with env.hold() as hold:
        assert list(check_pages(env.file, hold.root)) == []


def add(store: Store, name: str) -> int:
    return store.transact([{":item/name": name}]).txid


def put(env: Env, value: bytes) -> int:
    with env.write() as txn:
        txn.create([b"a"])
        txn.put(b"a", b"key", value)
    return txn.txnid
