"""rsync decides by size and whole-second mtime; two commits of one second must not look alike to it."""

from __future__ import annotations

import itertools
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from cowfs import Store
from cowfs.store.history.retention import Retention
from tests.support.commands import run
from tests.support.copies import silent
from tests.support.mounted import Mount, mounted

_TRIES = 40


class _Copied(NamedTuple):
    """What was copied right after a commit: the commit's summary, the backup's, and the files that differ."""

    expected: dict[str, Any]
    found: dict[str, Any]
    stale: list[str]
    mtime: float


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> _Copied:
    """The backup after the second of two commits that one cannot tell apart by their second and page count."""
    directory = tmp_path_factory.mktemp("second")
    database, target = directory / "db", directory / "backup"
    with (
        _seconds_that_last(),
        Store.create(database, {":note/text": {}}, durability="none", retention=Retention(commits=0)) as store,
    ):
        entity = store.transact([{":db/id": -1, ":note/text": "first"}]).tempids[-1]
        for number in range(140):  # so that there are free pages to use again
            store.transact([[":db/add", entity, ":note/text", f"before {number}"]])
        with mounted(database, directory / "mnt") as mount:
            for number in range(_TRIES):
                first = _commit_and_copy(store, mount, target, entity, f"odd-{number:04}")
                second = _commit_and_copy(store, mount, target, entity, f"even{number:04}")
                one, two = first.expected, second.expected
                assert two["txid"] == one["txid"] + 1
                if (one["instant"][:19], one["pages"]) == (two["instant"][:19], two["pages"]):
                    assert first.mtime == second.mtime == int(second.mtime)
                    return second
    raise AssertionError(f"in {_TRIES} tries no two commits were of one second and of equally many pages")


@contextmanager
def _seconds_that_last() -> Iterator[None]:
    """In the block commits of this process are a tenth of a second apart, however fast they are made."""
    count = itertools.count(time.time_ns(), 100_000_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: next(count))
        yield


def test_plain_rsync_copies_the_second_image(copied: _Copied) -> None:
    assert "data.mdb" not in copied.stale


def test_plain_rsync_copies_the_summary_of_the_second_commit(copied: _Copied) -> None:
    assert copied.found == copied.expected
    assert copied.stale == []


def _commit_and_copy(store: Store, mount: Mount, target: Path, entity: int, text: str) -> _Copied:
    """Commit ``text`` and copy ``latest`` with rsync."""
    report = store.transact([[":db/add", entity, ":note/text", text]])
    silent(run("rsync", "-a", mount.latest, f"{target}/"))
    source, copy = mount.snapshot(report.txid), target / "latest"
    summaries = [json.loads((directory / "snapshot.json").read_text()) for directory in (source, copy)]
    assert summaries[0]["txid"] == report.txid
    names = ("data.mdb", "schema.json", "snapshot.json")
    stale = [name for name in names if (source / name).read_bytes() != (copy / name).read_bytes()]
    return _Copied(summaries[0], summaries[1], stale, (source / "data.mdb").stat().st_mtime)
