"""What was closed: every public call raises ``Closed``, never a false alarm, and never a read of somebody else's file."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cowfs import Db, Store
from cowfs.engine.env import Env
from cowfs.engine.holds import Hold
from cowfs.engine.writetxn import WriteTxn
from cowfs.errors import Closed
from cowfs.pages.datafile import DataFile
from cowfs.store.history.retention import DEFAULT_RETENTION
from cowfs.store.history.timeline import Timeline

from .conftest import findings

SCHEMA = {":name": {":db/unique": ":db.unique/identity"}}

# How each public method is called. A new one wants a line here.
ARGUMENTS: dict[type, dict[str, tuple[Any, ...]]] = {
    Store: {
        "as_of": (2,),
        "db": (),
        "name": ("n", "me"),
        "rehearsal": (),
        "retain": (DEFAULT_RETENTION,),
        "revert": (2,),
        "timeline": (),
        "transact": ([],),
        "unname": ("n",),
        "update_schema": ({":new": {}},),
    },
    Db: {
        "attribute": (":name",),
        "column_size": (":name",),
        "count": (":name",),
        "datoms": ("eav",),
        "entid": (1,),
        "entities": (),
        "entity": (1,),
        "entity_json": (1,),
        "export": (),
        "last_touched": (1,),
        "log": (2,),
        "pull": (["*"], 1),
        "range": (":name",),
        "transactions": (),
    },
    Timeline: {
        "at": (datetime.now(UTC),),
        "bytes_between": (2, 3),
        "bytes_of_names": (),
        "instant": (2,),
        "oldest_within": (DEFAULT_RETENTION,),
        "snapshot": ("n",),
        "txnid": (2,),
    },
    Hold: {
        "databases": (),
        "extents": (b"eav", b"", b"\xff"),
        "get": (b"eav", b"x"),
        "keys": (b"eav",),
        "prefixes": (b"eav", 1),
        "record": (b"eav",),
        "require_run": (2, 1),
        "scan": (b"eav",),
    },
    WriteTxn: {
        "create": ([b"a"],),
        "delete": (b"eav", b"x"),
        "get": (b"eav", b"x"),
        "keys": (b"eav",),
        "prefixes": (b"eav", 1),
        "put": (b"eav", b"x", b"y"),
        "put_many": (b"eav", [(b"x", b"y")]),
        "scan": (b"eav",),
    },
    Env: {
        "claim_pin": (),
        "evict_dead_readers": (),
        "give_up_history": (),
        "hold": (),
        "newest_txnid": (),
        "open_database": (b"a", None),
        "readers": (),
        "require_idle": (),
        "sync": (),
        "write": (),
    },
    DataFile: {
        "header": (2,),
        "meta": (0,),
        "meta_pages": (),
        "newest_root": (),
        "newest_txnid": (),
        "page": (2,),
        "pread": (1, 0),
        "raw_txnids": (),
        "readinto": (memoryview(bytearray(1)), 0),
        "require_open": (),
        "settled_meta_pages": (),
        "size": (),
        "status": (),
    },
}
# What may be called on a closed one, or gets it; and what takes what only a reader of its own hands out.
APART = {
    Store: {"close", "create", "open"},
    Db: {"close"},
    Hold: {"big_value_pgno", "close", "leaves", "require_steady", "scan_integers", "scan_tree", "value"},
    WriteTxn: {"abort", "commit"},
    Env: {"close", "create", "open"},
    DataFile: {"close", "closed", "require_possible"},
}
KEYWORDS: dict[tuple[type, str], dict[str, Any]] = {(Env, "open_database"): {"create": False}}


def public(kind: type) -> set[str]:
    """Return the public methods and properties of a class, its base classes' included, but for those that stand apart."""
    return {name for name in dir(kind) if not name.startswith("_")} - APART.get(kind, set())


def is_known(kind: type, name: str) -> bool:
    return name in ARGUMENTS[kind] or not callable(getattr(kind, name))


CALLS = [(kind, name) for kind in ARGUMENTS for name in sorted(public(kind)) if is_known(kind, name)]


def do(thing: Any, name: str) -> None:
    """Make the call on ``thing``; enter what is a block, and read to its end what is an iterator."""
    result = getattr(thing, name)
    if callable(result):
        result = result(*ARGUMENTS[type(thing)][name], **KEYWORDS.get((type(thing), name), {}))
    if hasattr(result, "__enter__"):
        with result:
            pass
    elif isinstance(result, Iterator):
        list(result)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("closed") / "db"
    with Store.create(path, SCHEMA, durability="none") as store:
        for number in range(3):
            store.transact([{":name": f"name {number}", ":text": str(number) * 3000} for number in range(20)])
        assert findings(store) == []
    yield path
    with Store.open(path, "none") as store:
        assert findings(store) == []


