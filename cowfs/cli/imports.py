"""``cowfs import``: JSON lines in batches, each batch one commit."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import click

from cowfs.cli.arguments import DATABASE, DRY_RUN, DRY_RUN_NOTE, parse_json, shown_path
from cowfs.cli.progress import progress_bar
from cowfs.errors import CowfsError, EntityTaken, InputError, TransactionError
from cowfs.store.importids import NewEntities, OwnEntities
from cowfs.store.importing import Batches
from cowfs.store.store import Store
from cowfs.store.transaction import TxReport

_BATCH = 1000
_NOTHING_DONE = "dry run: nothing was done"
_TAKEN = "--renumber gives the entities of the files new ids, --keep-ids changes those of the database"


class Line(NamedTuple):
    """One form, where it stands, and how many bytes its line has."""

    number: int
    form: Any
    size: int


@click.command(name="import")
@DATABASE
@click.argument(
    "files", metavar="FILE...", nargs=-1, required=True, type=click.Path(readable=False, path_type=Path, allow_dash=True)
)
@click.option("--batch", type=click.IntRange(1), default=_BATCH, show_default=True, help="Lines that make one commit.")
@click.option("--from-line", type=click.IntRange(1), default=1, help="Begin at this line (of the first file).")
@click.option("--keep-history", is_flag=True, help="Keep the state after each batch, as of any commit.")
@click.option("--renumber", is_flag=True, help="Give each entity of the files a new id; keep the references.")
@click.option("--keep-ids", is_flag=True, help="Ids are those of DB, also of entities that it has: these are changed.")
@click.option("--no-sync", is_flag=True, help="Do not wait for the disk at each commit, but once at the end.")
@DRY_RUN
def import_(
    database: Path,
    files: tuple[Path, ...],
    batch: int,
    from_line: int,
    keep_history: bool,
    renumber: bool,
    keep_ids: bool,
    no_sync: bool,
    dry_run: bool,
) -> None:
    """Import JSON lines: each line a map or an operation, as in a transaction.

    Every batch is one commit. When a line is wrong the import stops; what was committed until then is named, and nothing of
    the batch with that line is done.

    Into a store without data, only the state after the last batch is kept: that of each batch is given up when the next one
    is committed, and its space used again. What a store had before an import stays, and then so do the batches.

    An export names its entities by number, and DB may have others with these numbers. So a map with the id of an entity that
    had data before this import is refused, unless --keep-ids or --renumber says what is meant. Operations (lists) with ids
    are not refused.

    With --renumber each positive id, in whatever file and place, gets a new id when it is first named. Lookup refs name
    entities of DB, and an entity with a unique identity value that DB has becomes that of DB, if no earlier batch has
    referred to it. Batches are kept as by --keep-history.

    --dry-run does all batches in one transaction that is not committed, while other writers wait: it proves that DB, as it
    is now, takes every line, but not that there is room for them.
    """
    ids = _ids(from_line, renumber=renumber, keep_ids=keep_ids)
    with Store.open(database, "none" if no_sync else "sync") as store:
        undo = f"`cowfs revert {database} {_txid(store)}` undoes the import" if renumber else None
        batches = store.rehearsal() if dry_run else Batches(store, keep_history=keep_history or renumber)
        with batches as target:
            job = _Import(target.transact, ids, batch, undo, dry_run)
            datoms = sum(job.file(file, from_line if file is files[0] else 1) for file in files)
        if no_sync:
            store.env.sync()
        job.end()
        done = f"datoms would be imported{DRY_RUN_NOTE}" if dry_run else f"datoms imported, txid {_txid(store)}"
        click.echo(f"{database}: {datoms:,} {done}")


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
    """One import: what does a batch, what ids mean, the lines of a batch, and what is said when it fails."""

    transact: Callable[..., TxReport]
    ids: OwnEntities | NewEntities | None
    batch: int
    undo: str | None
    dry_run: bool

    def file(self, path: Path, from_line: int) -> int:
        """Import one file; return how many datoms were asserted or retracted."""
        total, committed = 0, from_line - 1
        with _open(path) as file, progress_bar(shown_path(path), _size(file)) as progress:
            self._skip(file, committed)
            lines = _lines(file, path, from_line)
            try:
                while forms := list(islice(lines, self.batch)):
                    total += self._batch(path, forms)
                    committed = forms[-1].number
                    progress(sum(line.size for line in forms))
            except CowfsError as error:
                raise type(error)(f"{error} ({self._outcome(from_line, committed)})") from None
        return total

    def end(self) -> None:
        """Raise ``TransactionError`` when the files refer to entities that they do not define."""
        try:
            if isinstance(self.ids, NewEntities):
                self.ids.require_complete()
        except TransactionError as error:
            outcome = _NOTHING_DONE if self.dry_run else f"all lines are committed; {self.undo}"
            raise TransactionError(f"{error} ({outcome})") from None

    def _skip(self, file: BinaryIO, count: int) -> None:
        """Skip lines that were imported before: the entities that they name are of this import."""
        for text in islice(file, count):
            if isinstance(self.ids, OwnEntities):
                with suppress(InputError, UnicodeDecodeError):
                    self.ids.skip(parse_json(text.decode(), ""))

    def _batch(self, path: Path, lines: list[Line]) -> int:
        try:
            return self.transact([line.form for line in lines], ids=self.ids).datom_count
        except (TransactionError, EntityTaken) as error:
            if error.form is None:
                raise
            advice = f": {_TAKEN}" if isinstance(error, EntityTaken) else ""
            raise type(error)(f"{shown_path(path)}, line {lines[error.form].number}: {error}{advice}") from None

    def _outcome(self, from_line: int, committed: int) -> str:
        if self.dry_run:
            return _NOTHING_DONE
        done = f"lines {from_line} to {committed} are" if committed >= from_line else "nothing of the file is"
        return f"{done} committed; {self.undo or f'go on with --from-line {committed + 1}'}"


def _lines(file: BinaryIO, path: Path, from_line: int) -> Iterator[Line]:
    for number, text in enumerate(file, from_line):
        if text.strip():
            where = f"{shown_path(path)}, line {number}"
            try:
                form = parse_json(text.decode(), where)
            except UnicodeDecodeError as error:
                raise InputError(f"{where}: no UTF-8 text ({error.reason})") from None
            yield Line(number, form, len(text))


def _open(path: Path) -> BinaryIO:
    try:
        return click.open_file(str(path), "rb")  # type: ignore[return-value]
    except OSError as error:
        raise InputError(f"{shown_path(path)}: {error.strerror}") from None


def _size(file: BinaryIO) -> int | None:
    """Return how many bytes the file has; None for a pipe."""
    return file.seek(0, 2) - file.seek(0) if file.seekable() else None
