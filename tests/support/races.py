"""Processes that fight for one store while they are killed, and what must be true of its retained roots all the while.

``race`` plays a scene, which a process of its own directs: it never opens the store itself, but forks the processes that
do, kills them with SIGKILL at random moments, lets some of them sleep (SIGSTOP) for a while, ends each round with a moment
in which all are dead, and has everything verified then. It ends when as much was done as is asked for, however long that
takes: ``rounds=14,kills=100`` say.

    python -m tests.support.races SCENE DIRECTORY SEED WANTED SABOTAGE

SCENE says who takes part:

``cowfs``     only processes of cowfs: nothing may ever be lost, the horizon goes up and never down, and never above what
              the bounds keep, what is named, and what somebody holds;
``readers``   also plain LMDB, in other processes, reading and calling ``reader_check``, across moments in which no process
              of cowfs lives: the history may be given up, but that is said;
``writers``   also plain LMDB that commits and aborts, with and without WRITEMAP: the same.

SABOTAGE, for the tests of the test, is ``none``, or takes away from all processes what protects the roots: ``claim`` (the
pin is not claimed), ``pin`` (it is there, and holds nothing), ``hold`` (what a process reads is not held).

The content is a chain of steps. Step n is the same for the same seed, whoever makes it; a transaction makes the next step
by compare-and-swap, so writers may take turns as they like, and every root says of itself which step it must look like.
Each process tells what it has done in one journal, a line at once after it was done: after a kill everything that was
acknowledged is known, and nothing else is believed.
"""

from __future__ import annotations

import ctypes
import logging
import mmap
import os
import random
import signal
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final, NoReturn

import lmdb

from cowfs.engine.holds import Hold
from cowfs.engine.locktable import IDLE, LockTable, Pin
from cowfs.errors import CowfsError, InputError, NotFound, TransactionError
from cowfs.pages.btree import TreeReader
from cowfs.pages.pagecheck import check_pages
from cowfs.store.datomcheck import check_store
from cowfs.store.history.retention import RETENTION_KEY, Retention
from cowfs.store.history.timeline import Timeline
from cowfs.store.model.layout import META
from cowfs.store.read.db import Db
from cowfs.store.store import Durability, Store
from tests.support.churn import digest_of
from tests.support.commands import CHECKOUT, LIMIT

SCENES: Final = ("cowfs", "readers", "writers")
SABOTAGES: Final = ("none", "claim", "pin", "hold")

_SCHEMA: Final = {
    ":race/name": {":db/valueType": ":db.type/string", ":db/unique": ":db.unique/identity"},
    ":race/step": {":db/valueType": ":db.type/long"},
    ":item/key": {":db/valueType": ":db.type/string", ":db/unique": ":db.unique/identity"},
    ":item/text": {":db/valueType": ":db.type/string"},
}
_COUNTER: Final = [":race/name", "counter"]
_CREATED: Final = 1  # the txid that ``Store.create`` leaves; the next one makes the counter
_KEYS: Final = 40
_SIZES: Final = (40, 40, 40, 40, 400, 400, 2500, 9000)  # at most; the characters of texts
_FEWEST: Final = 24  # commits that every retention keeps
_BOUNDS: Final = (24, 30, 45, 60)
_MAX_NAMES: Final = 4
_PROCESSES: Final = 5
_LIFE: Final = int(LIMIT)  # seconds after which a process is ended in any case
_LIMIT: Final = 2 * LIMIT  # seconds for a race
_MAX_KILLS: Final = 60  # in a round
_SPILLS_FROM: Final = 25  # rounds
_STEPS_A_LIFE: Final = 250
_STEPS_A_DATABASE: Final = 4000  # then a round writes no more than it must, so that the file stays small
_CHECKED_A_ROUND: Final = 25  # roots whose every page is checked; all others are read
_MAP_SIZE: Final = 1 << 27  # of strangers
_SPILLING: Final = 140_000  # pages: more than LMDB keeps in memory for a transaction
_PDEATHSIG: Final = 1

_libc = ctypes.CDLL(None)


class Violation(AssertionError):
    """Something is not as it must be."""


def _require(truth: object, text: str) -> None:
    if not truth:
        raise Violation(text)


# -- the content ---------------------------------------------------------------------------------------------------


