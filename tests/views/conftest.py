from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cowfs import Store
from cowfs.pages.check import check_pages
from cowfs.pages.env import Env

SCHEMA = {":item/name": {":db/valueType": ":db.type/string", ":db/unique": ":db.unique/identity"}}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store with one transaction."""
    with Store.create(tmp_path / "store", SCHEMA, durability="none") as store:
        add(store, "first")
        yield store
        require_sound(store.env)


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
