"""``Directory`` and ``File``: what a path of the mount leads to.

A node is made for one request, or for one open handle, and is never changed. ``frozen`` says that whatever has this path
is the same for ever (bytes, size, mtime, inode): the kernel may cache it. A node with a ``snapshot`` needs that snapshot's
root while it is in use.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cowfs.views.snapshot import Snapshot


@dataclass(frozen=True, slots=True)
class Attributes:
    """What stat(2) tells of a node, without owner and mode, which come from the database file.

    ``mtime`` is seconds since the epoch, ``size`` bytes, ``blocks`` units of 512 bytes.
    """

    mtime: int
    size: int = 0
    blocks: int = 0


class Node(ABC):
    """A file or a directory of the mount."""

    inode: int
    snapshot: Snapshot | None = None
    frozen: bool = False

    @abstractmethod
    def attributes(self) -> Attributes:
        """Return what stat(2) tells."""


class Directory(Node):
    """A directory: its children by name."""

    @abstractmethod
    def child(self, name: str) -> Node:
        """Return the child ``name``; raise ``NotFound`` when there is none. Not every child need be listed."""

    @abstractmethod
    def children(self) -> Iterator[tuple[str, Node]]:
        """Yield (name, node) of the listed children, in a stable order."""


class File(Node):
    """A regular file: its bytes at any offset."""

    @abstractmethod
    def readinto(self, offset: int, buffer: memoryview) -> int:
        """Fill ``buffer`` with bytes from ``offset`` on; return how many, fewer only at the end of the file."""