@dataclass
class Steps:
    """What the store holds after each step: ``digest`` of a step; ``changes`` that make the next one."""

    seed: int
    items: dict[str, str] = field(default_factory=dict)
    digests: list[str] = field(default_factory=lambda: [digest_of({})])

    def changes(self, step: int) -> dict[str, str]:
        """Return the texts that step number ``step`` sets."""
        choice = random.Random(f"{self.seed}-{step}")
        keys = choice.sample(range(_KEYS), choice.randint(1, 4))
        return {f"item-{key:03}": choice.randbytes(choice.randint(8, choice.choice(_SIZES)) // 2).hex() for key in keys}

    def digest(self, step: int) -> str:
        """Return the digest of all items after step number ``step``."""
        while len(self.digests) <= step:
            self.items.update(self.changes(len(self.digests)))
            self.digests.append(digest_of(self.items))
        return self.digests[step]

    def forms(self, step: int) -> list[object]:
        """Return the transaction that makes step number ``step`` when the store is at the one before it."""
        items = [{":item/key": key, ":item/text": text} for key, text in self.changes(step).items()]
        return [[":db/cas", _COUNTER, ":race/step", step - 1, step], *items]


def _step_of(db: Db) -> int:
    counter = db.entity(_COUNTER)
    _require(counter is not None, f"txid {db.txid} has no counter")
    return int((counter or {})[":race/step"])


def _read(hold: TreeReader, txid: int, steps: Steps) -> int:
    """Read a held root whole, from the bytes of now; hold that it is one of the chain, and return its step."""
    db = Db(TreeReader(hold.file, hold.root), hold.root.txnid)
    _require(db.txid == txid, f"txid {db.txid} where {txid} was asked for")
    items: dict[str, str] = {}
    step = -1
    for document in db.export():
        if ":item/key" in document:
            items[document[":item/key"]] = document[":item/text"]
        elif document.get(":race/name") == "counter":
            step = int(document[":race/step"])
    _require(step >= 0 or txid <= _CREATED, f"txid {txid} has no counter")
    step = max(step, 0)
    _require(digest_of(items) == steps.digest(step), f"txid {txid} is not what step {step} left")
    return step


def _check(hold: TreeReader, txid: int, *, store: bool) -> None:
    """Hold that nothing is wrong with the pages of a held root, and, if asked, with its datoms."""
    findings = [str(finding) for finding in check_pages(hold.file, hold.root)]
    if store:
        findings += check_store(TreeReader(hold.file, hold.root), hold.root.txnid)
    _require(not findings, f"txid {txid}: {findings[:5]}")


# -- the journal ---------------------------------------------------------------------------------------------------


class Journal:
    """The file in which every process tells what it has done: one line, one write."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def tell(self, *words: object) -> None:
        """Write a line."""
        os.write(self._fd, (" ".join(str(word) for word in words).replace("\n", "\\n") + "\n").encode())

    def lines(self, start: int = 0) -> tuple[list[list[str]], int]:
        """Return the words of the lines from the byte ``start`` on, and where they end."""
        data = os.pread(self._fd, os.fstat(self._fd).st_size - start, start)
        return [line.split(" ") for line in data.decode().split("\n")[:-1]], start + len(data)


class _Teller(logging.Handler):
    """What cowfs warns of goes into the journal."""

    def __init__(self, journal: Journal) -> None:
        super().__init__(logging.WARNING)
        self._journal = journal

    def emit(self, record: logging.LogRecord) -> None:
        self._journal.tell("warning", record.getMessage())


@dataclass
class Known:
    """What the journals say."""

    steps: dict[int, int] = field(default_factory=dict)  # step by txid, of acknowledged transactions
    commits: set[int] = field(default_factory=set)  # txids of all acknowledged commits
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[str] = field(default_factory=list)
    _at: int = 0

    def update(self, journal: Journal) -> None:
        """Take over what is new."""
        lines, self._at = journal.lines(self._at)
        for kind, *words in lines:
            self.counts[kind] += 1
            if kind in ("step", "commit"):
                txid = int(words[0])
                if txid in self.commits:
                    self.failures.append(f"txid {txid} was committed twice")
                self.commits.add(txid)
                if kind == "step":
                    self.steps[txid] = int(words[1])
            elif kind == "warning" and words[:4] == ["the", "disk", "is", "full:"]:
                self.counts[kind] -= 1
            elif kind == "failure":
                self.failures.append(" ".join(words).replace("\\n", "\n"))


def _promised(names: Journal) -> dict[str, int]:
    """Return txid by name of the snapshots that are named for sure: acknowledged, and not about to be unnamed."""
    promised: dict[str, int] = {}
    for kind, name, txid in names.lines()[0]:
        if kind == "named":
            promised[name] = int(txid)
        else:
            promised.pop(name, None)
    return promised


# -- the processes -------------------------------------------------------------------------------------------------


@dataclass
class Actor:
    """What one process of a scene has: every role below is a function of it."""

    path: Path
    scene: str
    steps: Steps
    journal: Journal
    names: Journal
    choice: random.Random
    seen: memoryview  # one word, shared by all: the highest horizon that anybody has seen
    floor: int  # the highest horizon before the round
    bounds: tuple[int, ...]  # of commits, for retentions of this round; none: the round's are of bytes
    busy: bool  # whether the database has room for many commits

    def open(self, *, readonly: bool = False) -> Store:
        """Open the store."""
        durability: Durability = "sync" if self.choice.random() < 0.1 else "none"
        return Store.open(self.path, durability, readonly=readonly)

    def pause(self, seconds: float) -> None:
        """Sleep for a random time."""
        time.sleep(self.choice.random() * seconds)

    def look(self, store: Store) -> tuple[int, int]:
        """Return horizon and newest txid; hold that the horizon has not moved back, nor too far."""
        before = int(self.seen[0])
        promised = _promised(self.names)
        with store.timeline() as timeline:
            horizon, newest, named = timeline.horizon, timeline.newest, timeline.named
            retained = set(timeline)
        if self.scene == "cowfs":
            _require(horizon >= before, f"the horizon has moved back to {horizon} from {before}")
            self.seen[0] = max(horizon, int(self.seen[0]))
            if self.bounds:
                most = max(self.floor, newest - _FEWEST, 1)
                _require(horizon <= most, f"the horizon {horizon} is above {most} (newest {newest})")
            _require(len(retained) == newest + 1 - horizon, f"of {horizon}..{newest} some are not retained")
            for name, txid in _promised(self.names).items():
                if promised.get(name) == txid:
                    _require(name in named and named[name].txid == txid, f"{name}, txid {txid}, is not named any more")
                    _require(horizon <= txid, f"{name}, txid {txid}, is below the horizon {horizon}")
        return horizon, newest

    def make_step(self, store: Store) -> bool:
        """Make the next step, unless another process is faster; return whether it was made."""
        with store.db() as db:
            step = _step_of(db) + 1
        forms = self.steps.forms(step)
        try:
            report = store.transact(forms)
        except TransactionError:
            self.journal.tell("overtaken")
            return False
        self.journal.tell("step", report.txid, step)
        return True

    def fail_to_write(self, store: Store) -> None:
        """Begin a transaction that must leave nothing behind."""
        way = self.choice.random()
        if way < 0.3:  # what was to be let go stays
            with suppress(ZeroDivisionError), store.env.write() as txn:
                txn.put(META, RETENTION_KEY, Retention(commits=0).pack())
                store.env.rootlog.review(txn)
                raise ZeroDivisionError
        elif way < 0.6:
            with suppress(TransactionError):
                store.transact([{":item/key": f"bad-{n}", ":item/text": "x" * 900} for n in range(50)] + [{":db/id": []}])
                raise Violation("a bad form was taken")
        else:
            with suppress(ZeroDivisionError), store.env.write() as txn:
                txn.put_many(b"log", [(b"\xff%07d" % n, bytes(3000)) for n in range(self.choice.randint(1, 300))])
                raise ZeroDivisionError
        self.journal.tell("aborted")

    def read_old(self, store: Store, within: float) -> None:
        """Hold some retained roots for a while, and read each again and again."""
        with store.timeline() as timeline:
            txids = list(timeline)
        held: list[tuple[int, Db]] = []
        for _ in range(self.choice.randint(1, 4)):
            oldest = self.choice.random() < 0.6
            txid = txids[min(self.choice.randint(0, 3), len(txids) - 1)] if oldest else self.choice.choice(txids)
            try:
                held.append((txid, store.as_of(txid)))
            except NotFound:
                self._excuse(store, txid)
        until = time.monotonic() + within * self.choice.random()
        first: dict[int, int] = {}
        while held:
            for txid, db in held:
                hold = db.reader
                assert isinstance(hold, Hold)
                step = _read(hold, txid, self.steps)
                _require(first.setdefault(txid, step) == step, f"txid {txid} is step {first[txid]}, and then {step}")
                if self.choice.random() < 0.5:
                    _check(hold, txid, store=False)
                self.journal.tell("checked", txid)
            if time.monotonic() > until or not self.busy:
                break
            self.pause(0.02)
        for _txid, db in held:
            db.close()

    def read_newest(self, store: Store) -> None:
        """Read the newest root."""
        with store.db() as db:
            assert isinstance(db.reader, Hold)
            _read(db.reader, db.txid, self.steps)

    def _excuse(self, store: Store, txid: int) -> None:
        """A root that was retained a moment ago is not any more: hold that it is below the horizon by now."""
        self.journal.tell("gone", txid)
        if self.scene == "cowfs":
            horizon, _newest = self.look(store)
            _require(txid < horizon, f"txid {txid} cannot be had, and the horizon is {horizon}")
            _require(txid not in _promised(self.names).values(), f"txid {txid} cannot be had, and is named")

    def retention(self) -> Retention:
        """Return small bounds of this round."""
        if self.bounds:
            return Retention(commits=self.choice.choice(self.bounds))
        return Retention(commits=self.choice.choice((40, 80)), size=self.choice.choice((40_000, 200_000, 1_000_000)))


def _write(actor: Actor) -> None:
    """Open and write, with an abort and a look now and then."""
    choice, life = actor.choice, actor.choice.choice((1, 5, 40, _STEPS_A_LIFE))
    with actor.open() as store:
        for _ in range(life if actor.busy else 3):
            actor.make_step(store)
            if choice.random() < 0.08:
                actor.fail_to_write(store)
            if choice.random() < 0.05:
                actor.look(store)
            if choice.random() < 0.1:
                actor.pause(0.01)


def _write_by_threads(actor: Actor) -> None:
    """Write from several threads of one process."""
    with actor.open() as store, ThreadPoolExecutor(3) as pool:
        for _ in range(actor.choice.randint(1, 30)):
            works = [actor.make_step, actor.make_step, actor.fail_to_write, actor.look, actor.read_newest]
            for done in [pool.submit(work, store) for work in actor.choice.sample(works, 4)]:
                done.result()


def _read_old(actor: Actor) -> None:
    """Read old roots, sometimes as one that may not write."""
    readonly = actor.choice.random() < 0.5
    with actor.open(readonly=readonly) as store:
        for _ in range(actor.choice.randint(1, 30)):
            actor.read_old(store, 0.3)


def _keep_promises(actor: Actor) -> None:
    """Change the bounds, name and unname, and hold that every name is kept."""
    with actor.open() as store:
        for _ in range(actor.choice.randint(1, 20)):
            if actor.choice.random() < 0.5:
                store.retain(actor.retention())
                actor.journal.tell("retained")
            else:
                _name_or_unname(actor, store)
            if not actor.bounds and actor.choice.random() < 0.3:
                actor.journal.tell("give_up")
                store.env.give_up_history()  # as for a full disk
            actor.look(store)
            if actor.choice.random() < 0.3:
                actor.read_old(store, 0.1)
            actor.pause(0.02)


def _name_or_unname(actor: Actor, store: Store) -> None:
    with store.timeline() as timeline:
        named = list(timeline.named)
        txid = actor.choice.choice(list(timeline))
    if len(named) >= _MAX_NAMES or (named and actor.choice.random() < 0.4):
        name = actor.choice.choice(named)
        actor.names.tell("unnaming", name, 0)
        with suppress(NotFound):  # another process was faster
            store.unname(name)
            actor.journal.tell("unnamed")
    else:
        name = f"name-{actor.choice.getrandbits(60)}"
        try:
            store.name(name, "races", txid=txid)
        except NotFound:
            actor._excuse(store, txid)
        else:
            actor.names.tell("named", name, txid)
            actor.journal.tell("named")


def _fork(actor: Actor) -> None:
    """Hold old roots, and fork children that end with the store open: the parent must not notice."""
    with actor.open() as store:
        for _ in range(actor.choice.randint(1, 8)):
            with store.timeline() as timeline:
                txid = timeline.horizon
            try:
                db = store.as_of(txid)
            except NotFound:
                actor._excuse(store, txid)
                continue
            child = os.fork()
            if not child:
                _end_as_child(actor, store, db)
            os.waitpid(child, 0)
            actor.make_step(store)
            actor.pause(0.05)
            assert isinstance(db.reader, Hold)
            _read(db.reader, txid, actor.steps)
            _check(db.reader, txid, store=False)
            db.close()
            actor.journal.tell("forked")


def _end_as_child(actor: Actor, store: Store, db: Db) -> NoReturn:
    way = actor.choice.randrange(4)
    signal.alarm(_LIFE)
    with suppress(CowfsError):
        if way == 1:
            db.close()
        elif way == 2:
            db.close()
            store.close()
        elif way == 3:
            store.db()
    os._exit(0)


def _come_and_go(actor: Actor) -> None:
    """Open and close, again and again."""
    for _ in range(actor.choice.randint(1, 30)):
        readonly = actor.choice.random() < 0.5
        with actor.open(readonly=readonly) as store:
            actor.journal.tell("opened")
            if actor.choice.random() < 0.3:
                actor.look(store)
            if not readonly and actor.choice.random() < 0.3:
                store.env.claim_pin()
            if not readonly and actor.choice.random() < 0.3:
                actor.make_step(store)


def _reckon(actor: Actor) -> None:
    """Ask what old commits cost, while others let them go: the answer may be that they are gone, and nothing worse."""
    with actor.open(readonly=actor.choice.random() < 0.5) as store:
        for _ in range(actor.choice.randint(1, 60)):
            with store.timeline() as timeline:
                txids = list(timeline)
                actor.pause(0.02)
                with suppress(NotFound):
                    held = timeline.bytes_held
                    _require(held >= 0, f"{held} bytes are held")
                    parts = [
                        timeline.bytes_between(actor.choice.choice(txids), timeline.newest),
                        *timeline.bytes_of_names().values(),
                    ]
                    _require(min(parts) >= 0, f"{parts} bytes are held")
                    actor.journal.tell("reckoned")


def _spill(actor: Actor) -> None:
    """Abort a transaction that LMDB cannot keep in memory."""
    with actor.open() as store, suppress(ZeroDivisionError), store.env.write() as txn:
        for begin in range(0, _SPILLING, 1000):
            txn.put_many(b"log", [(b"\xff%07d" % n, bytes(2100)) for n in range(begin, begin + 1000)])
        actor.journal.tell("spilled")
        raise ZeroDivisionError


def _strange_reader(actor: Actor) -> None:
    """Be another program that reads, and frees the slots of processes that died."""
    with lmdb.open(os.fsencode(actor.path), map_size=_MAP_SIZE, max_dbs=8, create=False, readonly=True) as env:
        for _ in range(200):
            with env.begin() as txn:
                _require(txn.get(b"cowfs") is not None, "a stranger finds no store")
                actor.pause(0.01)
            if actor.choice.random() < 0.3:
                env.reader_check()
                actor.journal.tell("reader_check")
            actor.pause(0.05)


def _strange_writer(actor: Actor) -> None:
    """Be another program that writes into a database of its own."""
    writemap = actor.choice.random() < 0.6
    options: dict[str, Any] = {"map_size": _MAP_SIZE, "max_dbs": 8, "create": False, "sync": False}
    with lmdb.open(os.fsencode(actor.path), writemap=writemap, **options) as env:
        for _ in range(actor.choice.randint(1, 6)):
            size = actor.choice.choice((100, 100, 3000, 60_000, 400_000))
            aborts = actor.choice.random() < 0.6
            with env.begin(write=True) as txn:
                strange = env.open_db(b"strange", txn=txn)
                for key in actor.choice.sample(range(20), 3 if aborts else 1):
                    txn.put(b"%d" % key, actor.choice.randbytes(size if aborts else min(size, 3000)), db=strange)
                txid = txn.id()
                if aborts:
                    txn.abort()
            actor.journal.tell("strange-abort" if aborts else "strange-commit", txid)
            if actor.choice.random() < 0.2:
                env.reader_check()
            actor.pause(0.1)


Role = Callable[[Actor], None]

_ROLES: Final[dict[str, tuple[Role, ...]]] = {
    "cowfs": (_write, _write, _write_by_threads, _read_old, _read_old, _keep_promises, _fork, _come_and_go, _reckon),
    "readers": (_write, _write, _write, _read_old, _keep_promises, _come_and_go, _strange_reader, _strange_reader),
    "writers": (_write, _write, _write, _read_old, _keep_promises, _come_and_go, _strange_writer),
}
_STRANGERS: Final[Mapping[str, Role]] = {"readers": _strange_reader, "writers": _strange_writer}


def _begin_process(work: Callable[[], None], journal: Journal) -> int:
    """Fork a process that does ``work``, and tells when it fails; return its id."""
    parent = os.getpid()
    process = os.fork()
    if process:
        return process
    code = 1
    try:
        _libc.prctl(_PDEATHSIG, signal.SIGKILL)
        signal.alarm(_LIFE)
        if os.getppid() == parent:
            logger = logging.getLogger("cowfs")
            logger.propagate = False
            logger.addHandler(_Teller(journal))
            work()
            code = 0
    except BaseException:
        journal.tell("failure", traceback.format_exc())
    finally:
        os._exit(code)


def _sabotage(what: str) -> None:
    """Take away, in this process and all that it forks, what protects the roots."""
    claim, pin = LockTable.claim_pin, LockTable.pin

    def claimed_but_idle(self: LockTable, txnid: int, nonce: bytes) -> None:
        claim(self, txnid, nonce)
        self._words[self._word(self._pin_index)] = IDLE

    def as_if_held(self: LockTable) -> Pin | None:
        found = pin(self)
        return None if found is None else found._replace(txnid=0)

    def nothing(*_: object, **__: object) -> None:
        return None

    replacements: dict[str, dict[str, object]] = {
        "none": {},
        "claim": {"claim_pin": nothing, "guard": nothing},
        "pin": {"claim_pin": claimed_but_idle, "pin": as_if_held, "raise_pin": nothing},
        "hold": {"hold": nothing},
    }
    for name, replacement in replacements[what].items():
        setattr(LockTable, name, replacement)


# -- the director --------------------------------------------------------------------------------------------------


class Race:
    """One scene: rounds of processes that are killed, each with a verification when all are dead."""

    def __init__(self, scene: str, directory: Path, seed: int) -> None:
        self.known = Known()
        self.kills = 0
        self.rounds = 0
        self.massacres = 0  # moments in a round in which every process of cowfs was dead
        self.excused: list[tuple[int, int]] = []  # (first, last) of what was said to be lost
        self._scene = scene
        self._path = directory / "db"
        self._choice = random.Random(seed)
        self._steps = Steps(seed)
        self._journal = Journal(directory / "journal")
        self._names = Journal(directory / "names")
        self._seen = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")
        self._running: dict[int, str] = {}  # role by process
        self._floor = 0
        self._bounds: tuple[int, ...] = _BOUNDS

    def run(self, wanted: Mapping[str, int]) -> None:
        """Play until as much was done as ``wanted`` says: rounds, and what ``counts`` counts."""
        spill = wanted.get("rounds", 0) >= _SPILLS_FROM
        self._apart(self._create)
        try:
            while any(self.counts.get(kind, 0) < count for kind, count in wanted.items()):
                self._round(spill=spill and self.rounds % 25 == 10)
        finally:
            self._end(list(self._running))

    @property
    def counts(self) -> dict[str, int]:
        """What was done, by kind."""
        known = self.known
        ours = {"rounds": self.rounds, "kills": self.kills, "all-dead": self.massacres + self.rounds}
        return {**known.counts, **ours, "commits": len(known.commits), "events": len(self.excused)}

    # -- a round -------------------------------------------------------------------------------------------------

    def _round(self, *, spill: bool) -> None:
        choice = self._choice
        self.rounds += 1
        bounds = _BOUNDS if choice.random() < 0.7 else ()
        if bounds and not self._bounds:
            self._apart(self._bound_by_commits)  # else the bounds of the round before would go on
        self._bounds = bounds
        self._floor = int(self._seen[0])
        tempo = choice.choice((0.005, 0.01, 0.03, 0.1))  # seconds between kills, on the average
        strikes = min(int(choice.uniform(0.3, 2.0) / tempo), _MAX_KILLS)
        commits = len(self.known.commits)
        ours = {role.__name__ for role in _ROLES["cowfs"]}
        first = choice.choice((_come_and_go, _read_old, _write, None))  # who is the first opener after all were dead
        if spill:
            self._start(_spill)
        elif first is not None:
            self._start(first)
            time.sleep(choice.random() * 0.01)
        for _ in range(strikes):
            self._reap()
            while len(self._running) < _PROCESSES:
                self._start(choice.choice(_ROLES[self._scene]))
            time.sleep(choice.expovariate(1 / tempo))
            if choice.random() < 0.1:
                self._kill([process for process, role in self._running.items() if role in ours])
                self.massacres += 1
                continue
            victim = choice.choice(list(self._running))
            if choice.random() < 0.15:
                self._put_to_sleep(victim)
            if self._running[victim] != "_spill":
                self._kill([victim])
        self._end_round()
        self._fail_on_failures()
        if len(self.known.commits) == commits:
            self._apart(self._commit)  # killed too early, all of them, or is there a lock that nobody can get?

    def _end_round(self) -> None:
        """Kill all, but perhaps a stranger, and verify."""
        strangers = [process for process, role in self._running.items() if role.startswith("_strange")]
        spared = strangers if self._choice.random() < 0.5 else []
        spilling = [process for process, role in self._running.items() if role == "_spill"]
        for process in spilling:
            os.waitpid(process, 0)
            del self._running[process]
        self._kill([process for process in self._running if process not in spared])
        if self._scene in _STRANGERS and self._choice.random() < 0.5:
            strange = self._start(_STRANGERS[self._scene])  # while no process of cowfs lives
            time.sleep(self._choice.random() * 0.15)
            if self._choice.random() < 0.5:
                self._kill([strange])
        self.known.update(self._journal)
        self._fail_on_failures()
        if self.known.steps:
            self._steps.digest(max(self.known.steps.values()))
        self._apart(self._verify)

    def _start(self, role: Role) -> int:
        busy = len(self._steps.digests) < _STEPS_A_DATABASE
        actor = Actor(
            self._path,
            self._scene,
            self._steps,
            self._journal,
            self._names,
            random.Random(self._choice.getrandbits(60)),
            self._seen,
            self._floor,
            self._bounds,
            busy,
        )
        process = _begin_process(partial(role, actor), self._journal)
        self._running[process] = role.__name__
        return process

    def _put_to_sleep(self, process: int) -> None:
        """Stop a process for a while, wherever it is, and let the others go on, unless it has the write lock."""
        os.kill(process, signal.SIGSTOP)
        time.sleep(self._choice.random() * 0.15)
        os.kill(process, signal.SIGCONT)
        time.sleep(self._choice.random() * 0.02)

    def _kill(self, processes: list[int]) -> None:
        for process in processes:
            os.kill(process, signal.SIGKILL)
        for process in processes:
            _process, status = os.waitpid(process, 0)
            self.kills += os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
            self._require_no_crash(self._running.pop(process), status)

    def _end(self, processes: list[int]) -> None:
        for process in processes:
            with suppress(OSError):
                os.kill(process, signal.SIGKILL)
                os.waitpid(process, 0)
            self._running.pop(process, None)

    def _reap(self) -> None:
        for process in list(self._running):
            found, status = os.waitpid(process, os.WNOHANG)
            if found:
                self._require_no_crash(self._running.pop(process), status)

    @staticmethod
    def _require_no_crash(role: str, status: int) -> None:
        """A process ends by itself, or by SIGKILL: everything else is a crash, or a lock that nobody gives back."""
        number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else signal.SIGKILL
        _require(number == signal.SIGKILL, f"{role} ended with {signal.Signals(number).name}")

    def _apart(self, work: Callable[[], None]) -> None:
        """Do something in a process of its own, for this one never opens the store."""
        process = _begin_process(work, self._journal)
        self._running[process] = work.__name__
        _process, status = os.waitpid(process, 0)
        del self._running[process]
        self._require_no_crash(work.__name__, status)
        self.known.update(self._journal)
        for kind, *words in self._journal.lines()[0] if self._scene != "cowfs" else ():
            if kind == "event":
                span = int(words[1]), int(words[2])
                if span not in self.excused:
                    self.excused.append(span)
        self._fail_on_failures()
        _require(os.WEXITSTATUS(status) == 0, f"{work.__name__} failed")

    def _fail_on_failures(self) -> None:
        self.known.update(self._journal)
        _require(not self.known.failures, "\n".join(self.known.failures[:3]))
        if self._scene == "cowfs":
            _require(not self.known.counts["warning"], "cowfs has warned of something, with nobody else there")

    # -- in processes of their own ---------------------------------------------------------------------------------

    def _create(self) -> None:
        with Store.create(self._path, _SCHEMA, durability="none", retention=Retention(commits=_BOUNDS[0])) as store:
            report = store.transact([{":race/name": "counter", ":race/step": 0}])
            self._journal.tell("step", report.txid, 0)

    def _commit(self) -> None:
        """Hold that a process which is not killed can commit."""
        with Store.open(self._path, "none") as store:
            report = store.transact([{":race/name": "alive"}])
            self._journal.tell("commit", report.txid)

    def _bound_by_commits(self) -> None:
        with Store.open(self._path, "none") as store:
            store.retain(Retention(commits=_BOUNDS[-1]))
            with store.timeline() as timeline:
                self._seen[0] = timeline.horizon

    def _verify(self) -> None:
        """Hold that everything is as it must be, now that all are dead; perhaps as one that may not write."""
        choice, known = self._choice, self.known
        readonly = self._scene == "cowfs" and choice.random() < 0.3
        with Store.open(self._path, "none", readonly=readonly) as store:
            if not readonly and choice.random() < 0.5:
                store.env.claim_pin()
            if self._scene != "cowfs" or (not readonly and choice.random() < 0.5):
                self._verify_retention(store)  # in the other scenes what has happened is said by the next commit
            with store.timeline() as timeline:
                txids = list(timeline)
                self._verify_timeline(timeline, set(txids))
            chosen = set(choice.sample(txids, min(len(txids), _CHECKED_A_ROUND))) | set(txids[:3]) | set(txids[-2:])
            last: tuple[int, int] | None = None
            for txid in txids:
                try:
                    db = store.as_of(txid)
                except NotFound:
                    _require(self._scene != "cowfs", f"txid {txid} is in the timeline, and cannot be had")
                    continue
                with db:
                    assert isinstance(db.reader, Hold)
                    step = _read(db.reader, txid, self._steps)
                    said = known.steps.get(txid, step)
                    _require(said == step, f"txid {txid} was acknowledged as step {said}, and is {step}")
                    if last is not None:
                        further = step - last[1]
                        _require(0 <= further <= txid - last[0], f"txid {last[0]} is step {last[1]}, {txid} is {step}")
                    last = txid, step
                    if txid in chosen:
                        _check(db.reader, txid, store=txid in txids[:1] + txids[-1:])
                    self._journal.tell("checked", txid)
        self._journal.tell("verified")

    def _verify_retention(self, store: Store) -> None:
        """Hold that the bounds let go what they should, when nobody else is there: what was lost must not stop them."""
        bound = self._choice.choice(_BOUNDS)
        store.retain(Retention(commits=bound))
        with store.timeline() as timeline:
            wanted = min([timeline.newest - bound, *(snapshot.txid for snapshot in timeline.named.values())])
            _require(
                timeline.horizon >= wanted or any(role.startswith("_strange") for role in self._running.values()),
                f"the horizon is {timeline.horizon}, and should be {wanted} (newest {timeline.newest}, {timeline.named})",
            )

    def _verify_timeline(self, timeline: Timeline, txids: set[int]) -> None:
        newest, known = timeline.newest, self.known
        events = timeline.events
        for event in events:
            self._journal.tell("event", event["kind"], event["first"], event["last"])
        _require(
            newest >= max(self.known.commits), f"the newest commit is {newest}, {max(self.known.commits)} was acknowledged"
        )
        excused = [*self.excused, *((event["first"], event["last"]) for event in events)]
        if self._scene == "cowfs":
            allowed = ("full",) if known.counts["give_up"] else ()
            _require(all(event["kind"] in allowed for event in events), f"with nobody else there: {events}")
            _require(len(txids) == newest + 1 - timeline.horizon, f"of {timeline.horizon}..{newest} some are not retained")
            _require(timeline.horizon >= int(self._seen[0]), f"the horizon has moved back to {timeline.horizon}")
            self._seen[0] = timeline.horizon
        fewest = _FEWEST if self._bounds else 0
        kept = [txid for txid in self.known.commits if max(newest - fewest, self._floor) <= txid]
        if self._scene == "cowfs":
            kept = [txid for txid in self.known.commits if timeline.horizon <= txid]
            if self._bounds:
                most = max(self._floor, newest - fewest, 1)
                _require(timeline.horizon <= most, f"the horizon {timeline.horizon} is above {most}")
        promised = _promised(self._names)
        for txid in [*kept, *promised.values()]:
            said = any(first <= txid <= last for first, last in excused)
            _require(txid in txids or said, f"txid {txid} is not retained ({timeline.horizon}..{newest}, {events})")
        for name, txid in promised.items():
            _require(name in timeline.named or txid not in txids, f"{name}, txid {txid}, is not named any more")


# -- as others call it ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """What a race came to: counts by what was done (kills, commits, checked, ...), or what was violated."""

    counts: Mapping[str, int]
    violation: str

    def __str__(self) -> str:
        shown = ("kills", "all-dead", "commits", "checked", "overtaken", "aborted", "named", "forked", "opened", "warning")
        strange = ("reader_check", "strange-commit", "strange-abort", "events")
        return ", ".join(f"{self.counts[kind]} {kind}" for kind in (*shown, *strange) if kind in self.counts)


def race(scene: str, directory: Path, seed: int, wanted: Mapping[str, int], sabotage: str = "none") -> Result:
    """Play a scene in ``directory``, in a process of its own, until so much was done, and return what it came to."""
    asked = ",".join(f"{kind}={count}" for kind, count in wanted.items())
    command = [sys.executable, "-m", "tests.support.races", scene, str(directory), str(seed), asked, sabotage]
    with subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            output, errors = process.communicate(timeout=_LIMIT)
        finally:
            process.kill()  # its children die with it
    counts = {kind: int(number) for kind, _, number in (line.partition("=") for line in output.splitlines()) if number}
    ended = f"the race ended with code {process.returncode}"
    return Result(counts, (errors.strip() or ended) if process.returncode else "")


def main(scene: str, directory: Path, seed: int, wanted: Mapping[str, int], sabotage: str) -> None:
    """Direct a race; print what was done, a line ``kind=number`` each, and fail at the first violation."""
    if scene not in SCENES:
        raise InputError(f"the scenes are {', '.join(SCENES)}")
    _sabotage(sabotage)
    directed = Race(scene, directory, seed)
    try:
        directed.run(wanted)
    finally:
        for kind, number in directed.counts.items():
            print(f"{kind}={number}")


if __name__ == "__main__":
    asked = {kind: int(count) for kind, _, count in (word.partition("=") for word in sys.argv[4].split(","))}
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), asked, sys.argv[5])
