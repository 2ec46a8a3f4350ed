"""Entities as files: ``entities/`` at a commit, and ``history/``, one entity at every commit that changed it.

    entities/1000-1999/1042.json    the entity as a document, one line an attribute: valid transaction data
    history/1042/77.json            the entity as transaction 77 left it; ``null`` when that left nothing of it

A document's mtime is that of the last transaction that changed the entity. ``history/<entity>/`` holds the retained commits
only; the entities themselves are not listed there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import groupby, islice
from json.encoder import encode_basestring as _quoted
from operator import attrgetter

from cowfs import ids as txids
from cowfs.commits.commits import Commits
from cowfs.commits.held import HeldCommit
from cowfs.errors import DatabaseError, NotFound
from cowfs.store.model.encoding import Value
from cowfs.store.model.layout import LOG, TOUCHED, entity_key, number_key
from cowfs.store.model.values import ID, MAX_ENTITY, to_json
from cowfs.store.read import documents
from cowfs.store.read.db import Db
from cowfs.store.read.indexes import RawDatom, eav_records, exact
from cowfs.store.read.log import parse_row
from cowfs.views.blocks import (
    SUFFIX,
    BlocksDirectory,
    DatedDirectory,
    Document,
    Rendered,
    number_of,
    recall,
    remember,
    seconds_of,
    to_text,
)
from cowfs.views.context import CommitContext
from cowfs.views.node import Entry, Node, Stability

_KIND = "entities"
_AHEAD = 16  # entities that are rendered at once for who asks for one after the other, as find and tar do
_AHEAD_DATOMS = 256
_NONE = b"null\n"


class EntitiesDirectory(BlocksDirectory):
    """``entities/``: the entities that have datoms."""

    def __init__(self, context: CommitContext) -> None:
        super().__init__(context, _KIND)

    def numbers(self, start: int, stop: int | None = None) -> Iterator[int]:
        """Yield the entities with start <= e < stop that have datoms."""
        return self.context.db.entities(start, stop)

    def document(self, number: int) -> EntityFile:
        """Return the entity's document; raise ``NotFound`` when it has no datoms."""
        return EntityFile(self.context, number, self.document_kind)


class EntityFile(Document):
    """An entity's document."""

    def __init__(self, context: CommitContext, entity: int, kind: str = f"{_KIND}/document") -> None:
        """Render it. Raises ``NotFound`` when the entity has no datoms."""
        super().__init__(context, kind, entity, _rendered(context.snapshot, context.db, entity))


class HistoryDirectory(DatedDirectory):
    """``history/``: the entities, each a directory that is not listed."""

    def __init__(self, context: CommitContext, history: Commits) -> None:
        super().__init__(context, "history")
        self._history = history

    def child(self, name: str) -> EntityHistoryDirectory:
        """Return an entity's history; raise ``NotFound`` when there never was such an entity."""
        entity = txids.parse(name)
        if entity is None or not 1 <= entity <= self._context.db.state.max_entity:
            raise NotFound(f"no entity {name!r}")
        return EntityHistoryDirectory(self._context, self._history, entity)

    def entries(self) -> Iterator[Entry]:
        """Yield nothing: these are as many as all entities that there ever were."""
        return iter(())


class EntityHistoryDirectory(DatedDirectory):
    """``history/<entity>/``: the retained commits that changed the entity."""

    def __init__(self, context: CommitContext, history: Commits, entity: int) -> None:
        super().__init__(context, "history/entity", entity)
        self._history = history
        self._entity = entity

    def child(self, name: str) -> Node:
        """Return the entity as a commit left it; raise ``NotFound`` when that did not change it, or is not retained."""
        txid = number_of(name)
        if txid is None or txid not in self._history.txids() or not any(self._changes(txid, txid + 1)):
            raise NotFound(f"no retained commit {name!r} that changed entity {self._entity}")
        return EntityVersionFile(self._context, self._history.get(txid), self._entity)

    def entries(self) -> Iterator[Entry]:
        """Yield the commits, the oldest first."""
        retained = self._history.txids()
        for txid in self._changes(next(iter(retained), 0), None):
            if txid in retained:
                yield Entry(f"{txid}{SUFFIX}", self._context.inode(*_version(self._entity, txid)), directory=False)

    def _changes(self, start: int, stop: int | None) -> Iterator[int]:
        """Yield the transactions with start <= txid < stop that asserted or retracted anything of the entity."""
        db, entity = self._context.db, self._entity
        bytes_of_entity = entity_key(entity)
        for key, row in db.reader.scan(LOG, number_key(start), None if stop is None else number_key(stop)):
            if bytes_of_entity in row:  # it may also stand in a value: then the row says whether that is all
                parsed = parse_row(int.from_bytes(key, "big"), row, db.schema.by_key)
                if any(datom.e == entity for datoms in (parsed.asserted, parsed.retracted) for datom in datoms):
                    yield parsed.txid


