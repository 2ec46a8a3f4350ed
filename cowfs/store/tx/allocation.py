"""Which ids new entities get: those above the highest id that is followed.

The highest id of a store is in its state. Ids up to ``FOLLOWED`` are followed, so mostly the next id is the highest plus
one. An id that somebody chose above ``FOLLOWED`` is not, since it would leave too little room. In a store that has, or had,
such an id, ``allocated`` in ``cowfs`` keeps the highest id that is followed, or was given. An older version does not know
that record and may use ids above it, so there every new id is compared with those in use.
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from cowfs.engine.writetxn import WriteTxn
from cowfs.errors import CorruptDatabase, InputError
from cowfs.pages.reader import Reader
from cowfs.store.model.encoding import Ref, encode_ref
from cowfs.store.model.layout import AID_SIZE, ALLOCATED_KEY, AVE, EAV, ENTITY_SIZE, LOG, META, State, entity_key, number_key
from cowfs.store.model.schema import Schema
from cowfs.store.model.values import MAX_ENTITY
from cowfs.store.read.log import parse_row
from cowfs.store.tx.tempids import EntitySlots

FOLLOWED: Final = 2**51
_NONE: Final = 2**64 - 1  # an id that no entity has
_REF_AT: Final = AID_SIZE + 1  # where the entity stands in a key of ave whose value is a reference


class Allocation:
    """The new ids of one transaction, which names the entities of ``nodes``, on top of ``state``.

    ``highest`` is the highest id after the transaction. Raises ``CorruptDatabase``.
    """

    def __init__(self, reader: Reader, schema: Schema, state: State, nodes: EntitySlots) -> None:
        self._reader = reader
        self._schema = schema
        followed = max((number for number in nodes.taken if number <= FOLLOWED), default=0)
        self._last = max(_last_of(reader, schema, state), followed)
        self.highest = max(state.max_entity, max(nodes.taken, default=0))
        self._used = 0 if self.highest > FOLLOWED else _NONE  # the first above ``_last``, or not known yet

    def next_id(self) -> int:
        """Return the next id that nobody has. Raises ``InputError`` when there is none."""
        self._last += 1
        while self._last >= self._used:
            self._used = self._first_used(self._last)
            if self._used == self._last:
                self._last += 1
        if self._last > MAX_ENTITY:
            raise InputError("no entity ids are left below 2**53")
        self.highest = max(self.highest, self._last)
        return self._last

    def write(self, txn: WriteTxn) -> None:
        """Write where allocation stands, if the state does not say it."""
        if self.highest > FOLLOWED:
            txn.put(META, ALLOCATED_KEY, number_key(self._last))

    def _first_used(self, start: int) -> int:
        """Return the first id from ``start`` on that has datoms or is referred to, else one that no entity can have."""
        used = [key[:ENTITY_SIZE] for key in islice(self._reader.keys(EAV, entity_key(start)), 1)]
        for attribute in self._schema.values():
            if attribute.refers:
                first, end = (attribute.key + encode_ref(number) for number in (start, _NONE))
                used += [key[_REF_AT : _REF_AT + ENTITY_SIZE] for key in islice(self._reader.keys(AVE, first, end), 1)]
        return min((int.from_bytes(key, "big") for key in used), default=_NONE)


def read_allocated(reader: Reader) -> int | None:
    """Return the record under ``allocated``, None when there is none. Raises ``CorruptDatabase``."""
    data = reader.get(META, ALLOCATED_KEY)
    if data is None:
        return None
    allocated = int.from_bytes(data, "big")
    if len(data) != ENTITY_SIZE or allocated > MAX_ENTITY:
        raise CorruptDatabase("the store's record of the highest id that it gave is damaged")
    return allocated


def _last_of(reader: Reader, schema: Schema, state: State) -> int:
    """Return the highest id that is followed, or was given."""
    if state.max_entity <= FOLLOWED:
        return state.max_entity
    allocated = read_allocated(reader)
    return _last_in_log(reader, schema) if allocated is None else allocated


def _last_in_log(reader: Reader, schema: Schema) -> int:
    """Return the highest id that is followed, from all that was ever there.

    It is asked once, in a store in which an older version wrote an id that is not followed.
    """
    last = 0
    for key, row in reader.scan(LOG):
        transaction = parse_row(int.from_bytes(key, "big"), row, schema.by_key)
        for datom in transaction.asserted:
            named = (datom.e, datom.v if isinstance(datom.v, Ref) else 0, 0)
            last = max(last, *(int(number) for number in named if number <= FOLLOWED))
    return last
