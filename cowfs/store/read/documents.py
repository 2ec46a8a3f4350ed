"""Entity documents: an entity's datoms as one map, ``:db/id`` first and then its attributes in the order of their names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from cowfs.errors import CorruptDatabase
from cowfs.store.model.encoding import Value, decode
from cowfs.store.model.schema import Attribute, Schema
from cowfs.store.model.values import ID, to_json
from cowfs.store.read.indexes import RawDatom


def attribute_of(attributes: Mapping[bytes, Attribute], aid: bytes, e: int) -> Attribute:
    """Return the attribute of a record. Raises ``CorruptDatabase`` when the schema does not know it."""
    attribute = attributes.get(aid)
    if attribute is None:
        raise CorruptDatabase(f"entity {e} has a datom of attribute {int.from_bytes(aid, 'big')}, which the schema lacks")
    return attribute


def by_attribute(records: Sequence[RawDatom], schema: Schema) -> list[tuple[Attribute, list[Value]]]:
    """Return the values of one entity's records by attribute, in the order of the attributes' names."""
    values: dict[str, tuple[Attribute, list[Value]]] = {}
    for e, aid, encoding, _tx in records:
        attribute = attribute_of(schema.by_key, aid, e)
        values.setdefault(attribute.name, (attribute, []))[1].append(decode(encoding))
    return [values[name] for name in sorted(values)]


def document(records: Sequence[RawDatom], schema: Schema) -> dict[str, Any] | None:
    """Return one entity's records as a document with Python values; None when there are none."""
    if not records:
        return None
    result: dict[str, Any] = {ID: records[0].e}
    for attribute, values in by_attribute(records, schema):
        result[attribute.name] = values if attribute.many else values[0]
    return result


def json_document(records: Sequence[RawDatom], schema: Schema) -> dict[str, Any] | None:
    """Return one entity's records as a document for JSON; None when there are none."""
    if not records:
        return None
    result: dict[str, Any] = {ID: records[0].e}
    for attribute, values in by_attribute(records, schema):
        result[attribute.name] = [to_json(value) for value in values] if attribute.many else to_json(values[0])
    return result
