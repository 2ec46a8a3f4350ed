"""A write when the disk is full: history is given up for it; and what to say when none can be."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TypeVar

from cowfs.engine.env import Env
from cowfs.engine.writetxn import WriteTxn
from cowfs.errors import CowfsError, DiskFull
from cowfs.store.history.retention import StoreRetention
from cowfs.store.history.timeline import Timeline

T = TypeVar("T")
_MAX_SAID = 3


def write(env: Env, work: Callable[[WriteTxn], T], changed: StoreRetention | None = None) -> T:
    """Do ``work`` as one commit. When the disk is full, history is given up for it, the oldest first.

    A commit that itself gives history up (a name deleted, a bound lowered) has no room for that before it is done. So
    ``changed`` says what may go once it is: that goes first, and the commit uses its pages. Raises ``DiskFull`` when nothing
    more may go; it names who holds the rest.
    """
    while True:
        try:
            with env.write(review=changed is not None) as txn:
                result = work(txn)
        except DiskFull as error:
            if not env.give_up_history(changed):
                raise DiskFull(f"{error}; nothing of this transaction was committed{_holders(env, changed)}") from error
        else:
            return result


def _holders(env: Env, changed: StoreRetention | None) -> str:
    """Return in words who holds the history that could be given up; nothing when nobody does."""
    try:
        with env.hold() as hold:
            timeline = Timeline(env, hold)
            said = _said(env, timeline, changed.without if changed is not None else None)
    except CowfsError:  # the disk is full: that is the error to report
        return ""
    if not said:
        return ""
    more = f" and {len(said) - _MAX_SAID} more" if len(said) > _MAX_SAID else ""
    return f"; history cannot be given up: {', '.join(said[:_MAX_SAID])}{more}"


def _said(env: Env, timeline: Timeline, without: str | None) -> list[str]:
    oldest = timeline.horizon
    if oldest == timeline.newest:
        return []
    offset = timeline.newest - timeline.txnid_of_newest
    names = [
        f"snapshot {name!r}" for name, snapshot in timeline.named.items() if snapshot.txid == oldest and name != without
    ]
    processes = [
        "this process" if pid == os.getpid() else f"process {pid}"
        for pid, txnid in env.readers()
        if txnid + offset <= oldest
    ]
    return [f"{holder} holds txid {oldest} and what came after it" for holder in (*names, *processes)]
