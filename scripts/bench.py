"""Side-by-side figures: cowfs and what one would use instead, in one run, as tables with ratios.

Machines are shared and noisy: each figure is the median of several runs, the runs of what is compared alternate, and the
ratio says more than the seconds. Nothing here is a test.

    scripts/bench [--only SECTION] [--runs N] [--megabytes N] [--directory DIR]
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import lmdb

from cowfs.cli.demo import geonames
from cowfs.commits.opened import open_commits
from cowfs.engine.env import Env
from cowfs.engine.rootlog import RootLog
from cowfs.engine.writetxn import WriteTxn
from cowfs.store.history.retention import DEFAULT_RETENTION, Retention
from cowfs.store.store import Durability, Store

LIMIT = 600  # seconds that a command may take
BATCH = 1000

Timed = Callable[[], object]
Mounting = Callable[[], contextlib.AbstractContextManager[None]]


def main() -> None:
    """Run the sections that were asked for."""
    parser = argparse.ArgumentParser(description="Side-by-side figures of cowfs.")
    parser.add_argument("--only", choices=sorted(SECTIONS), action="append", help="run this section only (may be repeated)")
    parser.add_argument("--runs", type=int, default=5, help="runs of each figure (default 5)")
    parser.add_argument("--megabytes", type=int, default=1024, help="size of the large database (default 1024)")
    parser.add_argument("--directory", type=Path, help="where to work (default: the directory for temporary files)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cowfs-bench-", dir=arguments.directory) as directory:
        for name in arguments.only or SECTIONS:
            SECTIONS[name](Path(directory), arguments.runs, arguments.megabytes)


# -- sections --------------------------------------------------------------------------------------------------------


def snapshots(directory: Path, runs: int, megabytes: int) -> None:
    """How long until a commit is a directory, against a copy of the database."""
    rows = []
    for size in (megabytes // 100, megabytes // 10, megabytes):
        database = make_environment(directory / f"env{size}", size)
        ours = statistics.median(appearances(database, 50 * runs))
        copy, compact = alternate(
            [
                partial(copy_with, ["mdb_copy"], database, directory / "copy"),
                partial(copy_with, ["mdb_copy", "-c"], database, directory / "copy"),
            ],
            runs,
        )
        rows.append([f"{size} MB", f"{ours * 1e3:.3f}", f"{copy * 1e3:.0f}", f"{compact * 1e3:.0f}", f"{copy / ours:,.0f}"])
        shutil.rmtree(directory / "copy")
        if size != megabytes:
            shutil.rmtree(database)
    table("A commit becomes a directory (ms)", ["database", "cowfs", "mdb_copy", "mdb_copy -c", "mdb_copy / cowfs"], rows)


def copies(directory: Path, runs: int, megabytes: int) -> None:
    """Copying a large image against copying the raw file with the same tool, and against mdb_copy.

    Within one filesystem cp lets the kernel copy, without a read or a write; cat shows what reading and writing costs.
    """
    database = make_environment(directory / f"env{megabytes}", megabytes)
    raw, target, point = str(database / "data.mdb"), directory / "copy", directory / "mnt"
    point.mkdir(exist_ok=True)
    rows = []
    commands: dict[str, Callable[[str], list[str]]] = {
        "cp": lambda source: ["cp", source, f"{target}/"],
        "cat >": lambda source: ["sh", "-c", f"cat '{source}' > '{target}/copy'"],
        "rsync -a": lambda source: ["rsync", "-a", source, f"{target}/"],
        "tar": lambda source: ["tar", "-cf", f"{target}/tar", "-C", str(Path(source).parent), "data.mdb"],
    }
    (copy,) = alternate([partial(copy_with, ["mdb_copy"], database, target)], runs)
    rows.append(["mdb_copy", "", f"{copy:.2f}", "", "", "", ""])
    for name, command in commands.items():
        sources: list[tuple[str, bool]] = [(raw, False), ("latest", False), ("txid", False), ("txid", True)]
        seconds: list[list[float]] = [[] for _ in sources]
        for _ in range(runs):
            for figures, (source, again) in zip(seconds, sources, strict=True):
                with mounted(database, point) if source != raw else contextlib.nullcontext():
                    path = raw if source == raw else image_path(point, source)
                    if again:
                        run(["dd", f"if={path}", "of=/dev/null", "bs=1M", "status=none"])
                    fresh(target)
                    figures.append(timed(partial(run, command(path))))
        base, *ours = (statistics.median(figures) for figures in seconds)
        rows.append(
            [name, f"{base:.2f}", "", *(f"{second:.2f} ({second / base:.2f})" for second in ours), f"{ours[0] / copy:.2f}"]
        )
    header = ["tool", "raw file", "mdb_copy", "latest", "txid", "txid, second time", "latest / mdb_copy"]
    table(f"Copying {megabytes} MB: seconds (ratio to the raw file)", header, rows)
    shutil.rmtree(target)


def writer(directory: Path, runs: int, _megabytes: int) -> None:
    """The rate of a writer alone, while backups of it run one after another on the other core, and beside plain copies.

    The plain copies are of a file of the same size that has nothing to do with the database: what they cost the writer is
    the machine's share (disk, memory), the rest is ours.
    """
    rows = []
    for durability in ("sync", "none"):
        database, point = directory / f"written-{durability}", directory / "mnt"
        point.mkdir(exist_ok=True)
        prepare_store(database, 20_000)
        rates: list[list[float]] = [[], [], []]
        backups = 0
        with mounted(database, point, pin=1):
            for _ in range(runs):
                rates[0].append(writer_rate(database, durability))
                with repeating(f"rsync -a '{point}/snapshots/latest' .", fresh(directory / "backup")) as done:
                    rates[1].append(writer_rate(database, durability))
                backups += len(list(done.glob("run-*")))
                unrelated = directory / "unrelated"
                shutil.copy(database / "data.mdb", unrelated)
                with repeating(f"touch '{unrelated}' && rsync -a '{unrelated}' .", fresh(directory / "backup")):
                    rates[2].append(writer_rate(database, durability))
        alone, backed_up, beside = map(statistics.median, rates)
        rows.append(
            [
                durability,
                f"{alone:,.0f}",
                f"{backed_up:,.0f} ({backed_up / alone:.2f})",
                f"{beside:,.0f} ({beside / alone:.2f})",
                str(backups),
            ]
        )
    header = ["durability", "alone", "beside backups of it", "beside rsync of another file", "backups"]
    table("A writer of one-entity transactions (a second), on a core of its own", header, rows)


def imports(directory: Path, runs: int, _megabytes: int) -> None:
    """Datoms a second in batches of 1,000 entities, against the same puts by bare LMDB."""
    ours, bare = [], []
    for number in range(runs):
        batches = list(people(100 * BATCH, number))
        with Store.create(fresh(directory / "imported"), SCHEMA) as store:
            seconds = timed(partial(transact_all, store, batches))
            with store.db() as db:
                datoms = db.datom_count
        ours.append(datoms / seconds)
        puts = list(logged_puts(directory / "imported"))
        bare.append(datoms / timed(partial(replay, fresh(directory / "bare"), puts, durable=True)))
    base, rate = statistics.median(bare), statistics.median(ours)
    table(
        "Import (datoms a second)",
        ["bare LMDB", "cowfs", "bare / cowfs"],
        [[f"{base:,.0f}", f"{rate:,.0f}", f"{base / rate:.2f}"]],
    )


def single(directory: Path, runs: int, _megabytes: int) -> None:
    """One-entity transactions against bare LMDB commits of the same puts."""
    rows = []
    for durability in ("sync", "none"):
        prepare_store(fresh(directory / "single"), 20_000)
        start = directory / "start"
        shutil.copytree(directory / "single", fresh(start), dirs_exist_ok=True)
        batches = [[entity] for batch in people(300, 99) for entity in batch]
        ours, bare = [], []
        for _ in range(runs):
            shutil.copytree(start, fresh(directory / "single"), dirs_exist_ok=True)
            with Store.open(directory / "single", durability) as store:
                begin = store.db().txid
                ours.append(timed(partial(transact_all, store, batches)) / len(batches))
            puts = list(logged_puts(directory / "single", begin))
            shutil.copytree(start, fresh(directory / "bare"), dirs_exist_ok=True)
            bare.append(timed(partial(replay, directory / "bare", puts, durable=durability == "sync")) / len(batches))
        base, mine = statistics.median(bare), statistics.median(ours)
        rows.append([durability, f"{base * 1e6:.0f}", f"{mine * 1e6:.0f}", f"{mine / base:.2f}"])
    table("One-entity transactions (us each)", ["durability", "bare LMDB commit", "cowfs", "cowfs / bare"], rows)


def history(directory: Path, runs: int, megabytes: int) -> None:
    """What it costs to look at a history, with few and with many commits retained."""
    database, point = directory / "history", directory / "mnt"
    point.mkdir(exist_ok=True)
    make_large_store(database, megabytes)
    rows, retained = [], 0
    for count in (100, 10_000):
        with Store.open(database, "none") as store:
            transact_all(store, ([person] for batch in people(count - retained, count) for person in batch))
            with store.timeline() as line:
                retained, held = len(line), line.bytes_held
        seconds: list[list[float]] = [[] for _ in range(5)]
        memory = []
        for number in range(runs):
            begin = time.perf_counter()
            with mounted(database, point):
                seconds[0].append(time.perf_counter() - begin)
                snapshots = point / "snapshots"
                seconds[1].append(timed(partial(run, ["sh", "-c", f"ls '{snapshots}' | wc -l"])))
                oldest = min(int(name) for name in os.listdir(snapshots) if name.isdigit())
                chosen = random.Random(number).sample(range(oldest, oldest + retained), 50)
                seconds[2].append(timed(partial(look_at, [snapshots / str(txid) for txid in chosen])) / 50)
                images = [snapshots / str(txid) / "data.mdb" for txid in chosen]
                seconds[3].append(timed(partial(look_at, images)) / 50)
                seconds[4].append(timed(partial(read_some, images[:10])) / 10)
                memory.append(resident(database))
        figures = [f"{statistics.median(figures) * 1e3:.2f}" for figures in seconds]
        rows.append([f"{retained:,}", f"{held / 2**20:,.0f}", *figures, f"{statistics.median(memory):.0f}"])
    header = [
        "commits",
        "held (MiB)",
        "mount",
        "ls | wc -l",
        "stat txid",
        "stat image",
        "open, read 1 MiB of image",
        "daemon (MiB)",
    ]
    table(f"A history of a {megabytes} MB store (ms each, the daemon's memory at the end)", header, rows)


def recording(directory: Path, runs: int, _megabytes: int) -> None:
    """One-entity transactions with and without the record of each root; in both the same commits are held by the pin.

    The third column has neither record nor pin: the rest is what it costs that pages are not used again at once.
    """
    rows = []
    kinds: list[tuple[Durability, int]] = [("sync", 1000), ("none", 5000)]
    for durability, count in kinds:
        for retained in (100, 10_000):
            prepare_store(fresh(directory / "start"), 20_000, Retention(commits=retained))
            batches = [[entity] for batch in people(count, 99) for entity in batch]
            costs: dict[str, list[float]] = {"recorded": [], "pinned": [], "neither": []}
            for _ in range(runs):
                for kind, figures in costs.items():
                    shutil.copytree(directory / "start", fresh(directory / "recorded"), dirs_exist_ok=True)
                    with (
                        Store.open(directory / "recorded", durability) as store,
                        root_recording(store.env.rootlog, kind, retained),
                    ):
                        figures.append(timed(partial(transact_all, store, batches)) / len(batches))
            with_record, with_pin, bare = (statistics.median(figures) * 1e6 for figures in costs.values())
            ratio = f"{with_record / with_pin:.3f}"
            rows.append([durability, f"{retained:,}", f"{with_record:.1f}", f"{with_pin:.1f}", ratio, f"{bare:.1f}"])
    header = ["durability", "retained", "recorded", "only pinned", "recorded / only pinned", "neither"]
    table("One-entity transactions and the history (us each)", header, rows)


def walks(directory: Path, runs: int, _megabytes: int) -> None:
    """Walking the documents of the demo's 34,000 entities, against the same files on disk and in other FUSE filesystems.

    Each run begins with a mount of its own, so that nothing is remembered, and walks twice. The others are what is installed
    of squashfuse (with mksquashfs) and restic.
    """
    database, files = directory / "world", directory / "files"
    make_world(database, directory)
    with mounted(database, fresh(directory / "mnt")):
        entities = newest_tree(directory / "mnt") / "entities"
        run(["cp", "-a", str(entities), str(files)])
    others: dict[str, Mounting] = {
        "the files on disk": contextlib.nullcontext,
        **other_mounts(files, directory),
        "browse/<txid>": partial(mounted, database, directory / "mnt"),
        "live": partial(mounted, database, directory / "mnt"),
    }
    places = {
        "the files on disk": files,
        "browse/<txid>": entities,
        "live": Path("mnt/live/entities"),
        "restic": Path("other/snapshots/latest"),
    }
    commands = {
        "find": "find . > /dev/null",
        "find -size +1": "find . -size +1 > /dev/null",
        "tar cf - \\| cat": "tar cf - . | cat > /dev/null",
        "rsync -a": f"rsync -a . '{directory}/copy'",
        "grep -r": "! grep -r 'no such text' .",
    }
    rows = []
    for name, mount in others.items():
        place = directory / places.get(name, "other")
        seconds: dict[str, list[list[float]]] = {title: [[], []] for title in commands}
        for _ in range(runs):
            for title, command in commands.items():
                with mount():
                    for again in range(2):
                        shutil.rmtree(directory / "copy", ignore_errors=True)
                        seconds[title][again].append(timed(partial(run, ["sh", "-c", f"cd '{place}' && {command}"])))
        medians = [[statistics.median(figures) for figures in pair] for pair in seconds.values()]
        rows.append([name, *(f"{first:.2f} / {second:.2f}" for first, second in medians)])
    table("Walking 34,258 documents: seconds, the first and the second time", ["tree", *commands], rows)


def million(directory: Path, runs: int, _megabytes: int) -> None:
    """Columns and listings of stores of a million datoms, and the mount's memory while a million files are walked."""
    point = directory / "mnt"
    typed: dict[str, Callable[[int], Any]] = {
        "string": str,
        "long": int,
        "double": lambda n: n * 1.37,
        "instant": lambda n: f"{2000 + n % 20}-01-01T00:00:{n % 60:02}Z",
    }
    rows = []
    for name, value in typed.items():
        database = directory / name
        with Store.create(database, {":item/value": {":db/valueType": f":db.type/{name}"}}, durability="none") as store:
            for start in range(0, 1_000_000, 20_000):
                store.transact([{":item/value": value(n * 7919 % 1_000_003)} for n in range(start, start + 20_000)])
        seconds: list[list[float]] = [[], [], []]
        for _ in range(runs):
            with mounted(database, fresh(point)):
                column = newest_tree(point) / "attributes" / "item" / "value.tsv"
                half = column.stat().st_size // 2
                seconds[0].append(
                    timed(
                        partial(
                            run, ["dd", f"if={column}", "of=/dev/null", "bs=1", f"skip={half}", "count=10", "status=none"]
                        )
                    )
                )
                seconds[1].append(timed(partial(run, ["tail", "-n", "10", str(column)])))
            with mounted(database, point):
                column = newest_tree(point) / "attributes" / "item" / "value.tsv"
                seconds[2].append(timed(partial(run, ["sh", "-c", f"cat '{column}' > /dev/null"])))
        middle, tail, whole = map(statistics.median, seconds)
        rows.append([name, f"{1_000_000 / whole:,.0f}", f"{middle * 1e3:,.0f}", f"{tail * 1e3:,.0f}"])
    table("A column of a million datoms", ["type", "cat (lines a second)", "10 bytes of its middle (ms)", "tail (ms)"], rows)
    listings: list[list[float]] = [[], [], []]
    for _ in range(runs):
        with mounted(database, fresh(point)):
            entities = newest_tree(point) / "entities"
            listings[0].append(timed(partial(run, ["ls", str(entities)])))
            listings[1].append(timed(partial(run, ["ls", str(entities / "500000-500999")])))
            listings[2].append(timed(partial(run, ["sh", "-c", f"find '{entities}' | wc -l"])))
    with mounted(database, fresh(point)):
        entities = newest_tree(point) / "entities"
        memory = [resident(database)]
        walk = timed(partial(run, ["sh", "-c", f"find '{entities}' -size +9"]))
        memory.append(resident(database))
    figures = [f"{statistics.median(seconds) * 1e3:,.0f}" for seconds in listings]
    header = ["ls entities (ms)", "ls of a block (ms)", "find (ms)", "find -size (s)", "daemon before and after it (MiB)"]
    row = [*figures, f"{walk:.0f}", " / ".join(f"{mib:.0f}" for mib in memory)]
    table("A million entities", header, [row])