def opened(database: Path) -> tuple[Store, dict[type, Any]]:
    """Return a store, and one of everything that can be closed with it."""
    store = Store.open(database, "none")
    env, hold = store.env, store.env.hold()
    with env.write() as txn:
        txn.abort()
    return store, {
        Store: store,
        Db: store.db(),
        Timeline: Timeline(env, hold),
        Hold: hold,
        WriteTxn: txn,
        Env: env,
        DataFile: env.file,
    }


@pytest.mark.parametrize("kind", ARGUMENTS)
def test_every_public_method_is_tried(kind: type) -> None:
    unknown = [name for name in public(kind) if not is_known(kind, name)]
    assert unknown == [], f"say in ARGUMENTS how they are called on a closed {kind.__name__}"


@pytest.mark.parametrize(("kind", "name"), CALLS, ids=[f"{kind.__name__}.{name}" for kind, name in CALLS])
def test_every_call_on_what_is_closed_says_so(database: Path, kind: type, name: str) -> None:
    store, things = opened(database)
    store.close()
    store.close()
    with pytest.raises(Closed, match=r"closed|ended"):
        do(things[kind], name)


@pytest.mark.parametrize("name", [name for kind, name in CALLS if kind is Db])
def test_a_db_that_was_closed_says_so_while_its_store_is_open(database: Path, name: str) -> None:
    with Store.open(database, "none") as store:
        db = store.as_of(2)
        db.close()
        with pytest.raises(Closed, match="the Db of commit 2 is closed"):
            do(db, name)
        assert (db.txid, repr(db)) == (2, "<Db txid=2 datoms=40 closed>")


ITERATORS: dict[str, Callable[[Db], Iterator[object]]] = {
    "datoms": lambda db: db.datoms("eav"),
    "range": lambda db: db.range(":name"),
    "entities": lambda db: db.entities(),
    "export": lambda db: db.export(),
    "transactions": lambda db: db.transactions(),
}


@pytest.mark.parametrize("name", ITERATORS)
@pytest.mark.parametrize("begun", [0, 1, 2, "all"])
def test_an_iterator_does_not_outlive_its_db(database: Path, name: str, begun: int | str) -> None:
    """An end would look like the last of what there is."""
    with Store.open(database, "none") as store:
        with store.db() as db:
            count = len(list(ITERATORS[name](db))) if begun == "all" else int(begun)
            iterator = ITERATORS[name](db)
            for _ in range(count):
                next(iterator)
        with pytest.raises(Closed):
            next(iterator)


def test_an_iterator_of_a_transaction_does_not_outlive_it(database: Path) -> None:
    with Store.open(database, "none") as store:
        with store.env.write() as txn:
            scans = [txn.scan(b"eav"), txn.scan(b"eav", reverse=True), txn.keys(b"eav"), txn.prefixes(b"eav", 3)]
            for scan in scans[:2]:
                next(scan)
            txn.abort()
        for scan in scans:
            with pytest.raises(Closed):
                next(scan)


def test_a_reader_does_not_seem_complete_when_it_is_closed(database: Path) -> None:
    with Store.open(database, "none") as store:
        hold = store.env.hold()
        scan = hold.scan(b"eav")
        next(scan)
        hold.close()
        with pytest.raises(Closed):
            list(scan)


def test_one_user_of_an_environment_cannot_close_it_for_another(database: Path) -> None:
    with Store.open(database, "none") as store:
        other = Store.open(database, "none")
        db = other.db()
        for _ in range(3):
            other.close()
        with pytest.raises(Closed):
            db.entity(1)
        with store.db() as mine:
            assert mine.datom_count == 40
    with pytest.raises(Closed):
        other.transact([])


def test_a_closed_file_is_never_another_file(database: Path, tmp_path: Path) -> None:
    """The number of its descriptor is given to the next file that is opened, perhaps while a thread is about to read."""
    foreign = tmp_path / "foreign"
    foreign.write_bytes(b"foreign" * 10_000)
    expected = {(database / "data.mdb").read_bytes()[:64]}
    seen: set[bytes] = set()
    files = [DataFile(database) for _ in range(200)]
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            for file in files:
                with suppress(Closed):
                    seen.add(file.pread(64, 0))

    threads = [threading.Thread(target=read) for _ in range(3)]
    for thread in threads:
        thread.start()
    descriptors = []
    for file in files:
        file.close()
        descriptors.append(os.open(foreign, os.O_RDONLY))
    done.set()
    for thread in threads:
        thread.join(30)
    for descriptor in descriptors:
        os.close(descriptor)
    assert seen <= expected
