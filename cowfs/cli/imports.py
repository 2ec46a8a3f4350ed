"""``cowfs import``: JSON lines in batches, each batch one commit."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import click

from cowfs.cli.arguments import DATABASE, parse_json, shown_path
from cowfs.cli.progress import progress_bar
from cowfs.errors import CowfsError, InputError, TransactionError
from cowfs.store.importing import Batches
from cowfs.store.store import Store

_BATCH = 1000


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
@click.option("--no-sync", is_flag=True, help="Do not wait for the disk at each commit, but once at the end.")
def import_(database: Path, files: tuple[Path, ...], batch: int, from_line: int, keep_history: bool, no_sync: bool) -> None:
    """Import JSON lines: each line a map or an operation, as in a transaction.

    Every batch is one commit. When a line is wrong the import stops; what was committed until then is named, and nothing of
    the batch with that line is done.

    Into a store without data, only the state after the last batch is kept: that of each batch is given up when the next one
    is committed, and its space used again. What a store had before an import stays, and then so do the batches.
    """
    with Store.open(database, "none" if no_sync else "sync") as store:
        with Batches(store, keep_history=keep_history) as batches:
            datoms = sum(_import_file(batches, file, batch, from_line if file is files[0] else 1) for file in files)
        if no_sync:
            store.env.sync()
        with store.db() as db:
            click.echo(f"{database}: {datoms:,} datoms imported, txid {db.txid}")


def _import_file(batches: Batches, path: Path, batch: int, from_line: int) -> int:
    """Import one file; return how many datoms were asserted or retracted."""
    total, committed = 0, from_line - 1
    with _open(path) as file, progress_bar(shown_path(path), _size(file)) as progress:
        lines = _lines(file, path, from_line)
        try:
            while forms := list(islice(lines, batch)):
                total += _import_batch(batches, path, forms)
                committed = forms[-1].number
                progress(sum(line.size for line in forms))
        except CowfsError as error:
            done = f"lines {from_line} to {committed} are" if committed >= from_line else "nothing of the file is"
            raise type(error)(f"{error} ({done} committed; go on with --from-line {committed + 1})") from None
    return total


def _import_batch(batches: Batches, path: Path, lines: list[Line]) -> int:
    try:
        return batches.transact([line.form for line in lines]).datom_count
    except TransactionError as error:
        if error.form is None:
            raise
        raise TransactionError(f"{shown_path(path)}, line {lines[error.form].number}: {error}") from None


def _lines(file: BinaryIO, path: Path, from_line: int) -> Iterator[Line]:
    for number, text in enumerate(file, 1):
        if number >= from_line and text.strip():
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
