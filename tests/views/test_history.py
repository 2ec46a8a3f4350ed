from __future__ import annotations

from collections.abc import Iterator

import pytest

from cowfs import Store
from cowfs.commits.commits import Commits
from cowfs.commits.held import HeldCommit
from cowfs.commits.observed import ObservedCommits
from cowfs.commits.opened import open_commits
from cowfs.engine.env import Env
from cowfs.errors import EnvironmentFailure, NotFound
from tests.support.commands import cowfs

from .conftest import add, put


@pytest.fixture
def history(store: Store) -> Iterator[Commits]:
    history = ObservedCommits(store.env, keep=3)
    yield history
    history.close()
    assert store.env.readers() == []


def txids(history: Commits) -> list[int]:
    return list(history.txids())


def test_it_begins_with_the_newest_commit(store: Store, history: Commits) -> None:
    with store.db() as db:
        assert txids(history) == [history.newest().txid] == [db.txid]


def test_the_newest_is_seen_at_once_and_older_ones_stay(store: Store, history: Commits) -> None:
    first = history.newest().txid
    added = []
    for number in range(3):
        added.append(add(store, f"item {number}"))
        assert history.newest().txid == added[-1]
        assert history.newest() is history.get(added[-1])
    assert txids(history) == [first, *added]


def test_a_commit_that_nobody_looked_at_has_no_directory(store: Store, history: Commits) -> None:
    missed, seen = add(store, "missed"), add(store, "seen")
    assert txids(history)[1:] == [seen]
    with pytest.raises(NotFound, match=f"no snapshot {missed}"):
        history.get(missed)


def test_a_commit_of_another_process_is_seen_at_once(store: Store, history: Commits) -> None:
    before = history.newest().txid
    cowfs("transact", store.env.path, "-", stdin='[{":item/name": "from elsewhere"}]')
    assert history.newest().txid == before + 1
    assert txids(history) == [before, before + 1]


def test_only_so_many_are_kept(store: Store, history: Commits) -> None:
    for number in range(10):
        last = add(store, f"item {number}")
        history.newest()
    assert txids(history) == list(range(last - 3, last + 1))
    assert len(store.env.readers()) == 1, "one slot holds them all"
    with pytest.raises(NotFound):
        history.get(last - 4)


def test_a_commit_in_use_stays_until_it_is_given_back(store: Store, history: Commits) -> None:
    used = history.get(history.newest().txid).retain().retain()
    image = bytes(image_of(used.image.size, used))
    for number in range(10):
        add(store, f"item {number}")
        history.newest()
    assert txids(history)[0] == used.txid
    assert len(txids(history)) == 5, "the newest, three, and the one in use"
    assert image_of(used.image.size, used) == image
    used.release()
    history.retire()
    assert used.used
    assert used.txid in txids(history)
    used.release()
    history.retire()
    assert used.txid not in txids(history)
    with pytest.raises(NotFound):
        history.get(used.txid)


def image_of(size: int, snapshot: HeldCommit) -> bytes:
    buffer = bytearray(size)
    snapshot.image.readinto(0, memoryview(buffer))
    return bytes(buffer)


def test_a_commit_in_use_outlives_the_history(store: Store) -> None:
    history = ObservedCommits(store.env, keep=1)
    used = history.newest().retain()
    history.close()
    assert len(store.env.readers()) == 1
    assert image_of(100, used)
    used.release()
    assert store.env.readers() == []


def test_commits_of_a_foreign_environment_are_numbered_by_lmdb(foreign: Env) -> None:
    history = open_commits(foreign, keep=5)
    txnids = [history.newest().txid, put(foreign, b"second"), put(foreign, b"third")]
    assert txids(history) == [txnids[0], txnids[2]]
    history.close()


def test_a_replaced_file_is_noticed(store: Store, history: Commits) -> None:
    data = store.env.path / "data.mdb"
    aside = data.rename(data.with_suffix(".aside"))
    with pytest.raises(EnvironmentFailure, match="removed or replaced"):
        history.newest()
    aside.rename(data)
    assert history.newest().txid in txids(history)
