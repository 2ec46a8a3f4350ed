"""The two indexes, read: entries become records, in the exact order of their values.

A ``RawDatom`` is a datom that is not decoded yet. LMDB's order is already that of the values, but for values whose key
values begin with the same 467 bytes: those follow each other, and are put in order by their whole encodings after loading.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from cowfs.errors import CorruptDatabase
from cowfs.pages.reader import Reader
from cowfs.store.model.encoding import KEY_VALUE_DIGESTED, KEY_VALUE_PREFIX
from cowfs.store.model.layout import AID_SIZE, AVE, EAV, ENTITY_SIZE, PREFIX_SIZE, TX_SIZE, stop_after

_EAV_LONG = PREFIX_SIZE + KEY_VALUE_PREFIX
AVE_SHARED: Final = AID_SIZE + KEY_VALUE_PREFIX
AVE_LONG: Final = AVE_SHARED + ENTITY_SIZE  # from here on keys may stand in another order than their values


class RawDatom(NamedTuple):
    """One datom as it is stored: entity, attribute key, the value's whole encoding, transaction."""

    e: int
    aid: bytes
    encoding: bytes
    tx: int


def eav_records(reader: Reader, start: bytes = b"", stop: bytes | None = None) -> Iterator[RawDatom]:
    """Yield the records of ``eav`` whose keys are in start <= key < stop, by entity, attribute and value."""
    number = int.from_bytes
    waiting = Waiting()
    for key, data in reader.scan(EAV, start, stop):
        e, aid, encoding = key[:ENTITY_SIZE], key[ENTITY_SIZE:PREFIX_SIZE], data[TX_SIZE:] or key[PREFIX_SIZE:]
        record = RawDatom(number(e, "big"), aid, encoding, number(data[:TX_SIZE], "big"))
        if len(key) >= _EAV_LONG:
            yield from waiting.add(key[:_EAV_LONG], record)
        else:
            if waiting.records:
                yield from waiting.release()
            yield record
    yield from waiting.release()


def ave_records(reader: Reader, start: bytes = b"", stop: bytes | None = None) -> Iterator[RawDatom]:
    """Yield the records of ``ave`` whose keys are in start <= key < stop, by attribute, value and entity.

    Raises ``CorruptDatabase`` when an entry has no value, or a long one is not in ``eav``.
    """
    number = int.from_bytes
    waiting = Waiting()
    for key, data in reader.scan(AVE, start, stop):
        e, aid, encoding = key[-ENTITY_SIZE:], key[:AID_SIZE], key[AID_SIZE:-ENTITY_SIZE]
        if not encoding:
            raise CorruptDatabase(f"ave has no value at {key[:20].hex()}")
        if len(key) < AVE_LONG:
            if waiting.records:
                yield from waiting.release()
            yield RawDatom(number(e, "big"), aid, encoding, number(data, "big"))
        else:
            if len(encoding) == KEY_VALUE_DIGESTED:
                encoding = _long_encoding(reader, e + aid + encoding)
            record = RawDatom(number(e, "big"), aid, encoding, number(data, "big"))
            yield from waiting.add(key[:AVE_SHARED], record)
    yield from waiting.release()


class Waiting:
    """Records whose values begin with the same 467 bytes, until all of them are there and can be put in order."""

    def __init__(self) -> None:
        self.records: list[RawDatom] = []
        self._shared = b""

    def add(self, shared: bytes, record: RawDatom) -> list[RawDatom]:
        """Let a record wait; return those that waited before it and that it has nothing to do with, in order."""
        released = self.release() if shared != self._shared else []
        self._shared = shared
        self.records.append(record)
        return released

    def release(self) -> list[RawDatom]:
        """Return the records that waited, in the order of their values and entities."""
        records, self.records = self.records, []
        return sorted(records, key=_by_value)


def exact(key: bytes) -> tuple[bytes, bytes]:
    """Return the range of keys that begin with ``key``."""
    return key, stop_after(key)


def holders(reader: Reader, key: bytes) -> Iterator[int]:
    """Yield the entities that have an attribute's value; ``key`` is attribute key and key value."""
    size = len(key) + ENTITY_SIZE
    for found in reader.keys(AVE, key, key + b"\xff"):
        if len(found) == size:  # else it is a longer value that begins like this one
            yield int.from_bytes(found[-ENTITY_SIZE:], "big")


def holder(reader: Reader, key: bytes) -> int | None:
    """Return the first entity that has an attribute's value, None when no entity has it."""
    return next(holders(reader, key), None)


def _long_encoding(reader: Reader, key: bytes) -> bytes:
    data = reader.get(EAV, key)
    if data is None or len(data) <= TX_SIZE:
        raise CorruptDatabase(f"eav has no long value at {key[:PREFIX_SIZE].hex()}…, which ave names")
    return data[TX_SIZE:]


def _by_value(record: RawDatom) -> tuple[bytes, int]:
    return record.encoding, record.e
