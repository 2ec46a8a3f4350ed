"""``check``: pages and datoms of a database's newest commit; ``verify``: the same of any root that is held."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from cowfs.backup.reporting import Progress, silent
from cowfs.engine.opening import reading
from cowfs.errors import DatabaseError
from cowfs.pages.btree import TreeReader
from cowfs.pages.pagecheck import check_meta_pages, check_pages
from cowfs.store.datomcheck import check_store
from cowfs.store.model.steps import read_steps
from cowfs.store.read.db import Db, store_at


class Report(NamedTuple):
    """The findings, one line each, found while they are asked for; and the store, None when there is none."""

    findings: Iterator[str]
    db: Db | None


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What the check of a database found: ``findings``, a line each, none when it is sound.

    ``txid`` is the commit that was checked, ``pages`` how many pages of ``page_size`` bytes it has. ``datoms`` is None
    when it is an LMDB environment without a store, or too damaged to say. ``clock_went_back`` has the txids of the commits
    that are dated before their predecessor.
    """

    findings: tuple[str, ...]
    txid: int
    pages: int
    page_size: int
    datoms: int | None
    clock_went_back: tuple[int, ...]

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.findings


def check(
    database: str | Path, *, progress: Progress = silent, on_finding: Callable[[str], None] | None = None
) -> CheckReport:
    """Check every page and every datom of the newest commit of ``database``, a directory or a data file.

    It may be a database that is being written, a backup, a directory of a mount, or any LMDB environment. ``on_finding``
    is called with each finding as it is found. Raises what opening raises, and ``Busy`` where somebody writes the file
    unseen by any lock.
    """
    findings = []
    with reading(Path(database)) as reader, progress("pages", reader.root.pages) as advance:
        report = verify(reader, advance)
        for finding in report.findings:
            reader.require_steady()
            findings.append(finding)
            if on_finding is not None:
                on_finding(finding)
        store = report.db
        return CheckReport(
            tuple(findings),
            reader.root.txnid if store is None else store.txid,
            reader.root.pages,
            reader.root.page_size,
            None if store is None else store.datom_count,
            () if findings or store is None else read_steps(reader).txids,
        )


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
