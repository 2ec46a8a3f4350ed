"""Mutated files through every command: each ends by itself, in time, in bounded memory, with a result or one line.

A mutant is a copy of a small store with a few bytes changed in one class of page, or in its lock.mdb, or with pages swapped,
repeated, filled with noise, or cut off. Commands run on one after another in a child process, so that a signal that ends it
is seen; what violates something ends the process, too. One seed makes one mutant, always the same.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import re
import shutil
import signal
import struct
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TextIO

from cowfs.commits.opened import open_commits
from cowfs.engine.env import Env
from cowfs.errors import CowfsError
from cowfs.store.history.retention import Retention
from cowfs.store.store import Store
from cowfs.views.node import Directory, File, Link
from cowfs.views.tree import Tree
from tests.support.commands import run_here
from tests.support.surgery import Patient

SECONDS = 10  # for all commands on one mutant; on a busy machine its own time counts, not the clock's
MEMORY = 500 << 20
_STEPS = 3  # commands on one mutant
_TOGETHER = 25  # mutants in one process, which costs half as much to begin as a mutant to examine
PAGE = 4096
_FIELDS = (  # of a meta page: offset, bytes
    (0, 8), (8, 2), (10, 2), (12, 4), (16, 4), (20, 4), (24, 8), (32, 8), (40, 4), (44, 2), (46, 2), (48, 8), (56, 8),
    (64, 8), (72, 8), (80, 8), (88, 4), (92, 2), (94, 2), (96, 8), (104, 8), (112, 8), (120, 8), (128, 8), (136, 8),
    (144, 8),
)  # fmt: skip
_LOCK_FIELDS = (
    (0, 4),
    (4, 4),
    (8, 8),
    (16, 8),
    (48, 8),
    (56, 4),
    (64, 8),
    (128, 8),
    (136, 4),
    (144, 8),
    (152, 8),
    (192, 8),
    (200, 4),
)


class Mutant(NamedTuple):
    """What was changed, for the report: {file: bytes}, and in words."""

    files: dict[str, bytes]
    text: str


def make_store(path: Path) -> None:
    """Make a small store with every class of page, free pages, a history, a name, and a lock.mdb."""
    schema = {
        ":note/number": {":db/valueType": ":db.type/long", ":db/unique": ":db.unique/identity"},
        ":note/text": {},
        ":note/next": {":db/valueType": ":db.type/ref"},
    }
    with Store.create(path, schema, durability="none", retention=Retention(commits=6)) as store:
        store.transact([{":note/number": n, ":note/text": f"note {n} " * 5} for n in range(400)])
        store.transact([[":db/retractEntity", n] for n in range(200, 300)])
        for n in range(14):
            store.transact([{":note/number": n, ":note/text": f"{n} " * (4000 if n % 4 == 0 else 300)}])
        store.retain(Retention(commits=4))
        store.name("kept", "somebody")
        store.transact([{":note/number": 3, ":note/next": {":note/number": 4}}])


@dataclass(frozen=True)
class Original:
    """The files of the store that all mutants are made from, and its pages by what they are."""

    files: dict[str, bytes]
    pages: dict[str, list[int]]  # those of the newest commit by their trees, and "other" ones
    free: list[int]  # positions of page numbers in the freelist

    @classmethod
    def make(cls, path: Path) -> Original:
        """Make the store in ``path``, and take it apart."""
        make_store(path)
        files = {name: (path / name).read_bytes() for name in ("data.mdb", "lock.mdb")}
        patient = Patient(path)
        trees = {**patient.records, b"freelist": patient.root.free, b"main": patient.root.main}
        pages = {name.decode(): list(patient.pages(record)) for name, record in trees.items()}
        used = {pgno for numbers in pages.values() for pgno in numbers}
        pages["other"] = [pgno for pgno in range(2, patient.root.pages) if pgno not in used]
        free: list[int] = []
        for pgno in patient.leaves(patient.root.free):
            for position, node in patient.leaf_nodes(pgno):
                start = patient.value(position)
                free += range(start, start + node.size if not node.flags else start, 8)
        return cls(files, pages, free)

    def mutate(self, seed: int) -> Mutant:
        """Return the mutant of that seed."""
        choice = random.Random(seed)
        data, lock = bytearray(self.files["data.mdb"]), bytearray(self.files["lock.mdb"])
        kinds: tuple[Callable[[], str], ...] = (
            lambda: _meta(data, choice),
            lambda: _lock(lock, choice),
            lambda: _noise(data, self._page(choice), choice),
            lambda: _swap(data, self._page(choice), choice),
            lambda: _cut(data, choice),
            lambda: self._free_page(data, choice),
            lambda: self._free_page(data, choice),
            *[lambda: _pointers(data, self._page(choice), choice)] * 3,
            *[lambda: _flip(data, self._page(choice), choice)] * 6,
        )
        text = choice.choice(kinds)()
        return Mutant({"data.mdb": bytes(data), "lock.mdb": bytes(lock)}, f"seed {seed}: {text}")

    def _page(self, choice: random.Random) -> int:
        return choice.choice(self.pages[choice.choice(sorted(self.pages))])

    def _free_page(self, data: bytearray, choice: random.Random) -> str:
        """Let the freelist name another page, perhaps one that is in use, or a record have another size."""
        at = choice.choice(self.free)
        struct.pack_into("<Q", data, at, choice.choice((self._page(choice), self._page(choice), choice.randrange(2**20), 0)))
        return f"in the freelist, the number at {at} becomes {data[at : at + 8].hex()}"


def _value(choice: random.Random, old: int, size: int) -> int:
    limit = 1 << 8 * size
    near = (
        old ^ 1 << choice.randrange(8 * size),
        old + choice.randint(-3, 3),
        choice.randrange(limit),
        choice.randrange(70),
    )
    return choice.choice((*near, 0, 1, limit - 1, limit - 2, limit >> 1, 2**53 % limit)) % limit


def _poke(data: bytearray, at: int, size: int, choice: random.Random) -> str:
    old = int.from_bytes(data[at : at + size], "little")
    new = _value(choice, old, size)
    data[at : at + size] = new.to_bytes(size, "little")
    return f"{size} bytes at {at}: {old} becomes {new}"


def _meta(data: bytearray, choice: random.Random) -> str:
    slot = choice.randrange(2)
    return "meta, " + "; ".join(
        _poke(data, slot * PAGE + at, size, choice) for at, size in choice.sample(_FIELDS, choice.choice((1, 1, 1, 2)))
    )


def _lock(lock: bytearray, choice: random.Random) -> str:
    if choice.random() < 0.1:
        del lock[choice.randrange(len(lock)) :]
        return f"lock.mdb cut to {len(lock)}"
    return "lock.mdb, " + "; ".join(
        _poke(lock, at, size, choice) for at, size in choice.sample(_LOCK_FIELDS, choice.choice((1, 1, 2, 4)))
    )


def _nodes(data: bytearray, pgno: int) -> list[int]:
    """Return the positions of the node pointers of a page."""
    lower = int(struct.unpack_from("<H", data, pgno * PAGE + 12)[0])
    return list(range(pgno * PAGE + 16, pgno * PAGE + min(max(lower, 16), PAGE), 2))


def _pointers(data: bytearray, pgno: int, choice: random.Random) -> str:
    """Let nodes lie elsewhere, one or all of a page."""
    places = _nodes(data, pgno) or [pgno * PAGE + 16]
    for at in places if choice.random() < 0.6 else [choice.choice(places)]:
        struct.pack_into("<H", data, at, choice.choice((65535, 65534, PAGE, PAGE - 8, 0, choice.randrange(2**16))))
    return f"pointers of page {pgno}"


def _flip(data: bytearray, pgno: int, choice: random.Random) -> str:
    where = choice.choice(("header", "node", "node", "anywhere"))
    changes = []
    for _ in range(choice.choice((1, 1, 1, 3, 8))):
        size = choice.choice((1, 2, 4))
        at = pgno * PAGE + choice.randrange(16 if where == "header" else PAGE - size)
        if where == "node" and (places := _nodes(data, pgno)):
            node = int(struct.unpack_from("<H", data, choice.choice(places))[0])
            at = min(pgno * PAGE + node + choice.choice((0, 2, 4, 6, 8, 12)), len(data) - size)
        changes.append(_poke(data, at, size, choice))
    return f"page {pgno}, " + "; ".join(changes)


def _noise(data: bytearray, pgno: int, choice: random.Random) -> str:
    kept = choice.choice((0, 8, 12, 16, 64))
    data[pgno * PAGE + kept : (pgno + 1) * PAGE] = choice.randbytes(PAGE - kept)
    return f"noise in page {pgno} from {kept}"


def _swap(data: bytearray, pgno: int, choice: random.Random) -> str:
    other = choice.randrange(2, len(data) // PAGE)
    data[pgno * PAGE + 8 : (pgno + 1) * PAGE] = data[other * PAGE + 8 : (other + 1) * PAGE]
    return f"page {other} in the place of {pgno}"


def _cut(data: bytearray, choice: random.Random) -> str:
    del data[choice.choice((choice.randrange(len(data)), choice.randrange(3 * PAGE))) :]
    return f"cut to {len(data)} bytes"


def _examine(directory: Path, original: Original, seeds: Sequence[int]) -> tuple[int, str | None]:
    """Examine mutants in one process until one violates something; return how many were examined, and what was violated."""
    log = directory / "report"
    child = os.fork()
    if child == 0:
        code = 1
        try:
            gc.freeze()
            for index, seed in enumerate(seeds):
                with open(log, "w") as report:
                    _examine_here(directory, original.mutate(seed), seed, index, report)
            code = 0
        except BaseException:
            with open(log, "a") as report:
                traceback.print_exc(file=report)
        finally:
            os._exit(code)
    _pid, status = os.waitpid(child, 0)
    if status == 0:
        return len(seeds), None
    number, text, *shown = log.read_text().split("\n")
    if os.WIFSIGNALED(status):
        ended = f"ended by {signal.Signals(os.WTERMSIG(status)).name} in {shown[-2:-1]}"
    else:
        ended = "\n".join(shown)
    return int(number) + 1, f"{text}: {ended}"


def _examine_here(directory: Path, mutant: Mutant, turn: int, index: int, report: TextIO) -> None:
    """Run commands on a mutant, which ones depends on ``turn``, as if this process had begun with them."""
    report.write(f"{index}\n{mutant.text}\n")
    report.flush()
    sys.stdout = sys.stderr = report
    for left in (*directory.glob("*restored*"), directory / "mutant"):
        shutil.rmtree(left, ignore_errors=True)
    path = directory / "mutant"
    path.mkdir()
    for name, content in mutant.files.items():
        (path / name).write_bytes(content)
    Path("/proc/self/clear_refs").write_text("5")  # the most memory so far is what there is now
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    _work(path, turn, report.write)
    gc.collect()  # nothing of it is left to the next one
    most = int(re.findall(r"VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text())[0]) << 10
    assert most <= MEMORY, f"{most >> 20} MiB"


def _work(path: Path, turn: int, say: Callable[[str], object]) -> None:
    steps: list[Callable[[], object]] = [
        lambda: _command(say, "check", path),
        lambda: _command(say, "status", path),
        lambda: _command(say, "export", path),
        lambda: _command(say, "retain", path),
        lambda: _command(say, "restore", path, path.parent / "restored"),
        lambda: _read(say, path, name=turn % 2 == 0),
        lambda: _command(say, "transact", path, stdin='[{"note/number": 5, "note/text": "new"}, {"note/number": 7000}]'),
        lambda: _command(say, "transact", path, stdin='[[":db/retractEntity", 13], [":db/retractEntity", 377]]'),
        lambda: _command(say, "snapshot", "create", path, "fuzz"),
        lambda: _command(say, "snapshot", "delete", path, "kept"),
        lambda: _command(say, "retain", path, "--commits", "2"),
        lambda: _command(say, "log", path),
        lambda: _command(say, "diff", path, "10", "latest"),
    ]
    random.Random(turn).shuffle(steps)
    for step in steps[:_STEPS]:
        step()


def _command(say: Callable[[str], object], *arguments: str | Path, stdin: str | None = None) -> None:
    say(f"{arguments[0]} {arguments[1]}\n")
    sys.stdout.flush()
    result = run_here(*arguments, code=None, stdin=stdin)
    assert result.returncode in (0, 1, 2), result
    if result.returncode and arguments[0] != "check":
        lines = [line for line in result.stderr.splitlines() if "may be lost" not in line and "given up" not in line]
        assert lines and all(len(line) < 2000 for line in lines), result.stderr


def _read(say: Callable[[str], object], path: Path, *, name: bool) -> None:
    """Do what the mount does when all of it is read, and a name is made: nothing but our own errors."""
    say("mount\n")
    sys.stdout.flush()
    try:
        with Env.open(path) as env:
            history = open_commits(env, 4)
            tree = Tree(history)
            if name:
                _try(lambda: tree.make("/snapshots/made", "somebody"))
            _read_all(tree, "/live", 3)
            _read_all(tree, "/snapshots", 3)
            _try(lambda: tree.remove("/snapshots/kept"))
            history.close()
    except CowfsError:
        pass


def _read_all(tree: Tree, path: str, depth: int) -> None:
    def read() -> None:
        node = tree.node(path)
        node.attributes()
        if isinstance(node, File):
            buffer, offset = memoryview(bytearray(1 << 16)), 0
            while count := node.readinto(offset, buffer):
                offset += count
        elif isinstance(node, Directory) and depth:
            for number, entry in enumerate(node.entries()):
                if number < 12:
                    _read_all(tree, f"{path}/{entry.name}", depth - 1)
        else:
            assert isinstance(node, Link | Directory)

    _try(read)


def _try(work: Callable[[], object]) -> None:
    with contextlib.suppress(CowfsError):
        work()


@contextmanager
def place() -> Iterator[Path]:
    """Yield a directory for a hunt, in memory if there is such a filesystem: nothing there must survive."""
    memory = "/dev/shm"  # noqa: S108 - it gets a name of its own
    with tempfile.TemporaryDirectory(prefix="cowfs-fuzz-", dir=memory if os.access(memory, os.W_OK) else None) as path:
        yield Path(path)


def hunt(directory: Path, seeds: Iterable[int]) -> list[str]:
    """Examine the mutants of all seeds; return what was violated."""
    original = Original.make(directory / "db")
    shutil.rmtree(directory / "db")
    waiting, found = list(seeds), []
    while waiting:
        examined, violation = _examine(directory, original, waiting[:_TOGETHER])
        del waiting[:examined]
        if violation is not None:
            found.append(violation)
            print(violation, flush=True)
    return found