SECTIONS: dict[str, Callable[[Path, int, int], None]] = {
    "snapshots": snapshots,
    "copies": copies,
    "writer": writer,
    "imports": imports,
    "single": single,
    "history": history,
    "recording": recording,
    "walks": walks,
    "million": million,
}


# -- what is measured ------------------------------------------------------------------------------------------------


def appearances(database: Path, count: int) -> list[float]:
    """Commit ``count`` times; return for each how long the mount's history needs to see it and make its directory."""
    seconds = []
    with Env.open(database, durable=False) as env:
        history = open_commits(env, 8)
        for number in range(count):
            with env.write() as txn:
                txn.put(b"data", b"%010d" % number, os.urandom(1000))
            seconds.append(timed(lambda: history.newest().blocks))
        history.close()
    return seconds


def writer_rate(database: Path, durability: str) -> float:
    """Run the writer process on core 0 for some seconds; return its commits a second."""
    return float(run(pinned([sys.executable, __file__, "--be-writer", str(database), durability], 0)).stdout)


def be_writer(database: Path, durability: Any, seconds: float = 4.0) -> None:
    """Be the writer process: commit one entity after another, print the rate."""
    choice = random.Random(1)
    with Store.open(database, durability) as store:
        count, begin = 0, time.perf_counter()
        while (passed := time.perf_counter() - begin) < seconds:
            store.transact([{":person/email": f"p{choice.randrange(20_000)}@x.org", ":person/age": choice.randrange(100)}])
            count += 1
    print(count / passed)


