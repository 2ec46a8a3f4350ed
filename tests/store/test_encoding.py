"""Encodings: back and forth, and in the order of the values."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cowfs.errors import CorruptDatabase
from cowfs.store.model import encoding as enc

ALPHABET = st.characters(codec="utf-8")
TEXT = st.one_of(
    st.text(ALPHABET, max_size=20),
    st.text("a\0\x01\xff", max_size=6),
    st.builds(lambda head, tail: head * 470 + tail, st.sampled_from("ab\0"), st.text("ab\0", max_size=3)),
)
FLOATS = st.one_of(st.floats(width=32), st.sampled_from([0.0, -0.0, math.inf, -math.inf, math.nan]))
DECIMALS = st.one_of(
    st.decimals(allow_nan=False, allow_infinity=False),
    st.builds(
        lambda sign, digits, exponent: Decimal((sign, tuple(digits), exponent)),
        st.integers(0, 1),
        st.lists(st.integers(0, 9), min_size=1, max_size=4),
        st.integers(-4, 4),
    ),
)


def float_order(value: float) -> tuple[int, float, float]:
    return (1, 0, 0) if math.isnan(value) else (0, value, math.copysign(1, value))


def decimal_order(value: Decimal) -> tuple[Decimal, int, int]:
    sign, _digits, exponent = value.as_tuple()
    return value, -sign if value == 0 else 0, -int(exponent)


def identity(value: Any) -> Any:
    return value


TYPES: dict[str, tuple[st.SearchStrategy[Any], Callable[[Any], bytes], Callable[[Any], Any]]] = {
    "boolean": (st.booleans(), enc.encode_boolean, identity),
    "long": (st.integers(-(2**63), 2**63 - 1), enc.encode_long, identity),
    "bigint": (
        st.one_of(st.integers(), st.integers(-(2**1100), 2**1100), st.sampled_from([0, 255, 256, -255, -256])),
        enc.encode_bigint,
        identity,
    ),
    "double": (st.one_of(st.floats(), FLOATS), enc.encode_double, float_order),
    "float": (FLOATS, enc.encode_float, float_order),
    "bigdec": (DECIMALS, enc.encode_bigdec, decimal_order),
    "instant": (
        st.datetimes(timezones=st.just(UTC)),
        lambda value: enc.encode_micros(enc.micros_of(value)),
        identity,
    ),
    "ref": (st.integers(1, 2**53 - 1), enc.encode_ref, identity),
    "string": (TEXT, lambda value: enc.encode_text(enc.STRING, value), identity),
    "bytes": (st.one_of(st.binary(max_size=9), TEXT.map(str.encode)), lambda v: enc.encode_bytes(enc.BYTES, v), identity),
    "uuid": (st.uuids(), enc.encode_uuid, lambda value: value.bytes),
    "tuple": (
        st.tuples(TEXT, st.integers(-9, 9)),
        lambda v: enc.encode_tuple([enc.encode_text(enc.STRING, v[0]), enc.encode_long(v[1])]),
        identity,
    ),
}


def same(one: Any, other: Any) -> bool:
    if isinstance(one, float):
        return struct.pack(">d", one) == struct.pack(">d", other) or (math.isnan(one) and math.isnan(other))
    if isinstance(one, Decimal):
        one, other = one.as_tuple(), other.as_tuple()
    equal: bool = one == other
    return equal


@pytest.mark.parametrize("name", TYPES)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_every_value_comes_back_and_sorts_as_its_bytes(name: str, data: st.DataObject) -> None:
    values, encode, order = TYPES[name]
    one, other = data.draw(values), data.draw(values)
    encodings = encode(one), encode(other)
    for value, encoding in zip((one, other), encodings, strict=True):
        assert same(enc.decode(encoding), value)
        assert type(enc.decode(encoding)) is type(value) or name == "ref"
        assert enc.encode_again(encoding) == encoding
    assert (encodings[0] < encodings[1]) == (order(one) < order(other))
    assert (encodings[0] == encodings[1]) == (order(one) == order(other))


@pytest.mark.parametrize("name", TYPES)
@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_the_order_holds_when_an_entity_follows(name: str, data: st.DataObject) -> None:
    values, encode, order = TYPES[name]
    one, other = data.draw(values), data.draw(values)
    first, second = encode(one), encode(other)
    followed = (first + (2**53 - 1).to_bytes(8, "big"), second + (1).to_bytes(8, "big"))
    if order(one) != order(other):
        assert (followed[0] < followed[1]) == (order(one) < order(other))


@given(TEXT, TEXT)
def test_equal_key_values_are_equal_values(one: str, other: str) -> None:
    keys = [enc.key_value(enc.encode_text(enc.STRING, text)) for text in (one, other)]
    assert (keys[0] == keys[1]) == (one == other)
    assert max(map(len, keys)) <= enc.KEY_VALUE_DIGESTED


def test_a_key_value_is_digested_above_498_bytes() -> None:
    assert len(enc.key_value(enc.encode_text(enc.STRING, "x" * 496))) == 498
    assert len(enc.key_value(enc.encode_text(enc.STRING, "x" * 497))) == 499
    assert len(enc.key_value(enc.encode_text(enc.STRING, "x" * 9999))) == 499


def test_types_are_told_apart() -> None:
    values = [True, 1, 1.0, "1", b"1", Decimal(1), UUID(int=1), datetime(1970, 1, 1, tzinfo=UTC)]
    encodings = [
        enc.encode_boolean(True),
        enc.encode_long(1),
        enc.encode_double(1.0),
        enc.encode_text(enc.STRING, "1"),
        enc.encode_bytes(enc.BYTES, b"1"),
        enc.encode_bigdec(Decimal(1)),
        enc.encode_uuid(UUID(int=1)),
        enc.encode_micros(0),
    ]
    assert [type(enc.decode(encoding)) for encoding in encodings] == [type(value) for value in values]


@settings(max_examples=300, deadline=None)
@given(
    st.one_of(st.binary(max_size=30), st.builds(lambda t, b: bytes([t]) + b, st.sampled_from(range(2, 0x71)), st.binary()))
)
def test_damage_ends_in_one_error(data: bytes) -> None:
    try:
        value = enc.decode(data)
    except CorruptDatabase as error:
        assert "encoding" in str(error)
    else:
        assert value is not None


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x99",
        b"\x10\x02",
        b"\x20\0",
        b"\x50abc",
        b"\x50\xff\0",
        b"\x50a\0b",
        b"\x70\x70\0\0",
        b"\x70\x20\0",
        b"\x24\x04" + b"\xff" * 8 + b"1\0" + b"\0" * 8,
        b"\x30" + b"\xff" * 8,
        b"\x21\xfe\xff\xff\xff\xff",
        b"\x60abc",
    ],
)
def test_what_no_value_has_is_refused(data: bytes) -> None:
    with pytest.raises(CorruptDatabase):
        enc.decode(data)
