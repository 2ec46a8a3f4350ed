"""``cowfs log``."""

from __future__ import annotations

from collections import defaultdict
from itertools import islice
from pathlib import Path
from typing import Any

import click

from cowfs.cli.arguments import AS_JSON, DATABASE, print_json
from cowfs.cli.diff import datom_line
from cowfs.cli.output import echo
from cowfs.store.history.opened import Opened, opened
from cowfs.store.model.values import instant_text
from cowfs.store.read.jsondatoms import transaction_json
from cowfs.store.read.log import TxRow

_RETAINED = {True: "retained", False: "given up", None: ""}


@click.command()
@DATABASE
@click.option("--limit", metavar="N", type=click.IntRange(1), help="Stop after N transactions.")
@click.option("--reverse", is_flag=True, help="List the oldest first.")
@click.option("--datoms", is_flag=True, help="Print the datoms as well; in JSON, in place of their counts.")
@AS_JSON
def log(database: Path, limit: int | None, reverse: bool, datoms: bool, as_json: bool) -> None:
    """List transactions, newest first.

    Each line shows the txid, the instant, and how many datoms were asserted and retracted. The last columns say whether
    the commit is retained, so that it can be read and mounted as it was, and its names.
    """
    with opened(database) as source:
        db = source.require_store()
        names = _names(source)
        rows = islice(db.transactions(reverse=not reverse), limit)
        if as_json:
            print_json([_document(source, names, row, datoms=datoms) for row in rows])
            return
        width = len(str(db.txid))
        for row in rows:
            echo(_line(_document(source, names, row), width))
            for datom in (*row.asserted, *row.retracted) if datoms else ():
                echo(f"  {datom_line(datom)}")


def _line(document: dict[str, Any], width: int) -> str:
    asserted, retracted = f"+{document['asserted']}", f"-{document['retracted']}"
    columns = [f"{document['txid']:>{width}}", f"{document['instant']:<27}", f"{asserted:>7} {retracted:>7}"]
    return "  ".join([*columns, _RETAINED[document["retained"]], *document["snapshots"]]).rstrip()


def _names(source: Opened) -> dict[int, list[str]]:
    """Return the names of the commits that have any, by txid."""
    names: dict[int, list[str]] = defaultdict(list)
    for snapshot in source.timeline.named.values() if source.timeline is not None else ():
        names[snapshot.txid].append(snapshot.name)
    return names


def _document(source: Opened, names: dict[int, list[str]], row: TxRow, *, datoms: bool = False) -> dict[str, Any]:
    changes = transaction_json(row) if datoms else {"asserted": len(row.asserted), "retracted": len(row.retracted)}
    return {
        **changes,
        "txid": row.txid,
        "instant": instant_text(row.instant),
        "retained": source.retains(row.txid),
        "snapshots": names.get(row.txid, []),
    }
