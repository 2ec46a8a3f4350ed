"""``FileWatch`` sees every write that has returned, each once."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cowfs.engine.filewatch import FileWatch


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "data"
    path.write_bytes(b"before")
    return path


@pytest.fixture
def watch(path: Path) -> Iterator[FileWatch]:
    watch = FileWatch(path)
    yield watch
    watch.close()


def write(path: Path) -> None:
    with open(path, "r+b") as file:
        file.write(b"x")


def replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"other")
    other.replace(path)


CHANGES: list[Callable[[Path], object]] = [
    write,
    replace,
    Path.unlink,
    lambda path: os.truncate(path, 1),
    lambda path: path.rename(path.with_name("other")),
]


@pytest.mark.parametrize("change", CHANGES, ids=("write", "replace", "unlink", "truncate", "rename"))
def test_a_change_is_seen_once(path: Path, watch: FileWatch, change: Callable[[Path], object]) -> None:
    assert not watch.changed()
    change(path)
    assert watch.changed()
    assert not watch.changed()


def test_reading_is_no_change(path: Path, watch: FileWatch) -> None:
    path.read_bytes()
    assert not watch.changed()


def test_one_look_takes_all_that_is_queued(path: Path, watch: FileWatch) -> None:
    """Also when the kernel had to drop events: its queue holds 16,384. Equal ones in a row count as one."""
    for number in range(10000):
        path.chmod(0o600 | number & 1)
        os.truncate(path, 1)
    assert watch.changed()
    assert not watch.changed()
    write(path)
    assert watch.changed()


@pytest.mark.parametrize("writes", [0, 1, 256, 1000])
def test_what_is_skipped_is_not_seen_again_but_what_follows_is(path: Path, watch: FileWatch, writes: int) -> None:
    for number in range(writes):
        path.chmod(0o600 | number & 1)
        os.truncate(path, 1)
    watch.skip()
    assert not watch.changed()
    write(path)
    assert watch.changed()


def test_without_a_watch_everything_counts_as_changed(tmp_path: Path) -> None:
    watch = FileWatch(tmp_path / "missing")
    assert watch.changed()
    watch.skip()
    assert watch.changed()
    watch.close()
