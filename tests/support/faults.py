"""What cowfs makes of calls that fail: each call of init, a commit, a snapshot, a bound, an import, a restore.

    python -m tests.support.faults SCENARIO MOUNT PLAN ERRNO HOW

works on a filesystem of ``support.failing``. It lets the first call of the scenario fail, then the second, until there are
no more, and prints a line for each: what failed, and what came of it. After each of them must hold:

1. The command has done its work, or has said on one line why not; so are the warnings before it.
2. What was acknowledged is there, and nothing that was not asked for.
3. ``cowfs check`` finds nothing but a meta page that could not be written, and after one more commit nothing at all.
4. The same command does its work now.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from cowfs.backup.verify import verify
from cowfs.engine.opening import reading
from cowfs.errors import CowfsError, DiskFull, EnvironmentFailure
from cowfs.store.history.retention import Retention
from cowfs.store.read.db import Db
from cowfs.store.store import Store
from tests.support.commands import Completed, cowfs_here, one_line, run_here
from tests.support.failing import Faults, How
from tests.support.mounted import Mount, mounted

_MAX_CALLS = 100  # of one scenario
_LINES = 9
_BATCH = 3
_TEXT = ":note/text"


@dataclass
class Stage:
    """A database on the failing filesystem, and the notes in it that were acknowledged, in their order."""

    faults: Faults
    code: int
    how: How
    acknowledged: list[str] = field(default_factory=list)
    struck: list[str] = field(default_factory=list)  # labels of the calls that failed
    stack: ExitStack = field(default_factory=ExitStack)
    mount: Mount | None = None

    def __post_init__(self) -> None:
        Store.create(self.database).close()

    @property
    def database(self) -> Path:
        """Where the database is."""
        return self.faults.point / "db"

    @contextmanager
    def failing(self, number: int) -> Iterator[None]:
        """Let the call ``number`` of the block fail, and remember it; 0 is none."""
        try:
            with self.faults.failing(number, self.code, self.how):
                yield
        finally:
            label = self.faults.struck()
            if label is not None:
                self.struck.append(label)

    def strike(self, number: int, *arguments: str | Path, stdin: str | None = None) -> Completed:
        """Run a command whose call ``number`` fails."""
        with self.failing(number):
            result = run_here(*arguments, code=None, stdin=stdin)
        lines = result.stderr.splitlines()
        assert result.returncode in (0, 1), result
        assert all(line.startswith("cowfs: ") for line in lines), result.stderr
        assert result.returncode == 0 or lines, "it failed and said nothing"
        return result

    def go_on(self, *texts: str) -> None:
        """Commit notes; then everything is there, and the database is sound."""
        with Store.open(self.database) as store:
            for text in texts:
                store.transact([{_TEXT: text}])
                self.acknowledged.append(text)
        assert content(self.database) == (self.acknowledged, [])

    def found(self) -> list[str]:
        """Return the notes in the database, which is sound, but for a meta page that could not be written."""
        notes, findings = content(self.database)
        assert all("damaged meta page" in finding for finding in findings), findings
        return notes


def content(database: Path) -> tuple[list[str], list[str]]:
    """Return the notes of a database in their order, and what ``check`` finds in it."""
    with reading(database) as reader:
        report = verify(reader, _no_progress)
        findings = list(report.findings)
        assert report.db is not None, findings
        return _notes(report.db), findings


def _notes(db: Db) -> list[str]:
    return [document[_TEXT] for document in db.export()]


def _no_progress(_done: int) -> None:
    """Show nothing."""


# -- scenarios ------------------------------------------------------------------------------------------------------------


def commit(stage: Stage, number: int) -> str:
    """A durable transaction of one entity."""
    text = f"note {number}"
    result = stage.strike(number, "transact", stage.database, stdin=json.dumps([{_TEXT: text}]))
    found = stage.found()
    if result.returncode == 0 or found != stage.acknowledged:  # a commit that failed may be there, as a whole
        stage.acknowledged.append(text)
    assert found == stage.acknowledged
    stage.go_on(f"after {number}")
    return _said(result)


def open_store(stage: Stage, number: int) -> str:
    """A durable transaction in a store that stays open, beside a reader; the store goes on, the reader reads on."""
    stage.go_on(f"before {number}")
    before, said = list(stage.acknowledged), "done"
    with Store.open(stage.database) as store, store.db() as held:
        try:
            with stage.failing(number):
                store.transact([{_TEXT: f"first {number}"}])
            stage.acknowledged.append(f"first {number}")
        except (DiskFull, EnvironmentFailure) as error:
            said = str(error)
        for text in (f"second {number}", f"third {number}"):
            store.transact([{_TEXT: text}])
            stage.acknowledged.append(text)
        with store.as_of(held.txid) as again:
            assert _notes(held) == _notes(again) == before
        with store.db() as newest:
            assert _notes(newest) == stage.acknowledged
    stage.go_on(f"after {number}")
    return said


def threads(stage: Stage, number: int) -> str:
    """Durable transactions of two threads in one store: only the one that fails is in doubt."""
    done, failed = list[str](), list[tuple[str, CowfsError]]()

    def write(thread: str) -> None:
        for index in range(2):
            text = f"{number} {thread} {index}"
            try:
                store.transact([{_TEXT: text}])
                done.append(text)
            except (DiskFull, EnvironmentFailure) as error:
                failed.append((text, error))

    with Store.open(stage.database) as store:
        both = [threading.Thread(target=write, args=(thread,)) for thread in ("one", "two")]
        with stage.failing(number):
            for thread in both:
                thread.start()
            for thread in both:
                thread.join()
        assert len(failed) <= 1, failed
        with store.db() as db:
            new = _notes(db)[len(stage.acknowledged) :]
    assert sorted(new) in (sorted(done), sorted([*done, *(text for text, _error in failed)]))
    stage.acknowledged += new
    stage.go_on(f"after {number}")
    return str(failed[0][1]) if failed else "done"


def snapshot(stage: Stage, number: int) -> str:
    """A named snapshot is made, then deleted."""
    name, said = f"name-{number}", []
    for command in ("create", "delete"):
        result = stage.strike(number, "snapshot", command, stage.database, name)
        assert stage.found() == stage.acknowledged
        if (name in _names(stage)) != (command == "create"):
            assert result.returncode == 1
            cowfs_here("snapshot", command, stage.database, name)
        stage.go_on(f"{command} {number}")
        said.append(_said(result))
    return "; ".join(said)


def mount(stage: Stage, number: int) -> str:
    """A mount makes a named snapshot with mkdir and deletes it with rmdir; it goes on."""
    if stage.mount is None:
        stage.go_on("first")
        point = stage.faults.plan.with_name("mounted")
        declared = [" WARNING the disk is full", " ERROR (mkdir|rmdir): .*: Input/output error"]
        stage.mount = stage.stack.enter_context(mounted(stage.database, point, declared=declared))
    path, said = stage.mount.snapshots / f"name-{number}", []
    for call in (path.mkdir, path.rmdir):
        try:
            with stage.failing(number):
                call()
            said.append("done")
        except OSError as error:
            assert error.errno in (errno.EIO, errno.ENOSPC), error
            said.append(errno.errorcode[error.errno])
        if path.exists() != (call == path.mkdir):
            assert said[-1] != "done"
            call()
    assert stage.found() == stage.acknowledged
    assert (stage.mount.live / "snapshot.json").exists()
    return "; ".join(said)


def import_(stage: Stage, number: int) -> str:
    """Three batches of lines; an import that stops says from which line to go on."""
    texts = [f"{number} {line}" for line in range(_LINES)]
    source = stage.faults.plan.with_name("lines.jsonl")
    source.write_text("".join(json.dumps({_TEXT: text}) + "\n" for text in texts))
    arguments = ("import", stage.database, source, "--batch", str(_BATCH))
    result = stage.strike(number, *arguments)
    found = stage.found()[len(stage.acknowledged) :]
    assert found == texts[: len(found)]
    assert result.returncode == 1 or len(found) == _LINES
    if (said := re.search(r"--from-line (\d+)", result.stderr)) is not None:
        assert len(found) + 1 - int(said[1]) in (0, _BATCH), "only the batch that failed is in doubt"
    if len(found) < _LINES:
        cowfs_here(*arguments, "--from-line", str(len(found) + 1))
    stage.acknowledged += texts
    stage.go_on(f"after {number}")
    return _said(result)


def restore(stage: Stage, number: int) -> str:
    """A backup becomes a database beside it."""
    if not stage.acknowledged:
        stage.go_on("one", "two" * 100_000)
    before = (stage.database / "data.mdb").read_bytes()
    new = stage.faults.point / "new"
    result = stage.strike(number, "restore", stage.database, new)
    assert sorted(os.listdir(stage.faults.point)) == (["db"] if result.returncode else ["db", "new"])
    if result.returncode:
        cowfs_here("restore", stage.database, new)
    assert content(new) == (stage.acknowledged, [])
    assert (stage.database / "data.mdb").read_bytes() == before
    shutil.rmtree(new)
    return _said(result)


def restore_compact(stage: Stage, number: int) -> str:
    """A backup becomes the smallest database, in a directory that was there and is empty again when it fails."""
    if not stage.acknowledged:
        stage.go_on("one", "two" * 10_000)
    new = stage.faults.point / "new"
    new.mkdir(exist_ok=True)
    arguments = ("restore", "--compact", stage.database, new)
    result = stage.strike(number, *arguments)
    assert os.listdir(new) == ([] if result.returncode else ["data.mdb"])
    if result.returncode:
        cowfs_here(*arguments)
    assert content(new) == (stage.acknowledged, [])
    shutil.rmtree(new)
    return _said(result)


def retain(stage: Stage, number: int) -> str:
    """A bound is lowered, and history is given up for it."""
    with Store.open(stage.database) as store:
        store.retain(Retention(commits=100))
    stage.go_on(f"before {number}")
    arguments = ("retain", stage.database, "--commits", "1")
    result = stage.strike(number, *arguments)
    assert stage.found() == stage.acknowledged
    if result.returncode:
        cowfs_here(*arguments)
    with Store.open(stage.database) as store, store.timeline() as timeline:
        assert timeline.retention.commits == 1
    return _said(result)


def init(stage: Stage, number: int) -> str:
    """A database is made; one that could not be made leaves at most a lock file, and the same command makes it then."""
    new = stage.faults.point / f"new-{number}"
    result = stage.strike(number, "init", new)
    if result.returncode:
        assert not new.exists() or set(os.listdir(new)) <= {"lock.mdb"}
        cowfs_here("init", new)
    first, second = (json.dumps([{_TEXT: text}]) for text in ("first", "second"))
    committed = run_here("transact", new, code=None, stdin=first)
    if committed.returncode:  # what the kernel could not write back is reported to whoever syncs the file next
        assert "lock.mdb: " in one_line(committed)
    cowfs_here("transact", new, stdin=second)
    assert content(new) == (["second"] if committed.returncode else ["first", "second"], [])
    return _said(result)


def _names(stage: Stage) -> list[str]:
    return [snapshot["name"] for snapshot in json.loads(cowfs_here("snapshot", "list", stage.database, "--json"))]


def _said(result: Completed) -> str:
    return result.stderr.splitlines()[-1] if result.returncode else "done"


SCENARIOS: dict[str, Callable[[Stage, int], str]] = {
    "commit": commit,
    "open store": open_store,
    "threads": threads,
    "snapshot": snapshot,
    "import": import_,
    "mount": mount,
    "restore": restore,
    "compacting restore": restore_compact,
    "retain": retain,
    "init": init,
}


def play(scenario: str, stage: Stage) -> Iterator[str]:
    """Let each call of a scenario fail once; yield a line for each."""
    for number in range(1, _MAX_CALLS):
        stage.struck.clear()
        said = SCENARIOS[scenario](stage, number)
        if not stage.struck:
            return
        yield f"{number}: {', '.join(stage.struck)}: {said}"
    raise AssertionError(f"{scenario} makes {_MAX_CALLS} calls, or never ends")


def main(scenario: str, point: str, plan: str, code: str, how: str) -> None:
    """Play one scenario."""
    stage = Stage(Faults(Path(point), Path(plan)), getattr(errno, code), How[how])
    with stage.stack:
        for line in play(scenario, stage):
            print(line, flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