@contextlib.contextmanager
def repeating(command: str, target: Path) -> Iterator[Path]:
    """Run a shell command in ``target`` again and again on core 1 beside the block; a file ``run-N`` counts each run."""
    loop = f"n=0; while :; do n=$((n+1)); {command} || exit 1; : >run-$n; done"
    begun = pinned(["sh", "-c", loop], 1)
    with subprocess.Popen(begun, cwd=target, start_new_session=True, stderr=subprocess.DEVNULL) as process:
        try:
            yield target
        finally:
            while process.poll() is None or group_runs(process.pid):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM)
                time.sleep(0.05)


def group_runs(group: int) -> bool:
    """Whether a process of the group still runs."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@contextlib.contextmanager
def root_recording(roots: RootLog, kind: str, retained: int) -> Iterator[None]:
    """Let write transactions record their roots, or only hold the pin, or neither."""

    def pin_only(_roots: RootLog, txn: WriteTxn) -> int:
        table = roots._table
        if table.pin() is None:
            table.claim_pin(txn.txnid - 1, os.urandom(16))
        if txn.txnid % 64 == 0:
            table.raise_pin(txn.txnid - retained if txn.txnid > retained else 0)
        return 0

    before_write = RootLog.before_write
    if kind != "recorded":
        setattr(RootLog, "before_write", pin_only if kind == "pinned" else lambda _roots, _txn: 0)  # noqa: B010
    try:
        yield
    finally:
        setattr(RootLog, "before_write", before_write)  # noqa: B010


def look_at(paths: list[Path]) -> None:
    """stat(2) each path."""
    for path in paths:
        path.stat()


def read_some(paths: list[Path]) -> None:
    """Open each file and read its first MiB."""
    for path in paths:
        with path.open("rb", buffering=0) as file:
            file.read(1 << 20)


def resident(database: Path) -> float:
    """Return the resident memory, in MiB, of the process that has ``database`` mounted."""
    (pid,) = {pid for pid, _txnid in readers(database)} - {os.getpid()}
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["VmRSS"].split()[0]) / 1024


def readers(database: Path) -> list[tuple[int, int]]:
    """Return (pid, txnid) of whoever holds a commit of ``database``."""
    with Env.open(database, readonly=True) as env:
        return env.readers()


def newest_tree(point: Path) -> Path:
    """Return the data of the newest commit of what is mounted, frozen."""
    txid = json.loads((point / "live" / "snapshot.json").read_text())["txid"]
    return point / "browse" / str(txid)


def make_world(path: Path, directory: Path) -> None:
    """Make a store of the demo's countries and cities."""
    _schema, data, _entities = geonames.write(fresh(directory / "data"))
    with Store.create(path, geonames.SCHEMA, durability="none") as store, data.open() as file:
        while batch := [json.loads(line) for line in islice(file, BATCH)]:
            store.transact(batch)


