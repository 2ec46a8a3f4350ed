"""What lies where in a store: the named databases, their keys, and the records that are not datoms.

``cowfs``, the small one, so that a transaction of one entity touches one page of it::

    b"format"               JSON, {"version": 1, "strict": false}
    b"state"                40 bytes, ``State``: last txid u64, its instant i64, txid offset u64, highest entity id u64,
                            number of datoms u64
    b"allocated"            u64, the highest id that new entities follow, where the state does not say it (``allocation``)
    b"steps"                the commits before which the clock went back, where it did (``steps``)
    b"attribute/" + aid     JSON, the attribute's name and properties
    b"count/" + aid         16 bytes, ``Count``: its number of datoms u64, the bytes of all their lines u64 (``lines``);
                            8 bytes, the number alone, where an older version had counted datoms

``eav`` and ``ave``, every datom once in each (V is the key value of ``encoding``)::

    eav     e u64, aid u32, V  ->  tx u64, and the value's whole encoding when V is a digested one
    ave     aid u32, V, e u64  ->  tx u64

``log``: txid u64 -> what the transaction changed (``log`` documents the row).

``touched``, made when it is first needed: e u64 -> tx u64 (``touched`` says for which).

All integers are big endian. Instants are microseconds since 1970, UTC.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from cowfs.errors import CorruptDatabase, NotADatabase, UnsupportedFormat
from cowfs.pages.format import MAX_TXNID
from cowfs.pages.reader import Reader
from cowfs.store.model.encoding import FIRST_MICRO, LAST_MICRO

META: Final = b"cowfs"
EAV: Final = b"eav"
AVE: Final = b"ave"
LOG: Final = b"log"
TOUCHED: Final = b"touched"
DATABASES: Final = (META, EAV, AVE, LOG)

FORMAT_KEY: Final = b"format"
STATE_KEY: Final = b"state"
ALLOCATED_KEY: Final = b"allocated"
STEPS_KEY: Final = b"steps"
ATTRIBUTE_KEYS: Final = b"attribute/"
COUNT_KEYS: Final = b"count/"
VERSION: Final = 1

ENTITY_SIZE: Final = 8
AID_SIZE: Final = 4
PREFIX_SIZE: Final = 12  # e and aid, before V in a key of eav
TX_SIZE: Final = 8

_STATE = struct.Struct(">QqQQQ")
_COUNT = struct.Struct(">QQ")
_COUNT_SIZE: Final = 16
_OLD_COUNT = struct.Struct(">Q")


@dataclass(frozen=True, slots=True)
class Format:
    """How the store is written, and whether it refuses attributes that were not declared."""

    version: int
    strict: bool

    def pack(self) -> bytes:
        """Return the record under ``b"format"``."""
        return json.dumps({"version": self.version, "strict": self.strict}).encode()


@dataclass(frozen=True, slots=True)
class State:
    """Where the store stands after a transaction; the first one makes the store."""

    txid: int = 0
    instant: int = 0
    offset: int = 0
    max_entity: int = 0
    datoms: int = 0

    def pack(self) -> bytes:
        """Return the record under ``b"state"``."""
        return _STATE.pack(self.txid, self.instant, self.offset, self.max_entity, self.datoms)

    @classmethod
    def parse(cls, data: bytes | None) -> State:
        """Parse the record under ``b"state"``. Raises ``CorruptDatabase``."""
        if data is None or len(data) != _STATE.size:
            raise CorruptDatabase("the store's state record is missing or damaged")
        state = cls(*_STATE.unpack(data))
        if max(state.txid, state.offset) > MAX_TXNID or not FIRST_MICRO <= state.instant <= LAST_MICRO:
            raise CorruptDatabase("the store's state record is damaged")
        return state


ONE_DATOM: Final = 1 << 64
"""A datom in the number that is a count's record. A change of it is so many of these, plus the bytes of their lines."""


def changed_count(data: bytes | None, change: int) -> bytes:
    """Return the record under ``b"count/" + aid`` after ``change``, from what it was. Raises ``CorruptDatabase``."""
    if data is None or len(data) == _COUNT_SIZE:
        try:
            return (int.from_bytes(data or b"", "big") + change).to_bytes(_COUNT_SIZE, "big")
        except OverflowError:
            raise CorruptDatabase("the store's count of an attribute is damaged") from None
    count = Count.parse(data)
    if count.size is None:  # nobody knows what its lines had, until there are none
        datoms = count.datoms + ((change + (ONE_DATOM >> 1)) >> 64)
        return Count(datoms, None if datoms else 0).pack()
    return changed_count(count.pack(), change)


