"""Named snapshots: names for commits that stay until their name is deleted, or expires.

All of them are one record, ``history/names`` in the ``cowfs`` database, JSON by name: ``{"txid": 1042, "instant": when the
name was given, "owner": who gave it, "reason": text or null, "expires": instant or null}``. Name and hold are one commit.
The key says that names belong to this file: a copy does not have the older commits, so it has no names for them.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any, Final

from cowfs import txid as txids
from cowfs.errors import CorruptDatabase, InputError, NameTaken, NotFound, WrongName
from cowfs.pages.reader import Reader
from cowfs.pages.record import OWN_KEYS
from cowfs.pages.writetxn import WriteTxn
from cowfs.store.layout import META, parse_json
from cowfs.store.values import instant_text, parse_instant

NAMES_KEY: Final = OWN_KEYS + b"names"
RESERVED: Final = ("latest", "at", "ago")
_MOST_BYTES: Final = 255


@dataclass(frozen=True, slots=True)
class NamedSnapshot:
    """A name for a commit: who gave it, when and why, and until when it is to stay (None: until it is deleted)."""

    name: str
    txid: int
    instant: datetime
    owner: str
    reason: str | None = None
    expires: datetime | None = None

    def expired(self, now: datetime | None = None) -> bool:
        """Whether its time is over."""
        return self.expires is not None and self.expires <= (now or datetime.now(timezone.utc))


def checked(name: str) -> str:
    """Return ``name`` when a snapshot can have it. Raises ``WrongName`` that says why not."""
    if txids.parse(name) is not None or name.isdigit():
        raise WrongName(f"{name!r} cannot be a snapshot's name: it looks like a txid")
    if name in RESERVED:
        raise WrongName(f"{name!r} cannot be a snapshot's name: the mount uses it itself")
    if not name or name.startswith((".", "-")) or name != name.strip():
        raise WrongName(f"{name!r} cannot be a snapshot's name: it is empty, or begins with a dot, a dash or a blank")
    if "/" in name or not name.isprintable():
        raise WrongName(f"{name!r} cannot be a snapshot's name: a file name has no slash, and a name no control characters")
    if len(name.encode(errors="surrogateescape")) > _MOST_BYTES:
        raise WrongName(f"a snapshot's name has at most {_MOST_BYTES} bytes, this one has {len(name.encode())}")
    return name


def read_named(reader: Reader) -> dict[str, NamedSnapshot]:
    """Return the named snapshots that have not expired, by name, the oldest commit first. Raises ``CorruptDatabase``."""
    now = datetime.now(timezone.utc)
    snapshots = [snapshot for snapshot in _read_all(reader) if not snapshot.expired(now)]
    return {snapshot.name: snapshot for snapshot in sorted(snapshots, key=lambda snapshot: (snapshot.txid, snapshot.name))}


def add(txn: WriteTxn, snapshot: NamedSnapshot) -> None:
    """Add a snapshot. Raises ``NameTaken``."""
    snapshots = read_named(txn)
    if snapshot.name in snapshots:
        raise NameTaken(f"there is a snapshot {snapshot.name!r} already, of txid {snapshots[snapshot.name].txid}")
    _write(txn, {**snapshots, snapshot.name: snapshot})


def remove(txn: WriteTxn, name: str) -> NamedSnapshot:
    """Remove a name, and return what it was. Raises ``NotFound``."""
    snapshots = read_named(txn)
    try:
        removed = snapshots.pop(name)
    except KeyError:
        raise NotFound(f"no snapshot is named {name!r}") from None
    _write(txn, snapshots)
    return removed


def _read_all(reader: Reader) -> list[NamedSnapshot]:
    data = (reader.get(META, NAMES_KEY) or b"").strip(b"\0")  # zeros, in a copy
    if not data:
        return []
    try:
        return [_parsed(name, record) for name, record in parse_json(data, "names").items()]
    except (KeyError, TypeError, AttributeError, InputError) as error:
        raise CorruptDatabase("the store's record of named snapshots is damaged") from error


def _parsed(name: str, record: dict[str, Any]) -> NamedSnapshot:
    expires = record["expires"]
    return NamedSnapshot(
        name,
        int(record["txid"]),
        parse_instant(record["instant"]),
        str(record["owner"]),
        record["reason"],
        None if expires is None else parse_instant(expires),
    )


def _write(txn: WriteTxn, snapshots: dict[str, NamedSnapshot]) -> None:
    document = {}
    for name, snapshot in snapshots.items():
        record = asdict(snapshot)
        del record["name"]
        record["instant"] = instant_text(snapshot.instant)
        record["expires"] = None if snapshot.expires is None else instant_text(snapshot.expires)
        document[name] = record
    txn.put(META, NAMES_KEY, json.dumps(document).encode())
