"""What differs between two commits: datoms and definitions.

Compared is the content, (e, a, v). A datom that both commits have is no difference, though another transaction may have
asserted it: one that was retracted and asserted again counts as if it had stayed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from heapq import merge
from itertools import groupby
from typing import Any, NamedTuple

from cowfs.errors import InputError
from cowfs.pages.btree import TreeReader
from cowfs.pages.difference import Change, changed_entries
from cowfs.store.model.datom import Datom
from cowfs.store.model.encoding import KEY_VALUE_PREFIX, decode
from cowfs.store.model.layout import EAV, ENTITY_SIZE, PREFIX_SIZE, TX_SIZE, entity_key
from cowfs.store.model.values import MAX_ENTITY
from cowfs.store.read.db import Db
from cowfs.store.read.documents import attribute_of
from cowfs.store.read.indexes import RawDatom, eav_records, exact

Definition = dict[str, Any]


def diff(old: Db, new: Db, entity: int | None = None) -> Iterator[Datom]:
    """Yield what ``new`` has and ``old`` has not (``added``), and the reverse (not ``added``), by entity, attribute, value.

    ``entity`` restricts it to the datoms of one. ``tx`` is the transaction that had asserted the datom, also of one that is
    gone. ``old`` may be the later commit. Two commits of one open store are compared in time proportional to what differs,
    any others, as a store and its copy, by reading both. Both must stay open meanwhile.
    """
    if entity is not None:
        if not 1 <= entity <= MAX_ENTITY:
            raise InputError("an entity id is 1 to 2**53-1")
        return _compared(old, new, *exact(entity_key(entity)))
    one, other = old.reader, new.reader
    if isinstance(one, TreeReader) and isinstance(other, TreeReader) and one.file is other.file:
        return _changed(old, new, changed_entries(one, other, EAV))
    return _compared(old, new)


def schema_diff(old: Db, new: Db) -> Mapping[str, tuple[Definition | None, Definition | None]]:
    """Return the attributes whose definitions differ, by name: the old one and the new one, None where there is none."""
    one, other = old.schema.to_json(), new.schema.to_json()
    names = sorted({*one, *other})
    return {name: (one.get(name), other.get(name)) for name in names if one.get(name) != other.get(name)}


# -- of one file: by the pages that differ ----------------------------------------------------------------------------


def _changed(old: Db, new: Db, changes: Iterator[Change]) -> Iterator[Datom]:
    """Yield the datoms of changed entries of ``eav``; as long as it goes on, both commits are not dropped."""
    attributes = {**old.schema.by_key, **new.schema.by_key}
    found = (_record(*change) for change in changes if None in change)
    # Values that begin with the same bytes may have their keys in another order than their encodings.
    for _prefix, group in groupby(found, key=lambda each: each[0][: PREFIX_SIZE + KEY_VALUE_PREFIX]):
        for _key, record, added in sorted(group, key=lambda each: each[1].encoding):
            attribute = attribute_of(attributes, record.aid, record.e)
            yield Datom(record.e, attribute.name, decode(record.encoding), record.tx, added)


def _record(key: bytes, old: bytes | None, new: bytes | None) -> tuple[bytes, RawDatom, bool]:
    """Return (key, record, whether it was added) of an entry of ``eav`` that one side has."""
    data = (new if old is None else old) or b""
    e, tx = (int.from_bytes(part, "big") for part in (key[:ENTITY_SIZE], data[:TX_SIZE]))
    return key, RawDatom(e, key[ENTITY_SIZE:PREFIX_SIZE], data[TX_SIZE:] or key[PREFIX_SIZE:], tx), old is None


# -- of two files: entity by entity -----------------------------------------------------------------------------------


class _Fact(NamedTuple):
    """A datom of one side, which both sides compare and order alike, whatever ids their attributes have."""

    e: int
    rank: tuple[bool, bytes, str]  # of the attribute: its id in the new schema, those that it lacks at the end
    encoding: bytes
    tx: int


def _compared(old: Db, new: Db, start: bytes = b"", stop: bytes | None = None) -> Iterator[Datom]:
    ranks = {a.name: (False, a.key, a.name) for a in new.schema.values()}
    facts = merge(*(_facts(db, ranks, start, stop) for db in (old, new)), key=lambda fact: fact[0].e)
    for _e, group in groupby(facts, key=lambda fact: fact[0].e):
        sides: dict[int, dict[tuple[Any, ...], _Fact]] = {id(old): {}, id(new): {}}
        for fact, side in group:
            sides[side][fact[:3]] = fact
        gone, come = sides[id(old)], sides[id(new)]
        for key in sorted(gone.keys() ^ come.keys()):
            added = key in come
            e, rank, encoding, tx = come[key] if added else gone[key]
            yield Datom(e, rank[-1], decode(encoding), tx, added)


def _facts(
    db: Db, ranks: Mapping[str, tuple[bool, bytes, str]], start: bytes, stop: bytes | None
) -> Iterator[tuple[_Fact, int]]:
    attributes = db.schema.by_key
    for e, aid, encoding, tx in eav_records(db.reader, start, stop):
        name = attribute_of(attributes, aid, e).name
        yield _Fact(e, ranks.get(name, (True, aid, name)), encoding, tx), id(db)
