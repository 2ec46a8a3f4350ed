"""``Changeset``: what a transaction changes, kept as the difference from the database before it.

A datom that is added and retracted again leaves no trace, and one that is there already keeps its transaction. Datoms are
kept by prefix (entity and attribute, as in ``eav``) and key value.
"""

from __future__ import annotations

from collections.abc import Iterator

from cowfs.pages.reader import Reader
from cowfs.store.model.encoding import REF, encode_ref, key_value
from cowfs.store.model.layout import EAV, ENTITY_SIZE, PREFIX_SIZE, TX_SIZE, entity_key
from cowfs.store.model.schema import Attribute, Schema
from cowfs.store.read.indexes import exact, holders


class Changeset:
    """The datoms added to, and gone from, the database that ``reader`` reads.

    ``added`` holds encodings by key value by prefix, ``gone`` what ``eav`` has at the datoms' keys. ``highest`` is the
    highest entity id before: entities above it have no datoms there.
    """

    def __init__(self, reader: Reader, schema: Schema, highest: int) -> None:
        self.added: dict[bytes, dict[bytes, bytes]] = {}
        self.gone: dict[bytes, dict[bytes, bytes]] = {}
        self._reader = reader
        self._schema = schema
        self._first_new = (highest + 1).to_bytes(ENTITY_SIZE, "big")
        self._referrers: dict[bytes, list[bytes]] | None = None

    def add(self, prefix: bytes, attribute: Attribute, encoding: bytes) -> None:
        """Assert a datom; of an attribute with one value, instead of the one that is there."""
        value = key_value(encoding)
        if self._referrers is not None and encoding[0] == REF:
            self._referrers.setdefault(encoding, []).append(prefix)
        if attribute.many:
            self._add_one_of_many(prefix, value, encoding)
            return
        if prefix >= self._first_new:
            self.added[prefix] = {value: encoding}
            return
        before = self.stored(prefix)
        self.added[prefix] = {} if value in before else {value: encoding}
        before.pop(value, None)
        self.gone[prefix] = before

    def retract(self, prefix: bytes, encoding: bytes) -> None:
        """Retract a datom; when it is not there nothing happens."""
        value = key_value(encoding)
        if self.added.get(prefix, {}).pop(value, None) is not None or prefix >= self._first_new:
            return
        data = self._reader.get(EAV, prefix + value)
        if data is not None:
            self.gone.setdefault(prefix, {})[value] = data

    def retract_all(self, prefix: bytes) -> None:
        """Retract all values of one attribute of one entity."""
        self.added.pop(prefix, None)
        before = self.stored(prefix)
        if before:
            self.gone[prefix] = before

    def retract_entity(self, entity: int) -> None:
        """Retract all datoms of an entity, all references to it, and the entities that are its components."""
        waiting, done = [entity], set()
        while waiting:
            number = waiting.pop()
            if number in done:
                continue
            done.add(number)
            for prefix in self._prefixes_of(entity_key(number)):
                if self._schema.of_key(prefix[ENTITY_SIZE:]).component:
                    waiting.extend(int.from_bytes(value[1:], "big") for value in self.values(prefix))
                self.retract_all(prefix)
            self._retract_references(number)

    def values(self, prefix: bytes) -> set[bytes]:
        """Return the key values that an entity has for an attribute now."""
        return (self.stored(prefix).keys() - self.gone.get(prefix, {}).keys()) | self.added.get(prefix, {}).keys()

    def current(self, prefix: bytes) -> bytes | None:
        """Return the encoding of the one value that an entity has for an attribute now, None when it has none."""
        for encoding in self.added.get(prefix, {}).values():
            return encoding
        gone = self.gone.get(prefix, {})
        for value, data in self.stored(prefix).items():
            if value not in gone:
                return data[TX_SIZE:] or value
        return None

    def stored(self, prefix: bytes) -> dict[bytes, bytes]:
        """Return what ``eav`` held before the transaction for one attribute of one entity, by key value."""
        if prefix >= self._first_new:
            return {}
        return {key[PREFIX_SIZE:]: data for key, data in self._reader.scan(EAV, *exact(prefix))}

    def track_references(self) -> None:
        """Remember from now on who refers to whom; needed before anything is added, when entities will be retracted."""
        self._referrers = {}

    def _add_one_of_many(self, prefix: bytes, value: bytes, encoding: bytes) -> None:
        gone = self.gone.get(prefix)
        if gone is not None and gone.pop(value, None) is not None:
            return
        if prefix < self._first_new and self._reader.get(EAV, prefix + value) is not None:
            return
        self.added.setdefault(prefix, {})[value] = encoding

    def _retract_references(self, entity: int) -> None:
        encoding = encode_ref(entity)
        for prefix in self._prefixes_before(encoding):
            self.retract(prefix, encoding)
        for prefix in (self._referrers or {}).pop(encoding, ()):
            self.retract(prefix, encoding)

    def _prefixes_of(self, e: bytes) -> set[bytes]:
        """Return the prefixes under which an entity has, or had before the transaction, datoms."""
        prefixes = {e + attribute.key for attribute in self._schema.values()} & self.added.keys()
        if e < self._first_new:
            prefixes.update(self._reader.prefixes(EAV, PREFIX_SIZE, *exact(e)))
        return prefixes

    def _prefixes_before(self, encoding: bytes) -> Iterator[bytes]:
        for attribute in self._schema.values():
            if attribute.refers:
                for e in holders(self._reader, attribute.key + encoding):
                    yield entity_key(e) + attribute.key
