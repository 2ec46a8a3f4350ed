"""The writers whose power ``support.powercut`` cuts: each does in DIRECTORY, which a recorder records, one SCENE.

    python -m tests.support.cutwriter SCENE DIRECTORY SEED COMMITS

``store`` and ``store-none`` make ``DIRECTORY/db`` and commit as ``support.churn`` does. ``go-on`` goes on with it, ``again``
with those in each directory of DIRECTORY. ``two`` are two processes that commit at once, ``killed`` some that follow each
other, all but the last of them killed. ``named`` also gives names, deletes them and moves the bounds of the history;
``full`` does so where the disk is full again and again. ``meta`` goes on when a commit has failed. ``restore`` makes
databases of ``DIRECTORY/../backup``.

Each commit is acknowledged in ``DIRECTORY/acknowledged``, a line with its txid, the writer's digest, and its ``Promise``.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import IO

from cowfs.engine import rootlog
from cowfs.engine.locktable import sync_directory
from cowfs.errors import CowfsError, DiskFull
from cowfs.store.history.retention import Retention
from cowfs.store.store import Durability, Store
from tests.support import churn
from tests.support.commands import LIMIT, cowfs_here
from tests.support.disk import ACKNOWLEDGED

RETAINED = 10  # commits behind the newest, at least
RESTORED = {"new": (), "filled": (), "compact": ("--compact",)}  # with which options
_ALL = 10_000  # commits
_KILLED_AFTER = (5, 8, 11)  # commits

# Lets the kernel write back a mapped file every other moment, without waiting for the disk, as it may at any time. In a
# process of its own: one that has LMDB open cannot close lock.mdb without losing its locks.
_WRITE_BACK = """
    import ctypes, os, select, sys
    descriptor = os.open(sys.argv[1], os.O_RDWR)
    libc = ctypes.CDLL(None, use_errno=True)
    while not select.select([sys.stdin], [], [], 0.002)[0]:
        if libc.sync_file_range(descriptor, ctypes.c_int64(0), ctypes.c_int64(0), 2):  # SYNC_FILE_RANGE_WRITE
            sys.exit(os.strerror(ctypes.get_errno()))
    """


@dataclass(frozen=True)
class Promise:
    """What a store owes its user from then on: of ``writer``, that history is kept from ``floor`` on or by the bounds.

    ``names`` are there and hold what they name, ``gone`` are deleted. It is lowered before something is given up.
    """

    writer: int = 0
    floor: int = 1
    commits: int = RETAINED
    names: dict[str, int] = field(default_factory=dict)
    gone: tuple[str, ...] = ()

    def oldest(self, newest: int) -> int:
        """Return the commit that must be retained, at the latest, when ``newest`` is the newest."""
        return max(self.floor, min([newest - self.commits, *self.names.values()]))


class Writer:
    """A store that is open, the model of what it contains, and what was promised of it."""

    def __init__(
        self, directory: Path, model: churn.Model, promise: Promise, acknowledged: IO[str], durability: Durability
    ) -> None:
        self.path = directory / "db"
        self.store = Store.open(self.path, durability)
        self.txid = self._newest()
        self.model = model
        self.digest = model.digest  # of what is committed
        self.promise = promise
        self._acknowledged = acknowledged

    def commit(self) -> None:
        """Make the next commit of the model."""
        self.transact(self.model.step())

    def transact(self, changes: list[churn.Change]) -> None:
        """Commit these changes, which the model has."""
        txid = self.store.transact([churn._form(*change) for change in changes]).txid
        self.digest = self.model.digest
        self.done(txid)

    def done(self, txid: int) -> None:
        """Acknowledge a commit."""
        self.txid = txid
        self.promise = replace(self.promise, floor=self.promise.oldest(txid))
        self.say()

    def say(self) -> None:
        """Write a line that acknowledges everything until now."""
        self._acknowledged.write(f"{self.txid} {self.digest} {json.dumps(asdict(self.promise))}\n")

    def reopen(self) -> None:
        """Close the store, and open it again."""
        self.store.close()
        self.store = Store.open(self.path)

    def name(self, name: str) -> None:
        """Name the newest commit."""
        snapshot = self.store.name(name, "cut")
        self.promise = replace(self.promise, names={**self.promise.names, name: snapshot.txid})
        self.done(snapshot.txid + 1)

    def unname(self, name: str) -> None:
        """Delete a name."""
        names = {kept: txid for kept, txid in self.promise.names.items() if kept != name}
        self.promise = replace(self.promise, names=names)
        self.say()
        self.store.unname(name)
        self.promise = replace(self.promise, gone=(*self.promise.gone, name))
        self.done(self._newest())

    def retain(self, commits: int) -> None:
        """Move the bound of the history."""
        self.promise = replace(self.promise, commits=min(commits, self.promise.commits))
        self.say()
        self.store.retain(Retention(commits=commits))
        self.done(self._newest())
        self.promise = replace(self.promise, commits=commits)
        self.say()

    def _newest(self) -> int:
        with self.store.env.write() as txn:
            txn.abort()
            return txn.txnid - 1


def _store(directory: Path, seed: int, commits: int, durability: Durability = "sync") -> None:
    with _writing(directory, churn.Model(seed), durability=durability) as writer:
        for _ in range(commits):
            writer.commit()
            print(writer.txid, flush=True)


def _again(directory: Path, seed: int, commits: int) -> None:
    """Go on in each directory of DIRECTORY, one after another."""
    for place in sorted(directory.iterdir()):
        _store(place, seed, commits)


def _two(directory: Path, seed: int, commits: int) -> None:
    both = [_start(f"one-of-two-{number}", directory, seed + number, commits // 2) for number in (1, 2)]
    for process in both:
        assert process.wait(LIMIT) == 0


def _one_of_two(number: int, directory: Path, seed: int, commits: int) -> None:
    model = churn.Model(seed, prefix=f"writer-{number}")
    with _writing(directory, model, Promise(writer=number), again=False) as writer:
        for _ in range(commits):
            writer.commit()


def _killed(directory: Path, seed: int, commits: int) -> None:
    choice = random.Random(seed)
    for _ in range(3):
        with _start("go-on", directory, seed, commits, stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            for _line in range(choice.choice(_KILLED_AFTER)):
                process.stdout.readline()
            process.kill()
    assert _start("go-on", directory, seed, commits // 4).wait(LIMIT) == 0


def _named(directory: Path, seed: int, commits: int) -> None:
    choice = random.Random(seed)
    with _writing(directory, churn.Model(seed)) as writer:
        for number in range(commits):
            what = choice.random()
            if what < 0.2:
                writer.name(f"name-{number}")
            elif what < 0.4 and writer.promise.names:
                writer.unname(choice.choice(list(writer.promise.names)))
            elif what < 0.5:
                writer.retain(choice.choice((3, RETAINED, 20)))
            else:
                writer.commit()


def _full(directory: Path, seed: int, commits: int) -> None:
    """Fill the disk with history: no commit of it is promised but the newest, and those that are named."""
    churn._SIZES = (60,) * 8
    with _writing(directory, churn.Model(seed), Promise(commits=0)) as writer:
        writer.store.retain(Retention(commits=_ALL))
        writer.done(writer._newest())
        for number in range(commits):
            if number % 10 == 5:
                writer.name(f"name-{number}")
            changes = writer.model.step()
            while True:
                try:
                    writer.transact(changes)
                    break
                except DiskFull:
                    writer.unname(min(writer.promise.names, key=lambda name: writer.promise.names[name]))


def _meta(directory: Path, seed: int, commits: int) -> None:
    failed = 0
    with _writing(directory, churn.Model(seed)) as writer:
        for _ in range(commits):
            changes = writer.model.step()
            while True:
                try:
                    writer.transact(changes)
                    break
                except CowfsError:
                    failed += 1
                    writer.reopen()
    assert failed > commits // 8, "no commit failed"


def _restore(directory: Path, _seed: int, _commits: int) -> None:
    (directory / "filled").mkdir()
    sync_directory(directory)
    with (directory / ACKNOWLEDGED).open("a", buffering=1) as acknowledged:
        for number, (name, options) in enumerate(RESTORED.items(), 1):
            cowfs_here("restore", *options, directory.parent / "backup", directory / name)
            acknowledged.write(f"{number} {name}\n")


@contextmanager
def _writing(
    directory: Path,
    model: churn.Model,
    promise: Promise | None = None,
    *,
    again: bool = True,
    durability: Durability = "sync",
) -> Iterator[Writer]:
    """Open the store for a writer; ``again`` says that its txid says how far the model is."""
    with (
        written_back(directory / "db" / "lock.mdb"),
        (directory / ACKNOWLEDGED).open("a", buffering=1) as acknowledged,
    ):
        writer = Writer(directory, model, promise or Promise(), acknowledged, durability)
        try:
            if again:
                writer.digest = model.at(writer.txid).digest
                writer.done(writer.txid)
            yield writer
        finally:
            writer.store.close()


@contextmanager
def written_back(path: Path) -> Iterator[None]:
    """Let the kernel write the mapped file ``path`` back all the time."""
    command = [sys.executable, "-S", "-c", textwrap.dedent(_WRITE_BACK), str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        yield
    assert process.returncode == 0, "lock.mdb is not written back"


def _start(scene: str, directory: Path, seed: int, commits: int, stdout: int | None = None) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.support.cutwriter", scene, str(directory), str(seed), str(commits)]
    return subprocess.Popen(command, stdout=stdout, text=True)


_MADE: dict[str, Callable[[Path, int, int], None]] = {
    "store": _store,
    "store-none": partial(_store, durability="none"),
    "two": _two,
    "killed": _killed,
    "named": _named,
    "full": _full,
    "meta": _meta,
}
_SCENES: dict[str, Callable[[Path, int, int], None]] = {
    **_MADE,
    "go-on": _store,
    "again": _again,
    "one-of-two-1": partial(_one_of_two, 1),
    "one-of-two-2": partial(_one_of_two, 2),
    "restore": _restore,
}


def main(scene: str, directory: Path, seed: int, commits: int) -> None:
    """Be the writer."""
    rootlog.LOOK_EVERY = 8  # type: ignore[misc]  # give up often
    if scene in _MADE:
        durability: Durability = "none" if scene == "store-none" else "sync"
        retention = Retention(commits=RETAINED)
        Store.create(directory / "db", churn.SCHEMA, durability=durability, retention=retention).close()
        (directory / ACKNOWLEDGED).write_text(f"1 {churn.Model(seed).digest}\n")
    _SCENES[scene](directory, seed, commits)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
