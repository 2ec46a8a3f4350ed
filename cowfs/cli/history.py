"""What a database retains, for the commands that tell about it: how it is opened, described in JSON, and told to people."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import click

from cowfs.cli.dating import describe_clock
from cowfs.cli.table import shown
from cowfs.engine.env import Env
from cowfs.engine.location import locate
from cowfs.engine.opening import reading
from cowfs.errors import AccessDenied, InputError, NotADatabase, NotFound
from cowfs.pages.btree import TreeReader
from cowfs.store.history import finding
from cowfs.store.history.named import NamedSnapshot
from cowfs.store.history.retention import Retention, read_events, read_retention
from cowfs.store.history.timeline import Timeline, hold_timeline
from cowfs.store.model import clock
from cowfs.store.model.values import instant_text, parse_instant
from cowfs.store.read.db import Db, store_at
from cowfs.units import duration_text, exact_bytes_text


@dataclass(frozen=True)
class Opened:
    """A database that is open for reading: a reader of its newest root, which is held.

    ``env`` is None for a copy, in which nobody can be writing, and where others may not be kept from writing. ``db`` is None
    when it is no store. ``timeline`` is None without either; ``alone`` says that it is a copy, so that its newest commit is
    its only one.
    """

    path: Path
    reader: TreeReader
    env: Env | None
    db: Db | None
    timeline: Timeline | None
    alone: bool

    def require_store(self) -> Db:
        """Return the store's newest commit. Raises ``NotADatabase`` when there is no store."""
        if self.db is None:
            raise NotADatabase(f"{self.path}: an LMDB environment, but not a cowfs store")
        return self.db

    def commit(self, text: str, now: datetime, hint: str) -> Db:
        """Return the commit that a user names with the argument ``hint``, as ``find`` takes it; close it.

        Of a copy, which has only its newest, that one. Raises what ``find`` raises, and ``NotADatabase``.
        """
        newest = self.require_store()
        if self.timeline is not None and self.env is not None:
            txnid = self.timeline.txnid(find(self.timeline, text, now, hint))
            hold = self.env.hold(txnid)
            return Db(hold, txnid, hold.close)
        with _argument(hint):
            if finding.is_newest(newest, text, now):
                return newest
        raise NotFound(f"{self.path}: is at txid {newest.txid}, not {text}, and has no older commits")

    def retains(self, txid: int) -> bool | None:
        """Whether a commit is retained; None when that cannot be known."""
        if self.timeline is not None:
            return txid in self.timeline
        newest = self.db is not None and txid == self.db.txid
        return newest if newest or self.alone else None

    def readers(self) -> list[dict[str, Any]] | None:
        """Return which other processes hold which commit; None when that cannot be known.

        A commit that is held keeps its pages, and those of all after it, from being used again.
        """
        if self.env is None:
            return [] if self.alone else None
        self.env.evict_dead_readers()
        newest = self.reader.root.txnid
        return [self._reader(pid, min(txnid, newest)) for pid, txnid in self.env.readers() if pid != os.getpid()]

    def _reader(self, pid: int, txnid: int) -> dict[str, Any]:
        document: dict[str, Any] = {"pid": pid, "txid": txnid, "behind": self.reader.root.txnid - txnid}
        if self.timeline is not None:
            document["txid"] = txid = self.timeline.newest - document["behind"]
            document["bytes"] = self.timeline.bytes_between(txid, self.timeline.newest)
        return document


@contextmanager
def opened(database: Path, *, insist: bool = False, costs: bool = False) -> Iterator[Opened]:
    """Open ``database``, which may be a backup or a directory of a mount: nothing is created there.

    ``insist`` raises ``AccessDenied`` where what is retained cannot be known; ``costs`` holds all that is retained, so that
    its bytes can be asked for. Raises what opening raises, ``NotADatabase`` only where there is no LMDB at all.
    """
    alone = not locate(database).has_lock
    env = None if alone else _env(database, insist=insist)
    if env is None:
        with reading(database) as reader:
            yield Opened(database, reader, None, store_at(reader, reader.root.txnid), None, alone)
        return
    with env, ExitStack() as holds:
        reader = holds.enter_context(env.hold())
        db = store_at(reader, reader.root.txnid)
        timeline = None if db is None else Timeline(env, reader)
        if timeline is not None and costs:
            timeline = holds.enter_context(hold_timeline(env))
            reader = timeline.reader
            db = Db(reader, reader.root.txnid)
        yield Opened(database, reader, env, db, timeline, alone)


def _env(database: Path, *, insist: bool) -> Env | None:
    try:
        env = Env.open(database, readonly=True)
    except AccessDenied:
        if insist:
            raise
        return None
    if env.guarded:
        return env
    env.close()
    if insist:
        raise AccessDenied(f"{database}: what is retained cannot be seen on a read-only filesystem")
    return None


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
