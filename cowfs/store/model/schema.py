"""``Schema`` and ``Attribute``: which attributes a store has, and what each of them takes.

A definition is a JSON object of properties, in the canonical form without defaults: an attribute that was only ever used is
``{}``. ``Attribute.parse`` is the only way in, so that every attribute there is is a valid one.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from cowfs.errors import CorruptDatabase, InputError, NotFound, SchemaError
from cowfs.pages.reader import Reader
from cowfs.store.model import encoding, names
from cowfs.store.model.layout import ATTRIBUTE_KEYS, META, Format, parse_json, stop_after
from cowfs.store.model.values import ENCODERS, Encoder, describe, encode_untyped, one_line, tuple_encoder

VALUE_TYPE: Final = ":db/valueType"
CARDINALITY: Final = ":db/cardinality"
UNIQUE: Final = ":db/unique"
COMPONENT: Final = ":db/isComponent"
DOC: Final = ":db/doc"
INDEX: Final = ":db/index"
TUPLE_TYPE: Final = ":db/tupleType"
TUPLE_TYPES: Final = ":db/tupleTypes"

_UNUSED_ID = 0  # no attribute of a store has it, so it leads to no datoms
_FLAGS = (COMPONENT, INDEX)
_TAGS = {
    "string": encoding.STRING,
    "keyword": encoding.KEYWORD,
    "symbol": encoding.SYMBOL,
    "boolean": encoding.BOOLEAN,
    "long": encoding.LONG,
    "bigint": encoding.BIGINT,
    "double": encoding.DOUBLE,
    "float": encoding.FLOAT,
    "bigdec": encoding.BIGDEC,
    "instant": encoding.INSTANT,
    "uuid": encoding.UUID_TAG,
    "uri": encoding.URI,
    "bytes": encoding.BYTES,
    "ref": encoding.REF,
    "tuple": encoding.TUPLE,
}
_UNTYPED_TAGS = frozenset((encoding.STRING, encoding.LONG, encoding.BIGINT, encoding.DOUBLE, encoding.BOOLEAN, encoding.REF))


@dataclass(frozen=True, slots=True)
class Attribute:
    """One attribute: its name, what its definition says, and how its values are encoded.

    ``type`` is the value type without namespace ("string"), or None when none was declared; ``unique`` is "identity",
    "value" or None; ``properties`` the definition in canonical form; ``key`` the attribute's id as it stands in keys.
    ``encode`` raises ``InputError`` with a reason that does not name the attribute.
    """

    id: int
    name: str
    type: str | None
    many: bool
    unique: str | None
    component: bool
    properties: Mapping[str, Any]
    encode: Encoder = field(repr=False, compare=False)
    key: bytes = field(repr=False)

    @classmethod
    def parse(cls, aid: int, name: str, definition: object) -> Attribute:
        """Make the attribute that ``definition`` describes. Raises ``SchemaError``, naming attribute and property."""
        properties = canonical_definition(name, definition)
        kind = properties.get(VALUE_TYPE, "").rpartition("/")[2] or None
        return cls(
            id=aid,
            name=name,
            type=kind,
            many=CARDINALITY in properties,
            unique=properties.get(UNIQUE, "").rpartition("/")[2] or None,
            component=COMPONENT in properties,
            properties=properties,
            encode=_encoder(kind, properties),
            key=aid.to_bytes(4, "big"),
        )

    @property
    def refers(self) -> bool:
        """Whether its values are, or since it has no type may be, references."""
        return self.type in ("ref", None)

    @property
    def plain(self) -> bool:
        """Whether a value in a map is just one value to encode: no reference, not many, a declared type."""
        return not self.many and not self.refers

    def takes_tag(self, tag: int) -> bool:
        """Whether a value whose encoding begins with ``tag`` may be one of this attribute's."""
        return tag in _UNTYPED_TAGS if self.type is None else tag == _TAGS[self.type]

    def pack(self) -> bytes:
        """Return the attribute's record in the store."""
        return json.dumps({"name": self.name, **self.properties}).encode()


class Schema(Mapping[str, Attribute]):
    """The attributes of a store by name; the colon may be left out. Immutable."""

    def __init__(self, attributes: Iterable[Attribute] = (), *, strict: bool = False) -> None:
        self.strict = strict
        self._by_name = {attribute.name: attribute for attribute in sorted(attributes, key=lambda a: a.name)}
        self.by_key = {attribute.key: attribute for attribute in self._by_name.values()}
        self.by_spelling = {name[1:]: attribute for name, attribute in self._by_name.items()} | self._by_name

    def __getitem__(self, name: str) -> Attribute:
        return self.by_spelling[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_name)

    def __len__(self) -> int:
        return len(self._by_name)

    def of_key(self, key: bytes) -> Attribute:
        """Return the attribute with that key in an index. Raises ``CorruptDatabase`` when there is none."""
        try:
            return self.by_key[key]
        except KeyError:
            raise CorruptDatabase(
                f"an index has a datom of attribute {int.from_bytes(key, 'big')}, which is not there"
            ) from None

    def find(self, name: object) -> Attribute:
        """Return the attribute with that name; for a name that nobody has used yet one that has no definition and no datoms.

        Raises ``NotFound`` when no attribute can have the name, or the store is strict and does not know it.
        """
        attribute = self.by_spelling.get(name) if isinstance(name, str) else None
        if attribute is not None:
            return attribute
        if not isinstance(name, str) or self.strict or names.fault(name) is not None:
            raise NotFound(f"no attribute {names.shown(name)}")
        return Attribute.parse(_UNUSED_ID, names.canonical(name), {})

    @property
    def next_id(self) -> int:
        """The id of the next new attribute."""
        return max((attribute.id for attribute in self.values()), default=0) + 1

    def to_json(self) -> dict[str, dict[str, Any]]:
        """Return the schema as ``update_schema`` and ``init --schema`` read it, sorted by name."""
        return {name: dict(sorted(attribute.properties.items())) for name, attribute in self.items()}

    def with_attributes(self, attributes: Iterable[Attribute]) -> Schema:
        """Return the schema in which ``attributes`` stand beside, or in place of, those with their names."""
        changed = self._by_name | {attribute.name: attribute for attribute in attributes}
        return Schema(changed.values(), strict=self.strict)