class EntityVersionFile(Document):
    """An entity's document at a commit that changed it. It never changes."""

    def __init__(self, context: CommitContext, snapshot: HeldCommit, entity: int) -> None:
        """Show ``snapshot`` at the place of ``context``."""
        then = CommitContext(snapshot, Stability.FROZEN, context.place)
        try:
            document = _rendered(snapshot, then.db, entity)
        except NotFound:
            document = Rendered(_NONE, snapshot.mtime)
        super().__init__(then, *_version(entity, snapshot.txid), document)


def entity_document(db: Db, entity: int) -> bytes:
    """Return an entity's document as bytes. Raises ``NotFound`` when it has no datoms."""
    return _document(db, _records(db, entity))


def _rendered(snapshot: HeldCommit, db: Db, entity: int) -> Rendered:
    """Return an entity's document. Who asks for one entity after the other gets the next ones from the same reading."""
    found = recall(snapshot, _KIND, entity)
    if found is not None:
        return found
    in_turn = recall(snapshot, _KIND, entity - 1) is not None
    runs = _records_ahead(db, entity) if in_turn else [_records(db, entity)]
    touched = dict(db.reader.scan(TOUCHED, entity_key(entity), number_key(runs[-1][0].e + 1)))
    found = _render(snapshot, db, runs[0], touched)
    with suppress(DatabaseError):  # another entity's damage is told to whoever asks for that
        for records in runs[1:]:
            _render(snapshot, db, records, touched)
    return found


def _render(snapshot: HeldCommit, db: Db, records: list[RawDatom], touched: Mapping[bytes, bytes]) -> Rendered:
    e = records[0].e
    kept = int.from_bytes(touched.get(entity_key(e), b""), "big")
    last = max(kept, max(record.tx for record in records))  # as store.touched has it, of the records that are at hand
    document = Rendered(_document(db, records), seconds_of(snapshot, last))
    remember(snapshot, _KIND, e, document)
    return document


def _records_ahead(db: Db, entity: int) -> list[list[RawDatom]]:
    """Return the records of an entity, and of those of the next ones that are few."""
    records = eav_records(db.reader, number_key(entity), number_key(entity + _AHEAD))
    try:
        runs = [list(run) for _e, run in groupby(islice(records, _AHEAD_DATOMS), attrgetter("e"))]
    except DatabaseError:
        return [_records(db, entity)]
    if sum(map(len, runs)) == _AHEAD_DATOMS:
        runs.pop()  # it may be cut off
    return runs if runs and runs[0][0].e == entity else [_records(db, entity)]


def _records(db: Db, entity: int) -> list[RawDatom]:
    records = list(eav_records(db.reader, *exact(entity_key(entity)))) if 1 <= entity <= MAX_ENTITY else []
    if not records:
        raise NotFound(f"entity {entity} has no datoms")
    return records


def _document(db: Db, records: list[RawDatom]) -> bytes:
    """Return what ``documents.json_document`` gives as text, a line an attribute."""
    lines = [(ID, str(records[0].e))]
    for attribute, values in documents.by_attribute(records, db.schema):
        text = ", ".join(map(_text, values))
        lines.append((attribute.name, f"[{text}]" if attribute.many else text))
    lines.sort()
    return "{{\n{}\n}}\n".format(",\n".join([f"  {_quoted(name)}: {text}" for name, text in lines])).encode()


def _text(value: Value) -> str:
    """Return a value as JSON, most of them without the detour."""
    if type(value) is str:
        return _quoted(value)
    return str(value) if type(value) is int else to_text(to_json(value))


def _version(entity: int, txid: int) -> tuple[str, bytes]:
    """Return the kind and the key of the inode of an entity's document at a commit."""
    return "history/version", entity_key(entity) + number_key(txid)
