"""What a loss of power could leave of the files that ``tests.recorder`` has recorded, and what must be true of it.

Of a file is there what was synced, and of the changes after that whatever the kernel happened to write back. A page goes
to the disk as it was at some moment since, and a disk breaks it at sectors of 512 bytes at worst: so each page, or sector,
is as it was after any number of the changes that touch it, whatever the others are. The size is that of any moment since,
too; what nobody wrote reads as zeros. A new name is sure when its directory was synced, not before; a name that was removed
or changed is so at once.

    python -m tests.powercut KIND DIRECTORY SEED COMMITS

makes a store in ``DIRECTORY/db``, commits as ``tests.churn`` does (KIND is one of its stores), and acknowledges each commit
in ``DIRECTORY/acknowledged``, a line ``txid digest``. Inside of a recorder these lines are events, too: they say which
transactions had returned before the power was cut.
"""

from __future__ import annotations

import os
import random
import subprocess
import sys
import textwrap
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from cowfs.pages import roots
from cowfs.pages.check import check_pages
from cowfs.pages.hold import Hold
from cowfs.store.retention import Retention
from cowfs.store.store import Durability, Store
from tests import churn
from tests.commands import run
from tests.recorder import Event, Kind, recording

ACKNOWLEDGED = "acknowledged"
RETAINED = 10  # commits behind the newest, at least
_PAGE = 4096
_SECTOR = 512

# How a page is left: given the numbers of the changes that touch it, and how many changes there are, the number of the first
# that is not in it.
Version = Callable[[random.Random, Sequence[int], int], int]

# Which unit the disk breaks changes at, and the version of each.
CHOICES: dict[str, tuple[int, Version]] = {
    "all": (_PAGE, lambda _choice, _numbers, count: count),
    "nothing": (_PAGE, lambda _choice, _numbers, _count: 0),
    "only the last change": (_PAGE, lambda _choice, numbers, count: count if numbers[-1] == count - 1 else 0),
    "all but the last change": (_PAGE, lambda _choice, _numbers, count: count - 1),
    "half of the pages": (_PAGE, lambda choice, _numbers, count: choice.choice((0, count))),
    "any version of each page": (_PAGE, lambda choice, numbers, _count: choice.choice((-1, *numbers)) + 1),
    "any version of each sector": (_SECTOR, lambda choice, numbers, _count: choice.choice((-1, *numbers)) + 1),
}

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


# -- cuts ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Cut:
    """One loss of power: the events before ``position`` have happened, and these txids were acknowledged.

    ``files`` is what the disk holds after it, ``choices`` says what was chosen for each file that was not synced.
    """

    position: int
    next_event: str
    choices: Mapping[str, str]
    files: Mapping[str, bytes]
    acknowledged: tuple[int, ...]

    def restore(self, directory: Path) -> None:
        """Write the files into ``directory``, which need not exist."""
        for name, content in self.files.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)

    def describe(self) -> str:
        """Say where it cuts, and what is left."""
        left = "; ".join(f"{name} ({len(self.files[name])} bytes): {how}" for name, how in self.choices.items())
        return (
            f"cut before event {self.position} ({self.next_event}), {self.acknowledged[-1]} acknowledged; "
            f"left of what was not synced: {left or 'all was synced'}"
        )


def cuts(events: Sequence[Event], seed: int, count: int) -> Iterator[Cut]:
    """Yield ``count`` cuts in the order of their positions, all after the first acknowledgement.

    Half of them are just before something is synced, when most is in doubt; the others are anywhere. For the same seed, and
    a writer that does the same, they leave the same of data.mdb, however often the kernel has written lock.mdb back.
    """
    choice = random.Random(seed)
    first = next(number for number, event in enumerate(events) if event.name == ACKNOWLEDGED and event.data) + 1
    anywhere = [number for number in range(first, len(events)) if not events[number].name.endswith("lock.mdb")]
    anywhere.append(len(events))
    syncs = [number for number in anywhere[:-1] if events[number].kind is Kind.SYNC] or anywhere
    positions = [choice.choice(syncs if number % 2 else anywhere) for number in range(count)]
    disk, done = Disk(), 0
    for number, position in enumerate(sorted(positions)):
        for event in events[done:position]:
            disk.apply(event)
        done = position
        yield disk.cut(f"{seed} {number}", position, str(events[position]) if position < len(events) else "the end")


