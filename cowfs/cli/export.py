"""``cowfs export``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from cowfs.cli.arguments import DATABASE
from cowfs.cli.history import commit_named
from cowfs.cli.output import echo
from cowfs.store.history.opened import opened
from cowfs.store.model import clock


@click.command()
@DATABASE
@click.option("--at", metavar="COMMIT", help="Commit to export (default: the newest): txid, snapshot, instant, or age.")
def export(database: Path, at: str | None) -> None:
    """Print every entity as a line of JSON.

    `cowfs import` reads the result. DB may also be a backup, or a directory of a mount: `cowfs export
    MOUNTPOINT/snapshots/1042`. --at exports an older commit that DB retains: `--at 1042`, `--at before-upgrade`,
    `--at 2026-11-22T10:00:00Z`, `--at 5m`.
    """
    with opened(database, insist=at is not None) as source:
        newest = source.require_store()
        with newest if at is None else commit_named(source, at, clock.now(), "--at") as db:
            for document in db.export():
                echo(json.dumps(document, ensure_ascii=False, separators=(",", ":")))
