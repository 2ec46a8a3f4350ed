"""A writer under which everything else is tested: random changes, the same for the same seed.

``Model`` says what commit number n must contain, without any database. The writer makes these commits, one after another, in
a process of its own, and acknowledges each in its journal, a line ``txid digest``, after it was committed. It ends when its
standard input is closed, at its limit of commits, and at the latest after a quarter of an hour:

    python -m tests.support.churn KIND DB JOURNAL SEED COMMITS PAUSE

KIND is ``store`` (a cowfs store), ``store-none`` (the same, without waiting for the disk) or ``plain`` (an LMDB environment
that knows nothing of cowfs, written by py-lmdb).
"""

from __future__ import annotations

import hashlib
import random
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import lmdb

from cowfs.backup.verify import verify
from cowfs.engine.opening import reading
from cowfs.store.read.db import Db
from cowfs.store.store import Store
from tests.support.commands import CHECKOUT, LIMIT

SCHEMA = {
    ":item/key": {":db/valueType": ":db.type/string", ":db/unique": ":db.unique/identity"},
    ":item/text": {":db/valueType": ":db.type/string"},
}
STORES = ("store", "store-none")
KINDS = (*STORES, "plain")
_FIRST_TXID = 1  # what ``create`` leaves behind, in every kind
_PLAIN = (b"even", b"odd")  # the databases of a plain environment
_KEYS = 100
_SIZES = (60, 60, 60, 60, 3000, 3000, 20_000, 200_000)  # at most; the bytes of values
_AT_MOST = 900.0  # seconds
_MAP_SIZE = 1 << 30  # an environment that grows beyond it fails its test
_MASK = (1 << 128) - 1

Change = tuple[str, str | None]  # a key, and its new text; None deletes it


