"""Changes of a schema, and what of the data each of them depends on.

New attributes are always fine. The value type may change only while the attribute has no datoms; an attribute with many
values gets one value only when no entity has two, and becomes unique only when no two entities share a value. All else
is free.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from cowfs.errors import SchemaError
from cowfs.pages.reader import Reader
from cowfs.store.model import names
from cowfs.store.model.layout import AVE, ENTITY_SIZE, read_count, stop_after
from cowfs.store.model.schema import TUPLE_TYPE, TUPLE_TYPES, VALUE_TYPE, Attribute, Schema
from cowfs.store.model.values import describe


def new_schema(definitions: object) -> list[Attribute]:
    """Return the attributes of a new store. Raises ``SchemaError``."""
    return [Attribute.parse(aid, name, definition) for aid, (name, definition) in enumerate(_named(definitions), 1)]


def changed_attributes(reader: Reader, schema: Schema, definitions: object) -> list[Attribute]:
    """Return the attributes that are new or other than in ``schema``, after checking them against the data.

    Raises ``SchemaError``, naming the attribute and the reason.
    """
    changed = []
    next_id = schema.next_id
    for name, definition in _named(definitions):
        old = schema.get(name)
        new = Attribute.parse(next_id if old is None else old.id, name, definition)
        if old is None:
            next_id += 1
        elif old == new:
            continue
        else:
            _check_change(reader, old, new)
        changed.append(new)
    return changed


def _named(definitions: object) -> list[tuple[str, Any]]:
    if not isinstance(definitions, Mapping):
        raise SchemaError(f"a schema is a map from attributes to definitions, not {describe(definitions)}")
    named = [(names.checked(name), definition) for name, definition in definitions.items()]
    seen = {name for name, _definition in named}
    if len(seen) < len(named):
        raise SchemaError("an attribute is defined twice, with and without its colon")
    return named


def _check_change(reader: Reader, old: Attribute, new: Attribute) -> None:
    if any(old.properties.get(key) != new.properties.get(key) for key in (VALUE_TYPE, TUPLE_TYPE, TUPLE_TYPES)):
        count = read_count(reader, old.key).datoms
        if count:
            raise SchemaError(f"{old.name}: the value type cannot change, the attribute has {count} datoms")
    if old.many and not new.many:
        _check_single(reader, old)
    if new.unique is not None and old.unique is None:
        _check_unique(reader, old)


def _check_single(reader: Reader, attribute: Attribute) -> None:
    seen = set()
    for key in reader.keys(AVE, attribute.key, stop_after(attribute.key)):
        e = key[-ENTITY_SIZE:]
        if e in seen:
            number = int.from_bytes(e, "big")
            raise SchemaError(f"{attribute.name}: cannot become cardinality one, entity {number} has several values")
        seen.add(e)


def _check_unique(reader: Reader, attribute: Attribute) -> None:
    for one, other in pairwise(reader.keys(AVE, attribute.key, stop_after(attribute.key))):
        if one[:-ENTITY_SIZE] == other[:-ENTITY_SIZE]:
            first, second = (int.from_bytes(key[-ENTITY_SIZE:], "big") for key in (one, other))
            raise SchemaError(f"{attribute.name}: cannot become unique, entities {first} and {second} share a value")
