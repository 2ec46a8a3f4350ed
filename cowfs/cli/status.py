"""``cowfs status``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cowfs.cli.arguments import AS_JSON, DATABASE, print_json
from cowfs.mount import place
from cowfs.pages.env import Env
from cowfs.pages.freelist import read_free_pages
from cowfs.pages.reading import reading
from cowfs.store.db import store_at
from cowfs.store.values import instant_text


@click.command()
@DATABASE
@AS_JSON
def status(database: Path, as_json: bool) -> None:
    """Tell what DB holds, how large it is, who reads it and where it is mounted."""
    document = _describe(database)
    if as_json:
        print_json(document)
        return
    for name, lines in _for_people(document).items():
        for number, line in enumerate(lines):
            click.echo(f"{name if number == 0 else '':<12} {line}")


def _describe(database: Path) -> dict[str, Any]:
    with reading(database) as reader:
        root = reader.root
        free = len(read_free_pages(reader))
        document: dict[str, Any] = {"database": str(database.resolve()), **_store(reader, root.txnid)}
        document["size"] = {
            "file_bytes": reader.file.size(),
            "page_bytes": root.page_size,
            "pages": root.pages,
            "free_pages": free,
        }
    document["readers"] = _readers(database, root.txnid)
    document["mounts"] = [str(mount.point) for mount in place.mounts_of(database)]
    return document


def _store(reader: Any, txnid: int) -> dict[str, Any]:
    db = store_at(reader, txnid)
    if db is None:
        return {"kind": "LMDB environment, not a cowfs store", "txid": txnid}
    return {
        "kind": "cowfs store, strict" if db.format.strict else "cowfs store",
        "txid": db.txid,
        "instant": None if db.instant is None else instant_text(db.instant),
        "attributes": len(db.schema),
        "datoms": db.datom_count,
    }


def _readers(database: Path, newest: int) -> list[dict[str, int]]:
    """Return who holds which commit; commits behind the newest keep pages from being used again."""
    if not (database / "lock.mdb").exists():
        return []
    with Env.open(database, readonly=True) as env:
        return [{"pid": pid, "txnid": txnid, "behind": max(newest - txnid, 0)} for pid, txnid in env.readers()]


def _for_people(document: dict[str, Any]) -> dict[str, list[str]]:
    """Return the document as lines under headings."""
    size = document["size"]
    lines = {name: [str(value)] for name, value in document.items() if isinstance(value, str | int)}
    lines["size"] = [
        f"{size['file_bytes'] / 2**20:,.1f} MiB on disk, {size['pages']:,} pages of {size['page_bytes']} bytes,"
        f" {size['free_pages']:,} of them free"
    ]
    lines["readers"] = [
        f"process {reader['pid']} holds commit {reader['txnid']}, {reader['behind']} behind the newest"
        for reader in document["readers"]
    ] or ["none"]
    lines["mounts"] = document["mounts"] or ["none"]
    return lines
