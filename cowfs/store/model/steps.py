"""Where the clock went back: the commits whose instant is before that of the commit before them.

``steps`` in the ``cowfs`` database, made when it is first needed, big endian: a floor u64, then the txid u64 of each such
commit, ascending. From one of them to the next, instants never go down as txids go up. Only the last ``MAX_STEPS`` are
kept; below the floor, the oldest that was dropped, nothing is known of the order (0: none was dropped).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from cowfs.engine.writetxn import WriteTxn
from cowfs.errors import CorruptDatabase
from cowfs.pages.reader import Reader
from cowfs.store.model.layout import META, STEPS_KEY

MAX_STEPS: Final = 64
_U64: Final = 8


@dataclass(frozen=True, slots=True)
class Steps:
    """The floor, and the txids of the commits before which the clock went back."""

    floor: int = 0
    txids: tuple[int, ...] = ()

    def adding(self, txid: int) -> Steps:
        """Return the steps with one more, which is above all of them."""
        if len(self.txids) < MAX_STEPS:
            return Steps(self.floor, (*self.txids, txid))
        return Steps(self.txids[0], (*self.txids[1:], txid))

    def pack(self) -> bytes:
        """Return the record under ``steps``."""
        return struct.pack(f">{1 + len(self.txids)}Q", self.floor, *self.txids)

    @classmethod
    def parse(cls, data: bytes | None) -> Steps:
        """Parse the record under ``steps``, None when there is none. Raises ``CorruptDatabase``."""
        if data is None:
            return cls()
        count, rest = divmod(len(data), _U64)
        if rest or not 1 <= count <= MAX_STEPS + 1:
            raise CorruptDatabase("the store's record of the clock's steps is damaged")
        numbers = struct.unpack(f">{count}Q", data)
        if any(low >= high for low, high in pairwise(numbers)):
            raise CorruptDatabase("the store's record of the clock's steps is damaged")
        return cls(numbers[0], numbers[1:])


def read_steps(reader: Reader) -> Steps:
    """Return where the clock went back. Raises ``CorruptDatabase``."""
    return Steps.parse(reader.get(META, STEPS_KEY))


def record_step(txn: WriteTxn, txid: int) -> None:
    """Record that the clock went back before the commit ``txid``, which is being made."""
    txn.put(META, STEPS_KEY, read_steps(txn).adding(txid).pack())
