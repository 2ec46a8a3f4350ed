"""Copies of a mount that is being written, by the tools that people use, and what must be true of each copy."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

from tests.support import churn, stock
from tests.support.commands import Completed, run
from tests.support.mounted import Mount

Copy = Callable[[Path, Path], None]


def copy_and_check(mount: Mount, directory: Path, writer: churn.Writer, seed: int, count: int, settle: int = 5) -> int:
    """Make ``count`` copies below ``directory`` while ``writer`` writes; check each. Return how many commits they show.

    Half are of ``latest``, half of some txid that is listed; the tools take turns.
    """
    choice = random.Random(seed)
    copies: list[Path] = []
    for number in range(count):
        writer.wait_for(settle)
        target = directory / f"copy{number}"
        target.mkdir()
        if number % 2:
            copies.append(_copy_txid(mount, target, _TOOLS[number // 2 % len(_TOOLS)], choice))
        else:
            copies.append(_copy_latest(mount, target, _TOOLS[number // 2 % len(_TOOLS)]))
    writer.wait_for(1)  # the last copy's commit is acknowledged by now
    txids = check_copies(copies, writer.acknowledged())
    return len(set(txids))


def check_copies(copies: list[Path], acknowledged: dict[int, str]) -> list[int]:
    """Hold that each copy is whole and is exactly one acknowledged transaction; return their txids."""
    txids = []
    for copy in copies:
        txid, digest = churn.contents(copy)
        assert acknowledged[txid] == digest, f"{copy} is not what transaction {txid} committed"
        churn.require_sound(copy)
        txids.append(txid)
    for txid, found in zip(txids, stock.opened(*copies), strict=True):
        assert found["txid"] == txid, f"stock LMDB sees {found} where {txid} was copied"
    for txid, copy in zip(txids, copies, strict=True):
        assert stock.require_balance(copy) == txid
    return txids


def silent(result: Completed) -> None:
    """Hold that a tool has printed nothing at all: no difference, no warning."""
    assert result.stdout == "", result.stdout
    assert result.stderr == "", result.stderr


def rsync(source: Path, target: Path) -> None:
    silent(run("rsync", "-a", source, f"{target}/"))


def rsync_contents(source: Path, target: Path) -> None:
    silent(run("rsync", "-a", f"{source}/", target / source.name))


def rsync_inplace(source: Path, target: Path) -> None:
    silent(run("rsync", "-a", "--inplace", "--no-whole-file", source, f"{target}/"))


def tar(source: Path, target: Path) -> None:
    archive = target / "archive.tar"
    silent(run("tar", "-C", source.parent, "-cf", archive, source.name))
    silent(run("tar", "-C", target, "-xf", archive))
    archive.unlink()


def cp_archive(source: Path, target: Path) -> None:
    silent(run("cp", "-a", source, target))


def cp_recursive(source: Path, target: Path) -> None:
    silent(run("cp", "-r", source, target))


_TOOLS: tuple[Copy, ...] = (rsync, tar, cp_archive, rsync_contents, cp_recursive, rsync_inplace)


def _copy_latest(mount: Mount, target: Path, tool: Copy) -> Path:
    tool(mount.latest, target)
    return target / "latest"


def _copy_txid(mount: Mount, target: Path, tool: Copy, choice: random.Random) -> Path:
    txids = mount.txids()
    txid = choice.choice(txids[len(txids) // 2 :])
    source = mount.snapshot(txid)
    descriptor = os.open(source / "snapshot.json", os.O_RDONLY)  # as long as it is open the commit stays
    try:
        tool(source, target)
        times = [] if tool is cp_recursive else ["-t"]
        silent(run("rsync", "-rnci", *times, f"{source}/", target / source.name))
    finally:
        os.close(descriptor)
    return target / source.name