class _Change(NamedTuple):
    """A change of a file that is not synced: where it writes what, and the size after it."""

    offset: int
    data: bytes
    size: int

    def parts(self, unit: int) -> Iterator[tuple[int, int, bytes]]:
        """Yield the change in parts that do not cross a multiple of ``unit``: its index, the offset, the bytes."""
        at, end = self.offset, self.offset + len(self.data)
        while at < end:
            stop = min(end, at - at % unit + unit)
            yield at // unit, at, self.data[at - self.offset : stop - self.offset]
            at = stop


@dataclass
class _File:
    """A file: what is on disk for sure, and the changes since."""

    synced: bytearray = field(default_factory=bytearray)
    changes: list[_Change] = field(default_factory=list)

    @property
    def size(self) -> int:
        return self.changes[-1].size if self.changes else len(self.synced)

    def write(self, offset: int, data: bytes) -> None:
        self.changes.append(_Change(offset, data, max(self.size, offset + len(data))))

    def truncate(self, size: int) -> None:
        self.changes.append(_Change(size, bytes(max(0, self.size - size)), size))

    def sync(self) -> None:
        self.synced = self.left(random.Random(0), "all")
        self.changes = []

    def left(self, choice: random.Random, how: str) -> bytearray:
        """Return what is left of it after a loss of power, by one of ``CHOICES``."""
        unit, version = CHOICES[how]
        numbers: defaultdict[int, list[int]] = defaultdict(list)
        for number, change in enumerate(self.changes):
            for index, _offset, _data in change.parts(unit):
                numbers[index].append(number)
        until = {index: version(choice, touching, len(self.changes)) for index, touching in numbers.items()}
        content = self.synced.ljust(max([len(self.synced), *(change.size for change in self.changes)]), b"\0")
        for number, change in enumerate(self.changes):
            for index, offset, data in change.parts(unit):
                if number < until[index]:
                    content[offset : offset + len(data)] = data
        return content[: self._size_left(choice, how)]

    def _size_left(self, choice: random.Random, how: str) -> int:
        """Return a size that it had since it was synced; mostly the last, or a cut file would hide all other damage."""
        if how == "nothing":
            return len(self.synced)
        if how == "all" or choice.random() < 0.75:
            return self.size
        return choice.choice([len(self.synced), *(change.size for change in self.changes)])


class Disk:
    """The files of a recording, after some of its events."""

    def __init__(self) -> None:
        self._files: dict[str, _File] = {}
        self._unsure: set[str] = set()  # names that are new in a directory which was not synced since
        self._acknowledged = b""

    def apply(self, event: Event) -> None:
        """Go on by one event."""
        kind, name = event.kind, event.name
        if name == ACKNOWLEDGED:
            self._acknowledged += event.data
        elif kind in (Kind.CREATE, Kind.MKDIR):
            self._unsure.add(name)
            if kind is Kind.CREATE:
                self._files[name] = _File()
        elif kind is Kind.REMOVE:
            self._files.pop(name, None)
            self._unsure.discard(name)
        elif kind is Kind.RENAME:
            self._files[os.fsdecode(event.data)] = self._files.pop(name)
            self._unsure -= {name, os.fsdecode(event.data)}
        elif kind is Kind.WRITE:
            self._files[name].write(event.number, event.data)
        elif kind is Kind.TRUNCATE:
            self._files[name].truncate(event.number)
        elif kind is Kind.SYNC:
            self._files[name].sync()
        else:
            self._unsure = {unsure for unsure in self._unsure if str(Path(unsure).parent) != name}

    def cut(self, seed: str, position: int, next_event: str) -> Cut:
        """Cut the power now: each file is left in its own way."""
        gone = {name for name in self._unsure if random.Random(f"{seed} {name}").random() < 0.5}
        choices, files = {}, {}
        for name, file in self._files.items():
            if gone.intersection([name, *map(str, Path(name).parents)]):
                continue
            choice = random.Random(f"{seed} {name}")
            how = choice.choice(list(CHOICES))
            files[name] = bytes(file.left(choice, how))
            if file.changes:
                choices[name] = how
        return Cut(position, next_event, choices, files, tuple(_acknowledged(self._acknowledged)))


