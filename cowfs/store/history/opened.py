"""``opened``: a database open for reading, with what it retains; a running one, a backup, or a directory of a mount."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from cowfs.engine.env import Env
from cowfs.engine.location import locate
from cowfs.engine.opening import reading
from cowfs.errors import AccessDenied, NotADatabase, NotFound
from cowfs.pages.btree import TreeReader
from cowfs.pages.freelist import read_free_pages
from cowfs.store.history import finding
from cowfs.store.history.timeline import Timeline, hold_timeline
from cowfs.store.read.db import Db, store_at


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

    def commit(self, text: str, now: datetime) -> Db:
        """Return the commit that ``text`` names, as ``finding.find`` takes it; the caller closes it.

        A copy has only its newest commit. Raises what ``finding.find`` raises, and ``NotADatabase``.
        """
        newest = self.require_store()
        if self.timeline is not None and self.env is not None:
            txnid = self.timeline.txnid(finding.find(self.timeline, text, now))
            hold = self.env.hold(txnid)
            return Db(hold, txnid, hold.close)
        if finding.is_newest(newest, text, now):
            return newest
        raise NotFound(f"{self.path}: is at txid {newest.txid}, not {text}, and has no older commits")

    def retains(self, txid: int) -> bool | None:
        """Whether a commit is retained; None when that cannot be known."""
        if self.timeline is not None:
            return txid in self.timeline
        newest = self.db is not None and txid == self.db.txid
        return newest if newest or self.alone else None

    @property
    def free_pages(self) -> int:
        """How many pages are free at the newest commit, those that older commits still use included."""
        return len(read_free_pages(self.reader))

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
