"""Value types: what each takes from Python and from JSON, and what it gives back."""

from __future__ import annotations

import json
import math
import struct
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowfs.errors import InputError
from cowfs.store.model.encoding import Ref, decode, encode_double
from cowfs.store.model.schema import Attribute
from cowfs.store.model.values import to_json

UTC = UTC
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


def attribute(kind: str | None, **more: Any) -> Attribute:
    definition = {} if kind is None else {":db/valueType": ":db.type/" + kind}
    return Attribute.parse(1, ":a", definition | {":db/" + key: value for key, value in more.items()})


@pytest.mark.parametrize(
    ("kind", "given", "value", "written"),
    [
        ("string", "a\0b", "a\0b", "a\0b"),
        ("keyword", ":x/y", ":x/y", ":x/y"),
        ("keyword", "y", ":y", ":y"),
        ("symbol", "f", "f", "f"),
        ("uri", "https://x.org/?a=b c", "https://x.org/?a=b c", "https://x.org/?a=b c"),
        ("boolean", True, True, True),
        ("long", -(2**63), -(2**63), -(2**63)),
        ("bigint", 10**100, 10**100, 10**100),
        ("double", 1, 1.0, 1.0),
        ("double", "NaN", math.nan, "NaN"),
        ("double", "-Infinity", -math.inf, "-Infinity"),
        ("double", math.inf, math.inf, "Infinity"),
        ("float", 0.5, 0.5, 0.5),
        ("float", 16777216, 16777216.0, 16777216.0),
        ("float", 2**100, 2.0**100, 2.0**100),
        ("float", 1e-45, 2.0**-149, 2.0**-149),
        ("float", -0.0, -0.0, -0.0),
        ("float", "Infinity", math.inf, "Infinity"),
        ("bigdec", "1.50", Decimal("1.50"), "1.50"),
        ("bigdec", 7, Decimal(7), "7"),
        ("bigdec", Decimal("-0.00"), Decimal("-0.00"), "-0.00"),
        ("bigdec", "1e5", Decimal("1E+5"), "1E+5"),
        ("instant", "2026-01-31T12:00:00Z", NOON, "2026-01-31T12:00:00Z"),
        ("instant", "2026-01-31T12:00", NOON, "2026-01-31T12:00:00Z"),
        ("instant", "2026-01-31T14:30:00+02:30", NOON, "2026-01-31T12:00:00Z"),
        ("instant", "2026-01-31T07:00:00-0500", NOON, "2026-01-31T12:00:00Z"),
        ("instant", "2026-01-31T11:59:00-00:01", NOON, "2026-01-31T12:00:00Z"),
        ("instant", "2026-02-01T11:59:00+23:59", NOON, "2026-01-31T12:00:00Z"),
        ("instant", "2026-01-31", NOON - timedelta(hours=12), "2026-01-31T00:00:00Z"),
        ("instant", "2026-01-31T12:00:00.5Z", NOON + timedelta(seconds=0.5), "2026-01-31T12:00:00.500000Z"),
        ("instant", NOON.astimezone(timezone(timedelta(hours=9))), NOON, "2026-01-31T12:00:00Z"),
        ("instant", "0001-01-01T00:00:00Z", datetime(1, 1, 1, tzinfo=UTC), "0001-01-01T00:00:00Z"),
        ("uuid", "0" * 8 + "-0000-0000-0000-" + "0" * 11 + "F", UUID(int=15), str(UUID(int=15))),
        ("uuid", UUID(int=3), UUID(int=3), str(UUID(int=3))),
        ("bytes", "AAH/", b"\0\1\xff", "AAH/"),
        ("bytes", bytearray(b"x"), b"x", "eA=="),
        ("ref", {":db/id": 7}, 7, {":db/id": 7}),
        ("ref", 7, 7, {":db/id": 7}),
        (None, "x", "x", "x"),
        (None, 2**63, 2**63, 2**63),
        (None, 1.5, 1.5, 1.5),
        (None, False, False, False),
        (None, {"db/id": 9}, 9, {":db/id": 9}),
        (None, Ref(9), 9, {":db/id": 9}),
    ],
)
def test_a_value_goes_in_and_comes_out(kind: str | None, given: Any, value: Any, written: Any) -> None:
    column = attribute(kind)
    found = decode(column.encode(given))
    assert found == value or (math.isnan(value) and isinstance(found, float) and math.isnan(found))
    assert column.takes_tag(column.encode(given)[0])
    assert to_json(found) == written
    assert column.encode(json.loads(json.dumps(to_json(found)))) == column.encode(given)
    assert column.encode(found) == column.encode(given)


