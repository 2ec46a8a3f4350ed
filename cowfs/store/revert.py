"""Reverting: the content of an older commit as one new transaction. Nothing is rewritten, the history stays."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from cowfs.errors import SchemaError, TransactionError
from cowfs.pages.writetxn import WriteTxn
from cowfs.store.datom import Datom
from cowfs.store.db import Db
from cowfs.store.diff import diff
from cowfs.store.schema import CARDINALITY, TUPLE_TYPE, TUPLE_TYPES, UNIQUE, VALUE_TYPE, Attribute
from cowfs.store.transaction import Basis, TxReport, transact

_TYPE = (VALUE_TYPE, TUPLE_TYPE, TUPLE_TYPES)


def revert(txn: WriteTxn, basis: Basis, newest: Db, wanted: Db, entity: int | None = None) -> tuple[TxReport | None, Basis]:
    """Do the transaction after which the datoms, all or those of one entity, are those of ``wanted``.

    ``newest`` is the commit that ``txn`` stands on. When nothing differs ``txn`` is aborted. Raises ``SchemaError`` when an
    attribute does not take its old values any more, ``TransactionError`` when somebody else has a unique value by now.
    """
    changes = list(diff(newest, wanted, entity))
    if not changes:
        txn.abort()
        return None, basis
    _require_same_meaning(newest, wanted, changes)
    try:
        return transact(txn, basis, _forms(changes))
    except TransactionError as error:
        raise TransactionError(f"commit {wanted.txid} cannot be restored: {error}") from None


def _forms(changes: Iterable[Datom]) -> list[Any]:
    """Return transaction data that makes the changes. Whatever order it has, uniqueness is judged at its end."""
    return [[":db/add" if added else ":db/retract", e, a, v] for e, a, v, _tx, added in changes]


def _require_same_meaning(newest: Db, wanted: Db, changes: Iterable[Datom]) -> None:
    for name in sorted({datom.a for datom in changes if datom.added}):
        changed = _tightened(wanted.schema[name], newest.schema[name])
        if changed is not None:
            raise SchemaError(
                f"{name}: values of commit {wanted.txid} cannot be restored, its {changed} has changed since"
                " (define it as it was then, and revert again)"
            )


def _tightened(old: Attribute, new: Attribute) -> str | None:
    """Return the property by which ``new`` may not take what ``old`` took; None when there is none."""
    for key in _TYPE:
        if old.properties.get(key) != new.properties.get(key):
            return key
    if old.many and not new.many:
        return CARDINALITY
    return UNIQUE if new.unique is not None and old.unique is None else None
