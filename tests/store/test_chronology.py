"""Which commits are misdated, and which one a time finds: held against a list that is gone through commit by commit."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowfs.errors import CorruptDatabase
from cowfs.store.history.chronology import Chronology, Gap, Run
from cowfs.store.model.layout import META, STEPS_KEY
from cowfs.store.model.steps import MAX_STEPS, Steps
from cowfs.store.read.log import pack_row

from .listed import DAY, SECOND, ListedLog, chronology, clocks, right_ones


@given(clocks(), st.integers(-300, 300))
def test_a_time_finds_what_a_list_says(instants: list[int], moment: int) -> None:
    subject, right = chronology(instants), right_ones(instants)
    assert [txid for run in subject.runs for txid in range(run.first, run.last + 1)] == right
    assert right[-1] == len(instants)
    assert [instants[txid - 1] for txid in right] == sorted(instants[txid - 1] for txid in right)
    assert [txid for txid in range(1, len(instants) + 1) if subject.is_misdated(txid)] == sorted(
        set(range(1, len(instants) + 1)) - set(right)
    )
    assert subject.at(moment) == max((txid for txid in right if instants[txid - 1] <= moment), default=None)
    for misdated in subject.misdated:
        assert misdated.first <= misdated.step <= misdated.last + 1
        assert misdated.high > misdated.low == instants[misdated.step - 1]


@given(clocks(), st.integers(-300, 300), st.integers(-300, 300), st.integers(0, 20))
def test_gaps_are_what_a_list_says(instants: list[int], since: int, until: int, longest: int) -> None:
    subject, right = chronology(instants), right_ones(instants)
    seen = [(instants[txid - 1], txid) for txid in right if instants[txid - 1] <= until]
    moments: list[tuple[int, int | None]] = [*seen, (until, None)] if seen else []
    expected = [
        Gap(start, end, txid) for (start, _), (end, txid) in pairwise(moments) if end - start > longest and end > since
    ]
    assert sorted(gap for gap in subject.gaps(since, until, longest) if gap.end > since) == sorted(expected)


@given(
    st.lists(st.integers(1, 10), min_size=2, max_size=30),
    st.data(),
    st.sampled_from([1, -1]),
)
def test_commits_with_a_right_clock_are_found_after_a_glitch(steps: list[int], data: st.DataObject, sign: int) -> None:
    """Ahead or behind for some commits: all others are found at every moment since, up to the commit after them."""
    true = [sum(steps[:number]) for number in range(1, len(steps) + 1)]
    first = data.draw(st.integers(1, len(true) - 1))
    last = data.draw(st.integers(first, len(true) - 1))  # before the newest
    wrong = range(first, last)
    instants = [micros + sign * 1000 * (number in wrong) for number, micros in enumerate(true)]
    subject = chronology(instants)
    right = [number for number in range(len(true)) if number not in wrong]
    for number, following in pairwise([*right, None]):
        end = true[-1] + 50 if following is None else true[following]
        assert {subject.at(moment) for moment in range(true[number or 0], end)} <= {(number or 0) + 1}
    assert [(misdated.first, misdated.last, misdated.was) for misdated in subject.misdated] == (
        [(first + 1, last, "ahead" if sign > 0 else "behind")] if wrong else []
    )


def test_two_readings_of_a_step_back() -> None:
    ahead = chronology([10, 11, 12, 91, 92, 13, 14])
    assert [run[:2] for run in ahead.runs] == [(1, 3), (6, 7)]
    assert chronology([10, 11, 12, 91, 92, 13, 14, *range(20, 100, 5)]).misdated[0][:3] == (4, 5, "ahead")
    assert chronology([10, 11, 12, 91, 92, 13, 14, 200]).misdated[0][:3] == (4, 5, "ahead"), "idle, not jumped"
    behind = chronology([80, 81, 82, 11, 12, 83, 84])
    assert [run[:2] for run in behind.runs] == [(1, 3), (6, 7)]
    assert chronology([80, 81, 82, 11, 12]).misdated[0][:3] == (1, 3, "ahead"), "the newest clock is believed"
    twice = chronology([80, 81, 82, 11, 12, 8, 9, 83, 84])
    assert [run[:2] for run in twice.runs] == [(1, 3), (8, 9)]


def test_commits_without_a_row_count_with_the_next() -> None:
    subject = chronology([None, 10, None, 20, None, None, 5, None, 6, None])
    assert subject.at(4) is None
    assert subject.at(5) == 7
    assert subject.at(100) == 10
    assert subject.dated_from(1) == (7, 5)
    empty = chronology([None, None])
    assert (empty.at(100), empty.ahead_of(0), list(empty.gaps(0, 100, 1)), empty.misdated) == (2, None, [], [])


@given(clocks(), st.sets(st.integers(1, 40), max_size=10), st.integers(-300, 300))
def test_a_record_that_does_not_fit_the_log_is_no_trouble(instants: list[int], steps: set[int], moment: int) -> None:
    log = ListedLog([None if number % 3 == 0 else micros for number, micros in enumerate(instants)])
    log.steps = Steps(0, tuple(sorted(steps)))
    subject = Chronology(log, len(instants))
    assert 0 <= (subject.at(moment) or 0) <= len(instants)
    subject.doubt_after(1, moment)
    list(subject.gaps(moment - 50, moment, 5))
    assert all(misdated.first <= misdated.last for misdated in subject.misdated)


@pytest.mark.parametrize("key", [b"\xff" * 8, b"\xff" * 9, bytes(8), b""])
def test_keys_of_the_log_that_cannot_be_are_corrupt(key: bytes) -> None:
    class _Damaged(ListedLog):
        def scan(self, *_: object, **__: object) -> Iterator[tuple[bytes, bytes]]:
            yield key, pack_row(5, (), ())

    with pytest.raises(CorruptDatabase, match="the log has transaction"):
        Chronology(_Damaged([1, 2, 3]), 3).at(7)


def test_newest_commits_in_the_future_are_seen() -> None:
    now = 10 * DAY
    subject = chronology([now - 2, now - 1, now + 8 * DAY, now + 9 * DAY])
    assert subject.ahead_of(now) == Run(3, 4, now + 9 * DAY)
    assert subject.doubt_after(2, now) == Run(3, 4, now + 9 * DAY)
    assert subject.doubt_after(1, now) is None
    assert chronology([now, now + SECOND]).ahead_of(now) is None, "a small correction"


def test_of_too_many_steps_the_last_are_known() -> None:
    instants = [micros for day in range(100) for micros in (day * DAY + 5 * SECOND, day * DAY + 6 * SECOND, day * DAY)]
    log = ListedLog(instants)
    subject = Chronology(log, len(instants))
    assert len(Steps.parse(log.get(META, STEPS_KEY)).txids) == MAX_STEPS
    for day in range(99 - MAX_STEPS + 2, 99):
        assert subject.at(day * DAY + DAY // 2) == 3 * day + 3, "when the clock had gone back"
    assert subject.at(0) is None, "before that nothing is known"


@pytest.mark.parametrize("data", [b"", b"1234567", Steps(5, (5,)).pack(), Steps(0, (7, 6)).pack(), bytes(8 * 66)])
def test_a_damaged_record_of_steps(data: bytes) -> None:
    with pytest.raises(CorruptDatabase):
        Steps.parse(data)