class Count(NamedTuple):
    """What the store keeps of an attribute: how many datoms it has, and how many bytes their lines.

    ``size`` is None where an older version had counted datoms: there only adding up tells.
    """

    datoms: int = 0
    size: int | None = 0

    def pack(self) -> bytes:
        """Return the record under ``b"count/" + aid``."""
        return _OLD_COUNT.pack(self.datoms) if self.size is None else _COUNT.pack(self.datoms, self.size)

    @classmethod
    def parse(cls, data: bytes | None) -> Count:
        """Parse the record under ``b"count/" + aid``, None when there is none. Raises ``CorruptDatabase``."""
        if data is None:
            return cls()
        if len(data) == _COUNT_SIZE:
            return cls(*_COUNT.unpack(data))
        if len(data) != _OLD_COUNT.size:
            raise CorruptDatabase("the store's count of an attribute is damaged")
        datoms = int.from_bytes(data, "big")
        return cls(datoms, None if datoms else 0)


def number_key(number: int) -> bytes:
    """Return an entity id or a txid as it stands in keys; those below and above all of them as the least and the last."""
    return min(max(number, 0), 2**64 - 1).to_bytes(8, "big")


def entity_key(number: int) -> bytes:
    """Return an entity id as it stands in keys."""
    return number.to_bytes(ENTITY_SIZE, "big")


def txid_of(root_txnid: int, state: State) -> int:
    """Return the txid of the root with LMDB's transaction id ``root_txnid``, whose state record is ``state``.

    It is LMDB's id plus the offset. LMDB's id grows by one each commit, but a copy by ``mdb_copy -c`` begins again at 1;
    then the last txid is where the root carries on, so that txids only grow.
    """
    txid = root_txnid + state.offset
    return txid if state.txid <= txid else root_txnid + state.txid - 1


def read_format(reader: Reader) -> Format:
    """Return the store's format. Raises ``NotADatabase``, ``UnsupportedFormat``, ``CorruptDatabase``."""
    data = reader.get(META, FORMAT_KEY)
    if data is None:
        raise NotADatabase("an LMDB environment, but not a cowfs store")
    record = parse_json(data, "format")
    version, strict = record.get("version"), record.get("strict", False)
    if not isinstance(version, int) or not isinstance(strict, bool):
        raise CorruptDatabase("the store's format record is damaged")
    if version > VERSION:
        raise UnsupportedFormat(f"written by a newer cowfs (format {version}); this one reads up to format {VERSION}")
    return Format(version, strict)


def read_state(reader: Reader) -> State:
    """Return the store's state. Raises ``CorruptDatabase``."""
    return State.parse(reader.get(META, STATE_KEY))


def read_count(reader: Reader, aid: bytes) -> Count:
    """Return what the store keeps of the attribute with that key. Raises ``CorruptDatabase``."""
    return Count.parse(reader.get(META, COUNT_KEYS + aid))


def read_counts(reader: Reader) -> dict[int, Count]:
    """Return what the store keeps of its attributes, by attribute id. Raises ``CorruptDatabase``."""
    size = len(COUNT_KEYS)
    pairs = reader.scan(META, COUNT_KEYS, stop_after(COUNT_KEYS))
    return {int.from_bytes(key[size:], "big"): Count.parse(value) for key, value in pairs}


def parse_json(data: bytes, what: str) -> dict[str, Any]:
    """Parse a JSON record of the store. Raises ``CorruptDatabase``."""
    try:
        record = json.loads(data)
    except (ValueError, RecursionError):
        record = None
    if not isinstance(record, dict):
        raise CorruptDatabase(f"the store's {what} record is damaged")
    return record


def stop_after(prefix: bytes) -> bytes:
    """Return the first key after all those that begin with ``prefix`` (which is more than bytes 0xFF)."""
    prefix = prefix.rstrip(b"\xff")
    return prefix[:-1] + bytes((prefix[-1] + 1,))
