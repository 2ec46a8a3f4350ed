"""``cowfs import``: JSON lines in batches, each batch one commit."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import BinaryIO

import click

from cowfs.cli.arguments import DATABASE, DRY_RUN, DRY_RUN_NOTE, parse_json, shown_path
from cowfs.cli.importbatches import MOST_LINES, ByCost, ByCount, Line
from cowfs.cli.importprogress import ImportProgress
from cowfs.cli.output import echo, reporting
from cowfs.cli.progress import progress_bar
from cowfs.cli.signals import allow
from cowfs.errors import CowfsError, EntityTaken, InputError, TransactionError
from cowfs.store.batches import Batches
from cowfs.store.batchsize import BatchSize
from cowfs.store.store import Store
from cowfs.store.tx.importids import NewEntities, OwnEntities
from cowfs.store.tx.transaction import TxReport

_IN_BOTH = "--keep-ids takes the same id in two files for the same entity"
_TAKEN = "--renumber gives the entities of the files new ids, --keep-ids changes those of the database"


@click.command(name="import")
@DATABASE
@click.argument(
    "files", metavar="FILE...", nargs=-1, required=True, type=click.Path(readable=False, path_type=Path, allow_dash=True)
)
@click.option("--batch", type=click.IntRange(1), help="Lines that make one commit; otherwise as many as cost little space.")
@click.option("--from-line", type=click.IntRange(1), default=1, help="Begin at this line (of the first file).")
@click.option("--keep-history", is_flag=True, help="Keep the state after each batch, as of any commit.")
@click.option("--renumber", is_flag=True, help="Give each entity of the files a new id; keep the references.")
@click.option("--keep-ids", is_flag=True, help="Ids are those of DB, also of entities that it has: these are changed.")
@click.option("--no-sync", is_flag=True, help="Do not wait for the disk at each commit, but once at the end.")
@DRY_RUN
def import_(
    database: Path,
    files: tuple[Path, ...],
    batch: int | None,
    from_line: int,
    keep_history: bool,
    renumber: bool,
    keep_ids: bool,
    no_sync: bool,
    dry_run: bool,
) -> None:
    """Import JSON lines, each batch of lines as one commit.

    Each line is a map or an operation, as in a transaction. The import stops at a wrong line: it prints how far it came,
    and nothing of the batch with that line is committed.

    In a database without data, only the state after the last batch is kept: the state after each batch is given up, and
    its space reused, when the next batch is committed. There the first batch has 4 MiB of lines, or up to 6 MiB if that is
    all; later batches have up to 1,000 lines, few enough to copy only a small part of the file. Existing history is kept,
    and then the batches, of 1,000 lines each, are kept as well.

    An export identifies entities by number, and DB may use the same numbers for others. So a map with the id of an entity
    that had data before this import, or has data from an earlier FILE, is refused, unless --keep-ids or --renumber says
    what is meant. Operations (lists) with ids are not refused.

    With --renumber, each positive id gets a new id where it first occurs, for all files together. Lookup refs name
    entities of DB. An entity with a unique identity value that exists in DB becomes that entity, unless an earlier batch
    has referred to it. Batches are kept as with --keep-history.

    --dry-run runs all batches in one transaction that is not committed, while other writers wait: it proves that DB, as it
    is now, accepts every line, but not that there is room for them.
    """
    ids = _ids(from_line, renumber=renumber, keep_ids=keep_ids)
    with Store.open(database, "none" if no_sync else "sync") as store:
        undo = f"`cowfs revert {database} {_txid(store)}` undoes the import" if renumber else None
        progress = ImportProgress(files, from_line, undo=undo, dry_run=dry_run)
        batches = store.rehearsal() if dry_run else Batches(store, keep_history=keep_history or renumber)
        with reporting(progress):
            with _synced(store) if no_sync else nullcontext(), batches as target:
                datoms = _Import(target.transact, ids, _split(batches, batch, files), progress).files(files)
            done = f"datoms would be imported{DRY_RUN_NOTE}" if dry_run else f"datoms imported, txid {_txid(store)}"
            echo(f"{database}: {datoms:,} {done}")


@contextmanager
def _synced(store: Store) -> Iterator[None]:
    """Put what was committed on disk at the end of the block, however early that comes."""
    try:
        yield
    finally:
        store.env.sync()


def _split(batches: object, batch: int | None, files: tuple[Path, ...]) -> ByCount | ByCost:
    """Return what makes batches of lines: ``batch`` of them, if that is given."""
    if batch is None and isinstance(batches, Batches) and batches.given_up:
        return ByCost(batches.footprint, BatchSize(_total(files)))
    return ByCount(batch or MOST_LINES)


def _total(files: tuple[Path, ...]) -> int | None:
    """Return how many bytes the files have; None when one is a pipe, or cannot be looked at."""
    try:
        found = [path.stat() for path in files]
    except OSError:
        return None
    return sum(status.st_size for status in found) if all(stat.S_ISREG(status.st_mode) for status in found) else None


def _ids(from_line: int, *, renumber: bool, keep_ids: bool) -> OwnEntities | NewEntities | None:
    if renumber and keep_ids:
        raise click.BadParameter("it does not go with --keep-ids", param_hint="--renumber")
    if renumber and from_line > 1:
        raise click.BadParameter(
            "it does not go with --from-line: the ids that the lines before have got are not known", param_hint="--renumber"
        )
    return NewEntities() if renumber else None if keep_ids else OwnEntities()


def _txid(store: Store) -> int:
    with store.db() as db:
        return db.txid


@dataclass(frozen=True)
class _Import:
    """One import: what does a batch, what ids mean, the lines of a batch, and how far it has come."""

    transact: Callable[..., TxReport]
    ids: OwnEntities | NewEntities | None
    batches: ByCount | ByCost
    progress: ImportProgress

    def files(self, paths: tuple[Path, ...]) -> int:
        """Import the files; return how many datoms were asserted or retracted. Errors say how far it has come."""
        try:
            datoms = sum(self._file(path) for path in paths)
            if isinstance(self.ids, NewEntities):
                self.ids.require_complete()
        except CowfsError as error:
            raise type(error)(f"{error} ({self.progress})") from None
        return datoms

    def _file(self, path: Path) -> int:
        total, from_line = 0, self.progress.first_line
        with _open(path) as file, progress_bar(shown_path(path), _size(file)) as show:
            self._skip(file, path, from_line - 1)
            for forms in self.batches.split(_lines(file, path, from_line)):
                total += self._batch(path, forms)
                self.progress.commit(forms[-1].number)
                allow()  # a signal, if one came while the batch was committed
                show(sum(line.size for line in forms))
        self.progress.end_file()
        if isinstance(self.ids, OwnEntities):
            self.ids.end_file()
        return total

    def _skip(self, file: BinaryIO, path: Path, count: int) -> None:
        """Skip lines that were imported before: the entities that they name are of this import."""
        for _number, text in islice(_numbered(file, path, 1), count):
            if isinstance(self.ids, OwnEntities):
                with suppress(InputError, UnicodeDecodeError):
                    self.ids.skip(parse_json(text.decode(), ""))

    def _batch(self, path: Path, lines: list[Line]) -> int:
        try:
            return self.transact([line.form for line in lines], ids=self.ids).datom_count
        except (TransactionError, EntityTaken) as error:
            if error.form is None:
                raise
            text = f"{shown_path(path)}, line {lines[error.form].number}: {error}"
            if isinstance(error, EntityTaken):
                text = f"{text}: {_IN_BOTH if error.in_import else _TAKEN}"
            raise type(error)(text) from None


def _lines(file: BinaryIO, path: Path, from_line: int) -> Iterator[Line]:
    for number, text in _numbered(file, path, from_line):
        if text.strip():
            where = f"{shown_path(path)}, line {number}"
            try:
                form = parse_json(text.decode(), where)
            except UnicodeDecodeError as error:
                raise InputError(f"{where}: no UTF-8 text ({error.reason})") from None
            yield Line(number, form, len(text))


def _numbered(file: BinaryIO, path: Path, first: int) -> Iterator[tuple[int, bytes]]:
    try:
        yield from enumerate(file, first)
    except OSError as error:
        raise InputError(f"{shown_path(path)}: {error.strerror}") from None


def _open(path: Path) -> BinaryIO:
    try:
        return click.open_file(str(path), "rb")  # type: ignore[return-value]
    except OSError as error:
        raise InputError(f"{shown_path(path)}: {error.strerror}") from None


def _size(file: BinaryIO) -> int | None:
    """Return how many bytes the file has; None for a pipe, or anything else that is no regular file."""
    try:
        status = os.fstat(file.fileno())
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None
