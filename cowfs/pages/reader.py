"""The one small interface through which the rest of cowfs reads a database, whichever root it is of.

``TreeReader`` (own code, any root that is held) and ``WriteTxn`` (py-lmdb, the root that is being made) both satisfy it. Who
inherits from it need have ``get`` and ``scan`` only.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol


class Reader(Protocol):
    """The named databases of one root. Keys and values are bytes, copied: they outlive the reader."""

    def get(self, name: bytes, key: bytes) -> bytes | None:
        """Return the value at ``key`` in database ``name``; None when the key, or the database, is not there."""

    def scan(
        self, name: bytes, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) for start <= key < stop in key order, or the same pairs from the last to the first."""

    def keys(self, name: bytes, start: bytes = b"", stop: bytes | None = None) -> Iterator[bytes]:
        """Yield the keys with start <= key < stop in order."""
        return (key for key, _value in self.scan(name, start, stop))

    def prefixes(self, name: bytes, size: int, start: bytes = b"", stop: bytes | None = None) -> Iterator[bytes]:
        """Yield, each once and in order, what the keys with start <= key < stop begin with: their first ``size`` bytes."""
        last: bytes | None = None
        for key in self.keys(name, start, stop):
            if key[:size] != last:
                last = key[:size]
                yield last
