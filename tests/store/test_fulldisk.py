"""On a full disk, what makes room needs none: deleting a name, lowering a bound; and what cannot be given up is named."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cowfs import Store
from cowfs.engine.writetxn import WriteTxn
from cowfs.errors import DiskFull, NotFound
from cowfs.store.history.retention import Retention
from tests.support import churn


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """A store of 21 commits."""
    with Store.create(tmp_path / "db", durability="none") as store:
        _overwrite(store, 20)
        yield store
    churn.require_sound(tmp_path / "db")


def _overwrite(store: Store, count: int) -> None:
    for number in range(count):
        store.transact([{":db/id": 1, ":note/text": f"{number} " * 500}])


class FullDisk:
    """Lets commits fail, as if there were no room, until the pin is at ``horizon``."""

    def __init__(self, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
        self.horizon = 0
        self.failed = 0
        commit = WriteTxn.commit

        def failing(txn: WriteTxn) -> None:
            pin = store.env._table.pin()
            assert pin is not None
            if pin.txnid < self.horizon:
                self.failed += 1
                raise DiskFull("no space left")
            commit(txn)

        monkeypatch.setattr(WriteTxn, "commit", failing)


def _oldest(store: Store) -> int:
    with store.timeline() as timeline:
        return timeline.horizon


def test_deleting_a_name_makes_its_own_room(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, txid in (("old", 2), ("later", 15)):
        store.name(name, "me", txid=txid)
    disk = FullDisk(store, monkeypatch)
    disk.horizon = 10
    with pytest.raises(DiskFull, match="snapshot 'old' holds txid 2 and what came after it"):
        _overwrite(store, 1)
    assert _oldest(store) == 2
    assert store.unname("old").txid == 2
    assert disk.failed > 1
    with store.timeline() as timeline:
        assert 10 <= timeline.horizon <= 15
        assert list(timeline.named) == ["later"]
        (event,) = timeline.events
        assert (event["kind"], event["first"], event["last"]) == ("full", 1, timeline.horizon - 1)
    disk.horizon = 20
    with pytest.raises(DiskFull, match="snapshot 'later'"):
        _overwrite(store, 1)
    with pytest.raises(NotFound):
        store.unname("old")
    store.unname("later")
    _overwrite(store, 1)


def test_a_name_whose_deletion_failed_is_seen_to_be_gone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.name("mine", "me", txid=5)
    with monkeypatch.context() as patch:
        disk = FullDisk(store, patch)
        disk.horizon = 10**6
        with pytest.raises(DiskFull) as caught:
            store.unname("mine")
        assert "history" not in str(caught.value), "nobody holds any"
    with store.timeline() as timeline:
        assert list(timeline) == [22]
        assert timeline.named == {}
        assert timeline.snapshot("mine") is None
    assert store.name("mine", "me").txid == 22, "the name is free"
    with store.timeline() as timeline:
        assert [(event["kind"], event["first"], event["last"]) for event in timeline.events] == [("full", 1, 21)]
    store.unname("mine")


def test_a_name_that_a_look_deletes_meanwhile_was_deleted(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cowfs.engine.rootlog.LOOK_EVERY", 1)
    store.name("mine", "me", txid=5)
    disk = FullDisk(store, monkeypatch)
    disk.horizon = 10
    assert store.unname("mine").txid == 5
    with store.timeline() as timeline:
        assert timeline.named == {}


def test_lower_bounds_make_their_own_room_and_no_more(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FullDisk(store, monkeypatch)
    disk.horizon = 6
    store.retain(Retention(commits=15))
    assert disk.failed == 1
    assert _oldest(store) == 22 - 15


def test_what_is_read_is_not_given_up_for_a_name(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.name("mine", "me", txid=5)
    disk = FullDisk(store, monkeypatch)
    disk.horizon = 10
    with store.as_of(5) as db:
        with pytest.raises(DiskFull, match="history cannot be given up: this process holds txid 5"):
            store.unname("mine")
        assert db.datom_count == 1
    with store.timeline() as timeline:
        assert list(timeline.named) == ["mine"], "it holds what it did"
        assert timeline.bytes_of_names()["mine"] == 0
        assert timeline.bytes_of_names(on_full_disk=True)["mine"] == timeline.bytes_between(5, timeline.newest) > 0
    store.unname("mine")


def test_a_commit_is_not_given_up_to_name_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FullDisk(store, monkeypatch)
    disk.horizon = 4
    assert store.name("mine", "me", txid=5).txid == 5
    disk.horizon = 10
    with pytest.raises(DiskFull):
        store.name("other", "me", txid=6)
    with store.timeline() as timeline:
        assert (timeline.horizon, list(timeline.named)) == (5, ["mine"])
    disk.horizon = 0


def test_a_name_that_has_expired_holds_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.name("brief", "me", expires=datetime.now(UTC) - timedelta(seconds=1), txid=2)
    disk = FullDisk(store, monkeypatch)
    disk.horizon = 10
    _overwrite(store, 1)
    assert _oldest(store) >= 10


def test_what_a_full_disk_takes_bit_by_bit_is_one_event(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = FullDisk(store, monkeypatch)
    for horizon in range(2, 20):
        disk.horizon = horizon
        _overwrite(store, 1)
    with store.timeline() as timeline:
        assert [(event["kind"], event["first"], event["last"]) for event in timeline.events] == [
            ("full", 1, timeline.horizon - 1)
        ]
