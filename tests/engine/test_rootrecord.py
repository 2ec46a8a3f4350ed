"""``RootRecord`` and ``Span`` by themselves: what is packed is parsed, and damage is an error of ours."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cowfs.engine.locktable import NONCE_SIZE
from cowfs.engine.rootrecord import LEVEL_SIZE, RootRecord, Span
from cowfs.errors import CorruptDatabase, NotFound
from cowfs.pages.format import ROOT_SIZE

U64 = st.integers(0, 2**64 - 1)


def gaps_of(edges: list[int]) -> tuple[tuple[int, int], ...]:
    """Make gaps of ascending numbers, not side by side."""
    return tuple((first, last - 1) for first, last in zip(edges[::2], edges[1::2], strict=False))


EDGES = st.sets(st.integers(1, 99), max_size=12).map(sorted)


# -- the span -----------------------------------------------------------------------------------------------------


@given(st.integers(1, 100), st.integers(0, 100), EDGES)
def test_a_span_is_a_set_of_numbers(newest: int, depth: int, edges: list[int]) -> None:
    horizon = max(newest - depth, 0)
    gaps = tuple(gap for gap in gaps_of(edges) if horizon <= gap[1] < newest)
    span = Span(horizon, newest, gaps)
    model = [number for number in range(horizon, newest + 1) if not any(first <= number <= last for first, last in gaps)]
    assert list(span) == model
    assert len(span) == len(model)
    assert [number for number in range(-2, newest + 3) if number in span] == model
    for number in range(-2, newest + 1):
        assert span.first_from(number) == next(member for member in model if member >= number)


# -- the record ---------------------------------------------------------------------------------------------------


@st.composite
def records(draw: st.DrawFn) -> RootRecord:
    horizon = draw(st.integers(0, 2**63))
    return RootRecord(
        nonce=draw(st.binary(min_size=NONCE_SIZE, max_size=NONCE_SIZE).filter(any)),
        horizon=horizon,
        txnid=horizon + draw(st.integers(0, 2**20)),
        counted=draw(U64),
        freed=draw(U64),
        let_go=draw(U64),
        gaps=gaps_of(draw(EDGES)),
        roots=tuple(draw(st.lists(st.binary(min_size=ROOT_SIZE, max_size=ROOT_SIZE), max_size=2))),
        levels=tuple(draw(st.lists(st.binary(min_size=LEVEL_SIZE, max_size=LEVEL_SIZE), max_size=3))),
    )


@given(records())
def test_a_record_is_read_as_it_was_written(record: RootRecord) -> None:
    assert RootRecord.parse(record.pack()) == record


@given(records(), st.data())
def test_a_damaged_record_is_an_error_of_ours_or_another_record(record: RootRecord, data: st.DataObject) -> None:
    packed = bytearray(record.pack())
    if data.draw(st.booleans()):
        packed = packed[: data.draw(st.integers(0, len(packed) - 1))]
    for place in data.draw(st.lists(st.integers(0, max(len(packed) - 1, 0)), max_size=3)) if packed else ():
        packed[place] = data.draw(st.integers(0, 255))
    try:
        found = RootRecord.parse(bytes(packed))
        if found is not None:
            assert RootRecord.parse(found.pack()) == found
            found.find(data.draw(U64))
            found.link_above(data.draw(U64))
    except (CorruptDatabase, NotFound):
        pass


def test_no_record_and_one_of_zeros_are_no_history() -> None:
    assert RootRecord.parse(None) is RootRecord.parse(bytes(300)) is RootRecord.parse(b"") is None
