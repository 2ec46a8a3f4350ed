"""Loss of power: ``tests.support.powercut`` says what a disk may hold after it, and what must be true of a store."""

from __future__ import annotations

import os
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from cowfs.errors import CowfsError
from tests.support import churn, disk, powercut
from tests.support.commands import python
from tests.support.recorder import Event, Faults, Kind, recording

_COMMITS = 60
_CUTS = 60
_DATA = "db/data.mdb"
_META_PAGES = 2 * 4096  # bytes

_CHANGES = """
    import mmap, os, sys
    os.chdir(sys.argv[1])
    os.mkdir("d")
    file = os.open("d/file", os.O_RDWR | os.O_CREAT)
    os.write(file, b"x" * 100)
    os.fdatasync(file)
    os.ftruncate(file, 4096)
    with mmap.mmap(file, 4096) as shared:
        shared[1000] = 1
        shared.flush()
    synchronous = os.open("d/file", os.O_WRONLY | os.O_DSYNC)
    os.pwrite(synchronous, b"meta", 1100)
    directory = os.open("d", os.O_RDONLY)
    os.fsync(directory)
    appending = os.open("d/file", os.O_WRONLY | os.O_APPEND)
    os.write(appending, b"end")
    os.rename("d/file", "d/other")
    os.mkdir("e")
    os.rmdir("e")
    """
_RECORDED = (
    "mkdir d", "create d/file", "write d/file 0+100", "sync d/file", "truncate d/file 4096",
    "write d/file 0+4096", "sync d/file",  # msync
    "write d/file 1100+4", "sync d/file",  # O_DSYNC
    "sync_directory d", "write d/file 4096+3", "rename d/file", "mkdir e", "remove e",
)  # fmt: skip

_FEW = 16  # cuts

Recorded = tuple[list[Event], dict[int, str]]


