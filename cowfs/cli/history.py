"""What a database retains, described in JSON and in words, and the commit that an argument names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import click

from cowfs.cli.dating import describe_clock
from cowfs.cli.table import shown
from cowfs.errors import InputError, NotFound
from cowfs.store.history import finding
from cowfs.store.history.named import NamedSnapshot
from cowfs.store.history.opened import Opened
from cowfs.store.history.retention import Retention, read_events, read_retention
from cowfs.store.history.timeline import Timeline
from cowfs.store.model import clock
from cowfs.store.model.values import instant_text, parse_instant
from cowfs.store.read.db import Db
from cowfs.units import duration_text, exact_bytes_text


def commit_named(source: Opened, text: str, now: datetime, hint: str) -> Db:
    """Return the commit of ``source`` that a user names with the argument ``hint``; the caller closes it.

    Raises ``BadParameter``, which names the argument, for what names no commit, ``NotFound`` for a commit that is not
    retained, and ``NotADatabase``.
    """
    with _argument(hint):
        return source.commit(text, now)


def find(timeline: Timeline, text: str, now: datetime, hint: str) -> int:
    """Return the txid of the commit that a user names with the argument ``hint``, as ``finding`` finds it.

    Raises ``BadParameter``, which names the argument, for what names no commit, and ``NotFound`` for a commit that is not
    retained.
    """
    with _argument(hint):
        return finding.find(timeline, text, now)


@contextmanager
def _argument(hint: str) -> Iterator[None]:
    """Raise ``BadParameter`` for what cannot be the argument ``hint``."""
    try:
        yield
    except NotFound:
        raise
    except InputError as error:
        raise click.BadParameter(str(error), param_hint=hint) from None


# -- as a document --------------------------------------------------------------------------------------------------------


def describe(source: Opened, now: datetime) -> dict[str, Any] | None:
    """Return what is retained, as JSON; None when it is no store, or when that cannot be known."""
    db, timeline = source.db, source.timeline
    if db is None or (timeline is None and not source.alone):
        return None
    newest = _commit(db.txid, db.instant, now)
    if timeline is None:
        document = {"commits": 1, "oldest": newest, "bytes": 0, "snapshots": [], "clock": []}
    else:
        document = {
            "commits": len(timeline),
            "oldest": _commit(timeline.horizon, timeline.instant(timeline.horizon), now),
            "bytes": timeline.bytes_held,
            "snapshots": describe_snapshots(timeline, now),
            "clock": describe_clock(timeline, now),
        }
    return {
        **document,
        "newest": newest,
        "bounds": read_retention(source.reader).to_json(),
        "events": read_events(source.reader),
    }


def describe_snapshots(timeline: Timeline, now: datetime, bounds: Retention | None = None) -> list[dict[str, Any]]:
    """Return the named snapshots as JSON, the oldest commit first; what they hold, beyond these bounds if given."""
    held, on_full_disk = timeline.bytes_of_names(bounds), timeline.bytes_of_names(on_full_disk=True)
    return [
        {**_snapshot(timeline, snapshot, now), "bytes": held[name], "bytes_on_full_disk": on_full_disk[name]}
        for name, snapshot in timeline.named.items()
    ]


def _snapshot(timeline: Timeline, snapshot: NamedSnapshot, now: datetime) -> dict[str, Any]:
    return {
        **_commit(snapshot.txid, timeline.instant(snapshot.txid), now),
        "name": snapshot.name,
        "named": instant_text(snapshot.instant),
        "owner": snapshot.owner,
        "reason": snapshot.reason,
        "expires": None if snapshot.expires is None else instant_text(snapshot.expires),
    }


def _commit(txid: int, instant: datetime | None, now: datetime) -> dict[str, Any]:
    """Return a commit as JSON; its age is in seconds, None when it is dated in the future.

    The first commit of an old store has no instant: nothing was transacted.
    """
    age = None if instant is None else clock.age(instant, now)
    return {"txid": txid, "instant": None if instant is None else instant_text(instant), "age": age}


# -- in words -------------------------------------------------------------------------------------------------------------


def bounds_text(bounds: dict[str, int]) -> str:
    """Return the bounds for people."""
    age = duration_text(bounds["age"], parts=4)
    return f"{bounds['commits']:,} commits behind the newest, {age}, {exact_bytes_text(bounds['bytes'])}"


def commit_text(commit: dict[str, Any], now: datetime) -> str:
    """Return a described commit for people."""
    if commit["instant"] is None:
        return f"txid {commit['txid']}, empty"
    return f"txid {commit['txid']}, {commit['instant']}, {age_text(commit, now)}"


def age_text(commit: dict[str, Any], now: datetime) -> str:
    """Return how long ago a described commit was made, for people; it has an instant."""
    if commit["age"] is not None:
        return f"{duration_text(commit['age'])} ago"
    ahead = (parse_instant(commit["instant"]) - now).total_seconds()
    return f"{duration_text(ahead)} in the future: a clock is, or was, wrong"


def reader_text(reader: dict[str, Any]) -> str:
    """Return a described reader for people."""
    text = f"process {reader['pid']} holds commit {reader['txid']}, {reader['behind']:,} behind the newest"
    return f"{text}: {exact_bytes_text(reader['bytes'])}" if reader.get("bytes") else text


def commits_text(count: int) -> str:
    """Return how many commits are retained, or dropped, for people."""
    return "1 commit" if count == 1 else f"{count:,} commits"


def snapshot_text(snapshot: dict[str, Any], now: datetime) -> str:
    """Return a described snapshot for people."""
    age = "" if snapshot["instant"] is None else f", {age_text(snapshot, now)}"
    holds = exact_bytes_text(snapshot["bytes"]) if snapshot["bytes"] else "nothing beyond the bounds"
    expires = "" if snapshot["expires"] is None else f", expires {expiry_text(snapshot['expires'], now)}"
    full, more = snapshot["bytes_on_full_disk"], ""
    if full > snapshot["bytes"]:
        more = f"; on a full disk {exact_bytes_text(full)}"
    return f"{snapshot['name']} (txid {snapshot['txid']}{age}) holds {holds}{expires}{more}"


def expiry_text(expires: str | None, now: datetime) -> str:
    """Return when a snapshot expires, for people."""
    return "never" if expires is None else f"in {duration_text((parse_instant(expires) - now).total_seconds())}"


def event_text(event: dict[str, Any]) -> str:
    """Return an event of the history, for people."""
    first, last = event["first"], event["last"]
    commits = f"commits {first} to {last}" if first < last else f"commit {first}"
    was, are = ("were", "are") if first < last else ("was", "is")
    happened = {
        "lost": f"{commits} {was} given up: somebody may have written here without keeping the history",
        "gap": f"{commits} {are} not retained: somebody has written here without recording commits",
        "full": f"{commits} {was} given up: the disk was full",
        "expired": f"{commits}: the name of a snapshot expired, if the clock was right about a time without commits",
        "aged": f"{commits} {was} given up: older than the bound, if the clock was right about a time without commits",
    }.get(event["kind"], f"{commits}: {shown(str(event['kind']))}")
    return f"{event['instant']}  {happened}"