@dataclass
class Model:
    """What the writer with ``seed`` has written after ``txid``; ``step`` goes on to the next commit."""

    seed: int
    txid: int = _FIRST_TXID
    items: dict[str, str] = field(default_factory=dict)
    prefix: str = "item"  # of the keys
    _sum: int = 0

    def __post_init__(self) -> None:
        self._choice = random.Random(self.seed)

    @property
    def digest(self) -> str:
        """The digest of all items, whatever their order."""
        return f"{len(self.items)}:{self._sum:032x}"

    def step(self) -> list[Change]:
        """Return the changes of the next commit, and take them over."""
        choice = self._choice
        keys = choice.sample(range(_KEYS), choice.randint(1, 4))
        changes: list[Change] = []
        for number in keys:
            key = f"{self.prefix}-{number:04}"
            gone = key in self.items and choice.random() < 0.3
            changes.append(
                (key, None if gone else choice.randbytes(choice.randint(1, choice.choice(_SIZES)) // 2 + 8).hex())
            )
        for key, text in changes:
            self._replace(key, text)
        self.txid += 1
        return changes

    def at(self, txid: int) -> Model:
        """Go on to the commit ``txid``, which is not behind; return the model itself."""
        assert self.txid <= txid, f"{txid} is before {self.txid}"
        while self.txid < txid:
            self.step()
        return self

    def _replace(self, key: str, text: str | None) -> None:
        old = self.items.pop(key, None)
        if old is not None:
            self._sum = self._sum - _hash(key, old) & _MASK
        if text is not None:
            self.items[key] = text
            self._sum = self._sum + _hash(key, text) & _MASK


def digest_of(items: Mapping[str, str]) -> str:
    """Return the digest that a model with these items has."""
    return f"{len(items)}:{sum(_hash(key, text) for key, text in items.items()) & _MASK:032x}"


def create(kind: str, path: Path) -> None:
    """Make the empty database that a writer of ``kind`` fills."""
    if kind in STORES:
        Store.create(path, SCHEMA, durability="none").close()
    else:
        path.mkdir()
        with _plain(path) as env, env.begin(write=True) as txn:
            for name in _PLAIN:
                env.open_db(name, txn=txn)


def contents(path: Path) -> tuple[int, str]:
    """Return txid and digest of the directory ``path`` with a database of either kind, read by cowfs's own reader."""
    with reading(path) as reader:
        if reader.get(b"cowfs", b"format") is not None:
            return reader.root.txnid, digest_in(Db(reader, reader.root.txnid))
        items = {key.decode(): text.decode() for name in _PLAIN for key, text in reader.scan(name)}
        return reader.root.txnid, digest_of(items)


def digest_in(db: Db) -> str:
    """Return the digest of a commit of a store."""
    return digest_of({entity[":item/key"]: entity[":item/text"] for entity in db.export()})


def require_sound(path: Path) -> None:
    """Hold that `cowfs check` finds nothing in the database in directory ``path``."""
    found = findings(path)
    assert found == [], f"{path}: {found[:5]}"


def findings(path: Path) -> list[str]:
    """Return what `cowfs check` finds in the database in directory ``path``."""
    with reading(path) as reader:
        return list(verify(reader, lambda _pages: None).findings)


@dataclass
class Writer:
    """A running writer, and its journal."""

    process: subprocess.Popen[bytes]
    journal: Path

    def acknowledged(self) -> dict[int, str]:
        """Return digest by txid of all commits that were acknowledged until now."""
        lines = self.journal.read_text().split("\n")[:-1] if self.journal.exists() else []
        return {int(txid): digest for txid, digest in (line.split() for line in lines)}

    def wait_for(self, commits: int, within: float = LIMIT) -> None:
        """Wait until the journal has so many commits more than now."""
        wanted, until = len(self.acknowledged()) + commits, time.monotonic() + within
        while len(self.acknowledged()) < wanted:
            assert time.monotonic() < until, f"the writer makes no {commits} commits in {within} s"
            self.require_running()
            time.sleep(0.01)

    def require_running(self) -> None:
        """Hold that the writer still works."""
        assert self.process.poll() is None, f"the writer ended: {self.errors()}"

    def errors(self) -> str:
        """Return what the writer has printed on standard error."""
        return self.journal.with_suffix(".errors").read_text()


@contextmanager
def writing(
    kind: str, path: Path, journal: Path, seed: int, *, commits: int = 20_000, pause: float = 0.002
) -> Iterator[Writer]:
    """Run a writer beside the block; at the end it is stopped, and must not have failed."""
    writer = start(kind, path, journal, seed, commits=commits, pause=pause)
    with writer.process:
        try:
            yield writer
            writer.require_running()
        finally:
            stop(writer)
    assert writer.process.returncode == 0, writer.errors()


def start(kind: str, path: Path, journal: Path, seed: int, *, commits: int, pause: float) -> Writer:
    """Start a writer, which the caller stops or kills."""
    command = [
        sys.executable,
        "-m",
        "tests.support.churn",
        kind,
        str(path),
        str(journal),
        str(seed),
        str(commits),
        str(pause),
    ]
    with journal.with_suffix(".errors").open("wb") as errors:
        process = subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=errors, stderr=errors)
    return Writer(process, journal)


def stop(writer: Writer) -> None:
    """Ask the writer to end, and wait for it."""
    if writer.process.stdin is not None:
        writer.process.stdin.close()
    try:
        writer.process.wait(LIMIT)
    except subprocess.TimeoutExpired:
        writer.process.kill()
        raise


def main(kind: str, path: Path, journal: Path, seed: int, commits: int, pause: float) -> None:
    """Be the writer."""
    model, until = Model(seed), time.monotonic() + _AT_MOST
    with _opened(kind, path) as (txid, commit), journal.open("a", buffering=1) as acknowledged:
        model.at(txid)
        while commits > 0 and time.monotonic() < until and not select.select([sys.stdin], [], [], pause)[0]:
            txid = commit(model.step())
            if txid != model.txid:
                raise AssertionError(f"commit {txid} should have been {model.txid}")
            _acknowledge(acknowledged, model)
            commits -= 1
        if commits == 0:
            select.select([sys.stdin], [], [], _AT_MOST)


def _acknowledge(journal: IO[str], model: Model) -> None:
    journal.write(f"{model.txid} {model.digest}\n")


@contextmanager
def _opened(kind: str, path: Path) -> Iterator[tuple[int, Callable[[list[Change]], int]]]:
    """Open the database; yield its last txid, and a function that commits changes and returns their txid.

    The txid is asked for under the write lock. After a kill it may be one more than a reader sees: LMDB's commit writes the
    meta page first, and lets readers at it when that is on disk; when its process dies in between the next writer does it.
    """
    if kind in STORES:
        with Store.open(path, "sync" if kind == "store" else "none") as store:
            with store.env.write() as txn:
                txid = txn.txnid - 1
                txn.abort()
            yield txid, lambda changes: store.transact([_form(*change) for change in changes]).txid
    else:
        with _plain(path) as env:
            databases = [env.open_db(name) for name in _PLAIN]
            with env.begin(write=True) as raw:
                txid = raw.id() - 1
                raw.abort()
            yield txid, lambda changes: _commit_plain(env, databases, changes)


def _form(key: str, text: str | None) -> object:
    if text is None:
        return [":db/retractEntity", [":item/key", key]]
    return {":item/key": key, ":item/text": text}


def _commit_plain(env: lmdb.Environment, databases: list[lmdb._Database], changes: list[Change]) -> int:
    with env.begin(write=True) as txn:
        txid = txn.id()
        for key, text in changes:
            database = databases[int(key[-1]) % 2]
            if text is None:
                txn.delete(key.encode(), db=database)
            else:
                txn.put(key.encode(), text.encode(), db=database)
    return txid


def _plain(path: Path) -> lmdb.Environment:
    return lmdb.open(str(path), map_size=_MAP_SIZE, max_dbs=2, sync=False)


def _hash(key: str, text: str) -> int:
    return int.from_bytes(hashlib.blake2b(f"{key}={text}".encode(), digest_size=16).digest(), "big")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]), float(sys.argv[6]))
