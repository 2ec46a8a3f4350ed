"""``Directory`` and ``File``: what a path of the mount leads to.

A node is made for one request, or for one open handle, and is never changed. A node with a ``txid`` shows that commit, and
needs its ``snapshot`` while it is in use. How long its path does so is its ``stability``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from typing import NamedTuple

from cowfs.commits.held import HeldCommit


@dataclass(frozen=True, slots=True)
class Attributes:
    """What stat(2) tells of a node, without owner and mode, which come from the database file.

    ``mtime`` is seconds since the epoch, ``size`` bytes, ``blocks`` units of 512 bytes.
    """

    mtime: int
    size: int = 0
    blocks: int = 0


class Stability(Enum):
    """How long a path shows what it shows.

    ``FROZEN``: for ever (bytes, size, mtime, inode), so the kernel may cache it. ``NAMED``: until its name is given to
    another commit, and never while it is open. ``MOVING``: until the next commit, even while it is open.
    """

    FROZEN = "frozen"
    NAMED = "named"
    MOVING = "moving"


class Node(ABC):
    """A file or a directory of the mount."""

    inode: int
    txid: int | None = None
    stability: Stability = Stability.MOVING

    @property
    def snapshot(self) -> HeldCommit | None:
        """The commit that it shows, to be retained while it is in use; None for what belongs to no commit."""
        return None

    @abstractmethod
    def attributes(self) -> Attributes:
        """Return what stat(2) tells."""


class Entry(NamedTuple):
    """A line of a directory's listing: a directory, a symbolic link, or else a file."""

    name: str
    inode: int
    directory: bool
    link: bool = False


class Directory(Node):
    """A directory: its children by name.

    ``moving`` is set where the path shows to each process another commit: by this name it is remembered which. ``deleted``
    is set where the commit has lost the name that led here: only who uses the commit finds the directory.
    """

    moving: str | None = None
    deleted: bool = False

    @abstractmethod
    def child(self, name: str) -> Node:
        """Return the child ``name``; raise ``NotFound`` when there is none. Not every child need be listed."""

    @abstractmethod
    def entries(self) -> Iterator[Entry]:
        """Yield the listed children, in a stable order."""


class File(Node):
    """A regular file: its bytes at any offset."""

    @abstractmethod
    def readinto(self, offset: int, buffer: memoryview) -> int:
        """Fill ``buffer`` with bytes from ``offset`` on; return how many, fewer only at the end of the file."""


class Link(Node):
    """A symbolic link: its target is relative to the directory that it is in."""

    target: str
