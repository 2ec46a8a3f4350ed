"""``Rehearsal``: transactions that are done on top of each other and never committed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from cowfs.engine.writetxn import WriteTxn
from cowfs.store.tx.importids import ImportIds
from cowfs.store.tx.transaction import Basis, TxReport, transact


class Rehearsal:
    """Transactions inside of ``txn``, which the caller aborts; the first stands on ``basis``.

    Every one of them finds what those before it did, and all have the txid of the first.
    """

    def __init__(self, txn: WriteTxn, basis: Basis) -> None:
        self._txn = txn
        self._committed = basis.state
        self._basis = basis

    def transact(self, data: Any, *, ids: ImportIds | None = None) -> TxReport:
        """Do what ``Store.transact`` would, but for the commit; raises what it raises."""
        report, basis = transact(self._txn, self._basis, data, ids)
        if ids is not None:
            ids.done(report.tempids)
        # The commit that these would be has one txid: the next one is not to count on from this one.
        state = replace(basis.state, txid=self._committed.txid, offset=self._committed.offset)
        self._basis = Basis(state, basis.schema)
        return report
