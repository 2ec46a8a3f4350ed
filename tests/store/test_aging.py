"""What is too old for a bound, by a clock that may have jumped."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from cowfs.store.history.aging import Aging

from .listed import DAY, SECOND, chronology, clocks, right_ones


def test_a_gap_counts_when_the_clock_has_stood() -> None:
    """The bound is a week: 30 commits, an hour apart; then 8 days none, then some more."""
    hour = 3600 * SECOND
    before = [number * hour for number in range(30)]
    jumped = before[-1] + 8 * DAY
    for stood, oldest in ((0, None), (DAY, None), (6 * DAY, 6), (7 * DAY, 31)):
        instants = [*before, *range(jumped, jumped + stood + 1, 6 * hour)]
        aging = Aging(chronology(instants), 7 * 86_400, jumped + stood)
        assert aging.oldest(0) == oldest
        assert [gap.txid for gap in aging.open_gaps] == ([] if oldest == 31 else [31])
        assert (aging.kept_by_gaps(0) > 0) == (oldest != 31)
    assert not aging.dropped_by_gaps(1, 30), "they are old without the gap"
    again = Aging(chronology([*before, jumped, jumped + 8 * DAY]), 7 * 86_400, jumped + 8 * DAY)
    assert again.oldest(0) == 30
    assert again.dropped_by_gaps(1, 29)


def test_without_long_gaps_a_bound_is_what_it_says() -> None:
    hour = 3600 * SECOND
    instants = [number * hour for number in range(100)]
    aging = Aging(chronology(instants), 10 * 3600, instants[-1])
    assert aging.oldest(0) == 90
    assert aging.oldest(89) == 90
    assert aging.oldest(90) is None
    assert not aging.dropped_by_gaps(1, 89)
    assert Aging(chronology(instants), 0, instants[-1]).oldest(0) == 100
    assert Aging(chronology(instants), 2**61, instants[-1]).oldest(0) is None


def oldest_of(instants: list[int], age: int, now: int) -> int | None:
    """Return the oldest commit that a bound of ``age`` seconds wants, by the rule that ``aging`` documents."""
    right = [txid for txid in right_ones(instants) if instants[txid - 1] <= now]
    since = now - age * SECOND
    moments = [*(instants[txid - 1] for txid in right), now] if right else []
    gaps = [end - start for start, end in pairwise(moments) if end > since]
    cutoff = since - sum(gap for gap in gaps if gap > max(age * SECOND // 4, 60 * SECOND))
    return max((txid for txid in right if instants[txid - 1] <= cutoff), default=None)


@given(clocks(), st.integers(-400, 400), st.integers(0, 100))
def test_what_is_kept_is_what_a_list_says(instants: list[int], now: int, age: int) -> None:
    moments = [micros * 100 * SECOND for micros in instants]
    for scale in (1, 1000):
        expected = oldest_of(moments, age * scale, now * 100 * SECOND)
        assert Aging(chronology(moments), age * scale, now * 100 * SECOND).oldest(0) == expected


@given(clocks(), st.integers(0, 300), st.integers(0, 60))
def test_what_a_jump_makes_old_stays_or_is_said(instants: list[int], ahead: int, age: int) -> None:
    moments = [micros * 100 * SECOND for micros in instants]
    now = max(moments)
    jumped = now + max(age * 25, 60) * SECOND + 1 + ahead * SECOND
    before = Aging(chronology(moments), age * 100, now).oldest(0) or 1
    aging = Aging(chronology(moments), age * 100, jumped)
    after = aging.oldest(0) or 1
    if age and after > before:
        assert aging.dropped_by_gaps(before, after - 1)
