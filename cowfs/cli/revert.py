"""``cowfs revert``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cowfs.cli.arguments import AS_JSON, DATABASE, DRY_RUN, DRY_RUN_NOTE, print_json
from cowfs.cli.history import find
from cowfs.cli.output import echo, reporting
from cowfs.store.model import clock
from cowfs.store.model.values import MAX_ENTITY, instant_text
from cowfs.store.store import Store
from cowfs.store.tx.revert import RevertReport
from cowfs.store.tx.transaction import TxReport


@click.command()
@DATABASE
@click.argument("at", metavar="TXID")
@click.option("--entity", metavar="E", type=click.IntRange(1, MAX_ENTITY), help="Restore only the datoms of this entity.")
@click.option("--with-references", is_flag=True, help="Also restore the references that other entities had to E.")
@DRY_RUN
@AS_JSON
def revert(database: Path, at: str, entity: int | None, with_references: bool, dry_run: bool, as_json: bool) -> None:
    """Restore the data of an older commit, by a new one.

    Nothing is rewritten, and the revert can itself be reverted. TXID may also be a snapshot's name, an instant, or a time
    ago. Entities keep their ids. The schema stays as it is.

    With --entity the other entities stay as they are; it prints how many references they have lost to it.
    --with-references restores these: an attribute with one value that now refers elsewhere is set back, but an entity
    without any datoms is not brought back. References made since are kept.
    """
    if with_references and entity is None:
        raise click.BadParameter(
            "it goes with --entity; without that, all references are restored", param_hint="--with-references"
        )
    with Store.open(database) as store:
        with store.timeline() as timeline:
            txid = find(timeline, at, clock.now(), "TXID")
        reverted = store.revert(txid, entity, with_references=with_references, dry_run=dry_run)
    report = reverted.transaction
    with reporting("nothing was done" if report is None or dry_run else f"txid {report.txid} is committed"):
        if as_json:
            print_json(_document(txid, reverted, dry_run))
        else:
            _print(reverted, entity, with_references, dry_run)


def _document(txid: int, reverted: RevertReport, dry_run: bool) -> dict[str, Any]:
    report = reverted.transaction
    asserted, retracted = _counts(report)
    return {
        "reverted_to": txid,
        "txid": None if report is None else report.txid,
        "instant": None if report is None else instant_text(report.instant),
        "asserted": asserted,
        "retracted": retracted,
        "missing_references": reverted.missing_references,
        "dry_run": dry_run,
    }


def _counts(report: TxReport | None) -> tuple[int, int]:
    """Return how many datoms were asserted and retracted."""
    asserted = 0 if report is None else sum(datom.added for datom in report.datoms)
    return asserted, 0 if report is None else report.datom_count - asserted


def _print(reverted: RevertReport, entity: int | None, with_references: bool, dry_run: bool) -> None:
    report, missing = reverted.transaction, reverted.missing_references
    done = "nothing to revert"
    if report is not None:
        asserted, retracted = _counts(report)
        done = f"txid {report.txid}  {instant_text(report.instant)}  +{asserted} -{retracted} datoms"
    echo(f"{done}{DRY_RUN_NOTE if dry_run else ''}")
    if missing:
        echo(_missing(missing, entity, restored=with_references))


def _missing(count: int, entity: int | None, *, restored: bool) -> str:
    """Return how many references are missing, and why or what restores them."""
    if count == 1:
        reason = "the entity that had it has no datoms any more" if restored else "--with-references restores it"
        return f"1 reference to entity {entity} is missing: {reason}"
    reason = "the entities that had them have no datoms any more" if restored else "--with-references restores them"
    return f"{count:,} references to entity {entity} are missing: {reason}"
