r"""Lines: a datom of a column as text, ``value <tab> entity <tab> tx <newline>``.

The value is text as it is for a string, keyword, symbol or uri, with these escapes, so that a line is a line and a tab is
a tab (``unescape`` is the way back)::

    \\  backslash      \t  tab      \n  newline      \r  carriage return      \xNN  any other byte below 0x20

All others are as in JSON, strings without quotes: numbers, true and false, instants in ISO 8601, uuids, bytes as base64,
of a reference the entity id, and a tuple as one JSON list. The lines are UTF-8; the store holds no lone surrogates, and a
text that is damaged comes out byte for byte.

Here is also what lines take, to the byte, without making them: see ``layout`` for where the store keeps the sum.
"""

from __future__ import annotations

import json
import re
import struct
from bisect import bisect_left
from collections.abc import Callable
from datetime import timedelta
from functools import lru_cache
from math import isfinite
from typing import Any, Final

from cowfs.errors import CorruptDatabase
from cowfs.store.model.encoding import (
    BOOLEAN,
    DOUBLE,
    EPOCH,
    INSTANT,
    KEYWORD,
    LONG,
    REF,
    STRING,
    SYMBOL,
    URI,
    Ref,
    decode,
)
from cowfs.store.model.layout import AID_SIZE, ENTITY_SIZE, TX_SIZE
from cowfs.store.model.values import to_json

Pairs = list[tuple[bytes, bytes]]
"""Entries of ``ave``."""

_BIAS = 2**63
_ALL = 2**64 - 1
_MICROS_OF_DAY = 86_400_000_000
_SECONDS_SIZE = len("2026-01-31T12:00:00Z")
_MICROS_SIZE = len("2026-01-31T12:00:00.000001Z")
_TAGGED_BIAS = (LONG << 64) + _BIAS
_TAGGED_ZERO = REF << 64
_TEXTS: Final = frozenset((STRING, KEYWORD, SYMBOL, URI))
_NUMBER_SIZE = 9  # of the encoding of a long or a reference
_NUMBER_KEY = struct.Struct(">5xQQ")
_ID = struct.Struct(">Q")

_TO_ESCAPE: Final = bytes((*range(0x20), 0x5C))
_ESCAPABLE = re.compile(rb"\x00\xff|[\x00-\x1f\\]")
_ESCAPES: Final = {
    **{bytes((byte,)): b"\\x%02x" % byte for byte in range(0x20)},
    b"\0\xff": b"\\x00",
    b"\t": b"\\t",
    b"\n": b"\\n",
    b"\r": b"\\r",
    b"\\": b"\\\\",
}
_ESCAPED = re.compile(rb"\\(?:([\\tnr])|x([01][0-9a-f]))")
_MEANT: Final = {b"\\": b"\\", b"t": b"\t", b"n": b"\n", b"r": b"\r"}


# -- one line --------------------------------------------------------------------------------------------------------


def line(encoding: bytes, e: int, tx: int) -> bytes:
    """Return the line of a datom. Raises ``CorruptDatabase`` when no value has the encoding."""
    return b"%b\t%d\t%d\n" % (text(encoding), e, tx)


def line_size(encoding: bytes, e: int, tx: int) -> int:
    """Return how many bytes the line of a datom has. Raises ``CorruptDatabase`` when no value has the encoding."""
    return text_size(encoding) + len(f"\t{e}\t{tx}\n")


def text(encoding: bytes) -> bytes:
    """Return the value with this encoding as it stands in a line."""
    tag = encoding[0]
    if tag in _TEXTS:
        return escape(encoding[1:-1])
    if (tag in (LONG, REF)) and len(encoding) == _NUMBER_SIZE:
        number = int.from_bytes(encoding[1:], "big")
        return b"%d" % (number - _BIAS if tag == LONG else number)
    return _plain(decode(encoding))


