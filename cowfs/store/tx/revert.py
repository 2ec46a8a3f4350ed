"""Reverting: the content of an older commit as one new transaction. Nothing is rewritten, the history stays."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from cowfs.engine.writetxn import WriteTxn
from cowfs.errors import SchemaError, TransactionError
from cowfs.store.model.datom import Datom
from cowfs.store.model.encoding import Ref, encode_ref
from cowfs.store.model.layout import EAV, entity_key
from cowfs.store.model.schema import CARDINALITY, TUPLE_TYPE, TUPLE_TYPES, UNIQUE, VALUE_TYPE, Attribute
from cowfs.store.read.db import Db
from cowfs.store.read.diff import diff
from cowfs.store.read.indexes import holders
from cowfs.store.read.last_modified import has_datoms
from cowfs.store.tx.transaction import Basis, TxReport, transact

_TYPE = (VALUE_TYPE, TUPLE_TYPE, TUPLE_TYPES)


@dataclass(frozen=True)
class RevertReport:
    """What a revert did: its transaction, None when there was nothing to change.

    ``missing_references`` is how many references other entities had to the entity, that they have not now: 0 when everything
    was reverted.
    """

    transaction: TxReport | None
    missing_references: int = 0


def revert(
    txn: WriteTxn,
    basis: Basis,
    newest: Db,
    wanted: Db,
    entity: int | None = None,
    *,
    with_references: bool = False,
) -> tuple[RevertReport, Basis]:
    """Do the transaction after which the datoms, all or those of one entity, are those of ``wanted``.

    ``newest`` is the commit that ``txn`` stands on. ``with_references`` restores the references to the entity, too, of those
    that have any datoms now. When nothing differs ``txn`` is aborted. Raises ``SchemaError`` when an attribute does not take
    its old values any more, ``TransactionError`` when another entity has a unique value by now, ``InputError`` for an entity
    that cannot be.
    """
    changes = list(diff(newest, wanted, entity))
    missing = [] if entity is None else _missing_references(newest, wanted, entity)
    if with_references:
        referrers = {e for e in {datom.e for datom in missing} if has_datoms(newest.reader, entity_key(e))}
        changes += [datom for datom in missing if datom.e in referrers]
        missing = [datom for datom in missing if datom.e not in referrers]
    if not changes:
        txn.abort()
        return RevertReport(None, len(missing)), basis
    _require_same_meaning(newest, wanted, changes)
    try:
        report, basis = transact(txn, basis, _forms(changes))
    except TransactionError as error:
        raise TransactionError(f"commit {wanted.txid} cannot be restored: {error}") from None
    return RevertReport(report, len(missing)), basis


def _missing_references(newest: Db, wanted: Db, entity: int) -> list[Datom]:
    """Return the references to an entity that other entities have in ``wanted``, and not in ``newest``."""
    encoding = encode_ref(entity)
    return [
        Datom(e, attribute.name, Ref(entity), wanted.txid)
        for attribute in wanted.schema.values()
        if attribute.refers
        for e in holders(wanted.reader, attribute.key + encoding)
        if e != entity and newest.reader.get(EAV, entity_key(e) + attribute.key + encoding) is None
    ]


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
