"""``reading``: the newest root of a directory that may be a running database, or a backup that must not be touched."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cowfs.errors import AccessDenied
from cowfs.pages.datafile import DataFile
from cowfs.pages.env import Env, require_whole
from cowfs.pages.tree import TreeReader

log = logging.getLogger("cowfs.pages")


@contextmanager
def reading(path: Path) -> Iterator[TreeReader]:
    """Yield a reader of the newest root in ``path`` (a directory with data.mdb, or a data file).

    Where there is a lock.mdb somebody may be writing, so the root is held by a reader slot. Where there is none nobody has
    the environment open; it is read as it lies, and nothing is created beside it. Raises what opening raises.
    """
    env = _env_of(path)
    if env is None:
        with DataFile(path) as file:
            require_whole(file)
            file.meta_pages().warn_of_lost_commit(path)
            yield TreeReader(file, file.newest_root())
    else:
        with env, env.hold() as hold:
            yield hold


def _env_of(path: Path) -> Env | None:
    if not os.path.exists(path / "lock.mdb"):  # noqa: PTH110 - Path.exists raises without permission
        return None
    try:
        return Env.open(path, readonly=True)
    except AccessDenied:
        log.warning("%s: no permission to hold it against writers (lock.mdb): what is read may change meanwhile", path)
        return None