def text_size(encoding: bytes) -> int:
    """Return how many bytes ``text`` has."""
    tag = encoding[0]
    if STRING <= tag <= URI:
        size = len(encoding) - 2
        if len(encoding.translate(None, _TO_ESCAPE)) == size + 1:  # only the 0 at its end
            return size
        return len(escape(encoding[1:-1]))
    if tag == LONG and len(encoding) == _NUMBER_SIZE:
        return len(str(int.from_bytes(encoding, "big") - _TAGGED_BIAS))
    if tag == REF and len(encoding) == _NUMBER_SIZE:
        return len(str(int.from_bytes(encoding, "big") - _TAGGED_ZERO))
    if tag == INSTANT and len(encoding) == _NUMBER_SIZE:
        return _SECONDS_SIZE if (int.from_bytes(encoding[1:], "big") - _BIAS) % 1_000_000 == 0 else _MICROS_SIZE
    if tag == BOOLEAN:
        return 4 if encoding[-1] else 5
    return len(text(encoding))


def escape(body: bytes) -> bytes:
    """Return a text, from between tag and end of its encoding, with its escapes."""
    return _ESCAPABLE.sub(_escape, body) if len(body.translate(None, _TO_ESCAPE)) < len(body) else body


def unescape(written: bytes) -> bytes:
    """Return the UTF-8 of the text that stands in a line as ``written``."""
    return _ESCAPED.sub(_unescape, written)


def _escape(found: re.Match[bytes]) -> bytes:
    return _ESCAPES[found.group()]


def _unescape(found: re.Match[bytes]) -> bytes:
    letter, number = found.groups()
    return _MEANT[letter] if letter else bytes((int(number, 16),))


def _plain(value: Any) -> bytes:
    if isinstance(value, Ref):
        return b"%d" % value
    try:
        form = to_json(value)
        written = form if isinstance(form, str) else json.dumps(form, ensure_ascii=False, separators=(",", ":"))
        return written.encode()
    except ValueError:  # more digits than Python writes, or than the store takes
        raise CorruptDatabase("a number of more than 4300 digits") from None


# -- many lines ------------------------------------------------------------------------------------------------------


def lines(pairs: Pairs) -> bytes:
    """Return the lines of entries with short keys; fast when all values are of one common type."""
    keys, txs = _keys_and_txs(pairs)
    values = _value_lines.get(_tag(keys))
    if values is not None:
        return values(keys, txs)
    number = int.from_bytes
    return b"".join(
        [
            line(key[AID_SIZE:-ENTITY_SIZE] or b"\0", number(key[-ENTITY_SIZE:], "big"), tx)
            for key, tx in zip(keys, txs, strict=True)
        ]
    )


def lines_size(pairs: Pairs) -> int:
    """Return how many bytes ``lines`` has, mostly without making them."""
    keys, txs = _keys_and_txs(pairs)
    values = _value_sizes.get(_tag(keys))
    if values is None:
        return len(lines(pairs))
    entities = [e for (e,) in _ID.iter_unpack(b"".join([key[-ENTITY_SIZE:] for key in keys]))]
    return values(keys) + _digits(entities) + _digits(txs) + len("\t\t\n") * len(keys)


def _keys_and_txs(pairs: Pairs) -> tuple[list[bytes], list[int]]:
    keys, data = [key for key, _tx in pairs], [tx for _key, tx in pairs]
    if min(map(len, keys)) <= AID_SIZE + ENTITY_SIZE or {*map(len, data)} != {TX_SIZE}:
        raise CorruptDatabase("ave has an entry without a value, or without a transaction")
    return keys, [tx for (tx,) in _ID.iter_unpack(b"".join(data))]


def _tag(keys: list[bytes]) -> int | None:
    """Return the tag that all values have; None when they have several."""
    return keys[0][AID_SIZE] if keys[0][: AID_SIZE + 1] == keys[-1][: AID_SIZE + 1] else None


# -- lines of values of one type -------------------------------------------------------------------------------------


def _numbers(keys: list[bytes]) -> list[tuple[int, int]]:
    """Return (value, entity) of keys whose values have 8 bytes."""
    if len(keys[0]) != _NUMBER_KEY.size or len(set(map(len, keys))) > 1:
        raise CorruptDatabase("ave has a number of another size")
    return list(_NUMBER_KEY.iter_unpack(b"".join(keys)))


def _long_lines(keys: list[bytes], txs: list[int]) -> bytes:
    return "".join([f"{v - _BIAS}\t{e}\t{tx}\n" for (v, e), tx in zip(_numbers(keys), txs, strict=True)]).encode()


