"""``Store``: a database of datoms, opened for reading and writing.

One process writes at a time, each transaction is one commit of LMDB, and every commit leaves a root behind that a ``Db``
reads. The schema and the state are kept from one transaction to the next, and believed as long as the state record is
byte for byte the one that was left: whoever writes, in any process, changes it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, TypeVar
from weakref import WeakSet

from cowfs.engine.env import Env
from cowfs.engine.making import is_free, make_environment
from cowfs.engine.writetxn import WriteTxn
from cowfs.errors import Closed, InputError, InvalidTarget, NotADatabase, NotFound, UnsupportedFormat
from cowfs.pages.reader import Reader
from cowfs.store.history import fulldisk, named
from cowfs.store.history.named import NamedSnapshot
from cowfs.store.history.retention import DEFAULT_RETENTION, RETENTION_KEY, Retention, StoreRetention
from cowfs.store.history.timeline import Timeline, hold_timeline
from cowfs.store.model import clock
from cowfs.store.model.layout import (
    ATTRIBUTE_KEYS,
    DATABASES,
    FORMAT_KEY,
    META,
    VERSION,
    Format,
    State,
    read_format,
    read_state,
    txid_of,
)
from cowfs.store.model.schema import Attribute, Schema, read_schema
from cowfs.store.read.db import Db
from cowfs.store.tx import schemachange
from cowfs.store.tx.importids import ImportIds
from cowfs.store.tx.rehearsal import Rehearsal
from cowfs.store.tx.revert import RevertReport, revert
from cowfs.store.tx.transaction import Basis, TxReport, next_state, transact, write_state

Durability = Literal["sync", "none"]
T = TypeVar("T")
SchemaJson = Mapping[str, Mapping[str, Any]]


class Store:
    """An open store. Get one with ``open``, ``Store.open`` or ``Store.create``; close it when done.

    ``env`` is the environment below it. With durability "sync" a transaction that has returned is on disk; with "none" the
    machine may lose, or on a power failure damage, what it has not written yet. After ``close`` everything raises
    ``Closed``, also what was got from the store.
    """

    def __init__(self, env: Env) -> None:
        self._env: Env | None = env
        self._path = env.path
        self._dbs: WeakSet[Db] = WeakSet()
        self._basis: Basis | None = None
        with env.hold() as hold:
            self._read_basis(hold)
        env.rootlog.policy = StoreRetention(env.file.page_size)

    @classmethod
    def create(
        cls,
        path: str | Path,
        schema: SchemaJson | None = None,
        strict: bool = False,
        durability: Durability = "sync",
        retention: Retention = DEFAULT_RETENTION,
    ) -> Store:
        """Make an empty store in ``path``, a directory that does not exist yet or is empty, and open it.

        One whose making was cut off is made as well; when it fails nothing is left behind.
        ``strict`` stores refuse attributes that are not in their schema; ``retention`` is how much of its history it keeps.
        Raises ``InvalidTarget``, ``SchemaError``.
        """
        attributes = schemachange.new_schema(schema or {})
        durable = _durable(durability)
        made = make_environment(Path(path), durable=durable)
        try:
            env = Env.open(Path(path), durable=durable)
            try:
                _begin(env, attributes, strict, retention)
                return cls(env)
            except BaseException:
                env.close()
                raise
        except BaseException:
            made.undo()
            raise

    @classmethod
    def open(cls, path: str | Path, durability: Durability = "sync", *, readonly: bool = False) -> Store:
        """Open the store in directory ``path``.

        Raises ``NotADatabase``, ``UnsupportedFormat``, ``CorruptDatabase``, ``AccessDenied``.
        """
        env = Env.open(Path(path), readonly=readonly, durable=_durable(durability))
        try:
            return cls(env)
        except BaseException:
            env.close()
            raise

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the store, and every Db of it; closing twice does nothing."""
        env, self._env = self._env, None
        if env is not None:
            for db in list(self._dbs):
                db.close()
            env.close()

    @property
    def env(self) -> Env:
        """The environment below the store."""
        if self._env is None:
            raise Closed(f"{self._path}: the store is closed")
        return self._env

    def db(self) -> Db:
        """Return the newest commit as a value; it holds its root until it is closed or dropped."""
        hold = self.env.hold()
        try:
            return self._handed_out(Db(hold, hold.root.txnid, hold.close, schema=self._read_basis(hold).schema))
        except BaseException:
            hold.close()
            raise

    @property
    def schema(self) -> Schema:
        """The schema of the newest commit."""
        with self.env.hold() as hold:
            return self._read_basis(hold).schema

    def transact(self, data: Any, *, dry_run: bool = False, ids: ImportIds | None = None) -> TxReport:
        """Do one transaction: a list of maps and operations, all of it or nothing. It is committed on return.

        With ``dry_run`` nothing is committed: the report is what it would be if nobody else commits first. ``ids``
        say what ids mean in an import that this is part of. Raises ``TransactionError`` and ``EntityTaken``, which name the
        form, and ``DiskFull``; nothing was changed then.
        """
        if dry_run:
            with self.rehearsal() as rehearsal:
                return rehearsal.transact(data, ids=ids)
        report, self._basis = self._write(lambda txn: transact(txn, self._read_basis(txn), data, ids))
        if ids is not None:
            ids.done(report.tempids)
        return report

    @contextmanager
    def rehearsal(self) -> Iterator[Rehearsal]:
        """Yield transactions of which nothing is committed at the end. Other writers wait meanwhile."""
        with self.env.write() as txn:
            try:
                yield Rehearsal(txn, self._read_basis(txn))
            finally:
                txn.abort()

    def update_schema(self, schema: SchemaJson) -> Schema:
        """Define the attributes in ``schema`` as they stand there, and leave the others; return the whole schema.

        A change is one transaction in the log, and none is made when nothing changes. Raises ``SchemaError``, naming the
        attribute and the reason.
        """
        with self.env.hold() as hold:
            changed = schemachange.changed_attributes(hold, self._read_basis(hold).schema, schema)
        if not changed:
            return self.schema
        self._basis = self._write(lambda txn: self._change_schema(txn, schema))
        return self._basis.schema

    # -- history -------------------------------------------------------------------------------------------------

    def as_of(self, txid: int) -> Db:
        """Return the retained commit ``txid`` as a value; it holds its root until it is closed or dropped.

        Raises ``NotFound`` when it is not retained.
        """
        with self.env.hold() as newest:
            txnid = Timeline(self.env, newest).txnid(txid)
        hold = self.env.hold(txnid)
        try:
            return self._handed_out(Db(hold, txnid, hold.close))
        except BaseException:
            hold.close()
            raise

    def revert(
        self, txid: int, entity: int | None = None, *, with_references: bool = False, dry_run: bool = False
    ) -> RevertReport:
        """Restore the datoms of the retained commit ``txid``, all or those of one entity, by one new transaction.

        The commits since stay as they are; entities keep their ids. The schema is not restored. Nor are, with ``entity``,
        the references that other entities had to it: the report says how many are missing. ``with_references`` restores
        those, too; an attribute with one value that refers elsewhere by now is set back, and an entity without datoms
        does not get any. References made since stay. Nothing is committed when there is nothing to change, or with
        ``dry_run``.

        Raises ``NotFound`` when the commit is not retained, ``SchemaError`` when an attribute does not take its old values
        any more, ``TransactionError`` when another entity has a unique value by now, ``InputError``.
        """
        if with_references and entity is None:
            raise InputError("with_references goes with an entity; without one all references are restored")

        def restore(txn: WriteTxn) -> tuple[RevertReport, Basis]:
            basis = self._read_basis(txn)
            with self.env.hold() as hold, Db(hold, hold.root.txnid, schema=basis.schema) as newest:  # nobody else writes now
                return revert(txn, basis, newest, wanted, entity, with_references=with_references)

        with self.as_of(txid) as wanted:  # held first, so that this commit does not give it up
            if dry_run:
                return self._rehearse(restore)[0]
            report, self._basis = self._write(restore)
        return report

    @contextmanager
    def timeline(self) -> Iterator[Timeline]:
        """Yield what is retained, as of the newest commit; all of it is held for as long."""
        with hold_timeline(self.env) as timeline:
            yield timeline

    def retain(self, retention: Retention) -> None:
        """Set how much of the history is kept, and let go at once what is more. It is a commit of its own.

        On a full disk it makes its own room, from what the new bounds give up. Raises ``DiskFull`` where that is not enough.
        """

        def change(txn: WriteTxn) -> None:
            txn.put(META, RETENTION_KEY, retention.pack())
            self._commit_without_datoms(txn)

        self._write(change, StoreRetention(self.env.file.page_size, retention=retention))

    def name(
        self,
        name: str,
        owner: str,
        reason: str | None = None,
        expires: datetime | None = None,
        txid: int | None = None,
    ) -> NamedSnapshot:
        """Name the newest commit, or the retained one ``txid``: it stays until the name is deleted, or expires.

        Name and hold are one commit, the one after it. Raises ``WrongName``, ``NameTaken``, and
        ``NotFound`` when that commit is not retained.
        """
        named.checked(name)

        def add(txn: WriteTxn) -> NamedSnapshot:
            newest = txn.txnid - 1
            offset = txid_of(newest, self._read_basis(txn).state) - newest
            number = newest if txid is None else txid - offset
            span = self.env.rootlog.span_in(txn)
            if number not in span:
                raise NotFound(f"commit {txid} is not retained")
            snapshot = NamedSnapshot(name, number + offset, clock.now(), owner, reason, expires)
            named.add(txn, snapshot, lambda txid: txid - offset in span)
            self._commit_without_datoms(txn)
            return snapshot

        with nullcontext() if txid is None else self.as_of(txid):  # held, so that a full disk does not give it up
            return self._write(add)

    def unname(self, name: str) -> NamedSnapshot:
        """Delete a name, and let go at once what only it held; return what it was. Raises ``NotFound``.

        On a full disk it makes its own room, from what the name held. Raises ``DiskFull`` where that is not enough; the name
        is given up then, if anything was.
        """
        snapshot: NamedSnapshot | None = None

        def remove(txn: WriteTxn) -> NamedSnapshot:
            nonlocal snapshot
            try:
                snapshot = named.remove(txn, name)
            except NotFound:
                if snapshot is None:  # else an attempt without room gave up its commit, and a look has deleted it since
                    raise
            self._commit_without_datoms(txn)
            return snapshot

        return self._write(remove, StoreRetention(self.env.file.page_size, without=name))

    # -- inside --------------------------------------------------------------------------------------------------

    def _handed_out(self, db: Db) -> Db:
        """Return ``db``, which is closed with the store."""
        self._dbs.add(db)
        return db

    def _write(self, work: Callable[[WriteTxn], T], changed: StoreRetention | None = None) -> T:
        """Do ``work`` as one commit; ``fulldisk`` says what happens when there is no room.

        ``changed`` is the retention policy that holds once it is committed, when that gives history up.
        """
        return fulldisk.write(self.env, work, changed)

    def _rehearse(self, work: Callable[[WriteTxn], T]) -> T:
        """Do ``work`` and undo it. On a full disk no history is given up for that."""
        with self.env.write() as txn:
            result = work(txn)
            txn.abort()
        return result

    def _change_schema(self, txn: WriteTxn, schema: SchemaJson) -> Basis:
        basis = self._read_basis(txn)
        changed = schemachange.changed_attributes(txn, basis.schema, schema)
        _put_attributes(txn, changed)
        state = next_state(txn, basis.state)
        write_state(txn, state)
        return Basis(state, basis.schema.with_attributes(changed))

    def _commit_without_datoms(self, txn: WriteTxn) -> None:
        write_state(txn, next_state(txn, self._read_basis(txn).state))

    def _read_basis(self, reader: Reader) -> Basis:
        state = read_state(reader) if self._basis is not None else State()
        basis = self._basis
        if basis is None or basis.state != state:
            try:
                stored = read_format(reader)
            except (NotADatabase, UnsupportedFormat) as error:
                raise type(error)(f"{self.env.path}: {error}") from None
            basis = self._basis = Basis(read_state(reader), read_schema(reader, stored))
        return basis


