"""``cowfs snapshot``: names for commits, which stay as long as they have one."""

from __future__ import annotations

import os
import pwd
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import click

from cowfs.cli.arguments import AS_JSON, DATABASE, duration, print_json
from cowfs.cli.history import describe_snapshots, expiry_text
from cowfs.cli.output import complain, echo, reporting
from cowfs.cli.table import shown, table
from cowfs.store.history.named import NamedSnapshot
from cowfs.store.history.opened import opened
from cowfs.store.model import clock
from cowfs.store.model.values import instant_text
from cowfs.store.store import Store
from cowfs.units import duration_text, exact_bytes_text


def _require_text(_ctx: click.Context, param: click.Parameter, text: str | None) -> str | None:
    try:
        (text or "").encode()
    except UnicodeEncodeError:
        raise click.BadParameter("not valid UTF-8", param=param) from None
    return text


_NAME = click.argument("name")


@click.group()
def snapshot() -> None:
    """Name commits, to keep them."""


@snapshot.command()
@DATABASE
@_NAME
@click.option("--reason", metavar="TEXT", callback=_require_text, help="What it is for.")
@click.option("--expires", metavar="DURATION", type=duration, help="Delete the name after this time, e.g. 30d.")
@click.option("--txid", type=click.IntRange(0), help="Commit to name (default: the newest).")
def create(database: Path, name: str, reason: str | None, expires: int | None, txid: int | None) -> None:
    """Name a commit, to keep it until the name is deleted or expires."""
    until = None if expires is None else _after(clock.now(), expires)
    with Store.open(database) as store:
        made = store.name(name, _login_name(), reason, until, txid)
        with reporting(f"{name} names txid {made.txid}"):
            with store.timeline() as timeline:
                instant = timeline.instant(made.txid)
            when = "" if instant is None else f"  {instant_text(instant)}"
            stays = "stays until it is deleted" if until is None else f"expires {instant_text(until)}"
            echo(f"{name}: txid {made.txid}{when}  {stays}")


@snapshot.command(name="list")
@DATABASE
@AS_JSON
def list_(database: Path, as_json: bool) -> None:
    """List the named commits of DB, the oldest first, and what each holds.

    A snapshot holds the pages that only it needs, and the commits from it to the next snapshot, or to those that the bounds
    keep. Deleting the oldest gives that back at once, deleting another one when those before it are gone.
    """
    now = clock.now()
    with opened(database, insist=True, costs=True) as source:
        source.require_store()
        snapshots = [] if source.timeline is None else describe_snapshots(source.timeline, now)
    if as_json:
        print_json(snapshots)
    elif not snapshots:
        complain(f"{database}: no named snapshots")
    else:
        for line in _table(snapshots, now):
            echo(line)


@snapshot.command()
@DATABASE
@_NAME
def delete(database: Path, name: str) -> None:
    """Delete a name, and give up the commits that only it kept."""
    with Store.open(database) as store:
        gone = store.unname(name)
        with reporting(f"{name} is deleted"):
            _print_deleted(database, gone)


def _print_deleted(database: Path, gone: NamedSnapshot) -> None:
    with opened(database, costs=True) as source:
        left = 0 if source.timeline is None else source.timeline.bytes_held
    echo(f"{gone.name}: deleted, was txid {gone.txid}; history now holds {exact_bytes_text(left)}")


def _table(snapshots: list[dict[str, Any]], now: datetime) -> list[str]:
    header = ("NAME", "TXID", "COMMITTED", "AGE", "HOLDS", "OWNER", "EXPIRES", "REASON")
    rows = [
        (
            shown(item["name"]),
            str(item["txid"]),
            item["instant"] or "-",
            "-" if item["age"] is None else duration_text(item["age"]),
            exact_bytes_text(item["bytes"]),
            shown(item["owner"]),
            expiry_text(item["expires"], now),
            shown(item["reason"] or ""),
        )
        for item in snapshots
    ]
    return table(header, rows, right=("TXID", "AGE", "HOLDS"))


def _login_name() -> str:
    """Return the name of the user who runs this, the number where there is no name."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return str(os.getuid())


def _after(now: datetime, seconds: int) -> datetime:
    try:
        return now + timedelta(seconds=seconds)
    except OverflowError:
        raise click.BadParameter("that is after the year 9999; leave it out", param_hint="--expires") from None
