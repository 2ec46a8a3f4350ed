"""Pull: the parts of an entity that a pattern names, with the entities that it refers to.

A pattern is a list, and JSON can write it. Its elements::

    "*"                                         all attributes, components with all of theirs
    ":person/name"                              one attribute; a reference becomes {":db/id": 42}
    ":person/_friend"                           the entities that refer to this one
    {":person/friend": [":person/name"]}        an attribute, and a pattern for the entities that it refers to
    [":person/friend", ":limit", 2]             at most so many values; ":default", value  when there is none
    [":person/friend", ":limit", 2, ":pull", [":person/name"]]

Values are those of ``Db.entity``. What an entity does not have is left out, and so is an attribute that nobody has used yet,
unless the store is strict; when nothing is left the result is None. A component that contains itself is pulled once;
deeper in it is only its id. Patterns and components nest up to 100 levels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from cowfs.errors import InputError
from cowfs.pages.reader import Reader
from cowfs.store.model import names
from cowfs.store.model.encoding import Ref, decode, encode_ref
from cowfs.store.model.layout import entity_key
from cowfs.store.model.schema import Attribute, Schema
from cowfs.store.model.values import ID, describe
from cowfs.store.read.documents import by_attribute
from cowfs.store.read.indexes import eav_records, exact, holders

_DEEPEST = 100
_NO_DEFAULT = object()


@dataclass(frozen=True, slots=True)
class AttributeSpec:
    """One attribute that a pattern asks for: its key in the result, whether it is the reverse, and its options."""

    name: str
    attribute: Attribute
    reverse: bool
    limit: int | None = None
    default: Any = _NO_DEFAULT
    pattern: Sequence[Any] | None = None


class Pull:
    """Answers patterns over one root."""

    def __init__(self, reader: Reader, schema: Schema) -> None:
        self._reader = reader
        self._schema = schema

    def pull(self, pattern: Sequence[Any], entity: int) -> dict[str, Any] | None:
        """Return what the pattern asks for of ``entity``, None when there is nothing. Raises ``InputError``."""
        found = self._pull(pattern, entity, 0)
        return found if found.keys() - {ID} or (found and self._exists(entity)) else None

    def _pull(self, pattern: Sequence[Any], entity: int, depth: int) -> dict[str, Any]:
        if not isinstance(pattern, list | tuple):
            raise InputError(f"a pull pattern is a list, not {describe(pattern)}")
        if depth > _DEEPEST:
            raise InputError(f"a pull pattern nests more than {_DEEPEST} levels")
        result: dict[str, Any] = {}
        for element in pattern:
            if element == "*":
                result = self._everything(entity, frozenset(), depth) | result
            elif element in (ID, ID[1:]):
                result[ID] = entity
            else:
                for wish in self._wishes(element):
                    self._pull_attribute(wish, entity, result, depth)
        return result

    def _pull_attribute(self, wish: AttributeSpec, entity: int, result: dict[str, Any], depth: int) -> None:
        """Put what the wish asks for into the result."""
        pattern = wish.pattern
        if pattern is not None and not wish.attribute.refers:
            raise InputError(f"{wish.name} is no reference, so it takes no pattern")
        values = list(islice(self._values(wish, entity), wish.limit))
        if pattern is not None:
            pulled = [self._pull(pattern, value, depth + 1) if isinstance(value, Ref) else value for value in values]
            values = [value for value in pulled if value != {}]
        elif wish.attribute.component and not wish.reverse:
            values = [self._everything(value, frozenset((entity,)), depth + 1) for value in values]
        else:
            values = [_plain(value) for value in values]
        if values:
            one = wish.attribute.component if wish.reverse else not wish.attribute.many
            result[wish.name] = values[0] if one else values
        elif wish.default is not _NO_DEFAULT:
            result[wish.name] = wish.default

    def _values(self, wish: AttributeSpec, entity: int) -> Any:
        if wish.reverse:
            return (Ref(e) for e in holders(self._reader, wish.attribute.key + encode_ref(entity)))
        key = entity_key(entity) + wish.attribute.key
        return (decode(record.encoding) for record in eav_records(self._reader, *exact(key)))

    def _everything(self, entity: int, above: frozenset[int], depth: int) -> dict[str, Any]:
        """Return all attributes of an entity, components pulled alike; ``above`` are the entities that it is part of."""
        result: dict[str, Any] = {ID: entity}
        if entity in above or depth > _DEEPEST:
            return result
        key = entity_key(entity)
        for attribute, values in by_attribute(list(eav_records(self._reader, *exact(key))), self._schema):
            if attribute.component:
                parts = [self._everything(int(v), above | {entity}, depth + 1) for v in values if isinstance(v, Ref)]
            else:
                parts = [_plain(value) for value in values]
            result[attribute.name] = parts if attribute.many else parts[0]
        return result

    def _exists(self, entity: int) -> bool:
        key = entity_key(entity)
        return next(eav_records(self._reader, *exact(key)), None) is not None

    def _wishes(self, element: Any) -> list[AttributeSpec]:
        """Return what one element of a pattern asks for."""
        if isinstance(element, str):
            return [self._wish(element)]
        if isinstance(element, Mapping):
            return [self._wish(name, pattern=pattern) for name, pattern in element.items()]
        if isinstance(element, list | tuple) and len(element) % 2 == 1:
            given = {names.canonical(str(key)): value for key, value in zip(element[1::2], element[2::2], strict=True)}
            unknown = given.keys() - {":limit", ":default", ":pull"}
            limit = given.get(":limit")
            if not unknown and (limit is None or (isinstance(limit, int) and limit > 0)):
                return [self._wish(element[0], limit, given.get(":default", _NO_DEFAULT), given.get(":pull"))]
        raise InputError(
            'a pull pattern has "*", attributes, {attribute: pattern} and [attribute, ":limit", n, ":default", value]'
        )

    def _wish(
        self, name: Any, limit: int | None = None, default: Any = _NO_DEFAULT, pattern: Sequence[Any] | None = None
    ) -> AttributeSpec:
        if not isinstance(name, str):
            raise InputError(f"{describe(name)} where an attribute is due")
        full = names.canonical(name)
        back = names.forward(full)
        attribute = self._schema.find(back or full)
        if back is not None and not attribute.refers:
            raise InputError(f"only a reference has a reverse, and {back} is none")
        return AttributeSpec(full, attribute, back is not None, limit, default, pattern)


def _plain(value: Any) -> Any:
    return {ID: int(value)} if isinstance(value, Ref) else value
