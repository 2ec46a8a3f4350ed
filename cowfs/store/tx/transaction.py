"""One transaction, from its data to the pages: read the forms, resolve the tempids, apply, write.

``transact`` is called inside of LMDB's write transaction and either does everything or raises before it writes anything.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from cowfs.engine.writetxn import WriteTxn
from cowfs.errors import CorruptDatabase, InputError, TransactionError
from cowfs.store.model import clock
from cowfs.store.model.datom import Datom
from cowfs.store.model.encoding import KEY_VALUE_MAX, decode, encode_ref, instant_of
from cowfs.store.model.layout import (
    ATTRIBUTE_KEYS,
    AVE,
    COUNT_KEYS,
    EAV,
    ENTITY_SIZE,
    LOG,
    META,
    ONE_DATOM,
    PREFIX_SIZE,
    STATE_KEY,
    TX_SIZE,
    State,
    changed_count,
    entity_key,
    txid_of,
)
from cowfs.store.model.lines import line_size, text_size
from cowfs.store.model.schema import Schema
from cowfs.store.model.steps import record_step
from cowfs.store.model.values import shown
from cowfs.store.read.log import TxRow, pack_datom, pack_row, parse_row, row_size
from cowfs.store.tx.allocation import Allocation
from cowfs.store.tx.changeset import Changeset
from cowfs.store.tx.forms import ADD, CAS, RETRACT, RETRACT_ALL, RETRACT_ENTITY, FormReader, Op, form_error
from cowfs.store.tx.importids import ImportIds
from cowfs.store.tx.touched import write_touched
from cowfs.store.tx.upserts import UpsertResolver
from cowfs.units import duration_text

log = logging.getLogger("cowfs.store")


@dataclass(frozen=True)
class TxReport:
    """What a transaction did: its txid and instant, the entity that each tempid became, and the datoms.

    ``datoms`` are the asserted ones, then the retracted ones (``added`` is False), all with this transaction as ``tx``;
    they are decoded when they are first asked for. In an import that renumbers, the ids of its data are tempids, too.
    """

    txid: int
    instant: datetime
    tempids: dict[int | str, int]
    _row: bytes = field(repr=False)
    _schema: Schema = field(repr=False)

    @property
    def datom_count(self) -> int:
        """How many datoms there are in ``datoms``, without decoding them."""
        return row_size(self._row)

    @cached_property
    def row(self) -> TxRow:
        """The transaction as the log has it: there a retracted datom has the transaction that had asserted it."""
        return parse_row(self.txid, self._row, self._schema.by_key)

    @cached_property
    def datoms(self) -> tuple[Datom, ...]:
        """The datoms that the transaction asserted and retracted."""
        return self.row.asserted + tuple(datom._replace(tx=self.txid) for datom in self.row.retracted)


@dataclass(frozen=True, slots=True)
class Basis:
    """What a transaction stands on, and what it leaves for the next one: the state and the schema."""

    state: State
    schema: Schema


def transact(txn: WriteTxn, basis: Basis, data: Any, given: ImportIds | None = None) -> tuple[TxReport, Basis]:
    """Do the transaction ``data`` in ``txn``, which the caller commits. ``given`` is what ids in it mean.

    Raises ``TransactionError``, and what ``given`` raises; nothing was done then.
    """
    forms = FormReader(txn, basis.schema, basis.state.max_entity, None if given is None else given.renumbered)
    forms.read(data)
    identities = UpsertResolver(txn, forms, data)
    identities.resolve()
    if given is not None:
        given.check(txn, forms, basis.state.max_entity)
    allocation = Allocation(txn, basis.schema, basis.state, forms.nodes)
    try:
        ids = forms.nodes.allocate(allocation.next_id)
    except InputError as error:
        raise TransactionError(str(error)) from None
    schema = basis.schema.with_attributes(forms.new_attributes.values()) if forms.new_attributes else basis.schema
    changeset = Changeset(txn, schema, basis.state.max_entity)
    _apply(forms.ops, ids, changeset, data)
    identities.check(changeset, schema, ids)
    identities.check_references(changeset, ids)
    for attribute in forms.new_attributes.values():
        txn.put(META, ATTRIBUTE_KEYS + attribute.key, attribute.pack())
    allocation.write(txn)
    state, row = _write(txn, basis.state, changeset, allocation.highest)
    tempids = {name: ids[-node] for name, node in forms.nodes.by_tempid.items()}
    return TxReport(state.txid, instant_of(state.instant), tempids, row, schema), Basis(state, schema)


def next_state(txn: WriteTxn, state: State) -> State:
    """Return ``state`` with the txid, the instant and the offset that the commit of the write transaction ``txn`` has.

    When the clock has gone back since the commit before, that is recorded, and logged.
    """
    root = txn.txnid - 1
    before = txid_of(root, state)
    instant = clock.instant_after(state.instant)
    if state.txid and instant < state.instant:
        seconds = (state.instant - instant) // 1_000_000
        log.warning("the clock is %s behind the commit before, %d: one of them is wrong", duration_text(seconds), before)
        record_step(txn, before + 1)
    return replace(state, txid=before + 1, instant=instant, offset=before - root)


def _apply(ops: Sequence[Op], ids: Sequence[int], changeset: Changeset, data: Sequence[Any]) -> None:
    """Apply the operations in their order. Raises ``TransactionError`` when a compare-and-swap fails."""
    if any(op[1] == RETRACT_ENTITY for op in ops):
        changeset.track_references()
    for index, kind, node, attribute, value in ops:
        entity = node if node > 0 else ids[-node]
        prefix = entity_key(entity) + attribute.key
        if kind == ADD:
            changeset.add(prefix, attribute, value if type(value) is bytes else _encoded(value, ids))
        elif kind == RETRACT:
            changeset.retract(prefix, _encoded(value, ids))
        elif kind == RETRACT_ALL:
            changeset.retract_all(prefix)
        elif kind == RETRACT_ENTITY:
            changeset.retract_entity(entity)
        elif kind == CAS:
            old, new = (None if side is None else _encoded(side, ids) for side in value)
            found = changeset.current(prefix)
            if found != old:
                error = InputError(f"{attribute.name} of entity {entity} is {_said(found)}, not {_said(old)}")
                raise form_error(data, index, error)
            changeset.add(prefix, attribute, new or b"")


def _encoded(value: bytes | int, ids: Sequence[int]) -> bytes:
    if isinstance(value, bytes):
        return value
    return encode_ref(value if value > 0 else ids[-value])


def _said(encoding: bytes | None) -> str:
    return shown(None if encoding is None else decode(encoding))


def _write(txn: WriteTxn, before: State, changeset: Changeset, highest: int) -> tuple[State, bytes]:
    """Write the changeset, the counts, who was touched, the log's row and the state; return the state and the row."""
    changes: dict[bytes, int] = {}
    retracted = _delete(txn, changeset, changes)
    state = next_state(txn, before)
    tx = state.txid.to_bytes(TX_SIZE, "big")
    asserted = _insert(txn, changeset, tx, changes)
    for aid, change in sorted(changes.items()):
        if change:
            key = COUNT_KEYS + aid
            txn.put(META, key, changed_count(txn.get(META, key), change))
    if any(changeset.gone.values()):
        write_touched(txn, changeset, tx)
    state = replace(state, max_entity=highest, datoms=before.datoms + len(asserted) - len(retracted))
    return state, write_state(txn, state, asserted, retracted)


