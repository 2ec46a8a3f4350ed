"""LMDB without any of cowfs's code, in a process of its own: py-lmdb, and LMDB's own tools.

    python -m tests.support.stock DIRECTORY...

prints a line of JSON for each directory: its last transaction id, and for each database its items' count and digest.
"""

from __future__ import annotations

import hashlib
import json
import re
import sys
from pathlib import Path
from typing import Any

import lmdb

from tests.support.commands import run

_DIGEST_SIZE = 16
_IN_USE = re.compile(r"^  (?:Branch|Leaf|Overflow) pages: (\d+)$", re.MULTILINE)
_USED = re.compile(r"^  Number of pages used: (\d+)$", re.MULTILINE)
_FREE = re.compile(r"^  Free pages: (\d+)$", re.MULTILINE)
_META_PAGES = 2


def opened(*directories: Path) -> list[dict[str, Any]]:
    """Open each directory with stock LMDB, read everything in it, and return what this module prints."""
    output = run(sys.executable, "-m", "tests.support.stock", *directories).stdout
    return [json.loads(line) for line in output.splitlines()]


def require_balance(directory: Path) -> int:
    """Hold that LMDB's own books balance: every page is a meta page, free, or counted by one tree. Return the txid.

    ``mdb_stat`` counts no trees of duplicates; there must be none.
    """
    output = run("mdb_stat", "-efa", directory).stdout
    used, free = int(_USED.findall(output)[0]), int(_FREE.findall(output)[0])
    counted = sum(map(int, _IN_USE.findall(output)))
    assert used == free + counted + _META_PAGES, f"{directory}: {used} pages, {free} free, {counted} in trees"
    return int(re.findall(r"Last transaction ID: (\d+)", output)[0])


def main(directories: list[str]) -> None:
    """Read each directory, without locks and without writing beside it."""
    for directory in directories:
        with lmdb.open(directory, readonly=True, lock=False, max_dbs=32) as env:
            print(json.dumps({"txid": env.info()["last_txnid"], "databases": _databases(env)}))


def _databases(env: lmdb.Environment) -> dict[str, list[object]]:
    """Return count and digest of the items by database; "" is the main one, which also lists the others."""
    with env.begin() as txn:
        names = [bytes(name) for name in txn.cursor().iternext(values=False)]
        databases = {"": _read(txn)}
    for name in names:
        try:
            database = env.open_db(name, create=False)
        except lmdb.IncompatibleError:  # an item, not the name of a database
            continue
        with env.begin(db=database) as txn:
            databases[name.decode()] = _read(txn)
    return databases


def _read(txn: lmdb.Transaction[bytes]) -> list[object]:
    digest, count = hashlib.blake2b(digest_size=_DIGEST_SIZE), 0
    for key, value in txn.cursor():
        digest.update(b"%d,%d:" % (len(key), len(value)) + key + value)
        count += 1
    return [count, digest.hexdigest()]


if __name__ == "__main__":
    main(sys.argv[1:])
