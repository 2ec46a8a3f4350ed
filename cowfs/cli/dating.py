"""What is odd about the instants of a database, as JSON and in words: where they go down, and gaps that may be no time."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any

from cowfs.store.history.aging import Aging
from cowfs.store.history.chronology import Chronology
from cowfs.store.history.timeline import Timeline
from cowfs.store.model.encoding import LAST_MICRO, instant_of, micros_of
from cowfs.store.model.values import instant_text
from cowfs.units import duration_text

_MICRO = 1_000_000


def describe_clock(timeline: Timeline, now: datetime) -> list[dict[str, Any]]:
    """Return as JSON what is odd about the instants of the retained commits, the oldest first.

    ``kind`` is ``back`` where the clock went back, before ``txid``: the commits ``first`` to ``last`` are misdated;
    ``future`` for newest commits that are dated in the future; ``gap`` for a time without commits that does not count as age
    before ``until``, so that ``commits`` older ones are kept. ``seconds`` is by how much.
    """
    chronology, micros = timeline.chronology, micros_of(now)
    found = [*_steps(chronology, timeline.horizon), *_future(chronology, micros)]
    return [*found, *_gaps(Aging(chronology, timeline.retention.age, micros), timeline.horizon)]


def clock_text(item: dict[str, Any]) -> str:
    """Return one of ``describe_clock`` for people."""
    by = duration_text(item["seconds"])
    if item["kind"] == "gap":
        commits = f"{item['commits']:,} older commit{'' if item['commits'] == 1 else 's'}"
        return f"{item['instant']}  txid {item['txid']} came {by} after the one before: {commits} kept until {item['until']}"
    first, last = item["first"], item["last"]
    commits = f"commits {first} to {last} were" if first < last else f"commit {first} was"
    if item["kind"] == "future":
        return f"{item['instant']}  {commits} made while the clock was ahead, or it is behind now: up to {by} in the future"
    how = {"ahead": "while the clock was ahead", "behind": "while the clock was behind"}
    was = how.get(item["was"], "while the clock was wrong")
    return f"{item['instant']}  txid {item['txid']} is dated {by} before the one before: {commits} made {was}"


def _steps(chronology: Chronology, horizon: int) -> Iterator[dict[str, Any]]:
    for misdated in chronology.misdated:
        if misdated.step > horizon:
            yield {
                "kind": "back",
                "txid": misdated.step,
                "instant": _text(misdated.low),
                "seconds": _seconds(misdated.high - misdated.low),
                "first": misdated.first,
                "last": misdated.last,
                "was": misdated.was,
            }


def _future(chronology: Chronology, now: int) -> Iterator[dict[str, Any]]:
    ahead = chronology.ahead_of(now)
    if ahead is not None:
        yield {
            "kind": "future",
            "txid": ahead.first,
            "instant": _text(ahead.since),
            "seconds": _seconds(ahead.since - now),
            "first": ahead.first,
            "last": ahead.last,
        }


def _gaps(aging: Aging, horizon: int) -> Iterator[dict[str, Any]]:
    kept = aging.kept_by_gaps(horizon)
    for gap in aging.open_gaps if kept else ():
        if gap.txid is not None:
            yield {
                "kind": "gap",
                "txid": gap.txid,
                "instant": _text(gap.end),
                "seconds": _seconds(gap.end - gap.start),
                "commits": kept,
                "until": _text(aging.counts_from(gap)),
            }


def _text(micros: int) -> str:
    return instant_text(instant_of(min(micros, LAST_MICRO)))


def _seconds(micros: int) -> float:
    return round(micros / _MICRO, 3)
