"""How much text the next batch of an import has."""

from __future__ import annotations

from cowfs.store.batchsize import FIRST, BatchSize, Footprint

_USED = 10_000  # pages


def _limits(size: BatchSize, copied: int, *, batches: int = 50) -> list[int]:
    """Return the limit after each of so many batches, which all copy the same number of pages."""
    limits = []
    for _ in range(batches):
        size.committed(size.limit, Footprint(_USED, copied))
        limits.append(size.limit)
    return limits


def test_the_first_batch_is_large_and_takes_the_rest_if_that_is_half_as_much() -> None:
    assert BatchSize(None).limit == FIRST
    assert 1.4 * FIRST < BatchSize(None).whole < 1.6 * FIRST


def test_batches_that_copy_much_get_smaller_but_not_endlessly() -> None:
    limits = _limits(BatchSize(None), _USED // 2)
    assert limits == sorted(limits, reverse=True)
    assert 1000 < limits[-1] < 10_000


def test_batches_that_copy_little_get_larger_but_not_endlessly() -> None:
    limits = _limits(BatchSize(None), 0)
    assert limits == sorted(limits)
    assert limits[0] < limits[-1] == limits[-2] < FIRST / 10


def test_a_batch_copies_a_small_share() -> None:
    """Where the pages that are copied are as many as the text is long, the limit settles at once."""
    size = BatchSize(None)
    size.committed(FIRST, Footprint(_USED, 5))
    for _ in range(20):
        copied = size.limit // 100
        size.committed(size.limit, Footprint(_USED, copied))
    assert 0.02 * _USED < size.limit / 100 < 0.04 * _USED


def test_what_is_to_come_lets_the_first_batches_copy_more() -> None:
    copied = _USED // 5
    far, near = BatchSize(10 * FIRST), BatchSize(FIRST + 1)
    assert _limits(far, copied, batches=3)[-1] > 4 * _limits(near, copied, batches=3)[-1]
