"""Named snapshots: names for commits that stay until their name is deleted, or expires.

One key a name, ``history/names/`` and the name in UTF-8, in the ``cowfs`` database; the value is JSON: ``{"txid": 1042,
"instant": when the name was given, "owner": who gave it, "reason": text or null, "expires": instant or null}``. So giving,
finding and deleting a name costs the same however many there are. Name and hold are one commit. The keys say that names
belong to this file: a copy does not have the older commits, and shows the values as zeros, which are no names.

An older version kept all of them in one record, ``history/names``, JSON by name. It is read, and taken apart when a name is
given or deleted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final

from cowfs import ids as txids
from cowfs.engine.rootrecord import OWN_KEYS
from cowfs.engine.writetxn import WriteTxn
from cowfs.errors import CorruptDatabase, InputError, NameTaken, NotFound, WrongName
from cowfs.pages.reader import Reader
from cowfs.store.model import clock
from cowfs.store.model.layout import META, parse_json, stop_after
from cowfs.store.model.values import instant_text, parse_instant
from cowfs.units import parse_duration

NAME_KEYS: Final = OWN_KEYS + b"names/"
ONE_RECORD_KEY: Final = OWN_KEYS + b"names"  # of an older version
RESERVED: Final = ("latest", "at", "ago")
_MAX_BYTES: Final = 255

Retained = Callable[[int], bool]
"""Whether the commit of a txid is retained."""
Passed = Callable[[datetime], bool]
"""Whether an instant has passed, for those who give up what it ends: more surely than the clock says it (``aging``)."""


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
        return self.expires is not None and self.expires <= (now or clock.now())

    def pack(self) -> bytes:
        """Return the value under its key."""
        record = asdict(self)
        del record["name"]
        record["instant"] = instant_text(self.instant)
        record["expires"] = None if self.expires is None else instant_text(self.expires)
        return json.dumps(record).encode()


def checked(name: str) -> str:
    """Return ``name`` when a snapshot can have it. Raises ``WrongName`` that says why not."""
    if txids.parse(name) is not None or name.isdigit():
        raise WrongName(f"{name!r} cannot be a snapshot's name: it looks like a txid")
    if name in RESERVED:
        raise WrongName(f"{name!r} cannot be a snapshot's name: the mount uses it itself")
    if _spells_a_time(name):
        raise WrongName(f"{name!r} cannot be a snapshot's name: it spells a time, as in `export --at`; add a word to it")
    if not name or name.startswith((".", "-")) or name != name.strip():
        raise WrongName(f"{name!r} cannot be a snapshot's name: it is empty, or begins with a dot, a dash or a blank")
    if "/" in name or not name.isprintable():
        raise WrongName(f"{name!r} cannot be a snapshot's name: a file name has no slash, and a name no control characters")
    if len(name.encode(errors="surrogateescape")) > _MAX_BYTES:
        raise WrongName(f"a snapshot's name has at most {_MAX_BYTES} bytes, this one has {len(name.encode())}")
    return name


def read_named(reader: Reader) -> dict[str, NamedSnapshot]:
    """Return the named snapshots that have not expired, by name, the oldest commit first. Raises ``CorruptDatabase``."""
    now = clock.now()
    living = {name: snapshot for name, snapshot in _read_all(reader).items() if not snapshot.expired(now)}
    return dict(sorted(living.items(), key=lambda item: (item[1].txid, item[0])))


def read_txids(reader: Reader, without: str | None, passed: Passed) -> Iterator[int]:
    """Yield the txids of the names that have not expired, in no order, the name ``without`` passed over."""
    for name, record in _records(reader):
        with _damage():
            expires = record["expires"]
            txid = int(record["txid"])
            living = expires is None or not passed(parse_instant(expires))
        if living and name != without:
            yield txid


def find(reader: Reader, name: str) -> NamedSnapshot | None:
    """Return what has the name, None when nothing has, or when it has expired. Raises ``CorruptDatabase``."""
    key = _key(name)
    if len(key) > len(NAME_KEYS) + _MAX_BYTES:
        return None
    data = _value(reader.get(META, key))
    snapshot = _parsed(name, parse_json(data, "names")) if data else _read_one_record(reader).get(name)
    return None if snapshot is None or snapshot.expired() else snapshot


def add(txn: WriteTxn, snapshot: NamedSnapshot, retained: Retained) -> None:
    """Add a snapshot. Raises ``NameTaken``; a name whose commit was given up is free."""
    _take_record_apart(txn)
    taken = find(txn, snapshot.name)
    if taken is not None and retained(taken.txid):
        raise NameTaken(f"there is a snapshot {snapshot.name!r} already, of txid {taken.txid}")
    txn.put(META, _key(snapshot.name), snapshot.pack())


def remove(txn: WriteTxn, name: str) -> NamedSnapshot:
    """Remove a name, and return what it was. Raises ``NotFound``."""
    _take_record_apart(txn)
    removed = find(txn, name)
    if removed is None:
        raise NotFound(f"no snapshot is named {name!r}")
    txn.delete(META, _key(name))
    return removed


def sweep(txn: WriteTxn, retained: Retained, passed: Passed) -> list[NamedSnapshot]:
    """Delete the names that name nothing: expired, of a commit that was given up, or left over in a copy.

    Return those that have expired.
    """
    snapshots = _read_all(txn)
    expired = {name: found for name, found in snapshots.items() if found.expires is not None and passed(found.expires)}
    living = {name for name, found in snapshots.items() if name not in expired and retained(found.txid)}
    names = [key[len(NAME_KEYS) :] for key in list(txn.keys(META, NAME_KEYS, stop_after(NAME_KEYS)))]
    for name in names:
        if name.decode(errors="surrogateescape") not in living:
            txn.delete(META, NAME_KEYS + name)
    return list(expired.values())


def _spells_a_time(name: str) -> bool:
    """Whether ``at`` or ``ago`` would take the name for an instant or a duration."""
    for parse in (parse_duration, parse_instant):
        with suppress(InputError, OverflowError):
            parse(name)
            return True
    return False


def _key(name: str) -> bytes:
    return NAME_KEYS + name.encode(errors="surrogateescape")


def _value(data: bytes | None) -> bytes:
    """Return a value under ``history/``, empty where there is none, or only zeros: a copy has them."""
    return (data or b"").strip(b"\0")


def _read_all(reader: Reader) -> dict[str, NamedSnapshot]:
    return {name: _parsed(name, record) for name, record in _records(reader)}


def _read_one_record(reader: Reader) -> dict[str, NamedSnapshot]:
    return {name: _parsed(name, record) for name, record in _in_one_record(reader)}


def _records(reader: Reader) -> Iterator[tuple[str, Any]]:
    """Yield the names, and what is recorded of each."""
    yield from _in_one_record(reader)
    for key, data in reader.scan(META, NAME_KEYS, stop_after(NAME_KEYS)):
        if _value(data):
            yield key[len(NAME_KEYS) :].decode(errors="surrogateescape"), parse_json(data, "names")


def _in_one_record(reader: Reader) -> Iterable[tuple[str, Any]]:
    data = _value(reader.get(META, ONE_RECORD_KEY))
    return parse_json(data, "names").items() if data else ()


def _take_record_apart(txn: WriteTxn) -> None:
    """Give the names in the one record of an older version a key each."""
    if txn.get(META, ONE_RECORD_KEY) is not None:
        for snapshot in _read_one_record(txn).values():
            txn.put(META, _key(snapshot.name), snapshot.pack())
        txn.delete(META, ONE_RECORD_KEY)


def _parsed(name: str, record: Any) -> NamedSnapshot:
    with _damage():
        expires = record["expires"]
        return NamedSnapshot(
            name,
            int(record["txid"]),
            parse_instant(record["instant"]),
            str(record["owner"]),
            record["reason"],
            None if expires is None else parse_instant(expires),
        )


@contextmanager
def _damage() -> Iterator[None]:
    """Raise ``CorruptDatabase`` when what is recorded of a name cannot be read."""
    try:
        yield
    except (KeyError, TypeError, ValueError, InputError) as error:
        raise CorruptDatabase("the store's record of named snapshots is damaged") from error
