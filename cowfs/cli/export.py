"""``cowfs export``."""

from __future__ import annotations

import json
from pathlib import Path

import click

from cowfs.cli.arguments import DATABASE
from cowfs.errors import NotFound
from cowfs.pages.reading import reading
from cowfs.store.db import Db


@click.command()
@DATABASE
@click.option("--at", "txid", type=click.IntRange(0), help="The commit that must be exported; else the newest.")
def export(database: Path, txid: int | None) -> None:
    """Print every entity as one line of JSON, which `cowfs import` reads.

    DB may also be a backup, or a directory of a mount: `cowfs export MOUNTPOINT/snapshots/1042` exports an older commit.
    """
    with reading(database) as reader, Db(reader, reader.root.txnid) as db:
        if txid is not None and txid != db.txid:
            raise NotFound(f"{database}: is at txid {db.txid}, not {txid}; an older commit is exported from a mount")
        for document in db.export():
            click.echo(json.dumps(document, ensure_ascii=False, separators=(",", ":")))