def _ref_lines(keys: list[bytes], txs: list[int]) -> bytes:
    return "".join([f"{v}\t{e}\t{tx}\n" for (v, e), tx in zip(_numbers(keys), txs, strict=True)]).encode()


def _double_lines(keys: list[bytes], txs: list[int]) -> bytes:
    numbers = _numbers(keys)
    bits = [v ^ _BIAS if v >> 63 else v ^ _ALL for v, _e in numbers]
    values = struct.unpack(f">{len(bits)}d", struct.pack(f">{len(bits)}Q", *bits))
    rows = zip(values, numbers, txs, strict=True)
    return "".join([f"{v if isfinite(v) else to_json(v)}\t{e}\t{tx}\n" for v, (_v, e), tx in rows]).encode()


def _instant_lines(keys: list[bytes], txs: list[int]) -> bytes:
    rows = zip(_numbers(keys), txs, strict=True)
    try:
        return "".join([f"{_instant(v - _BIAS)}\t{e}\t{tx}\n" for (v, e), tx in rows]).encode()
    except OverflowError:
        raise CorruptDatabase("ave has an instant outside of the years 1 to 9999") from None


def _instant(micros: int) -> str:
    """Return what ``instant_text`` does; in the order of values the date is mostly that of the one before."""
    day, rest = divmod(micros, _MICROS_OF_DAY)
    seconds, fraction = divmod(rest, 1_000_000)
    minutes, second = divmod(seconds, 60)
    hour, minute = divmod(minutes, 60)
    decimals = f".{fraction:06}" if fraction else ""
    return f"{_date(day)}T{hour:02}:{minute:02}:{second:02}{decimals}Z"


@lru_cache(maxsize=1)
def _date(day: int) -> str:
    return (EPOCH + timedelta(days=day)).date().isoformat()


def _text_lines(keys: list[bytes], txs: list[int]) -> bytes:
    bodies = [key[AID_SIZE + 1 : -ENTITY_SIZE - 1] for key in keys]
    if _escapes_in(bodies):
        bodies = [escape(body) for body in bodies]
    entities = _ID.iter_unpack(b"".join([key[-ENTITY_SIZE:] for key in keys]))
    return b"".join([b"%b\t%d\t%d\n" % (body, e, tx) for body, (e,), tx in zip(bodies, entities, txs, strict=True)])


def _escapes_in(bodies: list[bytes]) -> bool:
    whole = b"".join(bodies)
    return len(whole.translate(None, _TO_ESCAPE)) < len(whole)


_value_lines: Final[dict[int | None, Callable[[list[bytes], list[int]], bytes]]] = {
    LONG: _long_lines,
    REF: _ref_lines,
    DOUBLE: _double_lines,
    INSTANT: _instant_lines,
    **dict.fromkeys(_TEXTS, _text_lines),
}

# -- and how many bytes the values take in them ----------------------------------------------------------------------


def _digits(numbers: list[int]) -> int:
    """Return how many characters the numbers have, written in decimal."""
    ordered = sorted(numbers)
    if ordered[0] < 0:
        return sum(map(len, map(str, ordered)))
    least, most = len(str(ordered[0])), len(str(ordered[-1]))
    return least * len(ordered) + sum(len(ordered) - bisect_left(ordered, 10**digits) for digits in range(least, most))


def _long_sizes(keys: list[bytes]) -> int:
    return _digits([v - _BIAS for v, _e in _numbers(keys)])


def _ref_sizes(keys: list[bytes]) -> int:
    return _digits([v for v, _e in _numbers(keys)])


def _instant_sizes(keys: list[bytes]) -> int:
    fractions = sum((v - _BIAS) % 1_000_000 != 0 for v, _e in _numbers(keys))
    return _SECONDS_SIZE * (len(keys) - fractions) + _MICROS_SIZE * fractions


def _text_sizes(keys: list[bytes]) -> int:
    bodies = [key[AID_SIZE + 1 : -ENTITY_SIZE - 1] for key in keys]
    return sum(map(len, map(escape, bodies) if _escapes_in(bodies) else bodies))


_value_sizes: Final[dict[int | None, Callable[[list[bytes]], int]]] = {
    LONG: _long_sizes,
    REF: _ref_sizes,
    INSTANT: _instant_sizes,
    **dict.fromkeys(_TEXTS, _text_sizes),
}
