"""Lines: what they say, what they take, and that the store's sums are theirs."""

from __future__ import annotations

import json
import tempfile
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cowfs import Db, Store
from cowfs.errors import CorruptDatabase, SchemaError, TransactionError
from cowfs.store.datomcheck import check_store
from cowfs.store.model.encoding import STRING, encode_bigint, encode_text
from cowfs.store.model.layout import COUNT_KEYS, META, Count, read_count
from cowfs.store.model.lines import line, line_size, text, unescape
from cowfs.store.model.values import ENCODERS, tuple_encoder
from cowfs.store.read.indexes import ave_records, exact
from cowfs.store.read.tsv import column_size, pieces, starts

from .conftest import PEOPLE, MakeStore, findings
from .test_model import VALUES, forms

BASE64 = "aGVsbG8="
TUPLES = tuple_encoder(["long", "string", "keyword"], homogeneous=False)
SHOWN: list[tuple[str, Any, str]] = [
    ("string", "Ann", "Ann"),
    ("string", "", ""),
    ("string", "a\tb\nc\rd\\e\0f\x1fg\x7fé😀", "a\\tb\\nc\\rd\\\\e\\x00f\\x1fg\x7fé😀"),
    ("string", "\0\0", "\\x00\\x00"),
    ("keyword", ":a/b", ":a/b"),
    ("symbol", "a\\b", "a\\\\b"),
    ("uri", "https://example.org/?a=1", "https://example.org/?a=1"),
    ("long", -(2**63), str(-(2**63))),
    ("long", 2**63 - 1, str(2**63 - 1)),
    ("bigint", 10**4000, "1" + "0" * 4000),
    ("boolean", True, "true"),
    ("boolean", False, "false"),
    ("double", 1e300, "1e+300"),
    ("double", float("-inf"), "-Infinity"),
    ("float", 0.5, "0.5"),
    ("bigdec", Decimal("1.50"), "1.50"),
    ("instant", datetime(2026, 1, 31, 12, tzinfo=UTC), "2026-01-31T12:00:00Z"),
    ("uuid", UUID(int=5), str(UUID(int=5))),
    ("bytes", b"hello", BASE64),
    ("ref", 42, "42"),
]


@pytest.mark.parametrize(("kind", "value", "shown"), SHOWN)
def test_a_value_as_text(kind: str, value: Any, shown: str) -> None:
    encoding = ENCODERS[kind](value)
    assert text(encoding) == shown.encode()
    assert line(encoding, 7, 1042) == f"{shown}\t7\t1042\n".encode()
    assert line_size(encoding, 7, 1042) == len(line(encoding, 7, 1042))


def test_a_tuple_is_json() -> None:
    value = [5, 'a\t"b\\\n', None]
    found = text(TUPLES(value))
    assert found == b'[5,"a\\t\\"b\\\\\\n",null]'
    assert json.loads(found) == value


@given(st.text() | st.text("\\\t\r\n\0x0tn\x01\x1f"))
def test_text_comes_back_and_a_line_is_a_line(value: str) -> None:
    encoding = encode_text(STRING, value)
    found = line(encoding, 1, 2)
    assert found.count(b"\n") == 1
    assert found.count(b"\t") == 2
    assert min(found.replace(b"\t", b" ")[:-1]) >= 0x20
    assert unescape(text(encoding)).decode() == value
    assert line_size(encoding, 1, 2) == len(found)


def test_what_no_value_has() -> None:
    with pytest.raises(CorruptDatabase):
        text(b"\x20\0")
    with pytest.raises(CorruptDatabase, match="4300"):
        text(encode_bigint(10**5000))


def rendered(db: Db, name: str) -> bytes:
    key = db.attribute(name).key
    return b"".join(line(encoding, e, tx) for e, _aid, encoding, tx in ave_records(db.reader, *exact(key)))


def require_columns(db: Db, most: int = 10**6) -> None:
    """Require of every attribute that its lines, however they are made, are those of its records, and take what is kept.

    They are made anew from ``most`` of the first places at which they can begin, and from as many of the last.
    """
    for name, attribute in db.schema.items():
        whole = rendered(db, name)
        start, stop = exact(attribute.key)
        found = list(pieces(db.reader, start, stop))
        assert b"".join(piece.lines for piece in found) == whole
        assert len(whole) == db.column_size(name) == column_size(db.reader, attribute.key)
        assert read_count(db.reader, attribute.key) == (db.count(name), len(whole))
        at = 0
        for piece in found[:most]:
            if piece.key is not None:
                assert lines_from(db, piece.key, stop) == whole[at:]
            at += len(piece.lines)
        for key, size in list(starts(db.reader, start, stop))[:most]:
            assert lines_from(db, key, stop) == whole[size:]
        for key, size in list(starts(db.reader, start, stop, reverse=True))[-most:]:
            assert lines_from(db, key, stop) == whole[len(whole) - size :]