def write_state(txn: WriteTxn, state: State, asserted: Sequence[bytes] = (), retracted: Sequence[bytes] = ()) -> bytes:
    """Write the state and the log's row of its transaction; return the row."""
    row = pack_row(state.instant, asserted, retracted)
    txn.put(LOG, state.txid.to_bytes(TX_SIZE, "big"), row)
    txn.put(META, STATE_KEY, state.pack())
    return row


def _delete(txn: WriteTxn, changeset: Changeset, changes: dict[bytes, int]) -> list[bytes]:
    """Delete what is gone from both indexes, and note the changes of counts; return the datoms for the log."""
    datoms = []
    for prefix, gone in sorted(changeset.gone.items()):
        e, aid = prefix[:ENTITY_SIZE], prefix[ENTITY_SIZE:]
        for value, data in sorted(gone.items()):
            if not (txn.delete(EAV, prefix + value) and txn.delete(AVE, aid + value + e)):
                raise CorruptDatabase(
                    f"a datom of entity {int.from_bytes(e, 'big')} is in one index only; `cowfs check` says more"
                )
            encoding = data[TX_SIZE:] or value
            datoms.append(data[:TX_SIZE] + pack_datom(prefix, encoding))
            size = line_size(encoding, int.from_bytes(e, "big"), int.from_bytes(data[:TX_SIZE], "big"))
            changes[aid] = changes.get(aid, 0) - ONE_DATOM - size
    return datoms


def _insert(txn: WriteTxn, changeset: Changeset, tx: bytes, changes: dict[bytes, int]) -> list[bytes]:
    """Put what is added into both indexes, and note the changes of counts; return the datoms for the log."""
    eav: list[tuple[bytes, bytes]] = []
    ave: list[tuple[bytes, bytes]] = []
    one = ONE_DATOM + len(f"\t\t{int.from_bytes(tx, 'big')}\n")  # what is the same of every line
    before, digits = b"", 0
    for prefix, added in changeset.added.items():
        e, aid = prefix[:ENTITY_SIZE], prefix[ENTITY_SIZE:]
        if e != before:
            before, digits = e, len(str(int.from_bytes(e, "big")))
        for value, encoding in added.items():
            eav.append((prefix + value, tx if len(encoding) <= KEY_VALUE_MAX else tx + encoding))
            ave.append((aid + value + e, tx))
            changes[aid] = changes.get(aid, 0) + one + digits + text_size(encoding)
    eav.sort()
    ave.sort()
    txn.put_many(EAV, eav)
    txn.put_many(AVE, ave)
    return [pack_datom(key[:PREFIX_SIZE], data[TX_SIZE:] or key[PREFIX_SIZE:]) for key, data in eav]
