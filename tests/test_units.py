"""Durations and amounts of bytes: what people write is read, what is shown can be read again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowfs.errors import InputError
from cowfs.units import bytes_text, duration_text, exact_bytes_text, parse_bytes, parse_duration

_UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0s", 0), ("90s", 90), ("5m", 300), ("1h30m", 5400), ("7d", 604_800), ("2w", 1_209_600), ("1y", 31_557_600)],
)
def test_durations_are_read(text: str, seconds: int) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "m", "5 m", "-5m", "1.5h", "5M", "5m ", "5min", "٣m", "9999999999s", "1h-1m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is no duration like"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("0", 0),
        ("4096", 4096),
        ("12b", 12),
        ("1k", 1024),
        ("64MiB", 64 << 20),
        ("64 MB", 64 << 20),
        ("2G", 2 << 30),
        ("2gib", 2 << 30),
        ("1.5M", 3 << 19),
        ("0.0", 0),
        ("2.0", 2),
        ("0.5k", 512),
        ("1.3 KiB", 1331),
        ("3T", 3 << 40),
        ("999999999999999999", 999_999_999_999_999_999),
        ("9007199254740993k", 9_007_199_254_740_993 << 10),
    ],
)
def test_amounts_are_read_exactly(text: str, count: int) -> None:
    assert parse_bytes(text) == count


@pytest.mark.parametrize("text", ["", "k", "-1", "1e9", "5ib", "5 ", " 5", "1,000", "5KK", "5P", "½", "1_000", "0x10", "1."])
def test_what_is_no_amount_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="is no amount of bytes like"):
        parse_bytes(text)


@pytest.mark.parametrize("text", ["0.5", "1.5", "0.3b", "2.000001 B", "0.0001k", "0.000001 KiB"])
def test_parts_of_a_byte_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="is no whole number of bytes"):
        parse_bytes(text)


@given(st.integers(0, 2**62))
def test_all_four_units_of_a_duration_are_the_whole_of_it(seconds: int) -> None:
    if seconds // 86_400 < 10**9:
        assert parse_duration(duration_text(seconds, parts=4)) == seconds


@given(st.integers(0, 10**12))
def test_a_shown_duration_is_less_by_less_than_its_second_unit(seconds: int) -> None:
    shown = parse_duration(duration_text(seconds))
    unit = 3600 if seconds >= 86_400 else 60 if seconds >= 3600 else 1
    assert seconds - unit < shown <= seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (-5, "0s"),
        (0.9, "0s"),
        (60, "1m"),
        (90, "1m30s"),
        (3600, "1h"),
        (3605, "1h"),
        (273_600, "3d4h"),
        (259_500, "3d"),
    ],
)
def test_durations_are_shown_in_two_units(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@given(st.integers(0, 2**62))
def test_a_shown_amount_is_right_to_a_tenth_of_its_unit(count: int) -> None:
    number, unit = bytes_text(count).split(" ")
    amount = float(number.replace(",", ""))
    assert amount < 1024 or unit == "TiB"
    assert abs(amount * _UNITS[unit] - count) <= (0 if unit == "B" else 0.0501 * _UNITS[unit] + count * 1e-12)
    if unit != "B" and amount < 10**17:
        assert abs(parse_bytes(bytes_text(count).replace(",", "")) - count) <= 0.0501 * _UNITS[unit] + 1 + count * 1e-12


@given(st.integers(0, 2**62))
def test_an_exact_amount_says_every_byte(count: int) -> None:
    assert int(exact_bytes_text(count).split(" ")[0].replace(",", "")) == count


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (1023, "1,023 bytes"),
        (1024, "1,024 bytes (1.0 KiB)"),
        (1_048_575, "1,048,575 bytes (1.0 MiB)"),
        (122_503_168, "122,503,168 bytes (116.8 MiB)"),
        (2 << 30, "2,147,483,648 bytes (2.0 GiB)"),
    ],
)
def test_exact_amounts_as_they_are_shown(count: int, text: str) -> None:
    assert exact_bytes_text(count) == text
