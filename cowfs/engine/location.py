"""``locate``: where an environment lies, however its path is written: its data file, and the lock file that belongs to it.

LMDB knows two layouts (``mdb_fname_init`` in mdb.c): a directory with ``data.mdb`` and ``lock.mdb``, and with MDB_NOSUBDIR
any file ``X`` with ``X-lock`` beside it. It makes the name of the lock file from the path that it is given, so two programs
that write one file under two names, or in two layouts, do not see each other's locks. A reader must hold its root in the
lock file that the writer uses, whichever that is:

1. The data file has the name that was given, and each name that a symbolic link leads on to, up to the real one. A lock file
   in either layout beside any of these names may be the writer's.
2. If just one of them exists it is the one. If several do (a stale one stays for ever), it is the one that somebody has
   open; a reader holds its root in the others, too, in case that their program comes back.
3. If there is none, nobody has the environment open. The lock file will be the one beside the real name, since that is the
   only name to which every other leads.

A second hard link cannot be found this way, nor a lock file that somebody has removed: see ``reading``.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from cowfs.engine.locktable import LockTable
from cowfs.errors import EnvironmentFailure
from cowfs.pages.unfinished import DATA_NAME, LOCK_NAME

_LOCK_SUFFIX: Final = "-lock"
_MAX_SYMLINKS: Final = 40  # as the kernel


@dataclass(frozen=True)
class Location:
    """Where an environment lies. ``path`` is what LMDB is given, a directory or a data file; the others are absolute."""

    path: Path
    data: Path
    lock: Path
    other_locks: tuple[Path, ...] = ()

    @property
    def is_directory(self) -> bool:
        """Whether ``path`` is a directory, not a data file with its lock file beside it (MDB_NOSUBDIR)."""
        return self.lock.name == LOCK_NAME

    @property
    def has_lock(self) -> bool:
        """Whether there is a lock file: without one nobody has the environment open, or nobody can know."""
        return os.path.exists(self.lock)  # noqa: PTH110 - Path.exists raises without permission


class _Layout(NamedTuple):
    """What LMDB is given, and the lock file that it then makes."""

    path: Path
    lock: Path


def locate(path: Path) -> Location:
    """Return where the environment ``path`` lies: a directory with a data.mdb, or a data file; it need not exist.

    Raises ``EnvironmentFailure`` when it is open under two names at once, so that no reader is safe.
    """
    given = path / DATA_NAME if os.path.isdir(path) else path  # noqa: PTH112 - Path.is_dir raises without permission
    names = list(_names(given))
    layouts = [layout for name in reversed(names) for layout in _layouts(name)]
    found = _in_use_first(path, _different(layouts))
    chosen = found[0] if found else layouts[0]
    shown = {names[0]: given, names[0].parent: given.parent}  # as the user has typed it
    others = tuple(layout.lock for layout in found[1:])
    return Location(shown.get(chosen.path, chosen.path), names[-1], chosen.lock, others)


def _names(name: Path) -> Iterator[Path]:
    """Yield the names of the data file, absolute: the given one first, and the real one last."""
    for _ in range(_MAX_SYMLINKS):
        name = Path(os.path.realpath(name.parent), name.name)
        yield name
        try:
            name = name.parent / os.readlink(name)  # noqa: PTH115
        except OSError:  # no symbolic link
            return


def _layouts(name: Path) -> Iterator[_Layout]:
    if name.name == DATA_NAME:
        yield _Layout(name.parent, name.parent / LOCK_NAME)
    yield _Layout(name, name.with_name(name.name + _LOCK_SUFFIX))


def _different(layouts: list[_Layout]) -> list[_Layout]:
    """Return the layouts whose lock file exists, each file once."""
    found: dict[tuple[int, int], _Layout] = {}
    for layout in layouts:
        try:
            status = os.stat(layout.lock)  # noqa: PTH116 - as everywhere here
        except OSError:
            continue
        found.setdefault((status.st_dev, status.st_ino), layout)
    return list(found.values())


def _in_use_first(path: Path, layouts: list[_Layout]) -> list[_Layout]:
    if len(layouts) < 2:
        return layouts
    used = [layout for layout in layouts if LockTable(layout.lock).in_use()]
    if len(used) > 1:
        raise EnvironmentFailure(
            f"{path}: open under two names at once, with the locks {used[0].lock} and {used[1].lock}; end one program"
        )
    return used + [layout for layout in layouts if layout not in used]
