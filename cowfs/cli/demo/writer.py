"""The demo's writer: it changes the population of one city after another, each change one durable commit.

After each commit it writes a line ``txid city population`` to its journal: an acknowledgement, which the demo holds against
what the backups contain. It ends when its standard input is closed, and at the latest after a minute.

    python -m cowfs.cli.demo.writer DB JOURNAL SEED
"""

from __future__ import annotations

import random
import select
import sys
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

from cowfs.cli.program import run
from cowfs.store.store import Store

_AT_MOST = 60.0  # seconds
_PAUSE = 0.002


class Entry(NamedTuple):
    """One acknowledged change."""

    txid: int
    city: int
    population: int


def read_journal(path: Path) -> list[Entry]:
    """Return the complete lines of a journal."""
    lines = path.read_text().split("\n")[:-1]
    return [Entry(*map(int, line.split())) for line in lines]


def main(database: Path, journal: Path, seed: int) -> None:
    """Commit and acknowledge until standard input is closed."""
    choice = random.Random(seed)  # noqa: S311 - a demo, no secrets
    until = time.monotonic() + _AT_MOST
    with Store.open(database) as store, journal.open("w", buffering=1) as acknowledged:
        with store.db() as db:
            cities = [datom.v for datom in db.datoms("ave", ":city/id")]
        while time.monotonic() < until and not select.select([sys.stdin], [], [], _PAUSE)[0]:
            city, population = choice.choice(cities), choice.randrange(10_000_000)
            report = store.transact([{":city/id": city, ":city/population": population}])
            acknowledged.write(f"{report.txid} {city!r} {population}\n")


if __name__ == "__main__":
    run(partial(main, Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])))
