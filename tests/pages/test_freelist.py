from __future__ import annotations

import struct
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowfs.errors import CorruptDatabase
from cowfs.pages.freelist import PageSet, parse_free_record, read_free_pages
from tests.support.commands import run
from tests.support.environments import newest, stock

BOUND = st.integers(1, 300)
PAGES = st.sets(st.integers(0, 299), max_size=300) | st.sets(st.integers(0, 299), max_size=40).map(
    set(range(300)).difference
)


def page_set(bound: int, pages: set[int]) -> tuple[PageSet, set[int]]:
    result, model = PageSet(bound), {pgno for pgno in pages if pgno < bound}
    for pgno in model:
        assert result.add(pgno)
        assert not result.add(pgno)
    return result, model


@given(BOUND, PAGES, st.integers(0, 299), st.integers(0, 299))
def test_a_page_set_is_a_set(bound: int, pages: set[int], first: int, last: int) -> None:
    result, model = page_set(bound, pages)
    assert len(result) == len(model)
    assert {pgno for pgno in range(bound + 20) if pgno in result} == model
    first, last = min(first, bound - 1), min(last, bound - 1)
    assert list(result.among(first, last)) == sorted(pgno for pgno in model if first <= pgno <= last)


@given(BOUND, PAGES, PAGES)
def test_a_union_has_what_either_has(bound: int, one: set[int], other: set[int]) -> None:
    (left, left_model), (right, right_model) = page_set(bound, one), page_set(bound, other)
    union = left | right
    assert len(union) == len(left_model | right_model)
    assert set(union.among(0, bound - 1)) == left_model | right_model


@given(BOUND, PAGES, st.integers(0, 299))
def test_gaps_are_the_runs_that_are_missing(bound: int, pages: set[int], start: int) -> None:
    result, model = page_set(bound, pages)
    gaps = list(result.gaps(start))
    missing = [pgno for first, count in gaps for pgno in range(first, first + count)]
    assert missing == [pgno for pgno in range(start, bound) if pgno not in model]
    assert all(first + count < following for (first, count), (following, _count) in pairwise(gaps))


def test_huge_sets_and_gaps_are_quick() -> None:
    pages = PageSet(10_000_000)
    pages.add(5_000_001)
    assert list(pages.gaps(2)) == [(2, 4_999_999), (5_000_002, 4_999_998)]
    assert list(pages.among(4_999_000, 5_001_000)) == [5_000_001]


def test_free_pages_are_those_that_lmdb_lists(tmp_path: Path) -> None:
    """Some thousands of them: the record is on overflow pages."""
    with stock(tmp_path) as env:
        database = env.open_db(b"a")
        for number in range(3):
            with env.begin(write=True, db=database) as txn:
                for key in range(4000):
                    txn.put(b"%d" % key, b"%d" % number * 900)
        with env.begin(write=True) as txn:
            txn.drop(database)
    listed = run("mdb_stat", "-fff", tmp_path).stdout.splitlines()
    expected: set[int] = set()
    for line in listed:
        words = line.replace("[", " ").replace("]", " ").split()
        if words and all(word.isdigit() for word in words):
            expected.update(range(int(words[0]), int(words[0]) + int(words[1] if len(words) > 1 else 1)))
    with newest(tmp_path) as reader:
        free = read_free_pages(reader)
        assert len(free) > 4000
        assert set(free.among(0, reader.root.last_pgno)) == expected


@pytest.mark.parametrize(
    ("key", "value"),
    [
        (b"1234567", struct.pack("<2Q", 1, 5)),
        (b"12345678", b""),
        (b"12345678", b"1234567"),
        (b"12345678", struct.pack("<2QB", 1, 5, 0)),
        (b"12345678", struct.pack("<2Q", 2, 5)),
        (b"12345678", struct.pack("<2Q", 2**64 - 1, 5)),
    ],
)
def test_a_wrong_record_is_named(key: bytes, value: bytes) -> None:
    with pytest.raises(CorruptDatabase, match="page 77: a freelist record of"):
        parse_free_record(key, value, 77)


def test_a_record_may_be_longer_than_its_count() -> None:
    assert list(parse_free_record(b"12345678", struct.pack("<4Q", 2, 9, 5, 2**64 - 1), 77)) == [9, 5]
