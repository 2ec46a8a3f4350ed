"""Transaction data read into operations: what each form of it asserts or retracts, with its values encoded.

Nothing is looked at but the schema and, for lookup refs, the database before the transaction. Nested maps wait in a list
instead of on the stack, so their depth is not limited.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from cowfs.errors import InputError, TransactionError
from cowfs.pages.reader import Reader
from cowfs.store.model import names
from cowfs.store.model.encoding import Ref, key_value
from cowfs.store.model.schema import Attribute, Schema
from cowfs.store.model.values import ID, ID_KEYS, describe, one_line, shown
from cowfs.store.read.indexes import holder
from cowfs.store.tx.tempids import EntitySlots

ADD: Final = 0
RETRACT: Final = 1
RETRACT_ALL: Final = 2
RETRACT_ENTITY: Final = 3
CAS: Final = 4

_SHOWN = 80  # characters of a form in an error


class Op(NamedTuple):
    """One thing to do: ``value`` is an encoding, or the node of a reference; for cas the old and the new one."""

    form: int
    kind: int
    node: int
    attribute: Attribute
    value: Any


class Claim(NamedTuple):
    """Somebody asserts a value of a unique attribute: an encoding, or the node of a reference."""

    form: int
    node: int
    attribute: Attribute
    value: bytes | int


def form_error(data: Sequence[Any], index: int, error: InputError) -> TransactionError:
    """Return the error that names the form which ``error`` is about."""
    return TransactionError(f"form {index} {_shown(data[index])}: {error}", index)


class FormReader:
    """Reads the forms of one transaction; what it found is in ``ops``, ``claims``, ``nodes`` and ``new_attributes``.

    ``subjects`` are the nodes of which it asserts something; ``chosen`` the positive ids that maps have, or assert something
    of, each after its form. ``highest`` is the highest entity id before, ``renumbered`` as in ``EntitySlots``.
    """

    def __init__(self, reader: Reader, schema: Schema, highest: int, renumbered: Mapping[int, int] | None = None) -> None:
        self.ops: list[Op] = []
        self.subjects: set[int] = set()
        self.claims: list[Claim] = []
        self.chosen: list[tuple[int, int]] = []
        self.nodes = EntitySlots(highest, renumbered)
        self.new_attributes: dict[str, Attribute] = {}
        self.pending: dict[bytes, tuple[int, int]] = {}  # key of a lookup ref -> its slot, the first form with it
        self._reader = reader
        self._schema = schema
        self._lookups: dict[bytes, int] = {}
        self._attributes: dict[str, Attribute] = dict(schema.by_spelling)
        self._colonless: dict[str, int] = {}  # attributes of lookup refs that might be two tempids -> the first such form
        self._nested: deque[tuple[int, Mapping[str, Any]]] = deque()  # maps in maps, still to be read
        self._next_id = schema.next_id
        self._index = 0

    def read(self, data: Any) -> None:
        """Read all forms. Raises ``TransactionError``, naming the form."""
        if not isinstance(data, list | tuple):
            raise TransactionError(f"transaction data is a list of forms, not {describe(data)}")
        for index, form in enumerate(data):
            self._index = index
            try:
                self._form(form)
            except InputError as error:
                raise form_error(data, index, error) from None
        self._require_one_meaning(data)
        self.subjects = {node for _form, kind, node, _attribute, _value in self.ops if kind in (ADD, CAS)}
        for node in self.subjects:
            self.nodes.take(node)

    def _require_one_meaning(self, data: Sequence[Any]) -> None:
        """Raise ``TransactionError`` when a list that was read as a lookup ref may be two tempids."""
        for name, index in self._colonless.items():
            if name in self.nodes.by_tempid:
                problem = (
                    f"{shown(name)} is a tempid here, so the list may be two tempids or a lookup ref;"
                    f" a lookup ref is [{shown(names.canonical(name))}, ...]"
                )
                raise form_error(data, index, InputError(problem))

    def _form(self, form: Any) -> None:
        if isinstance(form, dict):
            self._map(form)
        elif isinstance(form, list | tuple):
            self._list(form)
        else:
            raise InputError("a form is a map or a list")
        while self._nested:
            self._map_of(*self._nested.popleft())

    # -- maps ----------------------------------------------------------------------------------------------------

    def _map(self, form: Mapping[str, Any]) -> None:
        if not form:
            raise InputError("a map without attributes")
        self._map_of(self._map_node(form), form)

    def _map_of(self, node: int, form: Mapping[str, Any]) -> None:
        """Read the attributes of a map whose entity is ``node``."""
        attributes, ops, index = self._attributes, self.ops, self._index
        name, value = "", None
        try:
            for name, value in form.items():
                attribute = attributes.get(name)
                if attribute is not None and attribute.plain:
                    encoding = attribute.encode(value)
                    ops.append(Op(index, ADD, node, attribute, encoding))
                    if attribute.unique is not None:
                        self.claims.append(Claim(index, node, attribute, encoding))
                elif name not in ID_KEYS:
                    self._odd(node, name, value)
        except InputError as error:
            raise InputError(f"{names.shown(name)}: {error}{self._hint(name, value)}") from None

    def _hint(self, name: str, value: Any) -> str:
        attribute = self._attributes.get(name)
        wrong = attribute is not None and not attribute.many and attribute.type not in ("ref", "tuple")
        return "; for many values declare :db/cardinality :db.cardinality/many" if wrong and isinstance(value, list) else ""

    def _odd(self, node: int, name: str, value: Any) -> None:
        """Read one attribute of a map that is many, a reference, untyped, unknown or a reverse one."""
        attribute = self._attributes.get(name)
        back = names.forward(names.canonical(name)) if attribute is None and isinstance(name, str) else None
        if back is not None:
            self._reverse(node, back, value)
            return
        attribute = attribute or self._undeclared(name)
        for single in self._singles(attribute, value):
            self._add(ADD, node, attribute, single)

    def _singles(self, attribute: Attribute, value: Any) -> Iterable[Any]:
        """Return the values that the value of an attribute in a map is: a list is many of them, if it is not one itself."""
        if not isinstance(value, list) and not (isinstance(value, tuple) and attribute.type != "tuple"):
            return (value,)
        if attribute.type == "ref" and (self._is_one_of_many(value) if attribute.many else self._is_lookup(value)):
            return (value,)
        if attribute.type == "tuple" and not (attribute.many and all(isinstance(v, list | tuple) for v in value)):
            return (value,)
        if attribute.many:
            return value
        if attribute.type is None:
            hint = f' (a reference is {{"{ID}": ...}})' if self._is_lookup(value) else ""
            raise InputError(f"a list, and the attribute has one value{hint}")
        raise InputError("a list that is no lookup ref, and the attribute has one value")

    def _reverse(self, node: int, name: str, value: Any) -> None:
        attribute = self._known(name)
        if attribute.type != "ref":
            raise InputError(f"only a reference has a reverse, and {name} is none")
        values = value if isinstance(value, list | tuple) and not self._is_one_of_many(value) else (value,)
        self.nodes.take(node)
        for single in values:
            self._op(ADD, self._reference(single), attribute, node)
            self._choose(next(iter(single.values())) if isinstance(single, dict) and len(single) == 1 else single)

    def _map_node(self, form: Mapping[str, Any]) -> int:
        given = [form[key] for key in ID_KEYS if key in form]
        if len(given) > 1:
            raise InputError(f"{ID} is there twice, with and without its colon")
        if not given:
            return self.nodes.anonymous(self._index)
        if len(form) > 1:
            self._choose(given[0])
        return self._entity(given[0])

    def _choose(self, entity: Any) -> None:
        """Note that a map asserts something of this entity, if it names it by a positive id."""
        if isinstance(entity, int) and not isinstance(entity, bool) and entity > 0:
            self.chosen.append((self._index, entity))

    # -- lists ---------------------------------------------------------------------------------------------------

    def _list(self, form: Sequence[Any]) -> None:
        operation = form[0] if form else None
        name = names.canonical(operation) if isinstance(operation, str) else ""
        if name == ":db/add" and len(form) == 4:
            self._named(ADD, self._entity(form[1]), form[2], form[3])
        elif name == ":db/retract" and len(form) == 4:
            self._named(RETRACT, self._entity(form[1]), form[2], form[3])
        elif name == ":db/retract" and len(form) == 3:
            self._op(RETRACT_ALL, self._entity(form[1]), self._stored(form[2]), None)
        elif name == ":db/cas" and len(form) == 5:
            self._cas(form)
        elif name in (":db/retractEntity", ":db.fn/retractEntity") and len(form) == 2:
            self.ops.append(Op(self._index, RETRACT_ENTITY, self._entity(form[1]), _NO_ATTRIBUTE, None))
        elif name in _LENGTHS:
            raise InputError(f"{name} takes {_LENGTHS[name]}")
        else:
            raise InputError(f"no operation; there are {', '.join(_LENGTHS)}")
        if self._nested and name != ":db/add":
            raise InputError("a map with attributes can only be added")

    def _named(self, kind: int, node: int, name: Any, value: Any) -> None:
        try:
            self._add(kind, node, self._asserted(name) if kind == ADD else self._stored(name), value)
        except InputError as error:
            raise InputError(f"{names.shown(name)}: {error}") from None

    def _cas(self, form: Sequence[Any]) -> None:
        _operation, entity, name, old, new = form
        node = self._entity(entity)
        try:
            self._swap(node, self._asserted(name), old, new)
        except InputError as error:
            raise InputError(f"{names.shown(name)}: {error}") from None

    def _swap(self, node: int, attribute: Attribute, old: Any, new: Any) -> None:
        if attribute.many:
            raise InputError(":db/cas is for attributes with one value")
        if new is None:
            raise InputError("the new value is null; :db/retract takes a value away")
        pair = (None if old is None else self._encoded(attribute, old), self._encoded(attribute, new))
        self._op(CAS, node, attribute, pair)

    # -- parts ---------------------------------------------------------------------------------------------------

    def _add(self, kind: int, node: int, attribute: Attribute, value: Any) -> None:
        self._op(kind, node, attribute, self._encoded(attribute, value))

    def _op(self, kind: int, node: int, attribute: Attribute, value: Any) -> None:
        self.ops.append(Op(self._index, kind, node, attribute, value))
        if kind == ADD and attribute.unique is not None:
            self.claims.append(Claim(self._index, node, attribute, value))

    def _encoded(self, attribute: Attribute, value: Any) -> bytes | int:
        """Return the encoding of a value, or the node of a reference."""
        if value is None:
            raise InputError("null is no value; leave the attribute out, or retract what it has")
        if attribute.type == "ref":
            return self._reference(value)
        if attribute.type is None and isinstance(value, dict | Ref):
            if isinstance(value, dict) and not (len(value) == 1 and next(iter(value)) in ID_KEYS):
                raise InputError("a map for an attribute that is not declared :db/valueType :db.type/ref")
            return self._reference(value)
        return attribute.encode(value)

    def _reference(self, value: Any) -> int:
        """Return the node that a reference refers to."""
        if isinstance(value, dict):
            if not value:
                raise InputError("a map without attributes")
            if len(value) > 1 or next(iter(value)) not in ID_KEYS:
                node = self._map_node(value)
                self._nested.append((node, value))
                return node
            value = next(iter(value.values()))
        node = self._entity(value)
        self.nodes.take(node)
        return node

    def _entity(self, value: Any) -> int:
        """Return the node of an entity id, a tempid or a lookup ref."""
        if isinstance(value, int) and not isinstance(value, bool):
            return self.nodes.tempid(value, self._index) if value < 0 else self.nodes.entity(value, self._index)
        if isinstance(value, str):
            return self.nodes.tempid(value, self._index)
        if isinstance(value, list | tuple) and len(value) == 2:
            return self._lookup(value)
        raise InputError(f"{describe(value)} where an entity is due (an id, a tempid or a lookup ref)")

    def _is_lookup(self, value: Any) -> bool:
        if not isinstance(value, list | tuple) or len(value) != 2 or not isinstance(value[0], str):
            return False
        attribute = self._attributes.get(value[0])
        return attribute is not None and attribute.unique is not None

    def _is_one_of_many(self, value: Any) -> bool:
        """Whether a list where many references may stand is one lookup ref; then it must not mean two tempids."""
        found = self._is_lookup(value)
        if found and not value[0].startswith(":"):
            self._colonless.setdefault(value[0], self._index)
        return found

    def _lookup(self, pair: Sequence[Any]) -> int:
        """Return the entity that a lookup ref names in the database before, else a slot that waits for a claim."""
        attribute = self._known(pair[0])
        if attribute.unique is None:
            raise InputError(f"{attribute.name} is not unique, so it names no entity")
        try:
            key = attribute.key + key_value(attribute.encode(pair[1]))
        except InputError as error:
            raise InputError(f"lookup ref {attribute.name}: {error}") from None
        node = self._lookups.get(key)
        if node is None:
            node = holder(self._reader, key)
            if node is None:
                node = self.nodes.anonymous(self._index)
                self.pending[key] = (node, self._index)
            self._lookups[key] = node
        return node

    def _asserted(self, name: Any) -> Attribute:
        """Return an attribute of which the form asserts a value; this may be its first use."""
        attribute = self._attributes.get(name) if isinstance(name, str) else None
        return self._undeclared(name) if attribute is None else attribute

    def _stored(self, name: Any) -> Attribute:
        """Return an attribute of which the form retracts values; nobody need have used it."""
        attribute = self._attributes.get(name) if isinstance(name, str) else None
        return self._schema.find(name) if attribute is None else attribute

    def _known(self, name: Any) -> Attribute:
        attribute = self._attributes.get(name) if isinstance(name, str) else None
        if attribute is None:
            raise InputError(f"no attribute {names.shown(name)}")
        return attribute

    def _undeclared(self, name: Any) -> Attribute:
        """Return a new attribute without a definition for a name that is used for the first time."""
        if self._schema.strict:
            raise InputError("not in the schema, and this store takes declared attributes only")
        problem = names.fault(name)
        if problem is not None:
            raise InputError(problem)
        full = names.canonical(name)
        attribute = Attribute.parse(self._next_id, full, {})
        self._next_id += 1
        self.new_attributes[full] = attribute
        self._attributes[full] = self._attributes[full[1:]] = attribute
        return attribute


_NO_ATTRIBUTE = Attribute.parse(0, ":db/none", {})
_LENGTHS = {
    ":db/add": "an entity, an attribute and a value",
    ":db/retract": "an entity, an attribute and, unless all go, a value",
    ":db/retractEntity": "an entity",
    ":db/cas": "an entity, an attribute, the old and the new value",
}


def _shown(form: Any) -> str:
    """Return the beginning of a form as JSON, on one line that any terminal can print."""
    try:
        text = json.dumps(form, ensure_ascii=False, default=str)
    except (RecursionError, ValueError, TypeError):
        text = describe(form)
    return one_line(text, _SHOWN)
