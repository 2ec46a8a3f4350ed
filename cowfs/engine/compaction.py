"""``compact``: LMDB's own compacting copy, of a file that nobody else has open and that was checked."""

from __future__ import annotations

import os
from pathlib import Path

import lmdb

from cowfs.engine.translate import translated


def compact(source: Path, target: int) -> None:
    """Write the data file ``source`` without its free pages to the open file ``target``; its transaction ids begin again.

    LMDB believes its file, so it must be sound. Raises ``DiskFull`` and what else LMDB fails with.
    """
    size = max(source.stat().st_size, 1 << 20)
    with (
        translated(source),
        lmdb.open(os.fsencode(source), subdir=False, readonly=True, lock=False, map_size=size, lib_version=0) as env,
    ):
        env.copyfd(target, compact=True)
