"""A process that walks a directory of a mount in one of several ways, and says what it saw.

    python -m tests.support.walker WAY DIRECTORY ROUNDS

prints a line of JSON for each look: the txid in snapshot.json, those in both meta pages of data.mdb, and the digest of all
of data.mdb. Whatever the way, within one round all of these must be of one commit.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tests.support.commands import CHECKOUT

_SLOW_READ = 65536  # bytes
PAUSE = 1.3  # seconds: longer than what still counts as the same walk
_AT_ONCE = 0.9  # seconds: shorter than that
_PAGE = 4096
_TXNID_AT = 144


class Look(NamedTuple):
    """What one look at a directory showed."""

    round: int
    summary: int
    metas: tuple[int, int]
    digest: str


def looks(output: str) -> list[Look]:
    """Parse what the walker has printed."""
    found = [json.loads(line) for line in output.splitlines()]
    return [Look(number, summary, (first, second), digest) for number, summary, first, second, digest in found]


def start(way: str, directory: Path, rounds: int) -> subprocess.Popen[str]:
    """Start a walker; its output is for ``looks``."""
    command = [sys.executable, "-m", "tests.support.walker", way, str(directory), str(rounds)]
    return subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def _plain(directory: Path) -> Iterator[tuple[bytes, bytes]]:
    """List, then read the summary, then the image."""
    os.listdir(directory)
    yield _read(directory / "snapshot.json"), _read(directory / "data.mdb")


def _image_first(directory: Path) -> Iterator[tuple[bytes, bytes]]:
    os.listdir(directory)
    image = _read(directory / "data.mdb")
    yield _read(directory / "snapshot.json"), image


def _lists_twice(directory: Path) -> Iterator[tuple[bytes, bytes]]:
    """List again between the two files, as borg does: at once, or it would be another walk. On a busy machine try again."""
    while True:
        os.listdir(directory)
        begin = time.monotonic()
        summary = _read(directory / "snapshot.json")
        os.listdir(directory)
        if time.monotonic() - begin < _AT_ONCE:
            break
        time.sleep(PAUSE)
    yield summary, _read(directory / "data.mdb")


def _sleeps(directory: Path) -> Iterator[tuple[bytes, bytes]]:
    os.listdir(directory)
    summary = _read(directory / "snapshot.json")
    time.sleep(PAUSE)
    yield summary, _read(directory / "data.mdb")


def _sleeps_and_lists_again(directory: Path) -> Iterator[tuple[bytes, bytes]]:
    """Two walks by one process: each is of one commit."""
    yield from _plain(directory)
    time.sleep(PAUSE)
    yield from _plain(directory)


def _reads_slowly(directory: Path) -> Iterator[tuple[bytes, bytes]]:
    """Open the image, read the summary meanwhile, and list once more while the image is half read."""
    os.listdir(directory)
    parts = []
    with (directory / "data.mdb").open("rb", buffering=0) as file:
        while part := file.read(_SLOW_READ):
            parts.append(part)
            time.sleep(0.01)
            if len(parts) == 3:
                os.listdir(directory)
    yield _read(directory / "snapshot.json"), b"".join(parts)


def _by_stat(directory: Path) -> Iterator[tuple[bytes, bytes]]:
    """As rsync does: list, stat everything, and read as many bytes as stat said."""
    sizes = {entry.name: entry.stat().st_size for entry in os.scandir(directory)}
    summary, image = _read(directory / "snapshot.json"), _read(directory / "data.mdb")
    if (len(summary), len(image)) != (sizes["snapshot.json"], sizes["data.mdb"]):
        raise AssertionError(f"stat said {sizes}, read were {len(summary)} and {len(image)}")
    yield summary, image


WAYS: dict[str, Callable[[Path], Iterator[tuple[bytes, bytes]]]] = {
    "plain": _plain,
    "image-first": _image_first,
    "lists-twice": _lists_twice,
    "by-stat": _by_stat,
    "reads-slowly": _reads_slowly,
    "sleeps": _sleeps,
    "sleeps-and-lists-again": _sleeps_and_lists_again,
}


def _read(path: Path) -> bytes:
    return path.read_bytes()


def main(way: str, directory: Path, rounds: int) -> None:
    """Walk, and print."""
    for number in range(rounds):
        for summary, image in WAYS[way](directory):
            metas = [int.from_bytes(image[page + _TXNID_AT :][:8], "little") for page in (0, _PAGE)]
            print(json.dumps([number, json.loads(summary)["txid"], *metas, hashlib.sha256(image).hexdigest()]))
        time.sleep(0.01)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
