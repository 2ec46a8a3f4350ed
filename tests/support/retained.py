"""Environments that retain their roots, without the store; and other processes that write them, or fall down, on command."""

from __future__ import annotations

import multiprocessing
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from cowfs.engine.env import Env
from cowfs.engine.locktable import Pin
from cowfs.engine.pace import Pace
from cowfs.engine.policy import Event, HistoryView
from cowfs.engine.rootrecord import DATABASE, RECORD_KEY, RootRecord, Span, image_of
from cowfs.engine.writetxn import WriteTxn
from cowfs.pages.datafile import DataFile
from cowfs.pages.format import Root
from cowfs.pages.pagecheck import check_pages
from cowfs.pages.reader import Reader
from tests.support.commands import LIMIT


class FakePolicy:
    """Wants what the test wants, and remembers the events of the history."""

    def __init__(self) -> None:
        self.wanted = 0
        self.needed: int | None = None
        self.events: list[Event] = []
        self.between = Pace()
        self.swept: list[int] = []
        self.held: Callable[[int], int] = lambda _txnid: 0

    def horizon(self, view: HistoryView) -> int:
        self.held = view.held_from
        return max(self.wanted, view.span.horizon)

    def limit(self, view: HistoryView) -> int:
        return view.span.newest if self.needed is None else self.needed

    def pace(self, _reader: Reader) -> Pace:
        return self.between

    def sweep(self, txn: WriteTxn, _span: Span) -> None:
        self.swept.append(txn.txnid)

    def on_give_up(self, _txn: WriteTxn, _span: Span, _last: int) -> None:
        pass

    def on_event(self, _txn: WriteTxn, event: Event) -> None:
        self.events.append(event)


@contextmanager
def retaining(path: Path, *, durable: bool = False) -> Iterator[tuple[Env, FakePolicy]]:
    """Open an environment that retains its roots; make it first when it is not there."""
    if (path / "data.mdb").exists():
        env = Env.open(path, durable=durable)
    else:
        env = Env.create(path, durable=durable)
        with env.write() as txn:
            txn.create([DATABASE, b"a"])
            txn.put(DATABASE, b"format", b"{}")
    keeper = env.rootlog.policy = FakePolicy()
    with env:
        yield env, keeper


def put(env: Env, number: int, size: int = 1000) -> int:
    """Commit one value, which takes the place of that of some commits before; return the commit's txnid."""
    with env.write() as txn:
        txn.put(b"a", b"%d" % (number % 40), b"%d" % number + bytes(size))
    return txn.txnid


def record_of(env: Env) -> RootRecord:
    """Return the record of the newest commit, which must have one."""
    with env.hold() as hold:
        record = RootRecord.parse(hold.get(DATABASE, RECORD_KEY))
    assert record is not None
    return record


def pin_of(env: Env) -> Pin:
    """Return the pin, which must be there."""
    pin = env._table.pin()
    assert pin is not None
    return pin


def span_of(env: Env) -> Span:
    with env.hold() as hold:
        return env.rootlog.span(hold)


def digest(file: DataFile, root: Root) -> str:
    """Return a digest of every page that ``root`` uses."""
    result = blake2b(digest_size=16)
    for chunk in image_of(file, root, 0).chunks():
        result.update(chunk)
    return result.hexdigest()


def newest_digest(env: Env) -> tuple[int, str]:
    with env.hold() as hold:
        return hold.root.txnid, digest(env.file, hold.root)


def require_retained(env: Env, digests: dict[int, str]) -> Span:
    """Hold that every retained root is there, whole, and page by page what it was when ``digests`` was made."""
    span = span_of(env)
    for txnid in span:
        with env.hold(txnid) as hold:
            assert hold.root.txnid == txnid
            assert list(check_pages(env.file, hold.root)) == [], txnid
            if txnid in digests:
                assert digest(env.file, hold.root) == digests[txnid], txnid
    return span


def given_up(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the warnings that say that some of the history is given up."""
    return [message for message in caplog.messages if "given up" in message]


# -- other processes ----------------------------------------------------------------------------------------------

_FORKS = multiprocessing.get_context("forkserver")  # from a process that has all this loaded, and nothing open
_FORKS.set_forkserver_preload(["pytest", "tests.support.retained"])


class Told:
    """Another process, which does what it is told."""

    def __init__(self) -> None:
        self._connection, theirs = _FORKS.Pipe()
        self._process = _FORKS.Process(target=_obey, args=(theirs,), daemon=True)
        self._process.start()
        theirs.close()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def tell(self, code: str, *given: Any) -> None:
        """Let it begin to run ``code``, which finds ``given``."""
        self._connection.send((code, given))

    def answer(self) -> Any:
        """Wait until it has done what it was told last; return its ``answer``."""
        assert self._connection.poll(LIMIT), "it takes too long"
        return self._connection.recv()

    def do(self, code: str, *given: Any) -> Any:
        """Let it run ``code``, which finds ``given``; return its ``answer``."""
        self.tell(code, *given)
        return self.answer()

    def wait(self) -> int | None:
        """Wait until it has ended by itself; return its exit code, minus the number of a signal."""
        self._process.join(LIMIT)
        return self._process.exitcode

    def kill(self) -> None:
        self._process.kill()
        self._process.join(LIMIT)
        assert self._process.exitcode is not None

    def close(self) -> None:
        self.kill()
        self._process.close()
        self._connection.close()


def _obey(connection: Connection) -> None:
    scope: dict[str, Any] = {}
    while True:
        try:
            code, scope["given"] = connection.recv()
        except EOFError:
            return
        scope["answer"] = None
        exec(textwrap.dedent(code), scope)  # noqa: S102 - it is what this process is for
        connection.send(scope["answer"])


_PRELUDE = """
import gc, os, signal, sys
from pathlib import Path
import lmdb
"""


@contextmanager
def another(prelude: str = "") -> Iterator[Told]:
    """Run another process beside the block, at whose end it is killed."""
    told = Told()
    try:
        told.do(_PRELUDE + prelude)
        yield told
    finally:
        told.close()


_STOCK = """
env = database = None
def begin(path, **options):
    global env, database
    env = lmdb.open(str(path), **{"max_dbs": 8, "map_size": 1 << 30, "sync": False, "lib_version": 0, **options})
    if not options.get("readonly"):
        database = env.open_db(b"a", create=False)
def write(commits, first=0, size=1000):
    for number in range(first, first + commits):
        with env.begin(write=True) as txn:
            txn.put(b"%d" % (number % 40), b"stock %d" % number + bytes(size), db=database)
    return env.info()["last_txnid"]
"""
_COWFS = """
import logging
from tests.support.retained import *
open_envs = []
def begin(path):
    global env, keeper
    context = retaining(Path(path))
    env, keeper = context.__enter__()
    open_envs.append(context)
def end():
    open_envs.pop().__exit__(None, None, None)
logging.disable()
"""


@contextmanager
def stock_process(path: Path | None = None, **options: Any) -> Iterator[Told]:
    """Run a process that knows LMDB, but not cowfs: it can ``begin(path)`` and ``write(commits)``."""
    with another(_STOCK) as told:
        if path is not None:
            told.do("begin(given[0], **given[1])", path, options)
        yield told


@contextmanager
def cowfs_process(path: Path | None = None) -> Iterator[Told]:
    """Run another process of cowfs, where all names of this module are known; it can ``begin(path)``, which sets ``env``."""
    with another(_COWFS) as told:
        if path is not None:
            told.do("begin(given[0])", path)
        yield told
