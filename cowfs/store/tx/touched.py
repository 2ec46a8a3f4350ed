"""``write_touched``: remembering the transaction that only retracted from an entity (``read.last_modified`` says why)."""

from __future__ import annotations

from cowfs.engine.writetxn import WriteTxn
from cowfs.store.model.layout import ENTITY_SIZE, TOUCHED
from cowfs.store.read.last_modified import has_datoms
from cowfs.store.tx.changeset import Changeset


def write_touched(txn: WriteTxn, changeset: Changeset, tx: bytes) -> None:
    """Remember ``tx`` for the entities that it only retracts from; ``eav`` has been written."""
    diminished = {prefix[:ENTITY_SIZE] for prefix, gone in changeset.gone.items() if gone}
    diminished.difference_update([prefix[:ENTITY_SIZE] for prefix, added in changeset.added.items() if added])
    left = [(e, tx) for e in sorted(diminished) if has_datoms(txn, e)]
    if left:
        txn.create((TOUCHED,))
        txn.put_many(TOUCHED, left)
    for e in sorted(diminished.difference([e for e, _tx in left])):
        if txn.get(TOUCHED, e) is not None:
            txn.delete(TOUCHED, e)
