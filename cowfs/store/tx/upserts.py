"""Unique attributes in a transaction: whom a tempid turns out to be, and whether a value has one owner in the end.

A tempid that asserts a value of a ``:db.unique/identity`` attribute is the entity that has this value before the
transaction; else the one of which a form of the transaction asserts it by id; else everybody who asserts it there.
Uniqueness itself is judged when all is done, so two entities may swap their values.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cowfs.errors import InputError, TransactionError
from cowfs.pages.reader import Reader
from cowfs.store.model.encoding import decode, encode_ref, key_value
from cowfs.store.model.layout import ENTITY_SIZE, entity_key
from cowfs.store.model.schema import Schema
from cowfs.store.model.values import shown
from cowfs.store.read.indexes import holder
from cowfs.store.tx.changeset import Changeset
from cowfs.store.tx.forms import ADD, CAS, Claim, FormReader, form_error


class UpsertResolver:
    """The owners of unique values around one transaction: before it, and as its forms claim them."""

    def __init__(self, reader: Reader, forms: FormReader, data: Sequence[Any]) -> None:
        self._reader = reader
        self._forms = forms
        self._nodes = forms.nodes
        self._data = data
        self._before: dict[bytes, int | None] = {}
        self._claimed: dict[bytes, int] = {}

    def resolve(self) -> None:
        """Join the slots of the transaction that are the same entity. Raises ``TransactionError``."""
        late = []
        for claim in sorted(self._forms.claims, key=_of_tempid):
            if isinstance(claim.value, int):
                late.append(claim)
            else:
                self._claim(claim, claim.attribute.key + key_value(claim.value))
        pending = dict(self._forms.pending)
        joined = True
        while joined:
            joined = self._settle(pending)
            for claim in late:
                joined |= self._claim_reference(claim)
        for _node, index in pending.values():
            raise form_error(self._data, index, InputError("a lookup ref to an entity that does not exist"))
        bare = self._nodes.without_datoms(self._forms.subjects)
        if bare is not None:
            tempid, index = bare
            what = "the map's entity" if tempid is None else f"tempid {tempid!r}"
            raise form_error(self._data, index, InputError(f"nothing is asserted of {what}, so it is no entity"))

    def check(self, changeset: Changeset, schema: Schema, ids: Sequence[int]) -> None:
        """Raise ``TransactionError`` when, after ``changeset``, two entities have the same value of a unique attribute."""
        owners: dict[bytes, bytes] = {}
        for prefix, added in changeset.added.items():
            aid = prefix[ENTITY_SIZE:]
            if schema.of_key(aid).unique is None:
                continue
            for value in added:
                owner = owners.setdefault(aid + value, prefix)
                if owner == prefix:
                    owner = self._stored_owner(changeset, aid + value) or prefix
                if owner != prefix:
                    raise self._conflict(prefix, added[value], owner, schema, ids)

    def check_references(self, changeset: Changeset, ids: Sequence[int]) -> None:
        """Raise ``TransactionError`` when a new entity is referred to of which the forms retract all that they assert."""
        if all(kind in (ADD, CAS) for _form, kind, _node, _attribute, _value in self._forms.ops):
            return
        filled = {int.from_bytes(prefix[:ENTITY_SIZE], "big") for prefix, added in changeset.added.items() if added}
        filled |= {ids[-node] for node in self._nodes.awaited(self._forms.subjects) if node < 0}
        empty = {ids[slot] for slot in range(1, len(ids)) if self._nodes.find(-slot) < 0} - filled
        for index, kind, node, attribute, value in self._forms.ops if empty else ():
            target = value[1] if kind == CAS else value
            if isinstance(target, int) and target < 0 and ids[-target] in empty:
                prefix = entity_key(node if node > 0 else ids[-node]) + attribute.key
                if encode_ref(ids[-target]) in changeset.added.get(prefix, {}):
                    error = InputError("a reference to a new entity of which nothing is left")
                    raise form_error(self._data, index, error)

    def _stored_owner(self, changeset: Changeset, key: bytes) -> bytes | None:
        """Return the prefix of the datom that had the unique value before, None when it is gone, or there was none."""
        number = self.owner_before(key)
        if number is None:
            return None
        prefix = entity_key(number) + key[:4]
        return None if key[4:] in changeset.gone.get(prefix, {}) else prefix

    def owner_before(self, key: bytes) -> int | None:
        """Return the entity that had a unique value before the transaction; ``key`` is attribute key and key value."""
        if key not in self._before:
            self._before[key] = holder(self._reader, key)
        return self._before[key]

    def _claim(self, claim: Claim, key: bytes) -> bool:
        """Take note that the claim's entity has the value at ``key``; return whether this joined two nodes."""
        owner = self._claimed.get(key)
        if owner is None:
            owner = self._claimed[key] = self.owner_before(key) or claim.node
        if claim.node > 0 or claim.attribute.unique != "identity" or self._nodes.same(owner, claim.node):
            return False
        self._join(claim.form, claim.node, owner, claim.attribute.name)
        return True

    def _claim_reference(self, claim: Claim) -> bool:
        """Take note of a claim whose value is a reference, which may be to a slot that is no entity yet."""
        node = self._nodes.find(int(claim.value))
        name = encode_ref(node) if node > 0 else b"slot %d" % -node
        return self._claim(claim, claim.attribute.key + name)

    def _settle(self, pending: dict[bytes, tuple[int, int]]) -> bool:
        """Join the lookup refs that wait for a claim with those who made it."""
        found = [key for key in pending if key in self._claimed]
        for key in found:
            node, index = pending.pop(key)
            self._join(index, node, self._claimed[key], "lookup ref")
        return bool(found)

    def _join(self, index: int, node: int, other: int, what: str) -> None:
        try:
            self._nodes.join(node, other)
        except InputError as error:
            raise form_error(self._data, index, InputError(f"{what}: {error}")) from None

    def _conflict(
        self, prefix: bytes, encoding: bytes, owner: bytes, schema: Schema, ids: Sequence[int]
    ) -> TransactionError:
        entity, other = (int.from_bytes(key[:ENTITY_SIZE], "big") for key in (prefix, owner))
        attribute = schema.of_key(prefix[ENTITY_SIZE:])
        error = InputError(
            f"{attribute.name} is unique, and {shown(decode(encoding))} would be that of"
            f" entity {min(entity, other)} and of entity {max(entity, other)}"
        )
        for index, kind, _node, other_attribute, value in reversed(self._forms.ops):
            made = value[1] if kind == CAS else value
            made = encode_ref(made if made > 0 else ids[-made]) if isinstance(made, int) else made
            if kind in (ADD, CAS) and other_attribute == attribute and made == encoding:
                return form_error(self._data, index, error)
        return TransactionError(str(error))


def _of_tempid(claim: Claim) -> bool:
    return claim.node < 0
