"""``Agreement``: whether the indexes hold what the log says that they must.

A datom is there when the last row that names it asserts it, with that row's transaction; each retraction takes away a datom
that an earlier row asserted. So the asserted datoms less the retracted ones, each with the transaction that asserted it, are
those of ``eav``. That is asked of sums of hashes, which do not depend on the order, and in which a retraction takes its
assertion away. There are many sums, each of a part of the datoms: only those of parts that differ are kept and named, which
bounds memory for a store of any size.
"""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Final

from cowfs.store.model.layout import PREFIX_SIZE, TX_SIZE
from cowfs.store.read.log import RawDatom

_PARTS: Final = 1 << 12
_MAX_PARTS: Final = 16  # that are looked into
_MODULUS: Final = 1 << 64

Stored = tuple[bytes, bytes, bytes]
"""A datom: the beginning of its key in ``eav``, its value's encoding, the key of its transaction."""


class Agreement:
    """The sums of both sides."""

    def __init__(self) -> None:
        self._differences = array("Q", bytes(8 * _PARTS))

    def stored(self, key: bytes, data: bytes) -> None:
        """Count an entry of ``eav``."""
        datom = stored_datom(key, data)
        part = hash(datom[0]) % _PARTS
        self._differences[part] = (self._differences[part] + hash(datom)) % _MODULUS

    def logged(self, datom: RawDatom) -> None:
        """Count a datom of the log."""
        part = hash(datom.prefix) % _PARTS
        difference = hash(datom[:3])
        self._differences[part] = (self._differences[part] + (-difference if datom.added else difference)) % _MODULUS

    @property
    def complete(self) -> bool:
        """Whether both sides have the same datoms."""
        return not any(self._differences)

    def differing(
        self, entries: Iterable[tuple[bytes, bytes]], logged: Iterable[RawDatom]
    ) -> Iterator[tuple[Stored, str] | None]:
        """Yield what differs, and how; None at the end when there is more in parts that were not looked into.

        Both sides are gone through once more.
        """
        parts = [part for part, difference in enumerate(self._differences) if difference]
        wanted = frozenset(parts[:_MAX_PARTS])
        balance: Counter[Stored] = Counter()
        for datom in logged:
            if hash(datom.prefix) % _PARTS in wanted:
                balance[datom[:3]] += 1 if datom.added else -1
        for key, data in entries:
            stored = stored_datom(key, data)
            if hash(stored[0]) % _PARTS in wanted:
                if balance[stored] > 0:
                    balance[stored] -= 1
                else:
                    yield stored, "in eav, and the log does not assert it"
        for stored, count in balance.items():
            if count > 0:
                yield stored, "asserted by the log, and not in eav"
            elif count < 0:
                yield stored, "retracted by the log more often than asserted"
        if len(parts) > _MAX_PARTS:
            yield None


def stored_datom(key: bytes, data: bytes) -> Stored:
    """Return the datom of an entry of ``eav``."""
    return key[:PREFIX_SIZE], data[TX_SIZE:] or key[PREFIX_SIZE:], data[:TX_SIZE]
