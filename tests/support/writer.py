"""A foreign writer that knows nothing of cowfs, as fast as it can, whose every commit certifies itself.

    python -m tests.support.writer STYLE DIRECTORY SEED

It ends when its standard input is closed, and at the latest after ``COMMITS`` commits, ``SECONDS`` or ``PAGES``, whatever
comes first, so that a held root cannot make the file grow without bound.

After commit n the main tree has ``n`` = n, the database ``a`` too, and ``sum`` there is the sum of all its other values.
"""

from __future__ import annotations

import random
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeAlias

import lmdb

from cowfs.pages.reader import Reader
from tests.support.commands import CHECKOUT, LIMIT
from tests.support.environments import stock

COMMITS = 60_000
SECONDS = LIMIT
PAGES = 60_000  # 240 MB
KEYS = 400

Txn: TypeAlias = "lmdb.Transaction[bytes]"
Style: TypeAlias = "Callable[[lmdb.Environment, Txn, random.Random], None]"


def number(value: bytes | None) -> int:
    """Return the number that a value begins with."""
    return int.from_bytes((value or b"")[:8], "little")


def require_certified(reader: Reader, txnid: int) -> None:
    """Hold that what is read is what commit ``txnid`` wrote, all of it."""
    values = {key: number(value) for key, value in reader.scan(b"a")}
    said, total = values.pop(b"n", 0), values.pop(b"sum", 0)
    assert (said, number(reader.get(b"", b"n")), total) == (txnid, txnid, sum(values.values()))


def commit(env: lmdb.Environment, database: lmdb._Database, style: Style, choice: random.Random) -> None:
    with env.begin(write=True) as txn:
        style(env, txn, choice)
        total = number(txn.get(b"sum", db=database))
        for key in choice.sample(range(KEYS), choice.choice([1, 3, 20])):
            name, new = b"%d" % key, choice.randrange(2**40)
            total -= number(txn.get(name, db=database))
            if choice.random() < 0.2:
                txn.delete(name, db=database)
            else:
                total += new
                txn.put(name, new.to_bytes(8, "little") + bytes(choice.choice([0, 10, 500, 5000])), db=database)
        own = txn.id().to_bytes(8, "little")
        txn.put(b"sum", total.to_bytes(8, "little"), db=database)
        txn.put(b"n", own, db=database)
        txn.put(b"n", own)


def no_more(_env: lmdb.Environment, _txn: Txn, _choice: random.Random) -> None:
    """Write nothing but what certifies."""


def nested(env: lmdb.Environment, txn: Txn, choice: random.Random) -> None:
    for end in choice.sample(["commit", "abort", "deeper"], 2):
        child = env.begin(write=True, parent=txn)
        child.put(b"nested", choice.randbytes(choice.choice([10, 9000])))
        if end == "deeper":
            nested_child = env.begin(write=True, parent=child)
            nested_child.put(b"deeper", choice.randbytes(3000))
            nested_child.commit()
        (child.abort if end == "abort" else child.commit)()


def dropping(env: lmdb.Environment, txn: Txn, choice: random.Random) -> None:
    database = env.open_db(b"dropped", txn)
    if choice.random() < 0.1:
        txn.drop(database, delete=choice.random() < 0.5)
    else:
        for key in choice.sample(range(KEYS), 10):
            txn.put(b"%d" % key, choice.randbytes(choice.choice([10, 2000, 20_000])), db=database)


def duplicating(env: lmdb.Environment, txn: Txn, choice: random.Random) -> None:
    database = env.open_db(b"duplicates", txn, dupsort=True)
    for _ in range(20):
        key, value = b"%d" % choice.randrange(3), choice.randbytes(choice.randint(1, 3))
        txn.put(key, value, db=database)
        txn.delete(key, choice.choice([value, b""]) if choice.random() < 0.02 else value, db=database)
        txn.put(b"%d" % choice.randrange(3), b"%d" % choice.randrange(500), db=database)


def aborting(env: lmdb.Environment, txn: Txn, choice: random.Random) -> None:
    """Large values in a child that is given up, so that pages are taken and given back."""
    child = env.begin(write=True, parent=txn)
    for key in range(choice.choice([1, 30])):
        child.put(b"given up %d" % key, bytes(20_000))
    child.abort()
    txn.put(b"large", choice.randbytes(choice.choice([1, 100_000])))
    txn.delete(b"large")


STYLES: dict[str, tuple[Style, dict[str, Any]]] = {
    "nosync": (no_more, {}),
    "writemap": (no_more, {"writemap": True, "map_async": True}),
    "nested": (nested, {}),
    "dropping": (dropping, {}),
    "dropping in the map": (dropping, {"writemap": True}),
    "duplicating": (duplicating, {}),
    "aborting": (aborting, {}),
}


@contextmanager
def writing(style: str, path: Path, seed: int) -> Iterator[subprocess.Popen[bytes]]:
    """Run a writer beside the block, which begins after its first commits; it is stopped at the end."""
    command = [sys.executable, "-m", "tests.support.writer", style, str(path), str(seed)]
    with subprocess.Popen(command, cwd=CHECKOUT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin and process.stdout
        try:
            assert process.stdout.readline() == b"ready\n"
            yield process
            if process.poll() is None:
                process.stdin.close()
                assert process.wait(2 * LIMIT) == 0
        finally:
            process.kill()


def main(style: str, path: Path, seed: int) -> None:
    """Be the writer."""
    more, options = STYLES[style]
    choice, until = random.Random(seed), time.monotonic() + SECONDS
    with stock(path, **options) as env:
        database = env.open_db(b"a")
        for done in range(COMMITS):
            commit(env, database, more, choice)
            if done == 20:
                print("ready", flush=True)
            if select.select([sys.stdin], [], [], 0)[0] or time.monotonic() > until or env.info()["last_pgno"] > PAGES:
                break


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
