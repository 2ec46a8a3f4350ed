"""``Handles``: what is open in the mount."""

from __future__ import annotations

from dataclasses import dataclass

from cowfs.commits.held import HeldCommit
from cowfs.mount.bindings import Walks
from cowfs.mount.readdir import Listing
from cowfs.views.node import Directory, Node, Stability


@dataclass(frozen=True)
class Handle:
    """An open file or directory: its path, its node, its number with the kernel, its snapshot, and who opened it."""

    path: str
    node: Node
    inode: int
    snapshot: HeldCommit | None
    pid: int
    listing: Listing | None


class Handles:
    """The open files and directories by number. Each holds its commit, and its node never becomes another."""

    def __init__(self, walks: Walks) -> None:
        self._walks = walks
        self._handles: dict[int, Handle] = {}
        self._removed: set[int] = set()  # those in directories that were removed
        self._last = 0
        self._named: dict[int, list[int]] = {}  # the handles of nodes below a snapshot's name, by the kernel's numbers

    def __getitem__(self, number: int) -> Handle:
        return self._handles[number]

    def open(self, path: str, node: Node, inode: int, pid: int) -> int:
        """Make a handle for what process ``pid`` opens, ``inode`` to the kernel; return its number, to be closed."""
        snapshot = node.snapshot
        listing = Listing(node) if isinstance(node, Directory) else None
        self._last += 1
        self._handles[self._last] = Handle(path, node, inode, snapshot, pid, listing)
        if node.stability is Stability.NAMED:
            self._named.setdefault(inode, []).append(self._last)
        if snapshot is not None:
            snapshot.retain()
            self._walks.opened(pid, snapshot)
        return self._last

    def close(self, number: int) -> None:
        """End a handle, and what it holds."""
        handle = self._handles.pop(number)
        self._removed.discard(number)
        if handle.node.stability is Stability.NAMED:
            self._named[handle.inode].remove(number)
            if not self._named[handle.inode]:
                del self._named[handle.inode]
        if handle.snapshot is not None:
            self._walks.closed(handle.pid, handle.snapshot)
            handle.snapshot.release()

    def of_named(self, inode: int) -> int | None:
        """Return a handle of the node ``inode``, if it is open and below a snapshot's name: what they show is the same."""
        return self._named.get(inode, [None])[0]

    def opened_in(self, path: str, pid: int) -> bool:
        """Whether the process has opened something in the directory ``path``, which was not removed since."""
        found = (number for number, handle in self._handles.items() if handle.pid == pid and _is_in(handle.path, path))
        return any(number not in self._removed for number in found)

    def remove(self, path: str) -> None:
        """The directory ``path`` is removed: what is open in it stays, but is no longer in there."""
        self._removed |= {number for number, handle in self._handles.items() if _is_in(handle.path, path)}


def _is_in(path: str, directory: str) -> bool:
    return path == directory or path.startswith(f"{directory}/")
