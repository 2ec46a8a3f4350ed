"""Whatever bytes are on disk: an error of cowfs or none, with bounded reads and memory. The seed is printed."""

from __future__ import annotations

import os
import random
import resource
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from cowfs.engine.env import require_whole
from cowfs.engine.rootrecord import image_of
from cowfs.errors import CowfsError, DatabaseError, EnvironmentFailure
from cowfs.pages.btree import TreeReader
from cowfs.pages.freelist import read_free_pages
from cowfs.pages.image import pages_in_use
from cowfs.pages.pagecheck import check_pages
from tests.support.environments import Counting, write_all_kinds
from tests.support.surgery import Patient

FLIPS = 350  # in each class of page
READS_OF_A_PAGE = 100  # on the average, in one look at a damaged file
MEMORY = 256 << 20  # bytes more than before
CLASSES = [
    "meta",
    "branch",
    "leaf",
    "fixed leaf",
    "freelist",
    "main tree",
    "record",
    "sub-page",
    "overflow header",
    "overflow body",
]


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cowfs.pages.datafile._PATIENCE", ())


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("small") / "env"
    write_all_kinds(path, page_size=1024, scale=24, seed=11)
    return path


@pytest.fixture
def choice(request: pytest.FixtureRequest) -> random.Random:
    seed = int(os.environ.get("COWFS_SEED") or random.randrange(2**32))
    print(f"COWFS_SEED={seed}")
    return random.Random(f"{seed} {request.node.name}")


@contextmanager
def bounded_memory() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_AS)
    with open("/proc/self/statm") as statm:
        now = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + MEMORY, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def read_everything(reader: TreeReader) -> None:
    """Read all that is in plain order, in both directions and by key."""
    for name in [b"", *(name for name, _record in reader.databases())]:
        for reverse in (False, True):
            keys = [key for key, _value in reader.scan(name, reverse=reverse)]
        assert list(reader.keys(name)) == keys[::-1]
        with suppress(EnvironmentFailure):  # of trees in another order
            list(reader.prefixes(name, 1))
        for key in keys[::5]:
            reader.get(name, key)


def read_image(reader: TreeReader) -> None:
    for _chunk in image_of(reader.file, reader.root, 1).chunks():
        pass


READS: list[Callable[[TreeReader], object]] = [read_everything, read_image, read_free_pages, pages_in_use]


def look_at(path: Path) -> bool:
    """Read the file in every way; return whether any damage was found. What check calls sound can be read."""
    try:
        with (counting := Counting(path)) as file:
            reader = TreeReader(file, file.newest_root())
            found = [str(finding) for finding in check_pages(file, reader.root)]
            for read in [lambda reader: require_whole(reader.file), *READS]:
                try:
                    read(TreeReader(file, reader.root))
                except CowfsError as error:
                    assert found or not isinstance(error, DatabaseError), f"check finds nothing, but: {error}"
                assert counting.reads < READS_OF_A_PAGE * file.size() // file.page_size, read
    except DatabaseError:
        return True
    return bool(found)


def flipped(value: int, choice: random.Random) -> int:
    """Return another byte: mostly with one bit changed, sometimes an extreme."""
    return choice.choice([value ^ 1 << choice.randrange(8), value ^ 1 << choice.randrange(8), 0, 0xFF])


@pytest.mark.parametrize("name", CLASSES)
def test_flipped_bytes_end_in_an_error_of_ours(small: Path, damaged: Path, choice: random.Random, name: str) -> None:
    patient = Patient(small)
    places = patient.classes()[name]
    (damaged / "data.mdb").write_bytes(patient.data)
    found = 0
    with open(damaged / "data.mdb", "r+b", buffering=0) as data, bounded_memory():
        for _ in range(FLIPS):
            piece = choice.choice(places)
            changes = {
                choice.choice(piece[:32] if choice.random() < 0.3 else piece) for _ in range(choice.choice([1, 1, 1, 4]))
            }
            for position in changes:
                os.pwrite(data.fileno(), bytes([flipped(patient.data[position], choice)]), position)
            try:
                found += look_at(damaged)
            except Exception:
                print(f"flipped: {sorted(changes)}")
                raise
            for position in changes:
                os.pwrite(data.fileno(), patient.data[position : position + 1], position)
        assert not look_at(damaged), "all is as it was"
    assert found > (0 if name == "overflow body" else FLIPS // 20) or name == "overflow body"


def test_swapped_and_repeated_pages_end_in_an_error_of_ours(small: Path, damaged: Path, choice: random.Random) -> None:
    """Whole pages in the wrong place, with the number of the place: a tree of pages that fit but do not belong."""
    patient = Patient(small)
    (damaged / "data.mdb").write_bytes(patient.data)
    with open(damaged / "data.mdb", "r+b", buffering=0) as data, bounded_memory():
        for _ in range(FLIPS):
            source, target = (choice.randrange(2, patient.root.pages) for _ in range(2))
            page = target.to_bytes(8, "little") + patient.page(source)[8:]
            os.pwrite(data.fileno(), page, patient.at(target))
            look_at(damaged)
            os.pwrite(data.fileno(), patient.page(target), patient.at(target))
        assert not look_at(damaged)


def test_random_pages_end_in_an_error_of_ours(small: Path, damaged: Path, choice: random.Random) -> None:
    patient = Patient(small)
    (damaged / "data.mdb").write_bytes(patient.data)
    with open(damaged / "data.mdb", "r+b", buffering=0) as data, bounded_memory():
        for _ in range(FLIPS):
            target = choice.randrange(2, patient.root.pages)
            kept = choice.choice([8, 12, 16, 64])
            page = patient.page(target)[:kept] + choice.randbytes(patient.page_size - kept)
            os.pwrite(data.fileno(), page, patient.at(target))
            look_at(damaged)
            os.pwrite(data.fileno(), patient.page(target), patient.at(target))
        assert not look_at(damaged)


def test_truncations_end_in_an_error_of_ours(small: Path, damaged: Path, choice: random.Random) -> None:
    content = (small / "data.mdb").read_bytes()
    lengths = [*range(0, len(content), 1024), *(choice.randrange(len(content)) for _ in range(60))]
    with bounded_memory():
        for length in lengths:
            (damaged / "data.mdb").write_bytes(content[:length])
            look_at(damaged)
    (damaged / "data.mdb").write_bytes(content)
    assert not look_at(damaged)
