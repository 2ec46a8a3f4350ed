"""``cowfs log``."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import click

from cowfs.cli.arguments import AS_JSON, DATABASE, print_json
from cowfs.cli.history import Opened, opened
from cowfs.store.db import Db
from cowfs.store.values import instant_text

_RETAINED = {True: "retained", False: "given up", None: ""}


@click.command()
@DATABASE
@click.option("--limit", metavar="N", type=click.IntRange(1), help="Stop after so many transactions.")
@click.option("--reverse", is_flag=True, help="The oldest first.")
@AS_JSON
def log(database: Path, limit: int | None, reverse: bool, as_json: bool) -> None:
    """List the transactions, the newest first: txid, instant, how many datoms were asserted and retracted.

    The last columns say whether the commit is retained, so that it can be read and mounted as it was, and how it is named.
    """
    with opened(database) as source:
        db = source.require_store()
        transactions = islice(_transactions(source, db, oldest_first=reverse), limit)
        if as_json:
            print_json(list(transactions))
            return
        width = len(str(db.txid))
        for row in transactions:
            click.echo(_line(row, width))


def _line(row: dict[str, Any], width: int) -> str:
    asserted, retracted = f"+{row['asserted']}", f"-{row['retracted']}"
    columns = [f"{row['txid']:>{width}}", f"{row['instant']:<27}", f"{asserted:>7} {retracted:>7}"]
    return "  ".join([*columns, _RETAINED[row["retained"]], *row["snapshots"]]).rstrip()


def _transactions(source: Opened, db: Db, *, oldest_first: bool) -> Iterator[dict[str, Any]]:
    names: dict[int, list[str]] = defaultdict(list)
    for snapshot in source.timeline.named.values() if source.timeline is not None else ():
        names[snapshot.txid].append(snapshot.name)
    for row in db.transactions(reverse=not oldest_first):
        yield {
            "txid": row.txid,
            "instant": instant_text(row.instant),
            "asserted": len(row.asserted),
            "retracted": len(row.retracted),
            "retained": source.retains(row.txid),
            "snapshots": names.get(row.txid, []),
        }
