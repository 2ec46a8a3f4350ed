"""``cowfs revert``."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import click

from cowfs.cli.arguments import AS_JSON, DATABASE, print_json
from cowfs.cli.history import find
from cowfs.store.store import Store
from cowfs.store.values import MAX_ENTITY, instant_text


@click.command()
@DATABASE
@click.argument("at", metavar="TXID")
@click.option("--entity", metavar="E", type=click.IntRange(1, MAX_ENTITY), help="Restore the datoms of this entity only.")
@AS_JSON
def revert(database: Path, at: str, entity: int | None, as_json: bool) -> None:
    """Restore the data as of commit TXID, by one new transaction: nothing is rewritten, and it can be reverted itself.

    TXID may also be a snapshot's name, an instant, or a time ago. Entities keep their ids. The schema stays as it is, and
    with --entity so do the other entities, also those that referred to it.
    """
    with Store.open(database) as store:
        with store.timeline() as timeline:
            txid = find(timeline, at, datetime.now(timezone.utc), "TXID")
        report = store.revert(txid, entity)
    asserted = 0 if report is None else sum(datom.added for datom in report.datoms)
    retracted = 0 if report is None else report.datom_count - asserted
    if as_json:
        print_json(
            {
                "reverted_to": txid,
                "txid": None if report is None else report.txid,
                "instant": None if report is None else instant_text(report.instant),
                "asserted": asserted,
                "retracted": retracted,
            }
        )
    elif report is None:
        click.echo("nothing to revert")
    else:
        click.echo(f"txid {report.txid}  {instant_text(report.instant)}  +{asserted} -{retracted} datoms")
