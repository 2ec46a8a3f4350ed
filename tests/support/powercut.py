"""Scenes whose power is cut: ``support.disk`` says what a disk may hold then, and this what must be true of it.

``record`` lets a writer of ``support.cutwriter`` work, and ``disk.cuts`` cuts its power. ``verify`` holds what must be
true of a store, and ``verify_restored`` of a restore.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cowfs.engine.holds import Hold
from cowfs.pages.datafile import DataFile
from cowfs.pages.pagecheck import check_pages
from cowfs.store.history.timeline import Timeline
from cowfs.store.store import Store
from tests.support import churn
from tests.support.commands import cowfs_here, run
from tests.support.cutwriter import RESTORED, Promise
from tests.support.disk import ACKNOWLEDGED, Cut
from tests.support.recorder import NO_FAULTS, Event, Faults, recording

_MANY = 12  # commits: of more, some are looked at


@dataclass(frozen=True)
class Scene:
    """A writer of ``support.cutwriter``: how many commits it makes, how many processes it is, and what of its disk fails."""

    name: str
    commits: int
    writers: int = 1
    faults: Faults = NO_FAULTS

    def record(self, directory: Path, seed: int) -> tuple[list[Event], dict[int, str]]:
        """Let it work below a recorder in ``directory``; return the events, and the model of what was written."""
        return record(self.name, directory, seed, self.commits, self.faults)

    def verify(self, directory: Path, cut: Cut, model: Mapping[int, str]) -> int:
        """Hold that the store in ``directory``, restored there from ``cut``, has lost nothing; return its txid."""
        return verify(directory, cut, model, writers=self.writers, faults=self.faults != NO_FAULTS)


SCENES = (
    Scene("store", 60),
    Scene("two", 40, writers=2),
    Scene("killed", 60),
    Scene("named", 50),
    Scene("full", 80, faults=Faults(room=1_200_000)),
    Scene("meta", 30, faults=Faults(meta=5)),
)


def record(
    scene: str, directory: Path, seed: int, commits: int, faults: Faults = NO_FAULTS
) -> tuple[list[Event], dict[int, str]]:
    """Let a writer work below a recorder in ``directory``; return the events, and the model of what was written."""
    with recording(directory, faults) as recorded:
        run(sys.executable, "-m", "tests.support.cutwriter", scene, recorded.point, str(seed), str(commits))
    events = list(recorded.events())
    lines = b"".join(event.data for event in events if event.name == ACKNOWLEDGED).decode().splitlines()
    return events, {} if scene == "restore" else _model(lines)


def _model(lines: Iterable[str]) -> dict[int, str]:
    """Return what each transaction has left: the items of all writers as they were then."""
    digests: dict[int, str] = {}
    model: dict[int, str] = {}
    for line in sorted(lines, key=lambda line: int(line.split()[0])):
        txid, digest, *_promise = line.split(maxsplit=2)
        digests[_promised(line).writer] = digest
        parts = [part.split(":") for part in digests.values()]
        total = sum(int(part[1], 16) for part in parts) & (1 << 128) - 1
        model[int(txid)] = f"{sum(int(part[0]) for part in parts)}:{total:032x}"
    return model


def _promised(line: str) -> Promise:
    _txid, _digest, *promise = line.split(maxsplit=2)
    return Promise(**json.loads(promise[0])) if promise else Promise()


def verify_restored(directory: Path, cut: Cut, backup: Path) -> int:
    """Hold that below ``directory`` each restored database is whole or not there, and that restoring goes on.

    Return how many were there.
    """
    wanted, found = churn.contents(backup), 0
    for number, (name, options) in enumerate(RESTORED.items(), 1):
        place = directory / name
        there = (place / "data.mdb").exists()
        found += there
        assert there or number not in cut.acknowledged, f"{name} was restored, and is gone"
        assert there or name == "filled" or not place.exists(), f"{name} has its name before it is complete"
        if not there:
            cowfs_here("restore", *options, backup, place)
        churn.require_sound(place)
        assert churn.contents(place) == wanted, name
    left = [str(path) for path in directory.rglob("data.mdb") if path.parent.name not in RESTORED]
    assert left == [], "what the cut has left is not cleared away"
    return found


def verify(directory: Path, cut: Cut, model: Mapping[int, str], *, writers: int = 1, faults: bool = False) -> int:
    """Hold that the store in ``directory``, restored there from ``cut``, has lost nothing; return its txid.

    ``model`` has the digest of what each txid must contain. What the last transaction that had returned has left is there,
    or else one transaction more of each of the ``writers``; `cowfs check` finds nothing; and the store goes on. Where there
    were ``faults`` the older meta page may be damaged until the next commit, and history given up.
    """
    database, last = directory / "db", cut.acknowledged[-1]
    if faults:
        _require_newest_sound(database)
    else:
        churn.require_sound(database / "data.mdb")  # as it lies: LMDB would trust a damaged file, and crash
    txid, digest = churn.contents(database)
    following = [later for later in sorted(model) if later > last][:writers]
    assert txid in (last, *following), f"{txid} found, {last} acknowledged"
    assert digest == model[txid], f"transaction {txid} is not what was written"
    with Store.open(database, "none") as store, store.db() as db:
        assert db.txid == txid
        with store.timeline() as line:
            assert all(event["kind"] == "full" and faults for event in line.events), line.events
            _verify_history(store, line, _promises(cut), model)
        assert store.transact([{":item/key": "after", ":item/text": "the cut"}]).txid > txid
    churn.require_sound(database)
    return txid


def _require_newest_sound(database: Path) -> None:
    """Hold that `cowfs check` finds nothing but, perhaps, that the older meta page is damaged."""
    with DataFile(database) as file:
        older = 1 - (file.newest_root().txnid & 1)
    findings = [finding for finding in churn.findings(database / "data.mdb") if not finding.startswith(f"page {older}: ")]
    assert findings == []


def _promises(cut: Cut) -> list[Promise]:
    """Return the last promise of each writer."""
    return list({promise.writer: promise for promise in map(_promised, cut.lines)}.values())


def _verify_history(store: Store, line: Timeline, promises: Sequence[Promise], model: Mapping[int, str]) -> None:
    """Hold that every root that was promised is retained, that every retained root is whole, and what the names are."""
    for promise in promises:
        oldest = promise.oldest(line.newest)
        assert line.horizon <= oldest, f"{line.horizon} is the oldest of {line.newest}, {oldest} was promised"
        named = {name: snapshot.txid for name, snapshot in line.named.items()}
        assert {name: named.get(name) for name in promise.names} == promise.names
        assert not named.keys() & set(promise.gone)
    retained = list(line)
    assert retained == list(range(line.horizon, line.newest + 1))
    step = -(-len(retained) // _MANY)
    for txid in {*retained[::step], *retained[-2:], *(snapshot.txid for snapshot in line.named.values())}:
        with store.as_of(txid) as db:
            assert churn.digest_in(db) == model[txid], f"retained commit {txid} is not what it was"
            assert isinstance(db.reader, Hold)
            assert list(check_pages(store.env.file, db.reader.root)) == []
