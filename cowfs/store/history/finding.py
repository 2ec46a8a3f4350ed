"""Finding the commit that somebody means: by a txid, a snapshot's name, an instant, or how long ago it was.

Commands and mount find commits by time through here alone. The answer is the newest of the commits that were there at that
time; a time that is not over yet finds the newest commit of all, whatever its date. Commits that were made while the clock
was wrong are passed over (``chronology``). Where they come right after the one that is found, so that one of them may be
meant, that is said: as a ``Found.doubt``, and by ``find`` in a warning.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from cowfs import ids as txids
from cowfs.errors import InputError, NotFound
from cowfs.store.history.chronology import Run
from cowfs.store.history.timeline import Timeline
from cowfs.store.model.encoding import micros_of
from cowfs.store.model.values import parse_instant
from cowfs.store.read.db import Db
from cowfs.units import parse_duration

LATEST: Final = "latest"

log = logging.getLogger("cowfs.store")


class Found(NamedTuple):
    """The commit that a time finds, and the commits after it that it passes over, one of which may be meant."""

    txid: int
    doubt: Run | None


def find(timeline: Timeline, text: str, now: datetime) -> int:
    """Return the txid of the retained commit that ``text`` names; ``latest`` is the newest.

    Raises ``NotFound`` for a commit that is not retained, ``InputError`` for what names none. Warns when another
    may be meant.
    """
    snapshot = timeline.snapshot(text)
    if snapshot is not None:
        return snapshot.txid
    if text == LATEST:
        return timeline.newest
    wanted = parse(text, now)
    if isinstance(wanted, int):
        timeline.txnid(wanted)  # or NotFound
        return wanted
    found = at(timeline, wanted, now)
    if found.doubt is not None:
        log.warning("%s", doubt_text(found.doubt))
    return found.txid


def is_newest(newest: Db, text: str, now: datetime) -> bool:
    """Whether ``text`` names the newest commit, where there is no other. Raises ``InputError`` for what names none."""
    if text == LATEST:
        return True
    wanted = parse(text, now)
    if isinstance(wanted, int):
        return wanted == newest.txid
    return wanted >= now or (newest.instant is not None and newest.instant <= wanted)


def at(timeline: Timeline, instant: datetime, now: datetime) -> Found:
    """Return the newest of the retained commits that were there at ``instant``, as seen at ``now``. Raises ``NotFound``."""
    chronology = timeline.chronology
    doubt = None if instant >= now else chronology.doubt_after(chronology.at(micros_of(instant)) or 0, micros_of(now))
    try:
        return Found(timeline.at(instant, now), doubt)
    except NotFound as error:
        if doubt is None:
            raise
        raise NotFound(f"{error}; {doubt_text(doubt)}") from None


def parse(text: str, now: datetime) -> int | datetime:
    """Return the txid or the instant that ``text`` spells, or the instant so long ago. Raises ``InputError``."""
    txid = txids.parse(text)
    if txid is not None:
        return txid
    with suppress(InputError):
        return ago(text, now)
    with suppress(InputError):
        return parse_at(text)
    expected = "no snapshot, no txid, no instant like 2026-11-22T10:00:00Z and no time ago like 5m or 7d"
    raise InputError(f"{text!r} is {expected}")


def parse_at(text: str) -> datetime:
    """Return the instant that ``text`` spells, in UTC. Raises ``InputError``."""
    try:
        return parse_instant(text).astimezone(UTC)
    except OverflowError as error:
        raise InputError(f"no instant ({error})") from None


def ago(text: str, now: datetime) -> datetime:
    """Return the instant that is so long before ``now``, or the beginning of time. Raises ``InputError``."""
    seconds = parse_duration(text)
    try:
        return now - timedelta(seconds=seconds)
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)


def doubt_text(doubt: Run) -> str:
    """Return in words what is passed over."""
    commits = f"commits {doubt.first} to {doubt.last} were" if doubt.first < doubt.last else f"commit {doubt.first} was"
    return f"{commits} made while the clock was wrong, and can be found by txid only"
