"""``Datom``, the one fact a store is made of."""

from __future__ import annotations

from typing import NamedTuple

from cowfs.store.model.encoding import Value


class Datom(NamedTuple):
    """Entity ``e`` has value ``v`` for attribute ``a`` (its name), as transaction ``tx`` said.

    ``added`` is False for a datom that was retracted.
    """

    e: int
    a: str
    v: Value
    tx: int
    added: bool = True