@pytest.mark.parametrize(
    ("kind", "given", "line"),
    [
        ("string", 1, "an integer where a string is due"),
        ("string", "\ud800", "a lone surrogate, which is no text"),
        ("keyword", ":", "no keyword"),
        ("keyword", "a b", "no keyword"),
        ("symbol", "", "no symbol"),
        ("boolean", 1, "an integer where a boolean is due"),
        ("long", True, "a boolean where a long is due"),
        ("long", 1.0, "a number with a fraction where a long is due"),
        ("long", 2**63, "out of the range of a long"),
        ("bigint", 2.0, "a number with a fraction where a bigint is due"),
        pytest.param("bigint", 10**4300, "more than 4300 digits", id="huge"),
        ("double", "1", "a string where a double is due"),
        ("double", False, "a boolean where a double is due"),
        ("double", 2**53 + 1, "cannot hold exactly"),
        ("double", 10**400, "out of the range of a double"),
        ("float", 1e300, "out of the range of a float"),
        ("float", 2**200, "out of the range of a float"),
        ("float", 10**400, "out of the range of a float"),
        ("float", 2**24 + 1, "an integer that a float cannot hold exactly"),
        ("float", -(2**24) - 1, "an integer that a float cannot hold exactly"),
        ("float", 2**53 + 1, "an integer that a float cannot hold exactly"),
        ("float", 1e-60, "too near to 0 for a float; :db.type/double takes it"),
        ("float", -1e-60, "too near to 0 for a float"),
        ("float", 2.0**-150, "too near to 0 for a float"),
        ("bigdec", 1.5, "write it as a string to keep every digit"),
        ("bigdec", "1_0", "no decimal number"),
        ("bigdec", "NaN", "no decimal number"),
        ("bigdec", Decimal("Infinity"), "is no bigdec"),
        ("bigdec", True, "a boolean where a bigdec (a string) is due"),
        ("bigdec", "1e9999999999999999999", "out of the range of a bigdec"),
        ("bigdec", Decimal(10**100_000), "more than 100000 digits"),
        ("instant", "yesterday", "no instant"),
        ("instant", "2026-02-30", "no instant (day"),
        ("instant", "2026-01-31T12:00:00.1234567Z", "at most 6 digits"),
        ("instant", "2026-01-31T12:00:00+01:75", "no instant (an offset is at most 23:59)"),
        ("instant", "2026-01-31T12:00:00-0160", "no instant (an offset is at most 23:59)"),
        ("instant", "2026-01-31T12:00:00+24:00", "no instant (an offset is at most 23:59)"),
        ("instant", "2026-01-31T24:00:00Z", "no instant (hour"),
        ("instant", "2026-01-31T23:59:60Z", "no instant (second"),
        ("instant", 5, "an integer where an instant"),
        ("instant", datetime(2026, 1, 1), "without a time zone"),
        ("instant", "0001-01-01T00:00:00+01:00", "years 1 to 9999"),
        ("uuid", "12", "no uuid"),
        ("uuid", 12, "an integer where a uuid"),
        ("bytes", "a", "no base64"),
        ("bytes", 5, "an integer where bytes"),
        ("ref", True, "a boolean where an entity id is due"),
        ("ref", 2**53, "an entity id is 1 to 2**53-1"),
        (None, [1], "a list needs a declared type: declare :db/valueType"),
        (None, math.nan, "nan needs a declared type"),
        (None, NOON, "a datetime needs a declared type"),
    ],
)
def test_a_wrong_value_is_refused_with_the_reason(kind: str | None, given: Any, line: str) -> None:
    with pytest.raises(InputError) as caught:
        attribute(kind).encode(given)
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_tuples_have_the_declared_elements() -> None:
    pair = attribute("tuple", tupleTypes=[":db.type/string", ":db.type/long"])
    assert decode(pair.encode(["a", 1])) == ("a", 1)
    assert to_json(decode(pair.encode(("a", None)))) == ["a", None]
    row = attribute("tuple", tupleType=":db.type/long")
    assert decode(row.encode([3, 1, 2])) == (3, 1, 2)
    assert row.encode([1, 2]) < row.encode([1, 2, 0]) < row.encode([1, 3])


@pytest.mark.parametrize(
    ("given", "line"),
    [
        ("x", "a string where a tuple (a list) is due"),
        (["a"], "a tuple of 2 elements is due, not of 1"),
        (["a", "b"], "a string where a long is due"),
    ],
)
def test_a_wrong_tuple_is_refused(given: Any, line: str) -> None:
    pair = attribute("tuple", tupleTypes=[":db.type/string", ":db.type/long"])
    with pytest.raises(InputError) as caught:
        pair.encode(given)
    assert str(caught.value) == line


def test_a_homogeneous_tuple_has_2_to_8_elements() -> None:
    row = attribute("tuple", tupleType=":db.type/long")
    for size in (1, 9):
        with pytest.raises(InputError, match=f"2 to 8 elements, not {size}"):
            row.encode([0] * size)


def test_elements_of_a_tuple_are_held_to_the_same() -> None:
    pair = attribute("tuple", tupleTypes=[":db.type/float", ":db.type/double"])
    assert decode(pair.encode([0.1, 0.1])) == (struct.unpack("f", struct.pack("f", 0.1))[0], 0.1)
    for wrong in ([2**24 + 1, 0], [1e-60, 0], [0, 2**53 + 1]):
        with pytest.raises(InputError):
            pair.encode(wrong)


@given(st.integers(-(2**130), 2**130) | st.floats(allow_nan=False))
def test_a_float_rounds_decimals_and_nothing_else(number: float) -> None:
    try:
        found = decode(attribute("float").encode(number))
    except InputError:
        assert number != 0
        assert isinstance(number, int) or not 2.0**-149 <= abs(number) < 2.0**128
        return
    assert isinstance(found, float)
    assert (found == 0) == (number == 0)
    assert found == number or (isinstance(number, float) and abs(found - number) <= max(abs(number) * 2**-24, 2.0**-150))


@given(st.integers(-(2**63), 2**64))
def test_an_untyped_integer_is_a_long_as_long_as_it_fits(number: int) -> None:
    encoding = attribute(None).encode(number)
    assert decode(encoding) == number
    assert encoding[0] == (0x20 if number < 2**63 else 0x21)


def test_minus_zero_is_below_zero_and_nan_is_one_value() -> None:
    assert encode_double(-0.0) < encode_double(0.0) < encode_double(5e-324)
    assert encode_double(-math.nan) == encode_double(math.nan) > encode_double(math.inf)
