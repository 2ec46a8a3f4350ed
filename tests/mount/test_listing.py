"""A listing gives the entries by number, keeps few of them, and can begin anew."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cowfs import Store
from cowfs.errors import EnvironmentFailure, NotFound
from cowfs.mount import readdir
from cowfs.mount.readdir import Listing
from cowfs.views.node import Attributes, Directory, Entry, Node
from tests.support import churn
from tests.support.mounted import mounted


class Numbers(Directory):
    """A directory of so many files; it counts how many of their entries it has made."""

    inode = 7

    def __init__(self, count: int) -> None:
        self.count = count
        self.made = 0

    def attributes(self) -> Attributes:
        return Attributes(0)

    def child(self, name: str) -> Node:
        raise NotFound(name)

    def entries(self) -> Iterator[Entry]:
        for number in range(self.count):
            self.made += 1
            yield entry(number)


def entry(number: int) -> Entry:
    return Entry(str(number), number + 100, directory=False)


def expected(count: int, number: int) -> Entry | None:
    if number < 2:
        return Entry("." * (number + 1), 7, directory=True)
    return entry(number - 2) if number < count + 2 else None


@settings(deadline=None)
@given(st.integers(0, 60), st.lists(st.integers(0, 70), max_size=30), st.sampled_from([4, 10]))
def test_any_order_of_questions(count: int, numbers: list[int], kept: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(readdir, "_KEPT", kept)
        shown = Listing(Numbers(count))
        assert [shown.entry(number) for number in numbers] == [expected(count, number) for number in numbers]


def test_a_listing_of_a_million_keeps_few_and_makes_each_once() -> None:
    directory = Numbers(1_000_000)
    shown = Listing(directory)
    for number in range(0, 1_000_002, 4000):  # the kernel asks for some again, by less than fit into a request
        assert shown.entry(number) == expected(directory.count, number)
        assert shown.entry(max(number - 4000, 0)) == expected(directory.count, max(number - 4000, 0))
        assert len(shown._kept) < 2 * readdir._KEPT
    assert shown.entry(1_000_002) is None
    assert directory.made == directory.count
    assert shown.entry(0) == expected(directory.count, 0)


def test_a_listing_that_fails_is_not_taken_for_its_end() -> None:
    class Broken(Numbers):
        def entries(self) -> Iterator[Entry]:
            yield entry(0)
            raise NotFound("given up")

    shown = Listing(Broken(1))
    assert shown.entry(2) == entry(0)
    with pytest.raises(EnvironmentFailure, match="cannot be listed"):
        shown.entry(3)


def test_a_large_directory_is_listed_whole_through_the_mount(tmp_path: Path) -> None:
    names = [f"{number:06}@x.org" for number in range(30_000)]
    with Store.create(tmp_path / "db", {":person/email": {":db/unique": ":db.unique/identity"}}, durability="none") as store:
        store.transact([{":person/email": name} for name in names])
    with mounted(tmp_path / "db", tmp_path / "mnt") as mount:
        directory = mount.live / "unique" / "person" / "email"
        assert os.listdir(directory) == [f"{name}.json" for name in names]
    churn.require_sound(tmp_path / "db")