def read_schema(reader: Reader, stored: Format) -> Schema:
    """Return the schema of the store. Raises ``CorruptDatabase`` when a record is damaged."""
    records = reader.scan(META, ATTRIBUTE_KEYS, stop_after(ATTRIBUTE_KEYS))
    return Schema([parse_record(key, data) for key, data in records], strict=stored.strict)


def parse_record(key: bytes, data: bytes) -> Attribute:
    """Parse the record of one attribute. Raises ``CorruptDatabase``."""
    aid = int.from_bytes(key[len(ATTRIBUTE_KEYS) :], "big")
    record = parse_json(data, f"attribute {aid}")
    try:
        return Attribute.parse(aid, names.checked(record.pop("name", None)), record)
    except (InputError, OverflowError) as error:
        raise CorruptDatabase(f"the store's attribute {aid} record is damaged ({error})") from error


def canonical_definition(name: str, definition: object) -> dict[str, Any]:
    """Return a definition with all its colons and without what says the default. Raises ``SchemaError``."""
    if not isinstance(definition, Mapping):
        raise SchemaError(f"{name}: a definition is a map of properties, not {describe(definition)}")
    given = {names.canonical(str(key)): value for key, value in definition.items()}
    properties = {key: _property(name, key, value) for key, value in given.items()}
    properties = {key: value for key, value in properties.items() if value not in (None, False)}
    _check_together(name, properties)
    return properties


def _property(name: str, key: str, value: object) -> Any:
    """Return the canonical value of one property, None for a default."""
    if key in (VALUE_TYPE, TUPLE_TYPE):
        return _keyword(name, key, value, ":db.type/", _TAGS)
    if key == CARDINALITY:
        many = _keyword(name, key, value, ":db.cardinality/", ("one", "many"))
        return None if many == ":db.cardinality/one" else many
    if key == UNIQUE:
        return None if value is None else _keyword(name, key, value, ":db.unique/", ("identity", "value"))
    if key in _FLAGS and isinstance(value, bool):
        return value
    if key == DOC and isinstance(value, str):
        return value
    if key == TUPLE_TYPES and isinstance(value, list | tuple):
        return [_keyword(name, key, element, ":db.type/", _TAGS) for element in value]
    if key == ":db/tupleAttrs":
        raise SchemaError(f"{name}: :db/tupleAttrs (a composite of other attributes) is not supported")
    if key in (*_FLAGS, DOC, TUPLE_TYPES):
        raise SchemaError(f"{name}: {key} cannot be {describe(value)}")
    raise SchemaError(f"{name}: unknown property {names.shown(key)}")


def _keyword(name: str, key: str, value: object, space: str, allowed: Iterable[str]) -> str:
    known = [space + word for word in allowed]
    full = names.canonical(value) if isinstance(value, str) else None
    if full is None or full not in known:
        given = one_line(json.dumps(value), 80) if isinstance(value, str) else describe(value)
        raise SchemaError(f"{name}: {key} is one of {', '.join(known)}, not {given}")
    return full


def _check_together(name: str, properties: Mapping[str, Any]) -> None:
    """Check what the properties of one definition demand of each other."""
    kind = properties.get(VALUE_TYPE)
    given = [key for key in (TUPLE_TYPE, TUPLE_TYPES) if key in properties]
    if COMPONENT in properties and kind != ":db.type/ref":
        raise SchemaError(f"{name}: {COMPONENT} needs {VALUE_TYPE} :db.type/ref")
    if kind == ":db.type/tuple" and len(given) != 1:
        raise SchemaError(f"{name}: a tuple needs {TUPLE_TYPE} or {TUPLE_TYPES}, one of them")
    if kind != ":db.type/tuple" and given:
        raise SchemaError(f"{name}: {given[0]} needs {VALUE_TYPE} :db.type/tuple")
    elements = [properties[TUPLE_TYPE]] if TUPLE_TYPE in properties else properties.get(TUPLE_TYPES, [])
    if TUPLE_TYPES in properties and not 2 <= len(elements) <= 8:
        raise SchemaError(f"{name}: {TUPLE_TYPES} lists 2 to 8 types")
    for element in elements:
        if element in (":db.type/tuple", ":db.type/ref"):
            raise SchemaError(f"{name}: a tuple cannot hold elements of {element}")


def _encoder(kind: str | None, properties: Mapping[str, Any]) -> Encoder:
    if kind is None:
        return encode_untyped
    if kind != "tuple":
        return ENCODERS[kind]
    homogeneous = TUPLE_TYPE in properties
    elements = [properties[TUPLE_TYPE]] if homogeneous else properties[TUPLE_TYPES]
    return tuple_encoder([element.rpartition("/")[2] for element in elements], homogeneous=homogeneous)
