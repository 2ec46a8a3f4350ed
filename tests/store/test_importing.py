"""An import keeps no history of its own batches, and gives up nothing else."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cowfs import Store
from cowfs.cli.importbatches import ByCost, Line
from cowfs.errors import TransactionError
from cowfs.store.batches import Batches
from cowfs.store.batchsize import BatchSize
from cowfs.store.history.retention import Retention
from tests.support import churn
from tests.support.commands import cowfs, cowfs_here

_SCHEMA = {":note/key": {":db/unique": ":db.unique/identity"}}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.create(tmp_path / "db", _SCHEMA, durability="none") as store:
        yield store
    churn.require_sound(tmp_path / "db")


def _forms(batch: int) -> list[dict[str, str]]:
    keys = [f"{(batch * 50 + number) * 7919 % 100_003:06}" for number in range(50)]
    return [{":note/key": key, ":note/text": key * 10} for key in keys]


def _import(store: Store, count: int, *, first: int = 0, keep_history: bool = False) -> None:
    with Batches(store, keep_history=keep_history) as batches:
        for number in range(first, first + count):
            batches.transact(_forms(number))


def _retained(store: Store) -> list[int]:
    with store.timeline() as timeline:
        assert timeline.events == []
        return list(timeline)


def test_batches_into_an_empty_store_use_their_pages_again(store: Store, tmp_path: Path) -> None:
    _import(store, 60)
    assert _retained(store) == [61]
    with Store.create(tmp_path / "kept", _SCHEMA, durability="none") as kept:
        _import(kept, 60, keep_history=True)
        assert _retained(kept) == list(range(1, 62))
        with kept.db() as db:
            datoms = list(db.datoms("eav"))
    churn.require_sound(tmp_path / "kept")
    with store.db() as db:
        assert list(db.datoms("eav")) == datoms
    sizes = [(tmp_path / name / "data.mdb").stat().st_size for name in ("db", "kept")]
    assert sizes[0] < sizes[1] / 5
    store.transact([{":note/text": "after"}])
    store.transact([{":note/text": "after"}])
    assert _retained(store) == [61, 62, 63], "after it every commit is kept, as the bounds say"


def test_n_batches_end_not_much_larger_than_one_transaction(store: Store, tmp_path: Path) -> None:
    """Small batches: each leaves behind, until the one after the next, the pages that it has changed."""
    with Store.create(tmp_path / "one", durability="none") as one:
        one.transact([{":note/text": f"{number:06} " * 100} for number in range(3000)])
    churn.require_sound(tmp_path / "one")
    with Batches(store) as batches:
        for first in range(0, 3000, 20):
            batches.transact([{":note/text": f"{number:06} " * 100} for number in range(first, first + 20)])
    sizes = [(tmp_path / name / "data.mdb").stat().st_size for name in ("db", "one")]
    assert sizes[0] <= 1.3 * sizes[1]


def test_what_a_store_had_before_stays(store: Store) -> None:
    before = store.transact(_forms(1000)).txid
    with store.as_of(before) as db:
        datoms = list(db.datoms("eav"))
    _import(store, 5)
    assert _retained(store) == [1, 2, 3, 4, 5, 6, 7]
    with store.as_of(before) as db:
        assert list(db.datoms("eav")) == datoms


def test_data_that_was_retracted_before_is_history_too(store: Store) -> None:
    report = store.transact([{":db/id": "note", ":note/text": "gone"}])
    store.transact([[":db/retractEntity", report.tempids["note"]]])
    _import(store, 3)
    assert _retained(store) == [1, 2, 3, 4, 5, 6]


def test_a_name_stays(store: Store) -> None:
    store.name("empty", "me")
    _import(store, 3)
    assert _retained(store) == [1, 2, 3, 4, 5]


def test_a_name_that_has_expired_does_not_count(store: Store) -> None:
    store.name("empty", "me", expires=datetime.now(UTC) - timedelta(seconds=1))
    _import(store, 3)
    assert _retained(store) == [5]


def test_what_is_read_stays(store: Store) -> None:
    with store.db() as empty:
        _import(store, 3)
        assert _retained(store) == [1, 2, 3, 4]
        assert list(empty.datoms("eav")) == []


def test_what_another_process_commits_meanwhile_stays(store: Store, tmp_path: Path) -> None:
    with Batches(store) as batches:
        for number in range(3):
            batches.transact(_forms(number))
        for _ in range(2):
            cowfs("transact", tmp_path / "db", stdin='[{"note/text": "by another"}]')
        for number in range(3, 6):
            batches.transact(_forms(number))
    retained = _retained(store)
    assert retained[-1] == 9
    assert {5, 6} <= set(retained), "the commits of the other, and all after them"
    assert retained == list(range(retained[0], 10))
    assert retained[0] >= 3


def test_a_batch_that_fails_changes_nothing(store: Store) -> None:
    with Batches(store) as batches:
        for number in range(3):
            batches.transact(_forms(number))
            with pytest.raises(TransactionError):
                batches.transact([[":db/add", 1]])
        batches.transact(_forms(3))
    assert _retained(store) == [5]


def test_bounds_are_those_of_the_store_again(store: Store) -> None:
    store.transact([{":note/text": "first"}])
    store.retain(Retention(commits=5))
    _import(store, 30)
    assert len(_retained(store)) <= 10, "the batches stay within the bounds"


def _shuffled(count: int) -> list[dict[str, object]]:
    numbers = [number * 7919 % 1_000_003 for number in range(count)]
    return [{":note/key": f"{number:06}", ":note/rank": number * 31 % 1_000_003} for number in numbers]


def _size_in_one(path: Path, lines: list[dict[str, object]]) -> int:
    """Make a store of the lines in one transaction; return how many bytes it has."""
    with Store.create(path, _SCHEMA, durability="none") as one:
        one.transact(lines)
    churn.require_sound(path)
    return (path / "data.mdb").stat().st_size


def test_a_small_import_ends_as_one_transaction_would(tmp_path: Path) -> None:
    lines = _shuffled(3000)
    (tmp_path / "lines").write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    Store.create(tmp_path / "db", _SCHEMA, durability="none").close()
    cowfs_here("import", "--no-sync", tmp_path / "db", tmp_path / "lines")
    churn.require_sound(tmp_path / "db")
    assert (tmp_path / "db" / "data.mdb").stat().st_size <= 1.02 * _size_in_one(tmp_path / "one", lines)


def _by_cost(store: Store, lines: list[dict[str, object]], first: int, total: int | None) -> int:
    """Import the lines in batches, the first one of so many bytes; return how many batches they are."""
    sized = [Line(number, form, len(json.dumps(form))) for number, form in enumerate(lines, 1)]
    count = 0
    with Batches(store) as batches:
        for batch in ByCost(batches.footprint, BatchSize(total, first)).split(iter(sized)):
            batches.transact([line.form for line in batch])
            count += 1
    return count


@pytest.mark.parametrize("known", [True, False])
def test_batches_by_cost_end_not_much_larger_than_one_transaction(store: Store, tmp_path: Path, known: bool) -> None:
    """Scaled down: the first batch has 128 KiB, the import three times as much, its keys in no order."""
    lines = _shuffled(9000)
    total = sum(len(json.dumps(line)) for line in lines)
    assert _by_cost(store, lines, 128 << 10, total if known else None) > 20
    size = (tmp_path / "db" / "data.mdb").stat().st_size
    assert size <= 1.3 * _size_in_one(tmp_path / "one", lines)
    with store.db() as db:
        assert db.datom_count == 2 * len(lines)


def test_a_batch_that_is_asked_for_has_so_many_lines(tmp_path: Path) -> None:
    (tmp_path / "lines").write_text("".join(f"{json.dumps(line)}\n" for line in _shuffled(100)))
    Store.create(tmp_path / "db", _SCHEMA, durability="none").close()
    cowfs_here("import", "--no-sync", "--batch", "7", tmp_path / "db", tmp_path / "lines")
    churn.require_sound(tmp_path / "db")
    with Store.open(tmp_path / "db") as store:
        assert _retained(store) == [1 + 15]
