"""``HeldCommit``: one commit, held, with its image and the documents that describe it.

- ``image``: the bytes of its data.mdb;
- ``summary``, the content of ``snapshot.json``: which commit this is: ``txid``, ``instant`` (ISO 8601, UTC), ``pages``,
  ``page_size`` and ``bytes`` of the image, and ``datoms`` when the environment is a cowfs store;
- ``schema``, the content of ``schema.json``: the attributes, in the form that ``cowfs init --schema`` reads; only of a
  cowfs store.

Each JSON document ends in so many spaces that its size is the txid modulo 256: like the padding of an image, it lets rsync,
which goes by size and whole-second mtime, tell two commits of one second apart.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import cached_property

from cowfs.engine.env import Env
from cowfs.engine.holds import Hold
from cowfs.engine.rootrecord import image_of
from cowfs.errors import CowfsError
from cowfs.pages.image import pages_in_use
from cowfs.store.model.values import instant_text
from cowfs.store.read.db import store_at

_SIZES = 256  # enough to tell commits of one second apart, and few enough blanks for a terminal


class HeldCommit:
    """One commit, held by whoever retained it; when the last has released it, its root is let go."""

    def __init__(self, env: Env, hold: Hold) -> None:
        """Take over ``hold``: it is closed when the snapshot is released for the last time, or when this raises."""
        self.root = hold.root
        self.hold = hold
        self._users = 1
        try:
            self.db = store_at(hold, hold.root.txnid)
            self.txid = self.root.txnid if self.db is None else self.db.txid
            self.instant = self._find_instant(env)
        except CowfsError:
            hold.close()
            raise
        self.mtime = int(self.instant.timestamp())
        self.image = image_of(env.file, self.root, self.txid)

    def _find_instant(self, env: Env) -> datetime:
        """Return when the commit was made; a foreign environment does not say, there the file's mtime must do."""
        if self.db is not None and self.db.instant is not None:
            return self.db.instant
        return datetime.fromtimestamp(int(env.file.status().st_mtime), UTC)

    @property
    def used(self) -> bool:
        """Whether anybody beside the history has retained the snapshot."""
        return self._users > 1

    def retain(self) -> HeldCommit:
        """Hold the snapshot once more; each retain needs its release."""
        self._users += 1
        return self

    def release(self) -> None:
        """Give up one hold; with the last one the root is let go."""
        self._users -= 1
        if self._users == 0:
            self.hold.close()

    @cached_property
    def blocks(self) -> int:
        """The pages in use, in units of 512 bytes."""
        return pages_in_use(self.hold) * self.root.page_size // 512

    @cached_property
    def summary(self) -> bytes:
        """The content of ``snapshot.json``."""
        document: dict[str, object] = {
            "txid": self.txid,
            "instant": instant_text(self.instant),
            "pages": self.root.pages,
            "page_size": self.root.page_size,
            "bytes": self.image.size,
        }
        if self.db is not None:
            document["datoms"] = self.db.datom_count
        return _document(document, self.txid)

    @cached_property
    def schema(self) -> bytes | None:
        """The content of ``schema.json``; None when the environment is no cowfs store."""
        return None if self.db is None else _document(self.db.schema.to_json(), self.txid)


def _document(content: object, txid: int) -> bytes:
    """Return ``content`` as JSON, sorted and indented, with the padding that tells two commits apart."""
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False).encode()
    padding = (txid - len(text) - 1) % _SIZES
    return text + b" " * padding + b"\n"
