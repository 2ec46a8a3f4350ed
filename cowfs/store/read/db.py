"""``Db``: the database at one commit, as an immutable value.

It works over any ``Reader``, so the newest commit and one from long ago are read alike. A Db holds its root until it is
closed or dropped; what was read from it stays, an iterator of it does not. A Db that was closed still knows which commit it
is of (txid, txnid, format, state); all else, also an iterator that had begun, raises ``Closed``.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from functools import cached_property
from itertools import groupby
from operator import attrgetter
from typing import Any, Final, Literal, TypeVar

from cowfs.errors import Closed, InputError, NotADatabase, NotFound
from cowfs.pages.reader import Reader
from cowfs.store.model import names
from cowfs.store.model.datom import Datom
from cowfs.store.model.encoding import KEY_VALUE_PREFIX, Value, decode, instant_of, key_value
from cowfs.store.model.layout import (
    EAV,
    ENTITY_SIZE,
    LOG,
    TX_SIZE,
    State,
    entity_key,
    number_key,
    read_count,
    read_format,
    read_state,
    stop_after,
    txid_of,
)
from cowfs.store.model.schema import Attribute, Schema, read_schema
from cowfs.store.model.values import MAX_ENTITY, describe
from cowfs.store.read import documents, last_modified, tsv
from cowfs.store.read.indexes import RawDatom, ave_records, eav_records, exact, holder
from cowfs.store.read.log import TxRow, parse_row
from cowfs.store.read.pull import Pull

Index = Literal["eav", "ave"]
Lookup = int | Sequence[Any]
T = TypeVar("T")

_END: Final = 2**64


class Db:
    """The database at one root.

    ``reader`` reads the root, ``txnid`` is LMDB's transaction id of it, ``closer`` is called once when the Db is closed or
    dropped. Raises ``NotADatabase`` when the environment is not a store, ``UnsupportedFormat``, ``CorruptDatabase``.
    """

    def __init__(
        self, reader: Reader, txnid: int, closer: Callable[[], None] | None = None, *, schema: Schema | None = None
    ) -> None:
        self._close = weakref.finalize(self, closer or _nothing)
        self._close.atexit = False
        self._closed = False
        self._reader = reader
        self.txnid: Final = txnid
        self.format: Final = read_format(reader)
        self.state: Final[State] = read_state(reader)
        self.txid: Final = txid_of(txnid, self.state)
        self._given_schema = schema
        self._sizes: dict[bytes, int] = {}  # of columns of which the store keeps none

    def __enter__(self) -> Db:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Db txid={self.txid} datoms={self.state.datoms}{' closed' if self._closed else ''}>"

    def close(self) -> None:
        """Let the root go; closing twice does nothing."""
        self._closed = True
        self._close()

    @property
    def reader(self) -> Reader:
        """What reads the root. Everything that reads goes through here, and so finds out when the Db is closed."""
        self._require_open()
        return self._reader

    # -- facts about the whole -----------------------------------------------------------------------------------

    @property
    def instant(self) -> datetime | None:
        """When the last transaction was; None in a store that has had none, as older ones began."""
        self._require_open()
        return instant_of(self.state.instant) if self.state.txid else None

    @property
    def datom_count(self) -> int:
        """How many datoms there are."""
        self._require_open()
        return self.state.datoms

    @property
    def schema(self) -> Schema:
        """The attributes, by name."""
        self._require_open()
        return self._schema

    def attribute(self, name: str) -> Attribute:
        """Return the attribute with that name. Raises ``NotFound``."""
        attribute = self.schema.get(name) if isinstance(name, str) else None
        if attribute is None:
            raise NotFound(f"no attribute {names.shown(name)}")
        return attribute

    def count(self, name: str) -> int:
        """Return how many datoms an attribute has, without counting them. Raises ``NotFound``."""
        return read_count(self.reader, self.schema.find(name).key).datoms

    def column_size(self, name: str) -> int:
        """Return how many bytes an attribute's lines have (see ``lines``).

        The store keeps it; where an older version had written datoms they are all read, once for this Db.
        Raises ``NotFound``.
        """
        key = self.schema.find(name).key
        size = read_count(self.reader, key).size
        if size is None:
            size = self._sizes[key] = self._sizes.get(key) or tsv.column_size(self.reader, key)
        return size

    def last_touched(self, entity: Lookup) -> int | None:
        """Return the txid of the last transaction that asserted or retracted a datom of an entity.

        None when the entity has no datoms.
        """
        key = self._entity_key(entity)
        return None if key is None else last_modified.last_touched(self.reader, key)

    # -- datoms --------------------------------------------------------------------------------------------------

    def datoms(self, index: Index, *components: Any) -> Iterator[Datom]:
        """Return the datoms that begin with ``components``, in the order of the index.

        ``eav`` takes an entity, an attribute's name and a value, ``ave`` an attribute's name, a value and an entity; each
        may be left out from the end. An entity may be a lookup ref. An attribute that nobody has used yet has no datoms.
        Raises ``NotFound`` (for that in a strict store, too), ``InputError``.
        """
        if index not in ("eav", "ave") or len(components) > 3:
            raise InputError("datoms takes the index eav or ave, and up to three components")
        given = dict(zip(index, components, strict=False))
        e = self._entity_key(given["e"]) if "e" in given else b""
        attribute = self.schema.find(given["a"]) if "a" in given else None
        encoding = _encoded(attribute, given["v"]) if attribute and "v" in given else b""
        if e is None:
            return iter(())
        parts = {"e": e, "a": attribute.key if attribute else b"", "v": key_value(encoding)}
        key = b"".join(parts[name] for name in index)
        found = (eav_records if index == "eav" else ave_records)(self.reader, *(exact(key) if key else ()))
        if encoding:  # a longer value may begin like it
            found = (record for record in found if record.encoding == encoding)
        return self._decoded(found)

    def range(self, name: str, start: Any = None, stop: Any = None) -> Iterator[Datom]:
        """Return an attribute's datoms with start <= value < stop in the order of their values; None is open.

        Raises ``NotFound``, ``InputError``.
        """
        attribute = self.schema.find(name)
        first = b"" if start is None else _encoded(attribute, start)
        last = None if stop is None else _encoded(attribute, stop)
        key = attribute.key
        below = stop_after(key if last is None else key + last[:KEY_VALUE_PREFIX])
        found = ave_records(self.reader, key + first[:KEY_VALUE_PREFIX], below)
        return self._decoded(r for r in found if first <= r.encoding and (last is None or r.encoding < last))

    def entities(self, start: int = 1, stop: int | None = None) -> Iterator[int]:
        """Return the entities that have datoms, in order: those with start <= e < stop."""
        end = None if stop is None else number_key(stop)
        found = self.reader.prefixes(EAV, ENTITY_SIZE, number_key(start), end)
        return self._while_open(int.from_bytes(e, "big") for e in found)

    # -- entities ------------------------------------------------------------------------------------------------

    def entid(self, lookup: Lookup) -> int | None:
        """Return the entity that an id or a lookup ref names; None when no entity has that value.

        An id is returned as it is. Raises ``NotFound`` for an unknown attribute, ``InputError`` for one that is not unique.
        """
        self._require_open()
        if isinstance(lookup, int) and not isinstance(lookup, bool):
            return int(lookup)
        if not isinstance(lookup, list | tuple) or len(lookup) != 2:
            raise InputError(f"{describe(lookup)} where an entity id or a lookup ref is due")
        attribute = self.attribute(lookup[0])
        if attribute.unique is None:
            raise InputError(f"{attribute.name} is not unique, so it names no entity")
        return holder(self.reader, attribute.key + key_value(_encoded(attribute, lookup[1])))

    def entity(self, entity: Lookup) -> dict[str, Any] | None:
        """Return an entity as a document with Python values: ``:db/id`` first, then its attributes by name.

        Many values are a list in the order of the values. None when the entity has no datoms.
        """
        return documents.document(self._attributes_of(entity), self.schema)

    def entity_json(self, entity: Lookup) -> dict[str, Any] | None:
        """Return an entity as a document for JSON, which is valid transaction data; None when it has no datoms."""
        return documents.json_document(self._attributes_of(entity), self.schema)

    def pull(self, pattern: Sequence[Any], entity: Lookup) -> dict[str, Any] | None:
        """Return what ``pattern`` asks for of an entity, with Python values (``pull`` documents the patterns).

        None when there is nothing. Raises ``InputError`` when the pattern is wrong.
        """
        number = self.entid(entity)
        if number is None or not 0 < number <= MAX_ENTITY:
            return None
        return Pull(self.reader, self.schema).pull(pattern, number)

    def export(self) -> Iterator[dict[str, Any]]:
        """Return each entity as ``entity_json`` does: transacted into an empty store with this schema they make it again."""
        groups = groupby(eav_records(self.reader), key=attrgetter("e"))
        found = (documents.json_document(list(records), self.schema) for _e, records in groups)
        return self._while_open(document for document in found if document is not None)

    # -- the log -------------------------------------------------------------------------------------------------

    def log(self, txid: int) -> TxRow | None:
        """Return what transaction ``txid`` did; None when there is no such transaction in this root."""
        self._require_open()
        row = self.reader.get(LOG, number_key(txid)) if 0 < txid < _END else None
        return None if row is None else parse_row(txid, row, self.schema.by_key)

    def transactions(self, start: int = 0, stop: int | None = None, *, reverse: bool = False) -> Iterator[TxRow]:
        """Return the transactions with start <= txid < stop, the oldest first, or the newest."""
        end = None if stop is None else number_key(stop)
        rows = self.reader.scan(LOG, number_key(start), end, reverse=reverse)
        by_key = self.schema.by_key
        return self._while_open(parse_row(int.from_bytes(key[:TX_SIZE], "big"), row, by_key) for key, row in rows)

    # -- inside --------------------------------------------------------------------------------------------------

    @cached_property
    def _schema(self) -> Schema:
        return read_schema(self._reader, self.format) if self._given_schema is None else self._given_schema

    def _require_open(self) -> None:
        if self._closed:
            raise Closed(f"the Db of commit {self.txid} is closed")

    def _while_open(self, found: Iterator[T]) -> Iterator[T]:
        """Yield what is found as long as the Db is open: after that an end would look like the end of all."""
        self._require_open()
        for item in found:
            yield item
            if self._closed:
                self._require_open()

    def _attributes_of(self, entity: Lookup) -> list[RawDatom]:
        key = self._entity_key(entity)
        return [] if key is None else list(eav_records(self.reader, *exact(key)))

    def _entity_key(self, entity: Lookup) -> bytes | None:
        number = self.entid(entity)
        return entity_key(number) if number is not None and 0 < number <= MAX_ENTITY else None

    def _decoded(self, records: Iterator[RawDatom]) -> Iterator[Datom]:
        names_by_key = {key: attribute.name for key, attribute in self.schema.by_key.items()}
        for e, aid, encoding, tx in records:
            name = names_by_key.get(aid) or documents.attribute_of(self.schema.by_key, aid, e).name
            yield Datom(e, name, decode(encoding), tx)
            if self._closed:
                self._require_open()


def store_at(reader: Reader, txnid: int) -> Db | None:
    """Return the database at a root as ``Db`` takes it, None when the environment is not a store. Raises the rest of it."""
    try:
        return Db(reader, txnid)
    except NotADatabase:
        return None


def schema_json(db: Db) -> Mapping[str, Mapping[str, Any]]:
    """Return the schema of ``db`` in the form that ``init --schema`` reads."""
    return db.schema.to_json()


def _encoded(attribute: Attribute, value: Value) -> bytes:
    try:
        return attribute.encode(value)
    except InputError as error:
        raise InputError(f"{attribute.name}: {error}") from None


def _nothing() -> None:
    """Stand in for a closer where there is nothing to close."""