@pytest.fixture(scope="module")
def durable(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    """What a writer with durability "sync" does."""
    return powercut.record("store", tmp_path_factory.mktemp("durable"), seed=31, commits=_COMMITS)


def _verdicts(directory: Path, events: Sequence[Event], model: Mapping[int, str], seed: int) -> Iterator[str]:
    """Cut the power again and again; yield what became of the store each time."""
    for cut in disk.cuts(events, seed, _CUTS):
        cut.restore(directory / "cut")
        try:
            txid = powercut.verify(directory / "cut", cut, model)
        except CowfsError:
            yield "damaged"
        except AssertionError as error:
            yield "stale" if " found, " in str(error) else "damaged"
        else:
            yield "acknowledged" if txid == cut.acknowledged[-1] else "one more"
        shutil.rmtree(directory / "cut", ignore_errors=True)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_loss_of_power_costs_nothing_that_was_acknowledged(durable: Recorded, tmp_path: Path, seed: int) -> None:
    events, model = durable
    assert len(model) == _COMMITS + 1
    found = Counter[bool]()
    for number, cut in enumerate(disk.cuts(events, seed, _CUTS)):
        print(f"seed {seed}, {number}: {cut.describe()}")
        cut.restore(tmp_path / str(number))
        found[powercut.verify(tmp_path / str(number), cut, model) == cut.acknowledged[-1]] += 1
        shutil.rmtree(tmp_path / str(number))
    assert min(found[True], found[False]) > _CUTS // 20, "the power is not cut within commits"


def test_without_syncing_it_may_cost_everything(tmp_path: Path) -> None:
    """So the simulated loss of power does harm: what is said of durability "none" is true."""
    events, model = powercut.record("store-none", tmp_path, seed=32, commits=_COMMITS)
    assert not any(event.kind is Kind.SYNC for event in events)
    found = Counter(_verdicts(tmp_path, events, model, seed=3))
    assert found["damaged"] > _CUTS // 4, found


@pytest.mark.parametrize("scene", powercut.SCENES[1:], ids=lambda scene: scene.name)
def test_a_loss_of_power_costs_nothing(tmp_path: Path, scene: powercut.Scene) -> None:
    events, model = scene.record(tmp_path, 41)
    for number, cut in enumerate(disk.cuts(events, 41, _FEW)):
        print(f"{scene.name} {number}: {cut.describe()}")
        cut.restore(tmp_path / str(number))
        scene.verify(tmp_path / str(number), cut, model)


def test_what_a_failed_commit_has_left_is_on_disk_before_it_is_written_over(tmp_path: Path) -> None:
    """Its meta page may be on disk, though the write failed and was undone: another commit takes the same pages."""
    events, _model = powercut.record("meta", tmp_path, 44, 10, Faults(meta=5))
    data = [event for event in events if event.name == _DATA and event.kind in (Kind.WRITE, Kind.SYNC)]
    failed = [
        number
        for number, (event, undone) in enumerate(pairwise(data))
        if event.kind is undone.kind is Kind.WRITE and event.number == undone.number and len(undone.data) < _META_PAGES // 2
    ]
    assert failed
    for number in failed:
        assert data[number + 2].kind is Kind.SYNC, f"{data[number + 2]} after {data[number]}"


def test_a_loss_of_power_leaves_no_half_restore(tmp_path: Path) -> None:
    churn.create("store", tmp_path / "backup")
    events, _model = powercut.record("restore", tmp_path, 42, 0)
    found = Counter[int]()
    for number, cut in enumerate(disk.cuts(events, 42, _FEW, disk.NOTHING)):
        print(f"{number}: {cut.describe()}")
        cut.restore(tmp_path / str(number))
        found[powercut.verify_restored(tmp_path / str(number), cut, tmp_path / "backup")] += 1
    assert len(found) > 1, "the power is not cut within restores"


def test_a_second_loss_of_power_while_the_first_is_recovered_costs_nothing(durable: Recorded, tmp_path: Path) -> None:
    events, model = durable
    model = model | {txid: churn.Model(31).at(txid).digest for txid in range(max(model), max(model) + 5)}
    firsts = {f"{number}": cut for number, cut in enumerate(disk.cuts(events, 43, 6))}
    for number, cut in firsts.items():
        cut.restore(tmp_path / "backing" / number)
    again, _model = powercut.record("again", tmp_path, 31, 3)
    for number, first in firsts.items():
        below = [
            event._replace(name=event.name.removeprefix(f"{number}/"))
            for event in again
            if event.name.startswith(f"{number}/")
        ]
        for second, cut in enumerate(disk.cuts(below, 43, _FEW // 4, first)):
            print(f"{number} {first.describe()}, {second}: {cut.describe()}")
            cut.restore(tmp_path / f"{number}-{second}")
            powercut.verify(tmp_path / f"{number}-{second}", cut, model)


def _without(events: Sequence[Event], which: str) -> list[Event]:
    """Leave out the syncs of names, of lock.mdb, or of data.mdb behind its meta pages, or behind its other pages."""
    kept, written = [], ""
    for event in events:
        if event.name == _DATA and event.kind is Kind.WRITE:
            written = "meta pages" if event.number < _META_PAGES else "other pages"
        file = written if event.name == _DATA else "lock"
        syncs = {Kind.SYNC: file, Kind.SYNC_DIRECTORY: "names"}.get(event.kind)
        if syncs != which:
            kept.append(event)
    return kept


@pytest.mark.parametrize(
    ("which", "harm"), [("names", "damaged"), ("other pages", "damaged"), ("meta pages", "stale"), ("lock", "damaged")]
)
def test_each_sync_of_a_commit_is_needed(durable: Recorded, tmp_path: Path, which: str, harm: str) -> None:
    events, model = durable
    found = Counter(_verdicts(tmp_path, _without(events, which), model, seed=4))
    assert found[harm] > _CUTS // 20, found


def test_the_recorder_sees_what_a_disk_would(tmp_path: Path) -> None:
    with recording(tmp_path) as recorded:
        python(_CHANGES, recorded.point)
    events = list(recorded.events())
    assert tuple(map(str, events)) == _RECORDED
    assert [event.data for event in events if len(event.data) == 4096] == [
        (b"x" * 100).ljust(1000, b"\0") + b"\1" + bytes(3095)
    ]
    assert [event.data for event in events if len(event.data) in (3, 4)] == [b"meta", b"end"]
    assert not os.path.ismount(recorded.point)


def _left(*after_sync: Event) -> set[bytes]:
    """Return all that may be left of a file with two pages of "-", after more events."""
    before = [
        Event(Kind.CREATE, "file"),
        Event(Kind.SYNC_DIRECTORY, "."),
        Event(Kind.WRITE, "file", 0, b"-" * 8192),
        Event(Kind.SYNC, "file"),
        Event(Kind.WRITE, disk.ACKNOWLEDGED, 0, b"1 digest\n"),
    ]
    events = [*before, *after_sync]
    return {cut.files["file"] for cut in disk.cuts(events, 5, 500) if cut.position == len(events)}


def test_what_is_not_synced_may_be_there_page_by_page_and_sector_by_sector() -> None:
    left = _left(Event(Kind.WRITE, "file", 0, b"a" * 8192), Event(Kind.WRITE, "file", 4096, b"b" * 4096))
    pages = {content[:1] + content[-1:] for content in left}
    assert pages == {b"--", b"-a", b"-b", b"a-", b"aa", b"ab"}
    sectors = {content[at : at + 512] for content in left for at in range(0, 8192, 512)}
    assert sectors == {letter * 512 for letter in (b"-", b"a", b"b")}
    assert any(content[:512] != content[512:1024] for content in left), "no page is torn"


def test_what_is_synced_is_there_and_a_meta_page_is_never_torn() -> None:
    meta = [Event(Kind.WRITE, "file", 32, b"m" * 120), Event(Kind.SYNC, "file")]
    assert _left(*meta) == {b"-" * 32 + b"m" * 120 + b"-" * (8192 - 152)}
    assert {content[32:152] for content in _left(meta[0])} == {b"-" * 120, b"m" * 120}


def test_a_file_may_have_any_size_that_it_had() -> None:
    grown = _left(Event(Kind.TRUNCATE, "file", 9000), Event(Kind.WRITE, "file", 12288, b"x" * 4096))
    assert {len(content) for content in grown} == {8192, 9000, 16384}
    assert {content[8192:12288] for content in grown if len(content) == 16384} == {bytes(4096)}
    shrunk = _left(Event(Kind.TRUNCATE, "file", 5000), Event(Kind.TRUNCATE, "file", 8192))
    assert {content.count(b"-") for content in shrunk} >= {5000, 8192}


def _names_left(*after_sync: Event) -> set[frozenset[str]]:
    """Return all that may be left of the names, when ``kept`` and ``d`` were synced, after more events."""
    before = [
        Event(Kind.CREATE, "kept"),
        Event(Kind.MKDIR, "d"),
        Event(Kind.CREATE, "d/in"),
        Event(Kind.SYNC_DIRECTORY, "d"),
    ]
    events = [*before, Event(Kind.SYNC_DIRECTORY, "."), *after_sync]
    cuts = disk.cuts(events, 6, 500, disk.NOTHING)
    return {frozenset(cut.files) for cut in cuts if cut.position == len(events)}


def test_a_change_of_names_may_be_undone_until_the_directory_is_synced() -> None:
    both, synced = frozenset({"kept", "d/in"}), Event(Kind.SYNC_DIRECTORY, ".")
    renamed, removed = Event(Kind.RENAME, "kept", data=b"new"), Event(Kind.REMOVE, "kept")
    assert _names_left(renamed) == {both, frozenset({"new", "d/in"})}, "never both, never neither"
    assert _names_left(renamed, synced) == {frozenset({"new", "d/in"})}
    assert _names_left(removed) == {both, frozenset({"d/in"})}
    assert _names_left(removed, synced) == {frozenset({"d/in"})}
    directory = Event(Kind.RENAME, "d", data=b"e")
    assert _names_left(directory) == {both, frozenset({"kept", "e/in"})}
    assert _names_left(directory, Event(Kind.SYNC, "e/in"), Event(Kind.SYNC_DIRECTORY, "e")) == _names_left(directory)
