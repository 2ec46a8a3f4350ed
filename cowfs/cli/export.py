"""``cowfs export``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from cowfs.cli.arguments import DATABASE
from cowfs.cli.history import opened
from cowfs.cli.output import echo
from cowfs.store.model import clock


@click.command()
@DATABASE
@click.option("--at", metavar="TXID", help="The commit to export; else the newest. Or a snapshot, an instant, a time ago.")
def export(database: Path, at: str | None) -> None:
    """Print every entity as one line of JSON, which `cowfs import` reads.

    DB may also be a backup, or a directory of a mount: `cowfs export MOUNTPOINT/snapshots/1042`. With --at an older commit
    is exported that DB retains: `--at 1042`, `--at before-upgrade`, `--at 2026-11-22T10:00:00Z`, `--at 5m`.
    """
    with opened(database, insist=at is not None) as source:
        newest = source.require_store()
        with newest if at is None else source.commit(at, clock.now(), "--at") as db:
            for document in db.export():
                echo(json.dumps(document, ensure_ascii=False, separators=(",", ":")))
