"""``RootLog``: the roots of an environment that are retained: recorded in it, and held by the pin.

A commit's root is known only after the commit, so each write transaction records, before anything else, the root of the
one before it. ``record`` says what the record is, and how an older root is found in it.

The rules for the pin (``locktable`` says what it is):

1. Under the write lock, before anything is written: is the pin there, with the record's nonce? Then every root from the
   horizon on is whole. Otherwise somebody has been here who may have destroyed any of them: the history is given up, said
   loudly, and begins anew at the newest commit.
2. Whoever gives up roots commits the new horizon first, and raises the pin after that. The horizon never moves back. The
   pin is ahead of the record only when the disk was full, or somebody died in between: the higher of both counts.
   (On a full disk a commit needs the pages that it gives up, so the pin comes first. What was given up is hidden from then
   on, whether or not the commit succeeds, and the next one that does records it.)
3. Whoever reads an old root holds it first, and then looks whether it is still retained.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from cowfs.engine.locktable import NONCE_SIZE, LockTable
from cowfs.engine.pace import Watch
from cowfs.engine.policy import Event, HistoryView, RetentionPolicy
from cowfs.engine.rootrecord import DATABASE, HORIZON, NONCE, RECORD_KEY, RootRecord, Span, following
from cowfs.engine.writetxn import WriteTxn
from cowfs.errors import CorruptDatabase, NotFound
from cowfs.pages.btree import TreeReader
from cowfs.pages.datafile import DataFile
from cowfs.pages.format import META_SIZE, ROOT_BYTES, Root, TreeInfo, parse_root
from cowfs.pages.freelist import freed_pages
from cowfs.pages.reader import Reader

log = logging.getLogger("cowfs.pages")

LOOK_EVERY: Final = 128  # commits between looks at what was freed and at what may be given up
_MAX_GAPS: Final = 64
_SLACK: Final = 64
_RECORDS_KEPT: Final = 4096


class RootLog:
    """The retained roots of one open environment. ``policy`` is set by the store; without one nothing is given up.

    ``Env.write`` calls ``before_write`` first and ``after_commit`` last; in between, ``review`` where the transaction
    changes what may be given up. All other methods but ``claim`` and ``give_up`` read, at a newest root that is held.
    """

    def __init__(self, file: DataFile, table: LockTable, *, durable: bool) -> None:
        self._policy: RetentionPolicy | None = None
        self._file = file
        self._table = table
        self._durable = durable
        self._records: dict[int, RootRecord] = {}  # by the txnid whose root they were read at
        self._records_of = b""  # the nonce of the history that they belong to
        self._watch = Watch(file)

    @property
    def policy(self) -> RetentionPolicy | None:
        """What decides which commits are retained; None: all are."""
        return self._policy

    @policy.setter
    def policy(self, policy: RetentionPolicy | None) -> None:
        self._policy = policy
        self._watch = Watch(self._file)  # another policy may ask for a review sooner

    # -- reading -------------------------------------------------------------------------------------------------

    def span(self, reader: TreeReader) -> Span:
        """Return what is retained, as of the reader's root, which is the newest."""
        newest = reader.root.txnid
        record = self._valid(reader)
        if record is None:
            return Span(newest, newest)
        horizon = min(max(record.horizon, self._pinned()), newest)
        return Span(horizon, newest, tuple(gap for gap in record.gaps_at(newest) if gap[1] >= horizon))

    def span_in(self, txn: WriteTxn) -> Span:
        """Return what is retained, inside of a write transaction that has entered."""
        record = RootRecord.parse(txn.get(DATABASE, RECORD_KEY))
        newest = txn.txnid - 1
        return Span(newest, newest) if record is None else Span(record.horizon, newest, record.gaps)

    def find(self, reader: TreeReader, txnid: int) -> Root:
        """Return the root of a retained commit, which the caller holds already; ``reader`` is of the newest root.

        Raises ``NotFound`` when it is not retained.
        """
        newest = reader.root
        if txnid == newest.txnid:
            return newest
        if txnid not in self.span(reader):
            raise NotFound(f"commit {txnid} is not retained")
        return self._record_after(reader, txnid)[1]

    def view(self, reader: TreeReader) -> HistoryView:
        """Return what a policy decides by, as of the reader's root, which is the newest."""
        return _View(self, reader, reader, self.span(reader))

    def cost(self, reader: TreeReader, first: int, last: int) -> int:
        """Return how many pages only the commits with first <= txnid < last use: what dropping these gives back.

        ``first`` is the horizon or above it, ``last`` at most the newest commit; both are retained. Exact, and in time that
        does not depend on how many there are.
        """
        return self.freed_up_to(reader, last) - self.freed_up_to(reader, first)

    # -- writing -------------------------------------------------------------------------------------------------

    def before_write(self, txn: WriteTxn) -> int:
        """Verify the history, and record the root of the newest commit, before anything else in a write transaction.

        Return the horizon for ``after_commit``, 0 when it has not changed. Does nothing in an environment without a store.
        """
        data = txn.get(DATABASE, RECORD_KEY)
        following = self._following(data, txn.txnid)
        if following is not None:
            txn.put(DATABASE, RECORD_KEY, following)
            return 0
        if data is None and (self._policy is None or next(txn.scan(DATABASE), None) is None):
            return 0
        record = self._still_valid(txn, RootRecord.parse(data))
        newest = txn.txnid - 1
        meta = self._meta(newest)
        roots: tuple[bytes, ...] = (meta,)
        gaps = record.gaps
        if record.txnid != newest:
            roots, gaps = self._after_others(txn, record, meta)
        # The newest tree has this record, also when somebody else has made it: the link is to the record, not to the commit.
        record = replace(record, txnid=txn.txnid, roots=roots, gaps=gaps, levels=record.levels_with(meta))
        if self._review_due(txn, record):
            record = self._review(txn, record)
        txn.put(DATABASE, RECORD_KEY, record.pack())
        return record.horizon

    def _following(self, data: bytes | None, txnid: int) -> bytes | None:
        """Return the record of ``txnid`` from its predecessor's where it is made the quick way; else None."""
        newest = txnid - 1
        if data is None or newest % LOOK_EVERY == 0 or not self._table.pinned(data[NONCE], data[HORIZON]):
            return None
        meta = self._meta(newest)
        return following(data, newest, meta) if self._watch.quiet(newest, meta) else None

    def review(self, txn: WriteTxn) -> int:
        """Ask the policy now what may be given up, not at the next regular review, before the transaction is committed.

        Return the horizon for ``after_commit``, 0 when there is no history.
        """
        record = RootRecord.parse(txn.get(DATABASE, RECORD_KEY))
        if record is None:
            return 0
        record = self._review(txn, record, slack=0)
        txn.put(DATABASE, RECORD_KEY, record.pack())
        return record.horizon

    def after_commit(self, txnid: int, most_freed: int, horizon: int) -> None:
        """Free the commits below ``horizon``, by rule 2; the commit ``txnid`` has freed at most ``most_freed`` pages."""
        self._watch.committed(txnid, most_freed)
        if horizon:
            self._table.raise_pin(horizon)

    def claim(self, txn: WriteTxn) -> None:
        """See to it that there is a pin, without writing: what is committed from now on is retained."""
        data = txn.get(DATABASE, RECORD_KEY)
        if data is not None or self._policy is not None:
            self._still_valid(txn, RootRecord.parse(data))

    def give_up(self, txn: WriteTxn, policy: RetentionPolicy | None = None) -> bool:
        """The disk is full: give up some of the oldest commits, at once; nothing is written but the pin.

        What ``policy`` (by default that of the log) must retain is kept, and what has a reader. First goes what it does not
        want any more, then half of the rest each time. Return whether there was anything to give up.
        """
        policy = policy or self._policy
        record, pin = RootRecord.parse(txn.get(DATABASE, RECORD_KEY)), self._table.pin()
        if record is None or pin is None or pin.nonce != record.nonce:
            return False
        horizon = max(record.horizon, pin.txnid)
        newest = txn.txnid - 1
        span = Span(horizon, newest, record.gaps_at(newest))
        limit = min([newest, *self._held()])
        wanted = horizon
        if policy is not None:
            view = _View(self, txn, TreeReader(self._file, parse_root(self._meta(newest))), span)
            limit = min(limit, policy.limit(view))
            wanted = policy.horizon(view) if horizon < limit else horizon
        if horizon >= limit:
            return False
        target = min(limit, wanted)
        if target <= horizon:
            target = limit - (limit - horizon) // 2
            target = max(target - target % LOOK_EVERY, horizon + 1)  # where what was freed before has been counted
        log.warning("the disk is full: commits %d to %d of the history are given up", horizon, target - 1)
        self._table.raise_pin(target)
        self._table.sync()
        return True

    # -- inside --------------------------------------------------------------------------------------------------

    def _valid(self, reader: TreeReader) -> RootRecord | None:
        """Return the record, when the pin says that what it promises is true."""
        record, pin = RootRecord.parse(reader.get(DATABASE, RECORD_KEY)), self._table.pin()
        if record is None or pin is None or pin.nonce != record.nonce or record.txnid > reader.root.txnid:
            return None
        if self._records_of != record.nonce:
            self._records.clear()
            self._records_of = record.nonce
        return record

    def freed_up_to(self, reader: TreeReader, upto: int) -> int:
        """Return how many pages the commits up to the retained ``upto`` have freed since the history began."""
        record = self._valid(reader)
        if record is None:
            return 0
        if upto == record.horizon < record.txnid:
            return record.let_go
        counted, freed = min(record.horizon, record.txnid - 1), record.let_go  # what was freed before may be in use again
        if upto < record.txnid:
            record = self._record_after(reader, upto)[0]
        if counted < record.counted <= upto:
            counted, freed = record.counted, record.freed
        return freed + freed_pages(reader, counted, upto)

    def _pinned(self) -> int:
        pin = self._table.pin()
        return 0 if pin is None else pin.txnid

    def _record_after(self, reader: TreeReader, txnid: int) -> tuple[RootRecord, Root]:
        """Return the record that has the root of ``txnid``, and the root. Raises ``NotFound``."""
        record = self._valid(reader)
        position = reader.root.txnid + 1
        while record is not None:
            root = record.find(txnid)
            if root is not None:
                self._file.require_possible(root)
                return record, root
            link, pgno = record.link_above(txnid)
            if link >= position:
                raise CorruptDatabase(f"the records of the retained roots run in a circle at {link}", pgno)
            record, position = self._record_at(reader, link, pgno), link
        raise NotFound(f"commit {txnid} is not retained")

    def _record_at(self, reader: TreeReader, txnid: int, pgno: int) -> RootRecord | None:
        """Return the record that the commit ``txnid`` has, whose main tree begins at page ``pgno``."""
        record = self._records.get(txnid)
        if record is None:
            main = TreeInfo(0, 0, 0, 0, 0, 0, 0, pgno)
            root = replace(reader.root, txnid=txnid, main=main)
            record = RootRecord.parse(TreeReader(self._file, root).get(DATABASE, RECORD_KEY))
            if record is None or record.txnid != txnid:
                raise CorruptDatabase(f"commit {txnid} has no record of the roots before it", pgno)
            if len(self._records) >= _RECORDS_KEPT:
                self._records.clear()
            self._records[txnid] = record
        return record

    def _still_valid(self, txn: WriteTxn, record: RootRecord | None) -> RootRecord:
        """Return the record with the horizon that is true now, or, when there is no history to trust, one that begins."""
        pin = self._table.pin()
        newest = txn.txnid - 1
        ours = record is not None and pin is not None and pin.nonce == record.nonce
        if record is not None and pin is not None and ours and max(pin.txnid, record.txnid) <= newest:
            if pin.txnid <= record.horizon < record.txnid:
                return record
            if pin.txnid > record.horizon:
                self._put_pin_on_disk()
                self._emit(txn, Event("full", record.horizon, pin.txnid - 1))
            reader = TreeReader(self._file, parse_root(self._meta(newest)))
            return self._advance_horizon(reader, record, max(pin.txnid, record.horizon))
        if pin is None or pin.txnid > newest or (record is not None and pin.txnid < newest):
            nonce = os.urandom(NONCE_SIZE)
            self._table.claim_pin(newest, nonce)
        else:
            nonce = pin.nonce  # of somebody who has claimed it, and has not committed
        self._put_pin_on_disk()
        if record is not None and record.horizon < newest:  # else nothing is lost, or this is a copy whose ids begin anew
            log.warning(
                "somebody may have written this environment without keeping its history: commits %d to %d are given up",
                record.horizon,
                newest - 1,
            )
            self._emit(txn, Event("lost", record.horizon, newest - 1))
        return RootRecord(nonce, newest, newest, newest, 0)

    def _put_pin_on_disk(self) -> None:
        """Put a pin on disk before pages are used again, or a record relies on it; its owner may have failed to."""
        if self._durable:
            self._table.sync()

    def _emit(self, txn: WriteTxn, event: Event) -> None:
        if self._policy is not None:
            self._policy.on_event(txn, event)

    def _after_others(
        self, txn: WriteTxn, record: RootRecord, meta: bytes
    ) -> tuple[tuple[bytes, ...], tuple[tuple[int, int], ...]]:
        """Somebody has committed without recording: return the roots that can still be had, and the gaps."""
        newest = txn.txnid - 1
        last = record.txnid  # its root was not recorded yet
        if newest == last + 1:
            return (self._meta(last), meta), record.gaps
        before = self._meta(newest - 1)
        gap = (last, newest - 2)
        log.warning("somebody has written this environment without recording its commits: %d to %d are not retained", *gap)
        self._emit(txn, Event("gap", *gap))
        return (before, meta), (*record.gaps, gap) if record.horizon <= gap[1] else record.gaps

    def _review_due(self, txn: WriteTxn, record: RootRecord) -> bool:
        newest = txn.txnid - 1
        if newest % LOOK_EVERY == 0 or len(record.gaps) > _MAX_GAPS:
            return True
        if self._policy is None:
            return False
        pages = freed_pages(TreeReader(self._file, parse_root(record.roots[-1])), record.counted, newest)
        return self._watch.due(newest, record.counted, pages, self._policy.pace(txn))

    def _review(self, txn: WriteTxn, record: RootRecord, slack: int = _SLACK) -> RootRecord:
        """Count what was freed since the last review, and give up what the policy does not want to retain.

        Not for less than one in ``slack`` of what stays: moving the horizon costs some reads.
        """
        newest = txn.txnid - 1
        reader = TreeReader(self._file, parse_root(record.roots[-1]))
        freed = record.freed + freed_pages(reader, record.counted, newest)
        record = replace(record, counted=newest, freed=freed)
        wanted = record.horizon
        if self._policy is not None:
            view = _View(self, txn, reader, Span(record.horizon, newest, record.gaps), freed)
            self._watch.looked(newest, self._policy.pace(txn))
            if newest % LOOK_EVERY == 0:
                self._policy.sweep(txn, view.span)
            wanted = self._policy.horizon(view)
            if wanted > record.horizon:  # the limit takes a look at every name
                wanted = min(wanted, self._policy.limit(view))
        if len(record.gaps) > _MAX_GAPS:
            wanted = max(wanted, record.gaps[-_MAX_GAPS][1] + 1)
        wanted = min([wanted, txn.txnid, *self._held()])
        if wanted <= record.horizon or (slack and wanted - record.horizon < (newest - wanted) // slack):
            return record
        if self._policy is not None:
            self._policy.on_give_up(txn, Span(record.horizon, newest, record.gaps), wanted - 1)
        return self._advance_horizon(reader, record, wanted)

    def _advance_horizon(self, reader: TreeReader, record: RootRecord, horizon: int) -> RootRecord:
        """Return the record with a higher horizon: that, or the next commit that is recorded."""
        newest = reader.root.txnid
        horizon = Span(horizon, newest, record.gaps_at(newest)).first_from(horizon)
        gaps = tuple(gap for gap in record.gaps if gap[1] > horizon)
        levels = record.levels_above(horizon, newest)
        return replace(record, horizon=horizon, let_go=self.freed_up_to(reader, horizon), gaps=gaps, levels=levels)

    def _held(self) -> Iterable[int]:
        held = self._table.oldest_held()
        return () if held is None else (held,)

    def _meta(self, txnid: int) -> bytes:
        """Return what the meta page of the commit ``txnid``, one of the last two, says of its root."""
        slot = txnid & 1
        meta = self._file.pread(META_SIZE, slot * self._file.page_size)
        if meta[144:152] != txnid.to_bytes(8, "little"):
            raise CorruptDatabase(f"it is not that of transaction {txnid}, which LMDB says is there", slot)
        return meta[ROOT_BYTES]


class _View:
    """What a policy decides by: ``HistoryView``, its pages counted when they are asked for."""

    def __init__(self, log: RootLog, reader: Reader, pages: TreeReader, span: Span, freed: int | None = None) -> None:
        """``pages`` reads the newest commit; ``freed`` is how many pages the commits up to it have freed, if known."""
        self.reader = reader
        self.span = span
        self._log = log
        self._pages = pages
        self._freed = freed

    def held_from(self, txnid: int) -> int:
        """Return how many pages are held for the commits from ``txnid`` on, beyond what the newest one uses."""
        if self._freed is None:
            self._freed = self._log.freed_up_to(self._pages, self.span.newest)
        return self._freed - self._log.freed_up_to(self._pages, self.span.first_from(txnid))