def create_store(
    path: str | Path,
    schema: SchemaJson | None = None,
    *,
    strict: bool = False,
    durability: Durability = "sync",
    retention: Retention = DEFAULT_RETENTION,
) -> Store:
    """Make an empty store in ``path``, a directory that does not exist yet or is empty, and open it: ``Store.create``."""
    return Store.create(path, schema, strict, durability, retention)


def open_store(path: str | Path, schema: SchemaJson | None = None, durability: Durability = "sync") -> Store:
    """Open the store in directory ``path``, or create it when the directory does not exist or is empty.

    What is left of a store whose making was cut off counts as nothing.
    ``schema`` is defined in it, as by ``Store.update_schema``. ``durability`` is "sync" (a transaction that has returned is
    on disk) or "none". Raises ``NotADatabase``, ``UnsupportedFormat``, ``SchemaError``, ``AccessDenied``.
    """
    place = Path(path)
    if is_free(place):
        try:
            return Store.create(place, schema, durability=durability)
        except InvalidTarget:
            if is_free(place):  # else somebody else was faster
                raise
    store = Store.open(place, durability)
    try:
        store.update_schema(schema or {})
    except BaseException:
        store.close()
        raise
    return store


def _begin(env: Env, attributes: list[Attribute], strict: bool, retention: Retention) -> None:
    """Make an environment without databases a store. Raises ``InvalidTarget`` when somebody else did by now."""
    with env.write() as txn:
        txn.create(DATABASES)
        if txn.get(META, FORMAT_KEY) is not None:
            raise InvalidTarget(f"{env.path}: not empty, somebody else has just made a database there")
        txn.put(META, FORMAT_KEY, Format(VERSION, strict).pack())
        write_state(txn, next_state(txn, State()))
        txn.put(META, RETENTION_KEY, retention.pack())
        _put_attributes(txn, attributes)


def _put_attributes(txn: WriteTxn, attributes: list[Attribute]) -> None:
    for attribute in attributes:
        txn.put(META, ATTRIBUTE_KEYS + attribute.key, attribute.pack())


def _durable(durability: str) -> bool:
    if durability not in ("sync", "none"):
        raise InputError(f"durability is sync or none, not {json.dumps(durability, default=str)}")
    return durability == "sync"
