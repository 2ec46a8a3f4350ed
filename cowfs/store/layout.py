"""What lies where in a store: the named databases, their keys, and the records that are not datoms.

``cowfs``, the small one, so that a transaction of one entity touches one page of it::

    b"format"               JSON, {"version": 1, "strict": false}
    b"state"                40 bytes, ``State``: last txid u64, its instant i64, txid offset u64, highest entity id u64,
                            number of datoms u64
    b"attribute/" + aid     JSON, the attribute's name and properties
    b"count/" + aid         u64, its number of datoms

``eav`` and ``ave``, every datom once in each (V is the key value of ``encoding``)::

    eav     e u64, aid u32, V  ->  tx u64, and the value's whole encoding when V is a digested one
    ave     aid u32, V, e u64  ->  tx u64

``log``: txid u64 -> what the transaction changed (``log`` documents the row).

All integers are big endian. Instants are microseconds since 1970, UTC.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass
from typing import Any, Final

from cowfs.errors import CorruptDatabase, NotADatabase, UnsupportedFormat
from cowfs.pages.reader import Reader

META: Final = b"cowfs"
EAV: Final = b"eav"
AVE: Final = b"ave"
LOG: Final = b"log"
DATABASES: Final = (META, EAV, AVE, LOG)

FORMAT_KEY: Final = b"format"
STATE_KEY: Final = b"state"
ATTRIBUTE_KEYS: Final = b"attribute/"
COUNT_KEYS: Final = b"count/"
VERSION: Final = 1

ENTITY_SIZE: Final = 8
PREFIX_SIZE: Final = 12  # e and aid, before V in a key of eav
TX_SIZE: Final = 8

_STATE = struct.Struct(">QqQQQ")


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
        return cls(*_STATE.unpack(data))


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


def read_counts(reader: Reader) -> dict[int, int]:
    """Return the number of datoms by attribute id, as the store keeps it."""
    size = len(COUNT_KEYS)
    pairs = reader.scan(META, COUNT_KEYS, stop_after(COUNT_KEYS))
    return {int.from_bytes(key[size:], "big"): int.from_bytes(value, "big") for key, value in pairs}


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
