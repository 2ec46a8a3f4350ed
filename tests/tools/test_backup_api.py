"""``cowfs.check`` and ``cowfs.restore``: what the commands do, from Python."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

import cowfs
from cowfs.backup.reporting import Advance
from cowfs.errors import CorruptDatabase, InputError, InvalidTarget


class _Recorded:
    """Progress, remembered: what was begun, and how much of it was done."""

    def __init__(self) -> None:
        self.lengths: dict[str, int] = {}
        self.done: dict[str, int] = {}

    @contextmanager
    def __call__(self, label: str, length: int) -> Iterator[Advance]:
        self.lengths[label], self.done[label] = length, 0

        def advance(count: int) -> None:
            self.done[label] += count

        yield advance


def _filled(path: Path) -> Path:
    with cowfs.create(path) as store:
        for number in range(20):
            store.transact([{":a/number": number, ":a/text": "x" * 300}])
    return path


def test_a_sound_database_has_a_report(tmp_path: Path) -> None:
    database, progress = _filled(tmp_path / "db"), _Recorded()
    report = cowfs.check(database, progress=progress)
    with cowfs.open(database) as store, store.db() as db:
        assert (report.ok, report.txid, report.datoms) == (True, db.txid, db.datom_count)
    assert progress.lengths == {"pages": report.pages}
    assert 0 < progress.done["pages"] <= report.pages


def test_a_backup_is_restored_with_progress(tmp_path: Path) -> None:
    database, progress = _filled(tmp_path / "db"), _Recorded()
    done = cowfs.restore(database, tmp_path / "new", progress=progress)
    assert sorted(progress.lengths) == ["checking", "restoring"]
    assert progress.done["restoring"] == progress.lengths["restoring"]
    report = cowfs.check(tmp_path / "new")
    assert (report.ok, report.txid) == (True, done.txid)
    assert done.size == (tmp_path / "new" / "data.mdb").stat().st_size


def test_a_damaged_backup_is_refused_with_its_findings(tmp_path: Path) -> None:
    database = tmp_path / "compact"
    cowfs.restore(_filled(tmp_path / "db"), database, compact=True)  # without free pages, whose bytes say nothing
    data = database / "data.mdb"
    content = bytearray(data.read_bytes())
    content[content.rindex(b"x" * 300)] = ord("y")
    data.write_bytes(content)
    found: list[str] = []
    report = cowfs.check(database, on_finding=found.append)
    assert report.findings == tuple(found) != ()
    with pytest.raises(CorruptDatabase, match="nothing was restored") as caught:
        cowfs.restore(database, tmp_path / "new")
    assert caught.value.findings
    assert not (tmp_path / "new").exists()


def test_a_target_that_is_taken_is_refused(tmp_path: Path) -> None:
    database = _filled(tmp_path / "db")
    with pytest.raises(InvalidTarget):
        cowfs.restore(database, database)
    with pytest.raises(InputError, match="compact needs the check"):
        cowfs.restore(database, tmp_path / "new", checked=False, compact=True)
    assert cowfs.check(database).ok
