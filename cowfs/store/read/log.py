"""The log: for every transaction, when it was and which datoms it asserted and retracted.

A row, at the transaction's txid in the ``log`` database::

    instant i64 | asserted u32 | retracted u32 | the asserted datoms | the retracted datoms
    an asserted datom     e u64 | aid u32 | size u32 | encoding of the value
    a retracted datom     tx u64 (that had asserted it) | e u64 | aid u32 | size u32 | encoding of the value
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from cowfs.errors import CorruptDatabase
from cowfs.pages.reader import Reader
from cowfs.store.model.datom import Datom
from cowfs.store.model.encoding import FIRST_MICRO, LAST_MICRO, decode, instant_of
from cowfs.store.model.layout import ENTITY_SIZE, LOG, PREFIX_SIZE
from cowfs.store.model.schema import Attribute

_HEAD = struct.Struct(">qII")
_RAW = struct.Struct(f">{PREFIX_SIZE}sI")
_SIZE = struct.Struct(">I")
_TX = struct.Struct(">Q")


@dataclass(frozen=True, slots=True)
class TxRow:
    """One transaction of the log: its txid, its instant, and what it changed.

    The ``tx`` of an asserted datom is this transaction, that of a retracted one the transaction that had asserted it.
    """

    txid: int
    instant: datetime
    asserted: tuple[Datom, ...]
    retracted: tuple[Datom, ...]


def pack_datom(prefix: bytes, encoding: bytes) -> bytes:
    """Return a datom as it stands in a row, from the beginning of its key in ``eav`` and its value's encoding."""
    return b"%b%b%b" % (prefix, _SIZE.pack(len(encoding)), encoding)


def pack_row(instant: int, asserted: Sequence[bytes], retracted: Sequence[bytes]) -> bytes:
    """Return the row of a transaction from its datoms, each as ``pack_datom`` gives it (a retracted one after its tx)."""
    return b"".join((_HEAD.pack(instant, len(asserted), len(retracted)), *asserted, *retracted))


class RawDatom(NamedTuple):
    """A datom as it lies in a row: the beginning of its key in ``eav``, its value's encoding, the key of its ``tx``."""

    prefix: bytes
    encoding: bytes
    tx: bytes
    added: bool


def raw_datoms(txid: int, row: bytes) -> Iterator[RawDatom]:
    """Yield the datoms of the row of transaction ``txid``, the asserted ones first. Raises ``CorruptDatabase``."""
    try:
        _micros, asserted, retracted = _HEAD.unpack_from(row)
        at, tx = _HEAD.size, _TX.pack(txid)
        for number in range(asserted + retracted):
            added = number < asserted
            if not added:
                tx = row[at : at + _TX.size]
                at += _TX.size
            prefix, size = _RAW.unpack_from(row, at)
            at += _RAW.size + size
            if at > len(row):
                raise CorruptDatabase(f"the log's row of transaction {txid} is damaged")
            yield RawDatom(prefix, row[at - size : at], tx, added)
    except struct.error as error:
        raise CorruptDatabase(f"the log's row of transaction {txid} is damaged") from error
    if at != len(row):
        raise CorruptDatabase(f"the log's row of transaction {txid} is damaged")


def row_instant(row: bytes) -> int:
    """Return the instant of a row's transaction, in microseconds since 1970. Raises ``CorruptDatabase``."""
    if len(row) < _HEAD.size:
        raise CorruptDatabase(f"a row of the log has {len(row)} bytes")
    micros = int(_HEAD.unpack_from(row)[0])
    if not FIRST_MICRO <= micros <= LAST_MICRO:
        raise CorruptDatabase(f"a row of the log is of microsecond {micros}, which is in no year")
    return micros


def first_later(reader: Reader, micros: int, start: int, stop: int) -> int:
    """Return the first txid with start <= txid < stop whose instant is after ``micros``; ``stop`` when there is none.

    A commit that has no row counts with the next one that has. The instants of these must not go down as the txids go up:
    ``chronology`` knows of which commits that is true.
    """
    low, high = start, stop
    while low < high:
        middle = (low + high) // 2
        row = first_dated(reader, middle, stop)
        if row is None or row.micros > micros:
            high = middle
        else:
            low = row.txid + 1
    return low if first_dated(reader, low, stop) else stop


class Dated(NamedTuple):
    """A transaction and its instant, in microseconds since 1970."""

    txid: int
    micros: int


def first_dated(reader: Reader, start: int, stop: int) -> Dated | None:
    """Return the first transaction with start <= txid < stop; None when there is none. Raises ``CorruptDatabase``."""
    return _one(reader, start, stop, reverse=False)


def last_dated(reader: Reader, start: int, stop: int) -> Dated | None:
    """Return the last transaction with start <= txid < stop; None when there is none. Raises ``CorruptDatabase``."""
    return _one(reader, start, stop, reverse=True)


def _one(reader: Reader, start: int, stop: int, *, reverse: bool) -> Dated | None:
    for key, row in reader.scan(LOG, start.to_bytes(8, "big"), stop.to_bytes(8, "big"), reverse=reverse):
        txid = int.from_bytes(key, "big")
        if not start <= txid < stop:  # the keys are damaged, and a search might never end
            raise CorruptDatabase(f"the log has transaction {txid} between those from {start} to {stop - 1}")
        return Dated(txid, row_instant(row))
    return None


def row_size(row: bytes) -> int:
    """Return how many datoms a row asserts and retracts."""
    _instant, asserted, retracted = _HEAD.unpack_from(row)
    return int(asserted + retracted)


def parse_row(txid: int, row: bytes, attributes: Mapping[bytes, Attribute]) -> TxRow:
    """Parse the row of transaction ``txid``; ``attributes`` are by key. Raises ``CorruptDatabase``."""
    try:
        datoms = [_datom(raw, attributes) for raw in raw_datoms(txid, row)]
        micros, asserted, _retracted = _HEAD.unpack_from(row)
        instant = instant_of(micros)
    except (KeyError, OverflowError) as error:
        raise CorruptDatabase(f"the log's row of transaction {txid} is damaged") from error
    return TxRow(txid, instant, tuple(datoms[:asserted]), tuple(datoms[asserted:]))


def _datom(raw: RawDatom, attributes: Mapping[bytes, Attribute]) -> Datom:
    number = int.from_bytes
    name = attributes[raw.prefix[ENTITY_SIZE:]].name
    return Datom(number(raw.prefix[:ENTITY_SIZE], "big"), name, decode(raw.encoding), number(raw.tx, "big"), raw.added)