def other_mounts(files: Path, directory: Path) -> dict[str, Mounting]:
    """Return how to mount a tree of files at ``other`` with each other FUSE filesystem that is installed."""
    found: dict[str, Mounting] = {}
    if shutil.which("mksquashfs"):
        image = directory / "files.squashfs"
        run(["mksquashfs", str(files), str(image), "-quiet", "-no-progress"])
        for program in filter(shutil.which, ("squashfuse", "squashfuse_ll")):
            found[program] = partial(other_mount, [program, "-f", str(image)], directory / "other")
    if shutil.which("restic"):
        os.environ["RESTIC_PASSWORD"] = "none"  # noqa: S105 - a repository that lives as long as the run
        restic = ["restic", "--quiet", "--repo", str(directory / "restic")]
        run([*restic, "init"])
        run(["sh", "-c", f"cd '{files}' && {shlex.join(restic)} backup ."])
        found["restic"] = partial(other_mount, [*restic, "mount"], directory / "other", "snapshots/latest")
    return found


@contextlib.contextmanager
def other_mount(command: list[str], point: Path, inside: str = "") -> Iterator[None]:
    """Mount at ``point`` by a command that stays in the foreground."""
    with subprocess.Popen([*command, str(fresh(point))], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            while not (point.is_mount() and (point / inside).exists()):
                if process.poll() is not None:
                    raise SystemExit(f"{shlex.join(command)} ended with {process.returncode}")
                time.sleep(0.05)
            yield
        finally:
            run(["fusermount", "-u", str(point)])


def make_large_store(path: Path, megabytes: int) -> None:
    """Make a store of about that size, with a history that begins at its end."""
    text = random.Random(1).randbytes(150_000).hex()
    with Store.create(path, SCHEMA, durability="none", retention=Retention(10_000_000, 10**9, 1 << 50)) as store:
        for start in range(0, megabytes * 3, 24):
            store.transact([{":person/name": f"{number} {text}"} for number in range(start, start + 24)])
        store.retain(Retention(0))
        store.retain(Retention(10_000_000, 10**9, 1 << 50))


def logged_puts(database: Path, after: int = 0) -> Iterator[list[tuple[bytes, bytes, bytes]]]:
    """Yield for each transaction after ``after`` the puts that its datoms, counts, state and log row are."""
    env = lmdb.open(str(database), readonly=True, max_dbs=8, map_size=1 << 40)
    with env.begin() as txn:
        names = {name: env.open_db(name, txn=txn, create=False) for name in (b"cowfs", b"eav", b"ave", b"log")}
        state = txn.get(b"state", db=names[b"cowfs"]) or b""
        by_tx: dict[bytes, list[tuple[bytes, bytes, bytes]]] = {}
        for name in (b"eav", b"ave"):
            for key, value in txn.cursor(names[name]):
                by_tx.setdefault(value[:8], []).append((name, key, value))
        for key, row in txn.cursor(names[b"log"]):
            if int.from_bytes(key, "big") > after:
                counts = [(b"cowfs", b"count/%d" % number, bytes(8)) for number in range(4)]
                yield [*by_tx.get(key, []), *counts, (b"cowfs", b"state", state), (b"log", key, row)]
    env.close()


def replay(database: Path, commits: list[list[tuple[bytes, bytes, bytes]]], *, durable: bool) -> None:
    """Do the puts of each commit with py-lmdb and nothing else."""
    env = lmdb.open(str(database), max_dbs=8, map_size=1 << 40, sync=durable)
    names = {name: env.open_db(name) for name in (b"cowfs", b"eav", b"ave", b"log")}
    for puts in commits:
        with env.begin(write=True) as txn:
            for name, key, value in puts:
                txn.put(key, value, db=names[name])
    env.close()


# -- data ------------------------------------------------------------------------------------------------------------

SCHEMA = {
    ":person/email": {":db/valueType": ":db.type/string", ":db/unique": ":db.unique/identity"},
    ":person/name": {":db/valueType": ":db.type/string"},
    ":person/age": {":db/valueType": ":db.type/long"},
    ":person/friend": {":db/valueType": ":db.type/ref"},
}


def people(count: int, seed: int) -> Iterator[list[dict[str, Any]]]:
    """Yield batches of entities with four attributes, the friend a lookup ref to one of an earlier batch."""
    choice = random.Random(seed)
    for start in range(0, count, BATCH):
        batch = []
        for number in range(start, min(start + BATCH, count)):
            person: dict[str, Any] = {
                ":person/email": f"p{seed or ''}{'-' if seed else ''}{number}@x.org",
                ":person/name": f"Person {choice.randrange(10**9)}",
                ":person/age": choice.randrange(100),
            }
            if start:
                friend = choice.randrange(start)
                person[":person/friend"] = [":person/email", f"p{seed or ''}{'-' if seed else ''}{friend}@x.org"]
            batch.append(person)
        yield batch


def prepare_store(path: Path, entities: int, retention: Retention = DEFAULT_RETENTION) -> None:
    """Make a store with ``entities`` people."""
    with Store.create(path, SCHEMA, durability="none", retention=retention) as store:
        transact_all(store, people(entities, 0))


def transact_all(store: Store, batches: Any) -> None:
    """Transact each batch."""
    for batch in batches:
        store.transact(batch)


def make_environment(path: Path, megabytes: int) -> Path:
    """Make a plain LMDB environment of about that size, one page in fifty free; a second call finds it there."""
    if path.exists():
        return path
    content = random.Random(megabytes)
    entries = megabytes * 720
    with Env.create(path, durable=False) as env:
        with env.write() as txn:
            txn.create([b"data"])
        for start in range(0, entries, BATCH):
            with env.write() as txn:
                txn.put_many(b"data", [(b"%010d" % n, content.randbytes(1000)) for n in range(start, start + BATCH)])
        with env.write() as txn:
            for number in range(0, entries, 50):
                txn.delete(b"data", b"%010d" % number)
        env.sync()
    return path


def copy_with(command: list[str], database: Path, target: Path) -> None:
    """Copy an environment with one of LMDB's own tools."""
    run([*command, str(database), str(fresh(target))])


# -- tools -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def mounted(database: Path, point: Path, pin: int | None = None) -> Iterator[None]:
    """Mount ``database`` at ``point`` for the block."""
    command = [sys.executable, "-m", "cowfs.cli"]
    run([*pinned([*command, "mount", f"--log={point}.log", str(database), str(point)], pin)])
    try:
        yield
    finally:
        run(["fusermount", "-u", str(point)])


def image_path(point: Path, name: str) -> str:
    """Return the path of the newest commit's image: by ``latest``, or by its txid."""
    if name == "txid":
        name = next(entry.name for entry in (point / "snapshots").iterdir() if entry.name != "latest")
    return str(point / "snapshots" / name / "data.mdb")


def alternate(actions: list[Timed], runs: int) -> list[float]:
    """Time each action ``runs`` times, in turn; return the medians in seconds."""
    seconds: list[list[float]] = [[] for _ in actions]
    for _ in range(runs):
        for figures, action in zip(seconds, actions, strict=True):
            figures.append(timed(action))
    return [statistics.median(figures) for figures in seconds]


def timed(action: Callable[[], object]) -> float:
    """Return how many seconds ``action`` takes."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


def run(command: list[str]) -> subprocess.CompletedProcess[str]:
    """Run a command that must succeed."""
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=LIMIT, errors="replace")


def pinned(command: list[str], cpu: int | None) -> list[str]:
    """Return the command that runs ``command`` on that core only."""
    return command if cpu is None else ["taskset", "-c", str(cpu), *command]


def fresh(path: Path) -> Path:
    """Return ``path`` as an empty directory."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir()
    return path


def table(title: str, header: list[str], rows: list[list[str]]) -> None:
    """Print a table in Markdown."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    lines = [[cell.ljust(width) for cell, width in zip(row, widths, strict=True)] for row in [header, *rows]]
    lines.insert(1, ["-" * width for width in widths])
    print(f"\n{title}\n")
    for line in lines:
        print(f"| {' | '.join(line)} |")
    sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1:2] == ["--be-writer"]:
        be_writer(Path(sys.argv[2]), sys.argv[3])
    else:
        main()
