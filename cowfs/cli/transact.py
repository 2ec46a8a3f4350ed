"""``cowfs transact``."""

from __future__ import annotations

from pathlib import Path

import click

from cowfs.cli.arguments import AS_JSON, DATABASE, DRY_RUN, DRY_RUN_NOTE, parse_json, print_json, read_text, shown_path
from cowfs.cli.output import echo, reporting
from cowfs.store.model.values import instant_text
from cowfs.store.read.jsondatoms import transaction_json
from cowfs.store.store import Store
from cowfs.store.tx.transaction import TxReport


@click.command()
@DATABASE
@click.argument("file", type=click.Path(readable=False, path_type=Path, allow_dash=True), default="-")
@DRY_RUN
@AS_JSON
def transact(database: Path, file: Path, dry_run: bool, as_json: bool) -> None:
    """Commit one transaction.

    FILE (default: standard input) holds a JSON list of forms, or a single map, as the mount shows an entity.

    Prints the txid, which is the name of the commit's directory under snapshots/, and the ids given to tempids. With
    --dry-run, these are what they would be if nobody commits in the meantime.
    """
    with Store.open(database) as store:
        data = parse_json(read_text(file), shown_path(file))
        report = store.transact([data] if isinstance(data, dict) else data, dry_run=dry_run)
    with reporting("nothing was done" if dry_run else f"txid {report.txid} is committed"):
        _print(report, dry_run, as_json)


def _print(report: TxReport, dry_run: bool, as_json: bool) -> None:
    if as_json:
        tempids = {str(tempid): entity for tempid, entity in report.tempids.items()}
        print_json({**transaction_json(report.row), "tempids": tempids, "dry_run": dry_run})
        return
    added = sum(datom.added for datom in report.datoms)
    done = f"txid {report.txid}  {instant_text(report.instant)}  +{added} -{report.datom_count - added} datoms"
    echo(f"{done}{DRY_RUN_NOTE if dry_run else ''}")
    for tempid, entity in report.tempids.items():
        echo(f"{tempid} -> {entity}")
