"""Datoms in JSON: one form for the mount's ``log/`` and for every command that prints them.

An asserted datom is ``[e, a, v]``; a retracted one is ``[e, a, v, tx]``, with the transaction that had asserted it. ``v`` is
as in transaction data.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cowfs.store.model.datom import Datom
from cowfs.store.model.values import instant_text, to_json
from cowfs.store.read.log import TxRow


def changes_json(datoms: Iterable[Datom]) -> dict[str, list[list[Any]]]:
    """Return datoms as the lists ``asserted`` and ``retracted``, each in the order given."""
    changes: dict[str, list[list[Any]]] = {"asserted": [], "retracted": []}
    for e, a, v, tx, added in datoms:
        if added:
            changes["asserted"].append([e, a, to_json(v)])
        else:
            changes["retracted"].append([e, a, to_json(v), tx])
    return changes


def transaction_json(row: TxRow) -> dict[str, Any]:
    """Return a transaction as ``log/<txid>.json`` in the mount has it, its keys in order."""
    changes = changes_json((*row.asserted, *row.retracted))
    return {
        "asserted": changes["asserted"],
        "instant": instant_text(row.instant),
        "retracted": changes["retracted"],
        "txid": row.txid,
    }
