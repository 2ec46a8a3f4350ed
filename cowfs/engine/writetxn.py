"""``WriteTxn``: the write transaction, through py-lmdb."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import lmdb

from cowfs.engine.translate import domain_error, translated
from cowfs.engine.vetting import MAIN, Vetting
from cowfs.errors import Closed, EnvironmentFailure
from cowfs.pages.reader import Reader

# For ``most_freed``. A value that is deleted or overwritten is not measured: the store puts such values into its log.
_PAGES_OF_PATH = 5  # from the root of a tree to its leaf, and some that were merged
_PAGES_OF_COMMIT = 16  # of the main tree and of the freelist
_BYTES_OF_PAGE = 9  # as a power of two, for the smallest pages


class Databases:
    """The named databases that have a handle in LMDB's environment ``lmdb_env``; ``path`` is for errors.

    A handle that a transaction opened is lost when it aborts, so ``handles`` has those of committed ones only.
    """

    def __init__(self, path: Path, lmdb_env: lmdb.Environment) -> None:
        self.path = path
        self.handles: dict[bytes, lmdb._Database] = {}
        self._lmdb = lmdb_env

    def open(self, name: bytes, raw: lmdb.Transaction[bytes], *, create: bool) -> lmdb._Database:
        """Open (or create) a database (b"" is the main one) in a write transaction. Raises py-lmdb's own errors."""
        return self._lmdb.open_db(name or None, txn=raw, create=create)


class WriteTxn(Reader):
    """The write transaction, a ``Reader`` that sees what it wrote. ``txnid`` is the id that its commit will have.

    After ``commit`` or ``abort``, which the end of the block of ``Env.write`` does, all else raises ``Closed``.
    """

    def __init__(self, raw: lmdb.Transaction[bytes], databases: Databases, vetting: Vetting) -> None:
        self.txnid = raw.id()
        self._vetting = vetting
        self._databases = databases
        self._path = databases.path
        self._raw = raw
        self.most_freed = _PAGES_OF_COMMIT  # pages: what it can have freed at most, from what it has put and deleted
        self.committed = False
        self._opened: dict[bytes, lmdb._Database] = {}  # in this transaction: lost when it aborts
        self.ended = False

    def get(self, name: bytes, key: bytes) -> bytes | None:
        """Return the value at ``key`` in database ``name``; None when the key, or the database, is not there."""
        handle = self._handle(name)
        if handle is None or not key:
            return None
        self._vetting.key(name, key)
        try:
            return self._raw.get(key, db=handle)
        except lmdb.Error as error:
            raise domain_error(error, self._path) from error

    def scan(
        self, name: bytes, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield (key, value) for start <= key < stop in key order, or the same pairs from the last to the first.

        Do not write to the same database before the scan has ended.
        """
        handle = self._handle(name)
        if handle is None:
            return
        with translated(self._path), self._raw.cursor(handle) as cursor:
            if reverse:
                yield from self._backwards(name, cursor, start, stop)
                return
            for key in self._forwards(name, cursor, start):
                if stop is not None and key >= stop:
                    return
                yield key, cursor.value()

    def keys(self, name: bytes, start: bytes = b"", stop: bytes | None = None) -> Iterator[bytes]:
        """Yield the keys with start <= key < stop in order. Do not write to the same database before the scan has ended."""
        handle = self._handle(name)
        if handle is None:
            return
        with translated(self._path), self._raw.cursor(handle) as cursor:
            for key in self._forwards(name, cursor, start):
                if stop is not None and key >= stop:
                    return
                yield key

    def _forwards(self, name: bytes, cursor: lmdb.Cursor[bytes], start: bytes) -> Iterator[bytes]:
        """Place the cursor on one entry from ``start`` on after another; yield their keys."""
        vetted = self._vetting.onwards(name, start)
        placed = cursor.set_range(start) if start else cursor.first()
        while placed:
            key = cursor.key()
            yield key
            if key >= vetted.last:
                vetted = self._vetting.onwards(name, key)
            placed = cursor.next()

    def _backwards(
        self, name: bytes, cursor: lmdb.Cursor[bytes], start: bytes, stop: bytes | None
    ) -> Iterator[tuple[bytes, bytes]]:
        vetted = self._vetting.backwards(name, stop)
        placed = cursor.last() if stop is None or not cursor.set_range(stop) else cursor.prev()
        while placed:
            key = cursor.key()
            if key < start:
                return
            if key not in vetted:
                vetted = self._vetting.backwards(name, key)
            yield key, cursor.value()
            placed = cursor.prev()

    def create(self, names: Iterable[bytes]) -> None:
        """Create the named databases that are not there yet; needed once before anything is put into them."""
        self._require_open()
        with translated(self._path):
            for name in names:
                self._vetting.create(name)
                self._opened[name] = self._databases.open(name, self._raw, create=True)

    def put(self, name: bytes, key: bytes, value: bytes) -> None:
        """Set the value at ``key`` (1 to 511 bytes) in a database that exists."""
        handle = self._existing(name)
        self._vetting.put(name, key, len(value))
        self.most_freed += _PAGES_OF_PATH + (len(value) >> _BYTES_OF_PAGE)
        try:
            self._raw.put(key, value, db=handle)
        except lmdb.Error as error:
            raise domain_error(error, self._path) from error

    def put_many(self, name: bytes, items: list[tuple[bytes, bytes]]) -> None:
        """Set many values at once; in key order is fastest."""
        self.most_freed += len(items) * _PAGES_OF_PATH
        with translated(self._path), self._raw.cursor(self._existing(name)) as cursor:
            self._vetting.put_many(name, items)
            cursor.putmulti(items)

    def delete(self, name: bytes, key: bytes) -> bool:
        """Delete ``key``; return whether it was there."""
        handle = self._existing(name)
        self._vetting.delete(name, key)
        self.most_freed += _PAGES_OF_PATH
        try:
            return self._raw.delete(key, db=handle)
        except lmdb.Error as error:
            raise domain_error(error, self._path) from error

    def commit(self) -> None:
        """Commit now; ``Env.write`` does it at the end of its block. After an abort it does nothing."""
        if self.ended:
            return
        self._vetting.commit()
        self.ended = True
        with translated(self._path):
            self._raw.commit()
        self._vetting.end(self.txnid)
        self._databases.handles.update(self._opened)
        self.committed = True

    def abort(self) -> None:
        """Undo everything; after a commit, or twice, it does nothing."""
        if not self.ended:
            self.ended = True
            self._raw.abort()
            self._vetting.end(self.txnid - 1)

    def _require_open(self) -> None:
        if self.ended:
            raise Closed(f"{self._path}: the write transaction has ended")

    def _handle(self, name: bytes) -> lmdb._Database | None:
        self._require_open()
        handle = self._opened.get(name) or self._databases.handles.get(name)
        if handle is None:
            self._vetting.key(MAIN, name)
            try:
                handle = self._opened[name] = self._databases.open(name, self._raw, create=False)
            except lmdb.NotFoundError:
                return None
            except lmdb.Error as error:
                raise domain_error(error, self._path) from error
        return handle

    def _existing(self, name: bytes) -> lmdb._Database:
        handle = self._handle(name)
        if handle is None:
            raise EnvironmentFailure(f"{self._path}: there is no database {name.decode(errors='replace')!r}")
        return handle
