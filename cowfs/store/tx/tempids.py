"""EntitySlots: the entities of a transaction while not all of them have an id yet.

A node is an int: positive, the id of an entity; negative, a slot that stands for a tempid, for a map without an id, or for
a lookup ref to an entity of the same transaction. Slots are joined with each other and with entities until every one of
them is an entity; ``ids`` then gives each its id.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

from cowfs.errors import InputError
from cowfs.store.model.values import MAX_CHOSEN, MAX_ENTITY, shown

_CURRENT_TRANSACTION: Final = frozenset(
    ("datomic.tx", ":db/current-tx", "db/current-tx", "datascript.tx", "datahike.tx", "datalevin.tx")
)
"""What names the transaction itself in Datomic and in its relatives."""


class EntitySlots:
    """The slots of one transaction in a store whose highest entity id is ``highest``.

    ``taken`` are the ids of the entities of which it asserts something, or to which it refers. With ``renumbered`` positive
    ids are not those of this store: it has the entities that some of them have become, the others are tempids.
    """

    def __init__(self, highest: int, renumbered: Mapping[int, int] | None = None) -> None:
        self.taken: set[int] = set()
        self._renumbered = renumbered
        self._limit = max(MAX_CHOSEN, highest)  # older versions had none
        self.by_tempid: dict[int | str, int] = {}
        self._parents: list[int] = [0]  # by -node: the node that it was joined with, itself at first
        self._named: set[int] = set()
        self._forms: list[int] = [0]  # by -node: the first form with the slot

    def anonymous(self, form: int) -> int:
        """Return a new slot, for form ``form``."""
        node = -len(self._parents)
        self._parents.append(node)
        self._forms.append(form)
        return node

    def tempid(self, name: int | str, form: int) -> int:
        """Return the slot of a tempid in form ``form``. Raises ``InputError`` for what cannot be one."""
        node = self.by_tempid.get(name)
        if node is None:
            problem = _fault(name)
            if problem is not None:
                raise InputError(problem)
            node = self.by_tempid[name] = self.anonymous(form)
        return node

    @property
    def expected(self) -> dict[int, int]:
        """The slots of the positive ids that are tempids here. Others may assert something of them later."""
        return {name: node for name, node in self.by_tempid.items() if isinstance(name, int) and name > 0}

    def entity(self, number: int, form: int) -> int:
        """Return the node of an explicit entity id in form ``form``. Raises ``InputError`` when it can be none."""
        if not 1 <= number <= MAX_ENTITY:
            raise InputError("an entity id is 1 to 2**53-1")
        if self._renumbered is not None:
            if number not in self._renumbered:
                return self.tempid(number, form)
            number = self._renumbered[number]
        elif number > self._limit:
            raise InputError("ids above 2**52 are left to the store: use a tempid")
        self._named.add(number)
        return number

    def take(self, node: int) -> None:
        """Note that the transaction asserts something of this entity, or refers to it."""
        if node > 0:
            self.taken.add(node)

    def find(self, node: int) -> int:
        """Return the entity that the node is, or the slot that stands for all that were joined with it."""
        while node < 0 and (parent := self._parents[-node]) != node:
            if parent < 0:
                parent = self._parents[-node] = self._parents[-parent]  # halves the path
            node = parent
        return node

    def same(self, one: int, other: int) -> bool:
        """Whether both nodes are known to be the same entity."""
        return self.find(one) == self.find(other)

    def join(self, one: int, other: int) -> None:
        """Make both nodes the same entity. Raises ``InputError`` when they are two entities already."""
        one, other = self.find(one), self.find(other)
        if one == other:
            return
        if one > 0 and other > 0:
            raise InputError(f"upserts contradict each other: entity {one} and entity {other} would have to be one")
        if one < 0 and (other > 0 or other > one):
            self._parents[-one] = other
        else:
            self._parents[-other] = one

    def awaited(self, subjects: Iterable[int]) -> set[int]:
        """Return the slots of positive ids that are none of ``subjects``, the nodes of which something is asserted."""
        if self._renumbered is None:
            return set()
        return {self.find(node) for node in self.expected.values()} - {self.find(node) for node in subjects}

    def without_datoms(self, subjects: Iterable[int]) -> tuple[int | str | None, int] | None:
        """Return a slot that would be a new entity and is none of ``subjects``, the nodes of which something is asserted.

        Its tempid, None when it has none, and the first form with it; None when there is no such slot.
        """
        entities = {self.find(node) for node in subjects if node < 0} | self.awaited(subjects)
        for slot in range(1, len(self._parents)):
            found = self.find(-slot)
            if found < 0 and found not in entities:
                names = (name for name, node in self.by_tempid.items() if node == -slot)
                return next(names, None), self._forms[slot]
        return None

    def allocate(self, next_id: Callable[[], int]) -> list[int]:
        """Give ids of ``next_id`` to the slots that are no entity yet, in their order, none that a form names.

        Returns the ids by -node.
        """
        ids = [0]
        for slot in range(1, len(self._parents)):
            found = self.find(-slot)
            if found == -slot:
                found = next_id()
                while found in self._named:
                    found = next_id()
            ids.append(found if found > 0 else ids[-found])
        return ids


def _fault(name: int | str) -> str | None:
    """Return why a transaction cannot have this tempid, None when it can."""
    if isinstance(name, int):
        return "a tempid is a string, or -1 to -2**63" if name < -(2**63) else None
    if name in _CURRENT_TRANSACTION:
        return "transactions are not entities in this version"
    if name.startswith(":"):
        return f"no entity is named {shown(name)}; a tempid begins without a colon"
    if not name.isascii() and any("\ud800" <= character <= "\udfff" for character in name):
        return "a lone surrogate, which is no text"
    return None
