"""``is_unfinished``: whether a directory has no more than what is left of an environment whose making was cut off.

LMDB makes lock.mdb first, then data.mdb with 0 bytes, then writes two meta pages at once, of transaction 0; none of it is on
disk before the first commit. So a full disk, a kill or a loss of power may leave any part of that. Nothing that anybody has
written can be lost with it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from cowfs.errors import DatabaseError
from cowfs.pages.format import MAX_PAGE_SIZE, META_SIZE, MIN_PAGE_SIZE, parse_meta

DATA_NAME: Final = "data.mdb"
LOCK_NAME: Final = "lock.mdb"
NEW_NAME: Final = "data.mdb.new"  # what becomes data.mdb when it is whole
_SECTOR: Final = 512


def is_unfinished(path: Path) -> bool:
    """Return whether the directory ``path`` is empty, or has the beginnings of an environment. Raises ``OSError``."""
    names = set(os.listdir(path))
    return names <= {DATA_NAME, LOCK_NAME, NEW_NAME} and (DATA_NAME not in names or _never_written(path / DATA_NAME))


def _never_written(file: Path) -> bool:
    """Return whether a data file is shorter than two blank meta pages, or is these with any sector missing."""
    if not file.is_file():
        return False
    with file.open("rb") as opened:
        data = opened.read(2 * MAX_PAGE_SIZE + 1)
    if len(data) > 2 * MAX_PAGE_SIZE:
        return False
    sizes = [MIN_PAGE_SIZE << power for power in range((MAX_PAGE_SIZE // MIN_PAGE_SIZE).bit_length())]
    return not data.strip(b"\0") or any(_blank(data, size) for size in sizes)


def _blank(data: bytes, page_size: int) -> bool:
    """Return whether ``data`` is no more than two meta pages of that size; a sector that is all zeros may be a lost one."""
    if len(data) > 2 * page_size:
        return False
    for at in range(0, len(data), _SECTOR):
        sector = data[at : at + _SECTOR]
        if sector.strip(b"\0") and not (at % page_size == 0 and _blank_meta(sector, at // page_size, page_size)):
            return False
    return True


def _blank_meta(sector: bytes, slot: int, page_size: int) -> bool:
    try:
        root = parse_meta(sector, slot)
    except DatabaseError:
        return len(sector) < META_SIZE and slot == 1  # cut off within the second page
    return root.page_size == page_size and root.txnid == 0 and root.main.empty and root.free.empty
