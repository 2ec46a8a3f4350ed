"""``Listing``: the entries of an open directory by number, which is how FUSE asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from cowfs.errors import EnvironmentFailure, NotFound
from cowfs.views.node import Directory, Entry

_KEPT: Final = 1 << 13  # entries, at least: more than fit into a request


class Listing:
    """The entries of one open directory, made as far as they are asked for.

    The kernel asks for them in order, but for the last ones often twice: what does not fit into the buffer of getdents(2) is
    asked for again. So the last are kept; whoever goes back further (rewinddir(3), seekdir(3)) gets a new listing.
    """

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._rest: Iterator[Entry] | None = None
        self._first = 0  # the number of the first that is kept
        self._kept: list[Entry] = []

    def entry(self, number: int) -> Entry | None:
        """Return the entry with that number, from 0 on, the first two being . and ..; None at the end.

        Raises ``EnvironmentFailure`` when the directory cannot be listed (any more).
        """
        directory = self._directory
        try:
            if self._rest is None or number < self._first:
                self._first = 0
                self._kept = [Entry(".", directory.inode, directory=True), Entry("..", directory.inode, directory=True)]
                self._rest = directory.entries()
            while self._first + len(self._kept) <= number:
                entry = next(self._rest, None)
                if entry is None:
                    return None
                self._kept.append(entry)
                if len(self._kept) >= 2 * _KEPT:
                    del self._kept[:_KEPT]
                    self._first += _KEPT
        except NotFound as error:  # the C library takes ENOENT from a listing for its end: rsync --delete would empty a copy
            raise EnvironmentFailure(f"a directory cannot be listed: {error}") from error
        return self._kept[number - self._first]