# -- what must be true -----------------------------------------------------------------------------------------------


def verify(directory: Path, cut: Cut, model: Mapping[int, str]) -> int:
    """Hold that the store in ``directory``, restored there from ``cut``, has lost nothing; return its txid.

    ``model`` has the digest of what each txid must contain. What the last transaction that had returned has left is there,
    or else the one transaction after it; `cowfs check` finds nothing; and the store goes on.
    """
    database, last = directory / "db", cut.acknowledged[-1]
    churn.require_sound(database / "data.mdb")  # as it lies: LMDB would trust a damaged file, and crash
    txid, digest = churn.contents(database)
    following = min((later for later in model if later > last), default=last)
    assert txid in (last, following), f"{txid} found, {last} acknowledged"
    assert digest == model[txid], f"transaction {txid} is not what was written"
    with Store.open(database, "none") as store, store.db() as db:
        assert db.txid == txid
        _verify_history(store, model)
        assert store.transact([{":item/key": "after", ":item/text": "the cut"}]).txid > txid
    churn.require_sound(database)
    return txid


def _verify_history(store: Store, model: Mapping[int, str]) -> None:
    """Hold that every root that was promised is retained, and that every retained root is whole."""
    with store.timeline() as line:
        assert line.horizon <= max(1, line.newest - RETAINED), f"{line.horizon} is the oldest of {line.newest}"
        assert list(line) == list(range(line.horizon, line.newest + 1))
        assert line.events == []
        for txid in line:
            with store.as_of(txid) as db:
                assert churn.digest_in(db) == model[txid], f"retained commit {txid} is not what it was"
                assert isinstance(db.reader, Hold)
                assert list(check_pages(store.env.file, db.reader.root)) == []


# -- the writer ------------------------------------------------------------------------------------------------------


def record(kind: str, directory: Path, seed: int, commits: int) -> tuple[list[Event], dict[int, str]]:
    """Let a writer work below a recorder in ``directory``; return the events, and the model of what was written."""
    with recording(directory) as recorded:
        run(sys.executable, "-m", "tests.powercut", kind, recorded.point, str(seed), str(commits))
    events = list(recorded.events())
    return events, _acknowledged(b"".join(event.data for event in events if event.name == ACKNOWLEDGED))


def _acknowledged(lines: bytes) -> dict[int, str]:
    return {int(txid): digest for txid, digest in (line.split() for line in lines.decode().splitlines())}


def main(kind: str, directory: Path, seed: int, commits: int) -> None:
    """Be the writer."""
    database, model = directory / "db", churn.Model(seed)
    roots.LOOK_EVERY = 8  # type: ignore[misc]  # let go often
    durability: Durability = "sync" if kind == "store" else "none"
    Store.create(database, churn.SCHEMA, durability=durability, retention=Retention(commits=RETAINED)).close()
    with (
        _written_back(database / "lock.mdb"),
        (directory / ACKNOWLEDGED).open("a", buffering=1) as acknowledged,
        churn._opened(kind, database) as (txid, commit),
    ):
        acknowledged.write(f"{txid} {model.digest}\n")
        for _ in range(commits):
            txid = commit(model.step())
            acknowledged.write(f"{txid} {model.digest}\n")


@contextmanager
def _written_back(path: Path) -> Iterator[None]:
    """Let the kernel write the mapped file ``path`` back all the time."""
    command = [sys.executable, "-S", "-c", textwrap.dedent(_WRITE_BACK), str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as process:
        yield
    assert process.returncode == 0, "lock.mdb is not written back"


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
