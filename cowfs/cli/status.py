"""``cowfs status``."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any

import click

from cowfs.cli.arguments import AS_JSON, DATABASE, print_json
from cowfs.cli.dating import clock_text
from cowfs.cli.history import (
    age_text,
    bounds_text,
    commit_text,
    commits_text,
    describe,
    event_text,
    reader_text,
    snapshot_text,
)
from cowfs.cli.table import print_lines
from cowfs.engine.location import locate
from cowfs.mount import mountpoint
from cowfs.store.history.opened import opened
from cowfs.store.model import clock
from cowfs.store.model.values import instant_text
from cowfs.store.read.db import Db
from cowfs.units import bytes_text, exact_bytes_text

_EVENTS_SHOWN = 5
_UNKNOWN = "unknown: no permission to see that (lock.mdb)"


@click.command()
@DATABASE
@AS_JSON
def status(database: Path, as_json: bool) -> None:
    """Show what DB holds and retains, its readers and its mounts.

    For monitoring, --json has `history.newest.age` and `history.snapshots[-1].age` in seconds.
    """
    now = clock.now()
    document = _describe(database, now)
    if as_json:
        print_json(document)
    else:
        print_lines(_for_people(document, now))


def _describe(database: Path, now: datetime) -> dict[str, Any]:
    with opened(database, costs=True) as source:
        reader = source.reader
        history = describe(source, now)
        held = 0 if history is None else history["bytes"] // reader.root.page_size
        return {
            "database": str(locate(database).path.resolve()),
            **_store(source.db, reader.root.txnid),
            "size": {
                "file_bytes": reader.file.size(),
                "page_bytes": reader.root.page_size,
                "pages": reader.root.pages,
                "history_pages": held,
                "free_pages": source.free_pages - held,
            },
            "history": history,
            "readers": source.readers(),
            "mounts": [str(mount.point) for mount in mountpoint.mounts_of(locate(database).path)],
        }


def _store(db: Db | None, txnid: int) -> dict[str, Any]:
    if db is None:
        return {"kind": "LMDB environment, not a cowfs store", "txid": txnid}
    return {
        "kind": "cowfs store, strict" if db.format.strict else "cowfs store",
        "txid": db.txid,
        "instant": None if db.instant is None else instant_text(db.instant),
        "attributes": len(db.schema),
        "datoms": db.datom_count,
    }


def _for_people(document: dict[str, Any], now: datetime) -> dict[str, list[str]]:
    """Return the document as lines under headings."""
    size, history = document["size"], document["history"]
    lines = {name: [str(value)] for name, value in document.items() if isinstance(value, str | int)}
    kept, free = size["history_pages"], size["free_pages"]
    pages = f"{size['pages'] - kept - free:,} in use, {f'{kept:,} of history, ' if kept else ''}{free:,} free"
    lines["size"] = [f"{bytes_text(size['file_bytes'])}, {size['pages']:,} pages of {size['page_bytes']} bytes: {pages}"]
    if history is not None:
        if history["newest"]["instant"] is not None:
            lines["instant"] = [f"{history['newest']['instant']}, {age_text(history['newest'], now)}"]
        lines |= _history_for_people(history, now)
    elif "attributes" in document:
        lines["history"] = [_UNKNOWN]
    readers = document["readers"]
    lines["readers"] = [_UNKNOWN] if readers is None else [reader_text(reader) for reader in readers] or ["none"]
    lines["mounts"] = document["mounts"] or ["none"]
    return lines


def _history_for_people(history: dict[str, Any], now: datetime) -> dict[str, list[str]]:
    held = f", which hold {exact_bytes_text(history['bytes'])}" if history["commits"] > 1 else ""
    lines = {
        "history": [
            commits_text(history["commits"]) + held,
            f"oldest: {commit_text(history['oldest'], now)}",
            f"bounds: {bounds_text(history['bounds'])}",
        ],
        "snapshots": [snapshot_text(item, now) for item in history["snapshots"]] or ["none"],
        "events": [event_text(event) for event in history["events"][-_EVENTS_SHOWN:]] or ["none"],
    }
    if history["clock"]:
        lines["clock"] = [clock_text(item) for item in history["clock"][-_EVENTS_SHOWN:]]
    return lines
