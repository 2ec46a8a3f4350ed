"""``Env``: an open LMDB environment: holding roots, and writing through py-lmdb, which is opened nowhere else.

Rules it keeps (each was learned by losing data in an experiment):

1. One environment is opened once in a process, whoever asks; ``Env.open`` hands the same object to all and counts them.
2. Open after forking, never before: the locks are not inherited. A use after a fork is refused.
3. The map is huge from the start (1 TiB of address space) and is never resized.
4. A file is validated by our own parser before LMDB maps it: LMDB trusts its file, and a short one is a SIGBUS.
5. A root is captured without the write lock, as LMDB's own readers do it: first the slot in the table of readers, at the
   commit that the table announces, then the meta page; it is believed when the table still announces the same commit after
   that, so no later one can have been rewriting the page. (A newer id in the other meta page proves less: it stands there
   before its commit has ended, and a writer may be put to sleep, or killed, in between.)
6. Reading takes neither LMDB nor its map, so it works where address space is scarce, and on a file that LMDB refuses.
7. All that a process holds is held by one slot of the table (``locktable``), at the oldest root of it.
8. When a meta page could not be written LMDB does nothing more until it is opened again. The next transaction does that,
   while no other thread is inside of LMDB. Our own locks and slots stay, so what is held or pinned is safe meanwhile.
9. What is there is on disk before it is written over: LMDB undoes a meta page that it could not write, and the disk may have
   it all the same. Found after a loss of power, its commit would be of pages that the next one has taken.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

import lmdb

from cowfs.engine.filepair import FilePair, file_identity
from cowfs.engine.holds import Hold, Holds
from cowfs.engine.location import Location, locate
from cowfs.engine.locktable import IDLE, PIN, LockTable
from cowfs.engine.making import make_environment
from cowfs.engine.mapsize import map_size
from cowfs.engine.policy import RetentionPolicy
from cowfs.engine.rootlog import RootLog
from cowfs.engine.stage import Stage, enter
from cowfs.engine.translate import translated
from cowfs.engine.vetting import Vetting
from cowfs.engine.writetxn import Databases, WriteTxn
from cowfs.errors import (
    AccessDenied,
    Busy,
    Closed,
    CorruptDatabase,
    DatabaseError,
    EnvironmentFailure,
    InputError,
    ReadersFull,
)
from cowfs.pages.btree import TreeReader
from cowfs.pages.datafile import DataFile
from cowfs.pages.format import MAX_TXNID, Root
from cowfs.pages.freelist import read_free_pages

_MAX_READERS = 510  # what the first opener fixes; 64 bytes each in lock.mdb
_MAX_DATABASES = 32
_CAPTURES_BESIDE_WRITERS = 64
_POLL_INTERVAL = 0.002  # seconds
T = TypeVar("T")
_EVICT_EVERY = 5.0  # seconds between looks for reader slots whose process died: until they are freed, the file only grows


class Env:
    """An open environment. Get one with ``Env.open`` or ``Env.create``; close it as often as it was got.

    ``directory`` is where the data file lies; ``guarded`` says whether what is held is safe from writers, which it is not on
    a read-only filesystem, where no slots can be had.
    """

    _open: dict[tuple[int, int], Env] = {}  # noqa: RUF012 - the registry of the process, by rule 1
    _registry_lock = threading.RLock()

    def __init__(self, location: Location, *, readonly: bool, durable: bool) -> None:
        self.path = location.path
        self.directory = location.data.parent
        self.readonly = readonly
        self.durable = durable
        self.file = DataFile(location.path)
        self._location = location
        self._users = 1
        self._pid = os.getpid()
        self._evicted = 0.0
        self._inside = threading.RLock()  # held by the thread that is inside of LMDB
        self._stopped = False  # whether LMDB does no more, by rule 8
        self.guarded = False
        self._table = LockTable(location.lock)
        self._other_tables = [LockTable(lock) for lock in location.other_locks] if readonly else []
        self._pair = FilePair(self.path, self.file, self._table)
        self._vetting = Vetting(self.file)
        try:
            require_whole(self.file)
            self._look_at_meta_pages()
            self._lmdb = None if readonly else self._open_lmdb()
            self._databases = None if self._lmdb is None else Databases(self.path, self._lmdb)
        except BaseException:
            self._table.keep()
            self._vetting.close()
            self.file.close()
            raise
        try:
            self._attach()
            self._give_lock_to_owner()
            self._settle()
        except BaseException:
            self._close()
            raise
        self._holds = Holds(self._publish)
        self.rootlog = RootLog(self.file, self._table, durable=durable)

    @classmethod
    def open(cls, path: Path, *, readonly: bool = False, durable: bool = True) -> Env:
        """Open the environment ``path``, or share the one that this process has open there.

        It is a directory with a data.mdb, or a data file: ``locate`` says which lock file goes with it.
        ``durable=False`` commits without fsync: a machine that loses power may lose or damage what was not yet written.
        Raises ``NotADatabase``, ``CorruptDatabase``, ``UnsupportedFormat``, ``AccessDenied``.
        """
        with cls._registry_lock:
            with DataFile(path) as file:
                key = file_identity(file.status())
            env = cls._open.get(key)
            if env is None:
                env = cls._open[key] = cls(locate(path), readonly=readonly, durable=durable)
                return env
            env._require_usable()
            if not readonly and (env.readonly or env.durable != durable):
                raise InputError(f"{path}: already open in this process, read-only or with another durability")
            env._users += 1
            return env

    @classmethod
    def create(cls, path: Path, *, durable: bool = True) -> Env:
        """Make an empty environment in ``path``, as ``make_environment`` does, and ``open`` it."""
        made = make_environment(path, durable=durable)
        try:
            return cls.open(path, durable=durable)
        except BaseException:
            made.undo()
            raise

    def __enter__(self) -> Env:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the environment back; the last user's close closes it, and aborts every transaction still open in it.

        After that everything raises ``Closed``, here and in what was read from it; closing again does nothing.
        """
        with self._registry_lock:
            self._users -= 1
            if self._users == 0:
                for key in [key for key, env in self._open.items() if env is self]:
                    del self._open[key]
                self._close()

    # -- reading -------------------------------------------------------------------------------------------------

    def hold(self, txnid: int | None = None) -> Hold:
        """Hold the newest root, or the retained one of ``txnid``, without waiting for a writer.

        The hold, and every page of its root, lasts until it is closed or dropped. Raises ``NotFound`` when that commit is
        not retained, ``ReadersFull``.
        """
        self._require_usable()
        newest = self._hold_newest()
        if txnid is None or txnid == newest.root.txnid:
            return newest
        with newest:
            self._add_hold(txnid)
            try:  # it is held, whatever happens; now see whether it was worth it
                with self._hold_newest() as now:
                    root = self.rootlog.find(now, txnid)
            except BaseException:
                self._remove_hold(txnid)
                raise
        return Hold(self.file, root, lambda: self._remove_hold(txnid))

    def newest_txnid(self) -> int:
        """Return the id of the newest commit, at the price of a stat and two small reads, without holding anything.

        Raises ``EnvironmentFailure`` when another file has taken the place of the one that is open.
        """
        self._require_usable()
        self._pair.require_data_in_place()
        return self.file.newest_txnid()

    def readers(self) -> list[tuple[int, int]]:
        """Return (pid, txnid) of every process that holds a root, the oldest root first; the pin is not among them."""
        self._require_usable()
        slots = [slot for slot in self._table.slots() if slot.process != PIN and slot.txnid != IDLE]
        return sorted(((slot.pid, slot.txnid) for slot in slots), key=lambda slot: slot[1])

    def evict_dead_readers(self) -> None:
        """Free the reader slots of processes that died, unless that was done a moment ago; LMDB itself hardly ever does."""
        self._require_usable()
        now = time.monotonic()
        if now - self._evicted >= _EVICT_EVERY:
            self._evicted = now
            self._table.evict_dead()

    # -- writing -------------------------------------------------------------------------------------------------

    @contextmanager
    def write(self, *, review: bool = False) -> Iterator[WriteTxn]:
        """Begin the write transaction, waiting for other writers; commit at the end of the block, abort on an exception.

        ``review`` asks the retention policy, before the commit, what may be given up: for a block that changes that.

        When the block has ended without an exception and the environment is durable, the commit is on disk. Raises
        ``DiskFull`` when there was no room: nothing was committed.
        """
        self._require_usable()
        self.evict_dead_readers()
        with self._inside:
            txn = self._begin_write()
            try:
                horizon = self._with_room(lambda: self.rootlog.before_write(txn))
                yield txn
                if review and not txn.ended:
                    horizon = self.rootlog.review(txn)
                enter(Stage.COMMITTED)
                txn.commit()
                if txn.committed:
                    self.rootlog.after_commit(txn.txnid, txn.most_freed, horizon)
            except BaseException:
                enter(Stage.FREE)
                raise
            finally:
                txn.abort()

    def claim_pin(self) -> None:
        """See to it that what is committed from now on is retained, if this is a store, without a commit."""
        self._require_usable()
        if self.readonly:
            return
        with self._write_lock() as txn:
            self._with_room(lambda: self.rootlog.claim(txn))

    def require_idle(self, patience: float = 2.0) -> None:
        """Wait until nobody writes; raise ``Busy`` after ``patience`` seconds. For who must not wait for another process."""
        self._require_usable()
        until = time.monotonic() + patience
        while self.guarded and self._table.writing():
            if time.monotonic() > until:
                raise Busy(f"{self.path}: somebody else is writing; try again")
            time.sleep(_POLL_INTERVAL)

    def give_up_history(self, policy: RetentionPolicy | None = None) -> bool:
        """The disk is full: give up some of the oldest retained commits; return whether there were any.

        ``policy`` is asked instead of the one that is set: what it would retain once a change is committed.
        """
        with self._write_lock() as txn:
            return self.rootlog.give_up(txn, policy)

    def sync(self) -> None:
        """Put everything that is committed on disk; needed after commits that were not durable."""
        self._require_usable()
        if self._lmdb is not None:
            with self._inside, translated(self.path):
                self._lmdb.sync(True)

    # -- inside --------------------------------------------------------------------------------------------------

    def _look_at_meta_pages(self) -> None:
        """Refuse to write where LMDB would go on from another commit than the newest; warn where one may be lost."""
        pages = self.file.settled_meta_pages()
        if not self.readonly:
            pages.require_writable()
        pages.warn_of_lost_commit(self.path)

    def _open_lmdb(self) -> lmdb.Environment:
        with translated(self.path):
            self._table.guard(self.file.newest_txnid, _MAX_READERS)
            return self._guarded_lmdb()

    def _guarded_lmdb(self) -> lmdb.Environment:
        if self.durable:  # by rule 9
            os.fdatasync(self.file.fd)
        return lmdb.open(
            os.fsencode(self.path),
            subdir=self._location.is_directory,
            map_size=self._map_size(),
            create=False,
            sync=self.durable,
            max_readers=_MAX_READERS,
            max_dbs=_MAX_DATABASES,
            lib_version=0,
        )

    def _map_size(self) -> int:
        root = self.file.newest_root()
        return map_size(self.path, max(self.file.size(), root.pages * root.page_size), root.map_size)

    def _attach(self) -> None:
        """Find the table of readers. Where LMDB has it open a transaction for reading must appear in it."""
        with translated(self.path):
            if self._lmdb is None:
                tables = [self._table, *self._other_tables]
                shared = [table.share(self.file.newest_txnid, _MAX_READERS) for table in tables]
                self.guarded = all(shared)
            else:
                raw = self._begin_read(self._lmdb)
                self.guarded = self._table.attach(os.getpid(), raw.id())
                raw.abort()
        if self.guarded:
            self._pair.require_match()

    def _settle(self) -> None:
        """Let LMDB see the last commit of a writer that was killed while it ended it.

        Its meta page is written, so it has happened; but readers begin at it only after the next writer has come, who
        would find more than readers saw before. Waits for a writer, if one is just committing.
        """
        if self._lmdb is not None and self.file.newest_txnid() > self._table.newest_txnid():
            with translated(self.path):
                _begin_writing(self._lmdb).abort()

    def _close(self) -> None:
        if self._lmdb is not None:
            self._lmdb.close()
        for table in (self._table, *self._other_tables):  # after LMDB: closing it drops LMDB's locks
            table.close()
        self._vetting.close()
        self.file.close()

    @contextmanager
    def _write_lock(self) -> Iterator[WriteTxn]:
        """Keep other writers away for a block that commits nothing."""
        self._require_usable()
        with self._inside:
            txn = self._begin_write()
            try:
                yield txn
            finally:
                txn.abort()

    def _writable(self) -> lmdb.Environment:
        """Return LMDB's environment, which one opened for reading does not have."""
        self._require_usable()
        if self._lmdb is None:
            raise AccessDenied(f"{self.path}: opened read-only")
        return self._lmdb

    def _begin_write(self) -> WriteTxn:
        """Begin the write transaction, waiting for other writers."""
        with translated(self.path):
            raw = self._begin_raw()
        try:
            self._require_writable_on(raw.id() - 1)
            txn = WriteTxn(raw, self._open_databases(), self._vetting)
            pin = self._table.pin()
            self._vetting.begin(txn.txnid, txn.txnid - 1 if pin is None else pin.txnid)
        except BaseException:
            raw.abort()
            raise
        return txn

    def _require_writable_on(self, newest: int) -> None:
        """Raise unless a transaction may follow the commit ``newest``, from which LMDB is about to go on."""
        self._pair.require_base(newest)
        if newest >= MAX_TXNID:
            raise CorruptDatabase(f"{self.path}: no transaction ids are left above {newest}, which no database reaches")

    def _open_databases(self) -> Databases:
        assert self._databases is not None  # noqa: S101 - there is a write transaction
        return self._databases

    def _begin_raw(self) -> lmdb.Transaction[bytes]:
        if not self._stopped:
            try:
                return _begin_writing(self._writable())
            except lmdb.PanicError:
                self._stopped = True
        self._reopen()
        return _begin_writing(self._writable())

    def _reopen(self) -> None:
        """Open LMDB again, by rule 8. When that fails the next transaction tries it again."""
        self._pair.require_in_place()
        self._look_at_meta_pages()
        self._writable().close()
        self._lmdb = self._guarded_lmdb()
        self._databases = Databases(self.path, self._lmdb)
        self._stopped = False

    def _give_lock_to_owner(self) -> None:
        """Where root has created lock.mdb, give it to the owner of the data, who could not open the environment else."""
        data, lock = self.file.status(), self._location.lock
        if os.geteuid() == 0 and lock.exists() and lock.stat().st_uid != data.st_uid:
            with suppress(OSError):  # on a read-only filesystem there is nothing to give
                os.chown(lock, data.st_uid, data.st_gid)  # by name: opening lock.mdb ourselves would cost us LMDB's locks

    def _require_usable(self) -> None:
        if self._users <= 0:
            raise Closed(f"{self.path}: the environment is closed")
        if self._pid != os.getpid():
            raise EnvironmentFailure(f"{self.path}: opened before a fork; open it in the process that uses it")

    def _hold_newest(self) -> Hold:
        self._pair.require_in_place()
        for _ in range(_CAPTURES_BESIDE_WRITERS):
            hold = self._capture()
            if hold is not None:
                return hold
        if self.readonly:
            self._pair.require_match()
            raise EnvironmentFailure(f"{self.path}: written too fast to hold a commit; try again")
        with self._write_lock():  # a writer commits faster than we look: hold it off for one look
            hold = self._capture()
        if hold is None:
            raise CorruptDatabase(f"{self.path}: neither meta page is that of the newest transaction")
        return hold

    def _capture(self) -> Hold | None:
        """Hold the commit that the table announces and read its meta page; None when a writer was too fast for that."""
        if not self.guarded:  # LMDB runs without a table of readers: nothing can be held
            return Hold(self.file, self.file.newest_root(), _nothing)
        announced = self._table.newest_txnid()
        meta = self.file.meta_pages().parsed[announced & 1]
        # Damaged, and not just being rewritten? Then the commit before it is the newest that can be read.
        txnid = announced if isinstance(meta, Root) else self.file.newest_txnid()
        self._add_hold(txnid)
        try:
            root = self.file.meta(txnid & 1)
            # Transaction txnid+2 rewrites that page, and it cannot begin to before txnid+1 has ended and is announced.
            if root.txnid == txnid and announced == self._table.newest_txnid():
                return Hold(self.file, root, lambda: self._remove_hold(txnid))
        except DatabaseError:
            if announced == self._table.newest_txnid():
                self._remove_hold(txnid)
                raise
        self._remove_hold(txnid)
        return None

    def _add_hold(self, txnid: int) -> None:
        self._with_room(lambda: self._holds.add(txnid))

    def _with_room(self, claim: Callable[[], T]) -> T:
        """Claim a slot; when all are taken, again after those of processes that died were freed."""
        try:
            return claim()
        except ReadersFull:
            self._table.evict_dead()
            return claim()

    def _remove_hold(self, txnid: int) -> None:
        if self.guarded:
            self._holds.remove(txnid)

    def _publish(self, txnid: int) -> None:
        if self._users > 0 and self._pid == os.getpid():  # else it is closed, and the slot given back; or it is our parent's
            for table in (self._table, *self._other_tables):
                table.hold(txnid)

    def _begin_read(self, environment: lmdb.Environment) -> lmdb.Transaction[bytes]:
        try:
            return environment.begin()
        except lmdb.ReadersFullError:
            environment.reader_check()  # frees the slots of processes that died
            return environment.begin()


def _begin_writing(environment: lmdb.Environment) -> lmdb.Transaction[bytes]:
    enter(Stage.WAITING)
    try:
        return environment.begin(write=True)
    finally:
        enter(Stage.FREE)


def _nothing() -> None:
    """Release what was not held."""


def require_whole(file: DataFile) -> None:
    """Raise ``CorruptDatabase`` when the file ends before a page that its newest root may need.

    LMDB itself leaves pages at the very end unwritten when they were freed in the transaction that added them, so a short
    file is whole when every page that it lacks is free. Nothing holds the root: what a writer has changed meanwhile is
    looked at again.
    """
    for _ in range(_CAPTURES_BESIDE_WRITERS):
        root = file.newest_root()
        try:
            _require_whole(file, root)
        except CorruptDatabase:
            if file.newest_root() == root:
                raise
        else:
            return


def _require_whole(file: DataFile, root: Root) -> None:
    there = file.size() // file.page_size
    if there > root.last_pgno:
        return
    free = read_free_pages(TreeReader(file, root))
    for pgno in range(there, root.pages):
        if pgno not in free:
            raise CorruptDatabase(f"missing: {file.path} is cut short, it has {there} pages of {root.pages}", pgno)
