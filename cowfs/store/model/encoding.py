"""Values as bytes whose order is the order of the values.

An encoding is a tag byte and a body, which says itself where it ends. The order also holds when something follows it that
does not begin with 0xFF, and neither an entity id nor a tag does. Values of different types are in the order of their tags::

    0x02 nil (in tuples only)       no body
    0x10 boolean                    0 or 1
    0x20 long, 0x30 instant         8 bytes, the value + 2**63 (an instant is microseconds since 1970, UTC)
    0x21 bigint                     0x80 + n, n bytes of magnitude (n < 126), or 0xFE, n as 4 bytes, n bytes;
                                    of a negative number the same with every bit turned over
    0x22 double, 0x23 float         IEEE 754, sign bit turned over, of a negative number every bit; one NaN, the last
    0x24 bigdec                     sign (1 negative, 2 negative zero, 3 zero, 4 positive), decimal exponent of the first
                                    digit + 2**63 as 8 bytes, the digits without the zeros at their end, 0 (these with every
                                    bit turned over when negative; a zero has neither), scale + 2**63 as 8 bytes
    0x40 ref                        8 bytes, the entity id
    0x50 string, 0x51 keyword,      UTF-8 with every 0x00 written as 0x00 0xFF, then 0x00
    0x52 symbol, 0x53 uri
    0x60 uuid                       16 bytes
    0x61 bytes                      as a string's
    0x70 tuple                      the encodings of its elements, then 0x00

In a key stands the encoding itself when it has at most 498 bytes, else its first 467 bytes and its 32-byte BLAKE2b digest:
the key value. So equal key values are equal values, and two values whose key values begin with the same 467 bytes are the
only ones that a key may have in another order than their encodings.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import partial
from hashlib import blake2b
from math import isnan
from typing import Any, Final
from uuid import UUID

from cowfs.errors import CorruptDatabase

NIL: Final = 0x02
BOOLEAN: Final = 0x10
LONG: Final = 0x20
BIGINT: Final = 0x21
DOUBLE: Final = 0x22
FLOAT: Final = 0x23
BIGDEC: Final = 0x24
INSTANT: Final = 0x30
REF: Final = 0x40
STRING: Final = 0x50
KEYWORD: Final = 0x51
SYMBOL: Final = 0x52
URI: Final = 0x53
UUID_TAG: Final = 0x60
BYTES: Final = 0x61
TUPLE: Final = 0x70

KEY_VALUE_MAX: Final = 498
KEY_VALUE_PREFIX: Final = 467
KEY_VALUE_DIGESTED: Final = KEY_VALUE_PREFIX + 32

DIGITS_MAX: Final = 100_000  # of a bigdec, so that a damaged one cannot ask for endless zeros

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_BIAS = 2**63
_ALL = 2**64 - 1
_MICROSECOND = timedelta(microseconds=1)
_TAGGED_U64 = struct.Struct(">BQ")
_TAGGED_U32 = struct.Struct(">BI")
_U64 = struct.Struct(">Q")
_U32 = struct.Struct(">I")
_F64 = struct.Struct(">d")
_F32 = struct.Struct(">f")
_TURNED = bytes(255 - byte for byte in range(256))
_LONG_MAGNITUDE = 0xFE


class Ref(int):
    """The id of an entity as a value: an int that says of itself that it is a reference."""

    __slots__ = ()


Scalar = str | bool | int | float | Decimal | datetime | UUID | bytes
Value = Scalar | tuple[Scalar | None, ...]


def key_value(encoding: bytes) -> bytes:
    """Return what stands in a key for a value with this encoding."""
    if len(encoding) <= KEY_VALUE_MAX:
        return encoding
    return encoding[:KEY_VALUE_PREFIX] + blake2b(encoding, digest_size=32).digest()


# -- to bytes ----------------------------------------------------------------------------------------------------


def encode_boolean(value: bool) -> bytes:
    """Encode a boolean."""
    return b"\x10\x01" if value else b"\x10\x00"


def encode_long(value: int) -> bytes:
    """Encode an integer of -2**63 to 2**63-1."""
    return _TAGGED_U64.pack(LONG, value + _BIAS)


def encode_bigint(value: int) -> bytes:
    """Encode an integer of any size."""
    size = (value.bit_length() + 7) // 8
    head = bytes((0x80 + size,)) if 0x80 + size < _LONG_MAGNITUDE else bytes((_LONG_MAGNITUDE,)) + _U32.pack(size)
    body = head + abs(value).to_bytes(size, "big")
    return b"\x21" + (body.translate(_TURNED) if value < 0 else body)


def encode_double(value: float) -> bytes:
    """Encode a double; every NaN becomes the same one."""
    bits: int = _U64.unpack(_F64.pack(value))[0] if not isnan(value) else 0x7FF8 << 48
    return _TAGGED_U64.pack(DOUBLE, bits ^ _ALL if bits >> 63 else bits | _BIAS)


def nearest_float(value: float) -> float:
    """Return the single-precision number nearest to ``value``. Raises ``OverflowError`` when it is too large for one."""
    return float(_F32.unpack(_F32.pack(value))[0])


def encode_float(value: float) -> bytes:
    """Encode the single-precision number nearest to ``value``. Raises ``OverflowError`` when it is too large for one."""
    bits: int = _U32.unpack(_F32.pack(value))[0] if not isnan(value) else 0x7FC0 << 16
    return _TAGGED_U32.pack(FLOAT, bits ^ 0xFFFFFFFF if bits >> 31 else bits | 1 << 31)


def encode_bigdec(value: Decimal) -> bytes:
    """Encode a finite decimal (else ``ValueError``) with its scale, so that 1.0 and 1.00 stay two values."""
    sign, digits, exponent = value.as_tuple()
    scale = _U64.pack(_BIAS - int(exponent))  # "F" or "n" of what is not finite is a ValueError
    if not value:
        return (b"\x24\x02" if sign else b"\x24\x03") + scale
    text = bytes(48 + digit for digit in digits).rstrip(b"0") + b"\0"
    size = _U64.pack(value.adjusted() + _BIAS) + text
    return (b"\x24\x01" + size.translate(_TURNED) if sign else b"\x24\x04" + size) + scale


def encode_micros(micros: int) -> bytes:
    """Encode an instant given as microseconds since 1970, UTC."""
    return _TAGGED_U64.pack(INSTANT, micros + _BIAS)


def encode_ref(entity: int) -> bytes:
    """Encode a reference to an entity."""
    return _TAGGED_U64.pack(REF, entity)


def encode_text(tag: int, value: str) -> bytes:
    """Encode text as the type with this tag. Raises ``UnicodeEncodeError`` on a lone surrogate."""
    return encode_bytes(tag, value.encode())


def encode_bytes(tag: int, value: bytes) -> bytes:
    """Encode bytes (or UTF-8) as the type with this tag."""
    if b"\0" in value:
        value = value.replace(b"\0", b"\0\xff")
    return b"%c%b\0" % (tag, value)


def encode_uuid(value: UUID) -> bytes:
    """Encode a UUID."""
    return b"\x60" + value.bytes


def encode_tuple(elements: Sequence[bytes]) -> bytes:
    """Encode a tuple from the encodings of its elements."""
    return b"\x70" + b"".join(elements) + b"\0"


ENCODED_NIL: Final = bytes((NIL,))


def micros_of(instant: datetime) -> int:
    """Return an aware datetime as microseconds since 1970, UTC."""
    return (instant - EPOCH) // _MICROSECOND


def instant_of(micros: int) -> datetime:
    """Return the UTC datetime at ``micros``. Raises ``OverflowError`` outside of the years 1 to 9999."""
    return EPOCH + timedelta(microseconds=micros)


FIRST_MICRO: Final = micros_of(datetime.min.replace(tzinfo=UTC))
LAST_MICRO: Final = micros_of(datetime.max.replace(tzinfo=UTC))
"""The first and the last instant that can be shown, those of the years 1 to 9999."""


# -- from bytes --------------------------------------------------------------------------------------------------


def decode(encoding: bytes) -> Value:
    """Return the value with this encoding. Raises ``CorruptDatabase`` when it is none."""
    value: Value
    try:
        value, end = _DECODERS[encoding[0]](encoding, 1)
    except (KeyError, IndexError, struct.error, ValueError, ArithmeticError) as error:
        raise CorruptDatabase(f"no value has the encoding {encoding[:40].hex()}") from error
    if end != len(encoding):
        raise CorruptDatabase(f"bytes follow the value in the encoding {encoding[:40].hex()}")
    return value


def encode_again(encoding: bytes) -> bytes:
    """Return the encoding of the value that ``decode`` finds in ``encoding``: the same bytes, unless they are damaged."""
    tag = encoding[0]
    if tag == TUPLE:
        return encode_tuple([encode_again(element) for element in _tuple_encodings(encoding)])
    if tag == NIL:
        return ENCODED_NIL
    return _ENCODERS[tag](decode(encoding))


def _tuple_encodings(encoding: bytes) -> list[bytes]:
    elements, at = [], 1
    while (tag := encoding[at]) != 0:
        end = at + 1 if tag == NIL else _DECODERS[tag](encoding, at + 1)[1]
        elements.append(encoding[at:end])
        at = end
    return elements


def _decode_boolean(data: bytes, at: int) -> tuple[bool, int]:
    return (False, True)[data[at]], at + 1


def _decode_long(data: bytes, at: int) -> tuple[int, int]:
    return _U64.unpack_from(data, at)[0] - _BIAS, at + 8


def _decode_bigint(data: bytes, at: int) -> tuple[int, int]:
    negative = data[at] < 0x80
    size = (255 - data[at] if negative else data[at]) - 0x80
    at += 1
    if size == _LONG_MAGNITUDE - 0x80:
        size = _U32.unpack(_turn(data[at : at + 4], negative))[0]
        at += 4
    magnitude = _turn(data[at : at + size], negative)
    if len(magnitude) != size:
        raise ValueError("cut short")
    number = int.from_bytes(magnitude, "big")
    return (-number if negative else number), at + size


def _decode_double(data: bytes, at: int) -> tuple[float, int]:
    bits = _U64.unpack_from(data, at)[0]
    return _F64.unpack(_U64.pack(bits ^ _BIAS if bits >> 63 else bits ^ _ALL))[0], at + 8


def _decode_float(data: bytes, at: int) -> tuple[float, int]:
    bits = _U32.unpack_from(data, at)[0]
    return _F32.unpack(_U32.pack(bits ^ 1 << 31 if bits >> 31 else bits ^ 0xFFFFFFFF))[0], at + 4


def _decode_bigdec(data: bytes, at: int) -> tuple[Decimal, int]:
    sign = data[at]
    at += 1
    if sign in (2, 3):
        return Decimal((sign == 2, (0,), _BIAS - _U64.unpack_from(data, at)[0])), at + 8
    negative = (4, 1).index(sign)
    first: int = _U64.unpack(_turn(data[at : at + 8], negative))[0] - _BIAS
    end = data.index(b"\xff" if negative else b"\0", at + 8)
    digits = _turn(data[at + 8 : end], negative).decode("ascii")
    exponent = _BIAS - _U64.unpack_from(data, end + 1)[0]
    if not len(digits) <= first - exponent + 1 <= DIGITS_MAX:
        raise ValueError("the scale does not fit the digits")
    whole = digits.ljust(first - exponent + 1, "0")
    return Decimal((negative, tuple(map(int, whole)), exponent)), end + 9


def _decode_instant(data: bytes, at: int) -> tuple[datetime, int]:
    return instant_of(_U64.unpack_from(data, at)[0] - _BIAS), at + 8


def _decode_ref(data: bytes, at: int) -> tuple[Ref, int]:
    return Ref(_U64.unpack_from(data, at)[0]), at + 8


def _decode_bytes(data: bytes, at: int) -> tuple[bytes, int]:
    end = data.index(b"\0", at)
    if data[end + 1 : end + 2] != b"\xff":
        return data[at:end], end + 1
    while data[end + 1 : end + 2] == b"\xff":
        end = data.index(b"\0", end + 2)
    return data[at:end].replace(b"\0\xff", b"\0"), end + 1


def _decode_text(data: bytes, at: int) -> tuple[str, int]:
    raw, end = _decode_bytes(data, at)
    return raw.decode(), end


def _decode_uuid(data: bytes, at: int) -> tuple[UUID, int]:
    return UUID(bytes=data[at : at + 16]), at + 16


def _decode_tuple(data: bytes, at: int) -> tuple[tuple[Scalar | None, ...], int]:
    elements: list[Scalar | None] = []
    while (tag := data[at]) != 0:
        if tag == TUPLE:
            raise ValueError("a tuple in a tuple")
        element, at = (None, at + 1) if tag == NIL else _DECODERS[tag](data, at + 1)
        elements.append(element)
    return tuple(elements), at + 1


def _turn(data: bytes, negative: bool | int) -> bytes:
    return data.translate(_TURNED) if negative else data


_DECODERS: Final[dict[int, Callable[[bytes, int], tuple[Any, int]]]] = {
    BOOLEAN: _decode_boolean,
    LONG: _decode_long,
    BIGINT: _decode_bigint,
    DOUBLE: _decode_double,
    FLOAT: _decode_float,
    BIGDEC: _decode_bigdec,
    INSTANT: _decode_instant,
    REF: _decode_ref,
    STRING: _decode_text,
    KEYWORD: _decode_text,
    SYMBOL: _decode_text,
    URI: _decode_text,
    UUID_TAG: _decode_uuid,
    BYTES: _decode_bytes,
    TUPLE: _decode_tuple,
}

_ENCODERS: Final[dict[int, Callable[[Any], bytes]]] = {
    BOOLEAN: encode_boolean,
    LONG: encode_long,
    BIGINT: encode_bigint,
    DOUBLE: encode_double,
    FLOAT: encode_float,
    BIGDEC: encode_bigdec,
    INSTANT: lambda value: encode_micros(micros_of(value)),
    REF: encode_ref,
    STRING: partial(encode_text, STRING),
    KEYWORD: partial(encode_text, KEYWORD),
    SYMBOL: partial(encode_text, SYMBOL),
    URI: partial(encode_text, URI),
    UUID_TAG: encode_uuid,
    BYTES: partial(encode_bytes, BYTES),
}
