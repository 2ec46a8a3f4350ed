"""``check`` holds what the log says against the indexes."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cowfs.engine.writetxn import WriteTxn
from cowfs.store.datomcheck import check_store
from cowfs.store.read.log import RawDatom, pack_datom, pack_row, raw_datoms, row_instant
from cowfs.store.store import Store

from .conftest import PEOPLE

_ROW_HEAD = 16


@pytest.fixture
def written(tmp_path: Path) -> Iterator[Store]:
    """Yield a store that the test will damage, so it is not checked when the test ends."""
    with Store.create(tmp_path / "db", PEOPLE, durability="none") as store:
        store.transact([{":db/id": n, ":person/email": f"{n}@x", ":person/name": "Ann"} for n in range(1, 40)])
        store.transact([[":db/add", n, ":person/name", "Bob"] for n in range(1, 20)])
        store.transact([{":db/id": 5, ":person/tags": ["x" * 600, "y" * 3000], ":person/friend": [6, 7]}])
        store.transact([[":db/retractEntity", 6], [":db/retract", 5, ":person/tags", "x" * 600]])
        store.transact([[":db/add", 5, ":person/tags", "x" * 600], [":db/retract", 7, ":person/email"]])
        assert found(store) == []
        yield store


def found(store: Store) -> list[str]:
    with store.env.hold() as hold:
        return list(check_store(hold, hold.root.txnid))


def rewrite(store: Store, txid: int, change: Callable[[bytes], bytes]) -> list[str]:
    """Change a row of the log, and return what check finds; the row is then as it was."""

    def put(row: bytes) -> None:
        with store.env.write() as txn:
            txn.put(b"log", txid.to_bytes(8, "big"), row)

    row = row_of(store, txid)
    put(change(row))
    findings = found(store)
    put(row)
    return findings


def row_of(store: Store, txid: int) -> bytes:
    with store.env.hold() as hold:
        row = hold.get(b"log", txid.to_bytes(8, "big"))
    assert row is not None
    return row


def datoms(row: bytes, change: Callable[[list[RawDatom]], list[RawDatom]], txid: int = 0) -> bytes:
    changed = change(list(raw_datoms(txid, row)))
    packed = [((b"" if d.added else d.tx) + pack_datom(d.prefix, d.encoding), d.added) for d in changed]
    return pack_row(row_instant(row), [d for d, added in packed if added], [d for d, added in packed if not added])


@pytest.mark.parametrize("txid", range(2, 7))
def test_any_flipped_bit_in_the_datoms_of_a_row_is_found(written: Store, txid: int) -> None:
    choice = random.Random(txid)
    size = len(row_of(written, txid))
    for position in sorted({*range(4, min(size, 90)), *(choice.randrange(_ROW_HEAD, size) for _ in range(40))}):
        if position < 8:
            continue  # of the instant, which nothing else says

        def flip(row: bytes, position: int = position) -> bytes:
            return row[:position] + bytes((row[position] ^ 1 << choice.randrange(8),)) + row[position + 1 :]

        assert rewrite(written, txid, flip), position


def test_a_datom_that_the_log_lacks_or_has_twice_is_named(written: Store) -> None:
    lacks = rewrite(written, 2, lambda row: datoms(row, lambda all_: all_[:-1]))
    assert lacks == ["entity 39 :person/name: a datom of transaction 2 is in eav, and the log does not assert it"]
    twice = rewrite(written, 2, lambda row: datoms(row, lambda all_: [*all_, all_[-1]]))
    assert twice == ["entity 39 :person/name: a datom of transaction 2 is asserted by the log, and not in eav"]


def test_a_retraction_needs_its_assertion(written: Store) -> None:
    none = rewrite(written, 5, lambda row: datoms(row, lambda all_: [d for d in all_ if d.added]))
    assert any(
        "entity 6 :person/email: a datom of transaction 2 is asserted by the log, and not in eav" in line for line in none
    )
    other = rewrite(written, 5, lambda row: datoms(row, lambda all_: [d._replace(tx=bytes(7) + b"\x03") for d in all_]))
    assert any("retracted by the log more often than asserted" in line for line in other)


def test_only_so_many_are_named(written: Store) -> None:
    lines = rewrite(written, 2, lambda row: datoms(row, lambda _all: []))
    assert len(lines) <= 21
    assert lines[-1] == "the log and eav differ in more datoms"


def test_datoms_of_both_indexes_that_the_log_does_not_know_are_found(written: Store) -> None:
    def add(txn: WriteTxn) -> None:
        key, tx = (1).to_bytes(8, "big"), (2).to_bytes(8, "big")
        first = [raw for raw in raw_datoms(2, row_of(written, 2)) if raw.prefix[:8] == key]
        (aid,) = (raw.prefix[8:] for raw in first if b"@" in raw.encoding)
        txn.delete(b"eav", key + aid + b"P1@x\0")
        txn.delete(b"ave", aid + b"P1@x\0" + key)
        txn.put(b"eav", key + aid + b"P1@y\0", tx)
        txn.put(b"ave", aid + b"P1@y\0" + key, tx)

    with written.env.write() as txn:
        add(txn)
    assert sorted(found(written)) == [
        "entity 1 :person/email: a datom of transaction 2 is asserted by the log, and not in eav",
        "entity 1 :person/email: a datom of transaction 2 is in eav, and the log does not assert it",
    ]
