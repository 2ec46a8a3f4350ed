"""``cowfs export``."""

from __future__ import annotations

import json
from datetime import datetime, timezone
from pathlib import Path

import click

from cowfs.cli.arguments import DATABASE
from cowfs.cli.history import Opened, find, opened, parse_at
from cowfs.errors import NotFound
from cowfs.store.db import Db


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
        with newest if at is None else _at(source, newest, at) as db:
            for document in db.export():
                click.echo(json.dumps(document, ensure_ascii=False, separators=(",", ":")))


def _at(source: Opened, newest: Db, text: str) -> Db:
    """Return the commit that ``text`` names."""
    now = datetime.now(timezone.utc)
    if source.timeline is not None and source.env is not None:
        txnid = source.timeline.txnid(find(source.timeline, text, now))
        hold = source.env.hold(txnid)
        return Db(hold, txnid, hold.close)
    at = parse_at(text, now)
    if at == newest.txid or (isinstance(at, datetime) and newest.instant is not None and newest.instant <= at):
        return newest
    raise NotFound(f"{source.path}: is at txid {newest.txid}, not {text}, and has no older commits")
