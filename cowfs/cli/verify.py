"""``verify``: both checks, of pages and of datoms, on one root; what ``check`` prints and ``restore`` insists on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain
from typing import NamedTuple

from cowfs.errors import DatabaseError
from cowfs.pages.check import check_meta_pages, check_pages
from cowfs.pages.tree import TreeReader
from cowfs.store.check import check_store
from cowfs.store.db import Db, store_at


class Report(NamedTuple):
    """The findings, one line each, found while they are asked for; and the store, None when there is none."""

    findings: Iterator[str]
    db: Db | None


def verify(reader: TreeReader, progress: Callable[[int], None]) -> Report:
    """Check the reader's root, which must be held. ``progress`` is called with numbers of pages done."""
    try:
        db = store_at(reader, reader.root.txnid)
    except DatabaseError as error:
        return Report(_both(reader, progress, [str(error)]), None)
    return Report(_pages(reader, progress) if db is None else _both(reader, progress, []), db)


def txid_at(reader: TreeReader) -> int:
    """Return the txid of the reader's root: as the store counts; LMDB's id when there is no store, or it is damaged."""
    try:
        db = store_at(reader, reader.root.txnid)
    except DatabaseError:
        return reader.root.txnid
    return reader.root.txnid if db is None else db.txid


def _pages(reader: TreeReader, progress: Callable[[int], None]) -> Iterator[str]:
    for finding in chain(check_meta_pages(reader.file), check_pages(reader.file, reader.root, progress)):
        yield str(finding)


def _both(reader: TreeReader, progress: Callable[[int], None], first: list[str]) -> Iterator[str]:
    yield from first
    yield from _pages(reader, progress)
    if not first:
        yield from check_store(reader, reader.root.txnid)
