"""``cowfs retain``: how much of its history a database keeps, what that costs, and what less of it would give back."""

from __future__ import annotations

from bisect import bisect_right
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from cowfs.cli.arguments import AS_JSON, DATABASE, bounds_options, changed, print_json
from cowfs.cli.dating import clock_text
from cowfs.cli.history import (
    bounds_text,
    commit_text,
    commits_text,
    describe,
    describe_snapshots,
    event_text,
    reader_text,
    snapshot_text,
)
from cowfs.cli.output import echo, reporting
from cowfs.cli.table import print_lines, table
from cowfs.errors import NotFound
from cowfs.store.history.opened import Opened, opened
from cowfs.store.history.retention import Retention, read_retention
from cowfs.store.history.timeline import Timeline
from cowfs.store.model import clock
from cowfs.store.model.values import instant_text
from cowfs.store.store import Store
from cowfs.units import exact_bytes_text

_PARTS = 4  # of the history, in the table


@click.command()
@DATABASE
@bounds_options
@click.option(
    "--upto", metavar="TXID", type=click.IntRange(0), help="Only show what giving up history up to TXID would free."
)
@click.option("--dry-run", is_flag=True, help="Show what these bounds would give up, without setting them.")
@AS_JSON
def retain(
    database: Path,
    commits: int | None,
    age: int | None,
    size: int | None,
    upto: int | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Show or set how much history DB keeps.

    With bounds, sets them and applies them at once; bounds that are not given stay. A commit is given up when any bound is
    exceeded and no snapshot or reader needs it.
    """
    given = (commits, age, size)
    if upto is not None and (dry_run or given != (None, None, None)):
        raise click.BadParameter("it only asks, and does not go with bounds", param_hint="--upto")
    if dry_run:
        _show_dry_run(database, given, as_json)
        return
    if given != (None, None, None):
        with Store.open(database) as store:
            with store.timeline() as timeline:
                bounds = timeline.retention
            store.retain(changed(bounds, *given))
        with reporting("the bounds are changed"):
            _show(database, None, as_json)
        return
    _show(database, upto, as_json)


def _show(database: Path, upto: int | None, as_json: bool) -> None:
    """Show the history, or what dropping it up to a commit gives back."""
    now = clock.now()
    with opened(database, insist=True, costs=True) as source:
        source.require_store()
        document = {**(describe(source, now) or {}), "readers": source.readers() or [], "dropping": _dropping(source, upto)}
    if as_json:
        print_json(document if upto is None else document["dropping"][0])
    elif upto is not None:
        (drop,) = document["dropping"]
        echo(f"dropping {commits_text(drop['commits'])} up to txid {upto} gives back {exact_bytes_text(drop['bytes'])}")
    else:
        _print(document, now)


def _show_dry_run(database: Path, given: tuple[int | None, int | None, int | None], as_json: bool) -> None:
    """Show what setting the bounds would give up."""
    now = clock.now()
    with opened(database, insist=True, costs=True) as source:
        source.require_store()
        document = _giving_up(source, changed(read_retention(source.reader), *given), now)
    if as_json:
        print_json(document)
        return
    bounds = bounds_text(document["bounds"])
    if document["commits"]:
        upto = f"up to txid {document['upto']}"
        commits = f"{commits_text(document['commits'])} {upto}"
        echo(f"{bounds}: {commits} would be given up, {exact_bytes_text(document['bytes'])}")
    else:
        echo(f"{bounds}: nothing would be given up")
    for text in _held_by({"snapshots": document["snapshots"], "readers": document["readers"]}, now):
        echo(f"kept longer by {text}")


def _giving_up(source: Opened, bounds: Retention, now: datetime) -> dict[str, Any]:
    """Return, as JSON, what setting ``bounds`` would give up, and the snapshots and processes that keep some of it."""
    document: dict[str, Any] = {"bounds": bounds.to_json(), "commits": 0, "upto": None, "bytes": 0}
    timeline = source.timeline
    if timeline is None:  # a copy, which has only its newest commit
        return {**document, "snapshots": [], "readers": []}
    within = timeline.oldest_within(bounds)
    snapshots = [item for item in describe_snapshots(timeline, now, bounds) if item["txid"] < within]
    readers = [reader for reader in source.readers() or [] if reader["txid"] < within]
    oldest = min([within, *(item["txid"] for item in (*snapshots, *readers))])
    gone = [txid for txid in timeline if txid < oldest]
    if gone:
        gives_back = timeline.bytes_between(timeline.horizon, oldest)
        document |= {"commits": len(gone), "upto": gone[-1], "bytes": gives_back}
    return {**document, "snapshots": snapshots, "readers": readers}


def _dropping(source: Opened, upto: int | None) -> list[dict[str, Any]]:
    """Return what dropping the commits up to ``upto`` gives back, or else up to some that say how the bytes are spread."""
    timeline = source.timeline
    if timeline is None:
        if upto is not None:
            raise NotFound("there are no older commits here")
        return []
    if upto is not None:
        timeline.txnid(upto)  # or NotFound
        if upto == timeline.newest:
            raise NotFound(f"commit {upto} is the newest, which stays")
        return [_drop(timeline, list(timeline), upto)]
    txids = list(timeline)
    older = len(txids) - 1
    parts = {txids[older * part // _PARTS - 1] for part in range(1, _PARTS + 1) if older * part >= _PARTS}
    named = {snapshot.txid for snapshot in timeline.named.values() if snapshot.txid < timeline.newest}
    return [_drop(timeline, txids, txid) for txid in sorted(parts | named)]


def _drop(timeline: Timeline, txids: list[int], upto: int) -> dict[str, Any]:
    """Return what dropping the commits up to ``upto``, and with it, gives back."""
    instant = timeline.instant(upto)
    return {
        "upto": upto,
        "instant": None if instant is None else instant_text(instant),
        "commits": bisect_right(txids, upto),
        "bytes": timeline.bytes_between(timeline.horizon, upto + 1),
        "snapshots": [snapshot.name for snapshot in timeline.named.values() if snapshot.txid == upto],
    }


def _print(document: dict[str, Any], now: datetime) -> None:
    bounds = document["bounds"]
    lines = {
        "bounds": [bounds_text(bounds)],
        "retained": [commits_text(document["commits"])],
        "oldest": [commit_text(document["oldest"], now)],
        "newest": [commit_text(document["newest"], now)],
        "history": [f"holds {exact_bytes_text(document['bytes'])}"],
        "held by": _held_by(document, now),
        "events": [event_text(event) for event in document["events"]],
        "clock": [clock_text(item) for item in document["clock"]],
    }
    print_lines({heading: text for heading, text in lines.items() if text})
    dropping = document["dropping"]
    if dropping:
        header = ("DROPPING UP TO", "COMMITTED", "COMMITS", "GIVES BACK", "SNAPSHOTS")
        rows = [
            (
                f"txid {drop['upto']}",
                drop["instant"] or "-",
                f"{drop['commits']:,}",
                exact_bytes_text(drop["bytes"]),
                ", ".join(drop["snapshots"]),
            )
            for drop in dropping
        ]
        echo()
        for line in table(header, rows, right=("COMMITS", "GIVES BACK")):
            echo(line)


def _held_by(document: dict[str, Any], now: datetime) -> list[str]:
    """Return who keeps the history longer than its bounds: snapshots, and processes that read an older commit."""
    snapshots = [f"snapshot {snapshot_text(item, now)}" for item in document["snapshots"] if item["bytes"]]
    return [*snapshots, *(reader_text(reader) for reader in document["readers"] if reader["behind"])]
