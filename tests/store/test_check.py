"""``check_store`` finds what is wrong, says it in one line, and never raises."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cowfs import Store
from cowfs.engine.writetxn import WriteTxn
from cowfs.errors import CorruptDatabase
from cowfs.pages.reader import Reader
from cowfs.store.datomcheck import check_store
from cowfs.store.model.encoding import encode_bigint, encode_long, encode_ref, encode_text, key_value
from cowfs.store.model.layout import DATABASES, TOUCHED, State

from .conftest import PEOPLE, findings

DATABASES_OF_DATOMS = [*DATABASES, TOUCHED]
Damage = Callable[[WriteTxn], None]


@pytest.fixture
def sound(tmp_path: Path) -> Iterator[Store]:
    """Yield a store that the test will damage, so it is not checked when the test ends."""
    store = Store.create(tmp_path / "db", PEOPLE, durability="none")
    store.transact(
        [
            {":db/id": 1, ":person/email": "a@x", ":person/name": "Ann", ":person/friend": [2], ":person/tags": ["x" * 600]},
            {":db/id": 2, ":person/email": "b@x", ":person/age": 5},
        ]
    )
    assert findings(store) == []
    yield store
    store.close()


def e(number: int) -> bytes:
    return number.to_bytes(8, "big")


def aid(name: str) -> bytes:
    return (list(PEOPLE).index(name) + 1).to_bytes(4, "big")


def text(value: str) -> bytes:
    return encode_text(0x50, value)


NAME, AGE, EMAIL, FRIEND, TAGS = (aid(":person/" + name) for name in ("name", "age", "email", "friend", "tags"))
TX = e(2)
LONG = text("x" * 600)
OTHER = text("y" * 600)


def both(txn: WriteTxn, entity: int, attribute: bytes, value: bytes, tx: bytes = TX, kept: bytes = b"") -> None:
    txn.put(b"eav", e(entity) + attribute + value, tx + kept)
    txn.put(b"ave", attribute + value + e(entity), tx)


def state(txn: WriteTxn, **fields: int) -> None:
    values = {"txid": 2, "instant": 0, "offset": 0, "max_entity": 2, "datoms": 6} | fields
    txn.put(b"cowfs", b"state", State(**values).pack())


def delete(txn: WriteTxn, name: bytes, key: bytes) -> None:
    assert txn.delete(name, key)


def keys_that_are_none(txn: WriteTxn) -> None:
    for name in (b"eav", b"ave"):
        txn.put(name, b"short", b"x")


DAMAGES: dict[str, tuple[Damage, list[str]]] = {
    "a datom only in eav": (
        lambda txn: delete(txn, b"ave", NAME + text("Ann") + e(1)),
        ["entity 1 :person/name: a datom of eav is not in ave, or with another transaction"],
    ),
    "a datom only in ave": (
        lambda txn: txn.put(b"ave", NAME + text("Bob") + e(2), TX),
        ["entity 2 :person/name: a datom of ave is not in eav, or with another transaction"],
    ),
    "another transaction": (
        lambda txn: txn.put(b"ave", NAME + text("Ann") + e(1), e(1)),
        ["entity 1 :person/name: a datom of eav", "entity 1 :person/name: a datom of ave"],
    ),
    "many datoms only in ave": (
        lambda txn: txn.put_many(b"ave", [(AGE + encode_long(n) + e(2), TX) for n in range(100, 200)]),
        ["entity 2 :person/age: a datom of ave is not in eav"] * 20 + ["eav and ave differ in more datoms"],
    ),
    "an id above the highest": (
        lambda txn: txn.put(b"cowfs", b"allocated", e(3)),
        ["the store gave the entity id 3, above its highest one, 2"],
    ),
    "a record of ids that is none": (
        lambda txn: txn.put(b"cowfs", b"allocated", b"x"),
        ["the store's record of the highest id that it gave is damaged"],
    ),
    "a count": (
        lambda txn: txn.put(b"cowfs", b"count/" + NAME, e(7)),
        [":person/name: the store says 7 datoms, and eav has 1"],
    ),
    "a count of no attribute": (
        lambda txn: txn.put(b"cowfs", b"count/" + b"\0\0\1\0", e(7)),
        ["attribute 256: the store says 7 datoms, and eav has 0"],
    ),
    "a count key that is none": (
        lambda txn: txn.put(b"cowfs", b"count/" + b"long key", e(7)),
        ["the store says 7 datoms, and eav has 0"],
    ),
    "a datom more": (
        lambda txn: both(txn, 1, AGE, encode_long(3)),
        ["the store says that it has 6 datoms, and eav has 7", ":person/age: the store says 1 datoms, and eav has 2"],
    ),
    "a second value": (
        lambda txn: both(txn, 2, AGE, encode_long(6)),
        ["eav, entity 2 :person/age: a second value of an attribute with cardinality one", "eav has 7", "1 datoms"],
    ),
    "a value of another type": (
        lambda txn: both(txn, 1, AGE, encode_bigint(6)),
        ["eav, entity 1 :person/age: the value 6 is not of type long", "eav has 7", "1 datoms"],
    ),
    "a value that is none": (
        lambda txn: both(txn, 1, AGE, b"\x20\0"),
        ["eav, entity 1 :person/age: no value has the encoding 2000", "eav has 7", "1 datoms"],
    ),
    "a value in another encoding": (
        lambda txn: both(txn, 1, AGE, b"\x21\xfe\0\0\0\1\5"),
        ["eav, entity 1 :person/age: the value 5 is not encoded as it would be", "eav has 7", "1 datoms"],
    ),
    "a reference to nobody": (
        lambda txn: both(txn, 1, FRIEND, encode_ref(3)),
        ["eav, entity 1 :person/friend: a reference to 3, which no entity can be", "eav has 7", "1 datoms"],
    ),
    "a transaction that has not been": (
        lambda txn: both(txn, 1, AGE, encode_long(6), e(9)),
        ["eav, entity 1 :person/age: of a transaction that has not been", "eav has 7", "1 datoms"],
    ),
    "an entity above the highest": (
        lambda txn: both(txn, 3, AGE, encode_long(6)),
        ["eav has 7", "entity 3 is above the highest entity id of the store, 2", "1 datoms"],
    ),
    "an entity id that is none": (
        lambda txn: both(txn, 2**60, AGE, encode_long(6)),
        [f"eav, entity {2**60} :person/age: no entity has such an id", "eav has 7", f"entity {2**60} is above", "1 datoms"],
    ),
    "no such attribute": (
        lambda txn: both(txn, 2, b"\0\0\1\0", encode_long(6)),
        ["eav, entity 2 attribute 256: no such attribute", "eav has 7", "attribute 256: the store says 0 datoms"],
    ),
    "a unique value twice": (
        lambda txn: both(txn, 1, EMAIL, text("b@x")),
        [
            "eav, entity 1 :person/email: a second value",
            "ave, entity 2 :person/email: the value is unique, and entity 1 has it too",
            "eav has 7",
            "3",
        ],
    ),
    "a long value that is not there": (
        lambda txn: txn.put(b"eav", e(1) + TAGS + key_value(LONG), TX),
        ["eav, entity 1 :person/tags: a long value is not there"],
    ),
    "a long value with another digest": (
        lambda txn: txn.put(b"eav", e(1) + TAGS + key_value(LONG), TX + OTHER),
        ["eav, entity 1 :person/tags: a long value does not fit its digest"],
    ),
    "a short value kept aside": (
        lambda txn: txn.put(b"eav", e(2) + AGE + encode_long(5), TX + encode_long(5)),
        ["eav, entity 2 :person/age: a long value does not fit its digest"],
    ),
    "keys that are none": (
        keys_that_are_none,
        [
            "an entry of 5 and 1 bytes is no datom",
            "ave: an entry of 5 and 1 bytes is no datom",
            "6 datoms, and eav has 7",
        ],
    ),
    "an attribute record": (
        lambda txn: txn.put(b"cowfs", b"attribute/" + AGE, b"{}"),
        ["attribute 4 record is damaged", "eav, entity 2 attribute 4: no such attribute", "row of transaction 2 is damaged"],
    ),
    "an attribute without datoms": (
        lambda txn: txn.put(b"cowfs", b"attribute/" + b"\0\0\1\0", b'{"name": ":new"}'),
        [],
    ),
    "two attributes with one name": (
        lambda txn: txn.put(b"cowfs", b"attribute/" + b"\0\0\1\0", b'{"name": ":person/code"}'),
        [":person/code is defined twice"],
    ),
    "a damaged row": (
        lambda txn: txn.put(b"log", e(2), b"\0" * 20),
        [
            "the log's row of transaction 2 is damaged",
            "the log: transaction 2 is of 1970",
            "the newest transaction of the log is 2 of 1970",
        ],
    ),
    "no row": (lambda txn: delete(txn, b"log", e(2)), ["the newest transaction of the log is 1 of "]),
    "a row of an impossible instant": (
        lambda txn: txn.put(b"log", e(1), b"\x0f" + b"\xff" * 7 + b"\0" * 8),
        ["the log's row of transaction 1 is damaged", "the log: transaction 2 is of "],
    ),
    "a row before the one before": (
        lambda txn: txn.put(b"log", e(1), b"\0\x10" + b"\0" * 14),
        ["the log: transaction 2 is of "],
    ),
    "a step of the clock that was none": (
        lambda txn: txn.put(b"cowfs", b"steps", e(0) + e(2)),
        ["the record of the clock's steps says that it went back before transaction 2, and it did not"],
    ),
    "a damaged record of the clock's steps": (
        lambda txn: txn.put(b"cowfs", b"steps", b"x"),
        ["the store's record of the clock's steps is damaged"],
    ),
    "another instant": (state, ["the newest transaction of the log is 2 of 2"]),
    "a txid from the future": (
        lambda txn: state(txn, txid=0, instant=2**55, max_entity=2**60),
        ["the highest entity id ", "of a transaction", "of 3111-09-"],
    ),
    "an instant of no year": (lambda txn: state(txn, instant=2**62), ["the store's state record is damaged"]),
    "a txid that none can have": (lambda txn: state(txn, txid=2**63), ["the store's state record is damaged"]),
    "an offset that none can have": (lambda txn: state(txn, offset=2**64 - 1), ["the store's state record is damaged"]),
    "no state": (lambda txn: txn.put(b"cowfs", b"state", b"x"), ["the store's state record is missing or damaged"]),
    "no format": (lambda txn: delete(txn, b"cowfs", b"format"), ["an LMDB environment, but not a cowfs store"]),
    "a damaged format": (lambda txn: txn.put(b"cowfs", b"format", b"{}"), ["the store's format record is damaged"]),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_found(sound: Store, name: str) -> None:
    damage, lines = DAMAGES[name]
    with sound.env.write() as txn:
        damage(txn)
    with sound.env.hold() as hold:
        found = list(check_store(hold, hold.root.txnid))
    assert all("\n" not in line for line in found)
    for line in lines:
        assert any(line in other for other in found), found
    if name != "a txid from the future":
        assert len(found) == len(lines), found


class Broken(Reader):
    """A reader that fails on one database."""

    def __init__(self, reader: Reader, name: bytes) -> None:
        self.reader = reader
        self.name = name

    def get(self, name: bytes, key: bytes) -> bytes | None:
        return self.reader.get(name, key)

    def scan(
        self, name: bytes, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        if name == self.name:
            raise CorruptDatabase("a damaged page", 7)
        return self.reader.scan(name, start, stop, reverse=reverse)


@pytest.mark.parametrize("name", DATABASES_OF_DATOMS)
def test_a_damaged_page_is_a_finding(sound: Store, name: bytes) -> None:
    with sound.env.hold() as hold:
        found = list(check_store(Broken(hold, name), hold.root.txnid))
    assert "page 7: a damaged page" in found


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(DATABASES_OF_DATOMS),
    st.integers(0, 99),
    st.booleans(),
    st.integers(0, 9999),
    st.binary(max_size=9),
)
def test_random_damage_never_raises(name: bytes, entry: int, in_key: bool, at: int, junk: bytes) -> None:
    reader = Tampered()
    entries = reader.databases[name]
    key = sorted(entries)[entry % len(entries)]
    value = entries.pop(key)
    target = key if in_key else value
    at %= len(target) + 1
    changed = target[:at] + junk + target[at + len(junk) :]
    if in_key:
        entries[changed or b"\0"] = value
    else:
        entries[key] = changed
    found = list(check_store(reader, 3))
    assert all(isinstance(line, str) and "\n" not in line for line in found)
    if name in (b"eav", b"ave") and changed != target:
        assert found


class Tampered(Reader):
    """A reader of dicts with the content of a sound store."""

    content: dict[bytes, dict[bytes, bytes]] = {}  # noqa: RUF012 - read from a store once

    def __init__(self) -> None:
        self.databases = {name: dict(entries) for name, entries in (self.content or self.fill()).items()}

    @classmethod
    def fill(cls) -> dict[bytes, dict[bytes, bytes]]:
        with tempfile.TemporaryDirectory() as place, Store.create(Path(place, "db"), PEOPLE, durability="none") as store:
            people = [
                {":db/id": n, ":person/email": f"{n}@x", ":person/age": n, ":person/tags": ["t" * 600, "u"]} for n in (1, 2)
            ]
            store.transact([*people, {":person/place": [0.5, None], ":person/boss": 1, "big": 2**70, "part": True}])
            store.transact([[":db/retract", 1, ":person/age"]])
            assert findings(store) == []
            with store.env.hold() as hold:
                cls.content.update({name: dict(hold.scan(name)) for name in DATABASES_OF_DATOMS})
        return cls.content

    def get(self, name: bytes, key: bytes) -> bytes | None:
        return self.databases[name].get(key)

    def scan(
        self, name: bytes, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        keys = sorted(key for key in self.databases[name] if key >= start and (stop is None or key < stop))
        return iter([(key, self.databases[name][key]) for key in (reversed(keys) if reverse else keys)])
