"""How large a map LMDB makes of its file: huge, so that it never need be changed, or what a limit of address space allows.

A map costs address space and nothing else, but ``ulimit -v`` (RLIMIT_AS) bounds just that.
"""

from __future__ import annotations

import mmap
import resource
from pathlib import Path
from typing import Final

from cowfs.errors import EnvironmentFailure

FULL: Final = 1 << 40
_FOR_THE_PROCESS: Final = 64 << 20  # bytes of address space that are left for all else, at least
_ROOM: Final = 16 << 20  # bytes that the file must be able to grow by


def map_size(path: Path, used: int, stored: int) -> int:
    """Return how many bytes of the environment ``path`` LMDB is to map, to write a file that now has ``used`` bytes.

    ``stored`` is the size that its meta page says. Below a limit it is half of what there is, but never less than the file
    and some room to grow. Raises ``EnvironmentFailure``, which names the limit.
    """
    limit = address_space_limit()
    if limit is None:
        return max(FULL, stored)
    room = limit - _address_space_used() - _FOR_THE_PROCESS
    if room < used + _ROOM:
        raise EnvironmentFailure(f"{path}: cannot map {used + _ROOM:,} bytes, which writing needs: {limit_text()}")
    size = max(used + _ROOM, room // 2)
    return min(max(FULL, stored), -(-size // mmap.PAGESIZE) * mmap.PAGESIZE)


def _address_space_used() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * mmap.PAGESIZE


def address_space_limit() -> int | None:
    """Return how many bytes of address space this process may have, None when there is no limit."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def limit_text() -> str:
    """Return what to say where the limit of address space is in the way; nothing where there is none."""
    limit = address_space_limit()
    return "" if limit is None else f"the limit of address space (`ulimit -v`) is {limit // 1024:,} KiB; raise it"