def lines_from(db: Db, key: bytes, stop: bytes) -> bytes:
    return b"".join(piece.lines for piece in pieces(db.reader, key, stop))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(forms(), max_size=7), min_size=1, max_size=8))
def test_sizes_are_exact_after_random_transactions(transactions: list[list[Any]]) -> None:
    with tempfile.TemporaryDirectory() as place, Store.create(Path(place, "db"), PEOPLE, durability="none") as store:
        for data in transactions:
            try:
                store.transact(data)
            except TransactionError:
                continue
            with store.db() as db:
                require_columns(db)
        assert set(VALUES) <= set(PEOPLE)
        assert findings(store) == []


def test_a_value_asserted_again_keeps_its_line(people: Store) -> None:
    first = people.transact([{":db/id": 1, ":person/name": "Ann", ":person/tags": ["a"]}]).txid
    for _ in range(10):
        people.transact([{":db/id": 1, ":person/name": "Ann", ":person/tags": ["a", "b"]}])
    with people.db() as db:
        assert rendered(db, ":person/name") == f"Ann\t1\t{first}\n".encode()
        require_columns(db)
    people.transact([[":db/retract", 1, ":person/name"], {":db/id": 2, ":person/name": "A\n"}])
    with people.db() as db:
        require_columns(db)


def test_attributes_without_a_type(make_store: MakeStore) -> None:
    store = make_store()
    values = [
        *"cab",
        True,
        2**70,
        5,
        0.5,
        {":db/id": 1},
        "x" * 480,
        "x" * 490,
        "x" * 3000 + "b",
        "x" * 3000 + "a",
        "z" * 600,
    ]
    store.transact([{":db/id": -1 - n, ":any": value} for n, value in enumerate(values)])
    store.transact([{":db/id": -1 - n, ":any": "x" * 3000 + str(n % 7), ":name": str(n)} for n in range(2500)])
    with store.db() as db:
        require_columns(db, most=8)


def as_an_older_version_left_it(store: Store) -> None:
    with store.db() as db, store.env.write() as txn:
        for attribute in db.schema.values():
            count = read_count(txn, attribute.key)
            if count.datoms:
                txn.put(META, COUNT_KEYS + attribute.key, count.datoms.to_bytes(8, "big"))


def test_counts_of_an_older_version(people: Store) -> None:
    people.transact([{":db/id": 1, ":person/name": "Ann"}, {":db/id": 2, ":person/name": "Bob", ":person/age": 5}])
    as_an_older_version_left_it(people)
    assert findings(people) == []
    people.transact([{":db/id": 3, ":person/name": "Cyd", ":person/code": 7}, [":db/retract", 2, ":person/age"]])
    with people.db() as db:
        for _ in range(2):
            assert db.column_size(":person/name") == len(rendered(db, ":person/name"))
        name, age, code = (db.attribute(":person/" + name).key for name in ("name", "age", "code"))
        assert read_count(db.reader, name) == Count(3, None)
        assert read_count(db.reader, age) == Count(0, 0)
        assert read_count(db.reader, code).size == len(rendered(db, ":person/code"))
    with pytest.raises(SchemaError, match="3 datoms"):
        people.update_schema({":person/name": {":db/valueType": ":db.type/keyword"}})


def test_a_wrong_size_is_found(tmp_path: Path) -> None:
    with Store.create(tmp_path / "db", PEOPLE, durability="none") as store:
        store.transact([{":db/id": 1, ":person/name": "Ann"}])
        with store.db() as db, store.env.write() as txn:
            txn.put(META, COUNT_KEYS + db.attribute(":person/name").key, Count(1, 9).pack())
        assert findings(store) == [":person/name: the store says that its lines have 9 bytes, and they have 8"]
        with store.env.write() as txn:
            txn.put(META, COUNT_KEYS + b"\0\0\0\3", b"short")
        with store.env.hold() as hold:
            assert "the store's count of an attribute is damaged" in list(check_store(hold, hold.root.txnid))
