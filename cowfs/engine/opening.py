"""``reading``: the newest root of a directory that may be a running database, or a backup that must not be touched.

Where there is a lock file somebody may be writing, so the root is held by a reader slot in it. Where there is none, or none
that this process may use, the root is read as it lies, and nothing is created beside it. A page of it is used again by the
second commit after it at the earliest, so it is whole as long as it is the newest: whether it still is that is seen at the
end, and before anything that is found wrong with it is believed.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cowfs.engine.env import Env, require_whole
from cowfs.engine.location import locate
from cowfs.errors import AccessDenied, Busy, DatabaseError
from cowfs.pages.btree import TreeReader
from cowfs.pages.datafile import DataFile

log = logging.getLogger("cowfs.pages")


@contextmanager
def reading(path: Path) -> Iterator[TreeReader]:
    """Yield a reader of the newest root of ``path`` (a directory with data.mdb, or a data file).

    Raises what opening raises, and at the end of the block ``Busy`` where the root was not held and somebody has written the
    file meanwhile: what was read may be of several commits.
    """
    env = _env_of(path)
    if env is None:
        with DataFile(path) as file:
            yield from _reading_as_it_lies(path, file)
    else:
        with env, env.hold() as hold:
            yield hold


def require_database(path: Path) -> None:
    """Raise what opening ``path`` for reading would raise at once: it is no database, or may not be read."""
    DataFile(path).close()


def _env_of(path: Path) -> Env | None:
    """Return the environment, open for reading, where a root of it can be held."""
    if not locate(path).has_lock:
        return None
    try:
        env = Env.open(path, readonly=True)
    except AccessDenied as error:
        log.warning("%s; it can be read only while nobody writes it", error)
        return None
    if env.guarded:
        return env
    env.close()
    return None


def _reading_as_it_lies(path: Path, file: DataFile) -> Iterator[TreeReader]:
    require_whole(file)
    file.meta_pages().warn_of_lost_commit(path)
    reader = _Unheld(path, file)
    try:
        yield reader
    except DatabaseError:
        reader.require_steady()
        raise
    reader.require_steady()


class _Unheld(TreeReader):
    """A reader of the newest root, which nothing holds."""

    def __init__(self, path: Path, file: DataFile) -> None:
        super().__init__(file, file.newest_root())
        self._path = path

    def require_steady(self) -> None:
        """Raise ``Busy`` when somebody has committed since, so that pages of the root may have been used again."""
        if self.file.newest_root() != self.root:
            raise Busy(f"{self._path}: somebody is writing it, unseen by any lock file here; read it through its directory")
