"""``touched``: which transaction was the last to touch an entity, where no datom of the entity tells.

An entity was last touched by the newest transaction that asserted or retracted a datom of it. Mostly that is the highest
``tx`` of its datoms. A transaction that only retracts from an entity leaves none there, so it is remembered as long as the
entity has other datoms: in the named database ``touched``, e u64 -> tx u64. An entry may be older than the datoms.
``tx.touched`` writes it.
"""

from __future__ import annotations

from cowfs.pages.reader import Reader
from cowfs.store.model.layout import EAV, TOUCHED, TX_SIZE
from cowfs.store.read.indexes import exact


def last_touched(reader: Reader, e: bytes) -> int | None:
    """Return the last transaction that touched the entity with key ``e``; None when it has no datoms."""
    newest = max((data[:TX_SIZE] for _key, data in reader.scan(EAV, *exact(e))), default=None)
    if newest is None:
        return None
    return int.from_bytes(max(newest, reader.get(TOUCHED, e) or b""), "big")


def has_datoms(reader: Reader, e: bytes) -> bool:
    """Return whether the entity with key ``e`` has any datoms."""
    return next(reader.keys(EAV, *exact(e)), None) is not None
