"""``CommitContext``: a commit and its place in the mount, from which the trees of data are made."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

from cowfs.commits.held import HeldCommit
from cowfs.store.read.db import Db
from cowfs.views.node import Node, Stability

_OF_DATA = 1 << 63


def inode_at(place: bytes, kind: str, key: bytes | int = b"") -> int:
    """Return the inode of a node of data: of 2**63, so that two are the same about never.

    Those of one kind whose keys are numbers follow each other: there are millions of them, and it spares a digest for each.
    """
    if isinstance(key, int):
        return _OF_DATA | (_digest(place, kind, b"") + key) % _OF_DATA
    return _OF_DATA | _digest(place, kind, key) % _OF_DATA


@lru_cache(maxsize=1 << 12)
def _digest(place: bytes, kind: str, key: bytes) -> int:
    return int.from_bytes(blake2b(b"%b\0%b\0%b" % (place, kind.encode(), key), digest_size=8).digest(), "little")


@dataclass(frozen=True)
class CommitContext:
    """A commit of a store at one place of the mount.

    ``place`` is what the inodes are made from: the same for all commits where the path shows another one later, another one
    for each commit where it is frozen.
    """

    snapshot: HeldCommit
    stability: Stability
    place: bytes

    @property
    def db(self) -> Db:
        """The commit as a database; only a store has trees of data."""
        assert self.snapshot.db is not None  # noqa: S101 - who makes a context has looked
        return self.snapshot.db

    def inode(self, kind: str, key: bytes | int = b"") -> int:
        """Return the inode of the node of that kind with that key: always the same, and of no other node."""
        return inode_at(self.place, kind, key)


class DataNode(Node):
    """A node of a tree of data; mix it in before ``Directory``, ``File`` or ``Link``."""

    def __init__(self, context: CommitContext, kind: str, key: bytes | int = b"") -> None:
        self._context = context
        self.txid = context.snapshot.txid
        self.stability = context.stability
        self.inode = context.inode(kind, key)

    @property
    def snapshot(self) -> HeldCommit:
        """The commit."""
        return self._context.snapshot
