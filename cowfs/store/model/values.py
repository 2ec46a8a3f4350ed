"""Value types: what each takes, from Python or from JSON, and what a value looks like in JSON.

A type's ``encode`` takes the Python value or its JSON form and returns the encoding; it raises ``InputError`` with the
reason only, the caller knows form and attribute. ``to_json`` is the exact inverse of what ``encode`` takes from JSON::

    string, keyword, symbol, uri, uuid      a string               instant   ISO 8601, in UTC unless it says otherwise
    boolean, long, bigint                   true, 42               bigdec    a string, "1.50"
    double, float                           a number, or "NaN", "Infinity", "-Infinity"
    bytes                                   base64                 tuple     a list         ref   {":db/id": 42}

A double or a float rounds decimals. It refuses an integer that it cannot hold exactly, and what is out of its range or
would become 0.

An attribute without a declared type takes what JSON itself can tell apart: strings, integers (long, beyond 64 bits bigint),
finite doubles, booleans, and references as {":db/id": n}.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal, InvalidOperation
from typing import Any, Final
from uuid import UUID

from cowfs.errors import InputError
from cowfs.escaping import escaped
from cowfs.store.model.encoding import (
    BYTES,
    DIGITS_MAX,
    ENCODED_NIL,
    FIRST_MICRO,
    KEYWORD,
    LAST_MICRO,
    STRING,
    SYMBOL,
    URI,
    Ref,
    Value,
    encode_bigdec,
    encode_bigint,
    encode_boolean,
    encode_bytes,
    encode_double,
    encode_float,
    encode_long,
    encode_micros,
    encode_ref,
    encode_text,
    encode_tuple,
    encode_uuid,
    micros_of,
    nearest_float,
)

MAX_ENTITY: Final = 2**53 - 1  # exact in every reader of JSON
MAX_CHOSEN: Final = 2**52  # above it only the store gives ids
ID: Final = ":db/id"
ID_KEYS: Final = (ID, "db/id")  # as a key in a map

Encoder = Callable[[object], bytes]

_LONG_LIMIT = 2**63
_BIGINT_BITS = 14_283  # 4300 decimal digits, the most that Python's json writes and reads
_MAX_ELEMENTS = 8
_SHOWN = 60  # characters of a value in an error
_NUMBER = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?")
_ISO_8601 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d+))?)?(?:([Zz])|([+-])(\d\d):?(\d\d))?)?", re.ASCII
)
_NOT_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_WRONG_IN_NAMES = re.compile(r"[\s\x00-\x1f\x7f]")


def describe(value: object) -> str:
    """Say what kind of thing ``value`` is, in JSON's words, for an error."""
    names: list[tuple[type | tuple[type, ...], str]] = [
        (type(None), "null"),
        (bool, "a boolean"),
        (int, "an integer"),
        (float, "a number with a fraction"),
        (str, "a string"),
        ((list, tuple), "a list"),
        (dict, "a map"),
    ]
    return next((name for kind, name in names if isinstance(value, kind)), f"a {type(value).__name__}")


def to_json(value: Value | None) -> Any:
    """Return the JSON form of a value, as ``json.dumps`` takes it."""
    if isinstance(value, Ref):
        return {ID: int(value)}
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else _name_of(value)
    if isinstance(value, datetime):
        return instant_text(value)
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    if isinstance(value, tuple):
        return [to_json(element) for element in value]
    return str(value)


def shown(value: Value | None) -> str:
    """Return a value as JSON for an error, cut to what a line can bear."""
    return one_line(json.dumps(to_json(value), ensure_ascii=False), _SHOWN)


def one_line(text: str, limit: int) -> str:
    """Return the beginning of a text so that any terminal can print it on one line."""
    return escaped(text if len(text) <= limit else text[:limit] + "…")


def _name_of(value: float) -> str:
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def instant_text(instant: datetime) -> str:
    """Return a UTC datetime in ISO 8601 with a Z, with a fraction only where it has one."""
    return instant.replace(tzinfo=None).isoformat() + "Z"


def encode_untyped(value: object) -> bytes:
    """Encode a value of an attribute without a declared type (references are the transaction's business)."""
    if isinstance(value, Ref):
        return _ref(value)
    if isinstance(value, bool):
        return encode_boolean(value)
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, int):
        return encode_long(value) if -_LONG_LIMIT <= value < _LONG_LIMIT else _bigint(value)
    if isinstance(value, float) and math.isfinite(value):
        return encode_double(value)
    if isinstance(value, dict) and value.keys() <= {ID, "db/id"} and value:
        return _ref(next(iter(value.values())))
    what = str(value) if isinstance(value, float) else describe(value)
    raise InputError(f"{what} needs a declared type: declare :db/valueType")


def tuple_encoder(types: Sequence[str], *, homogeneous: bool) -> Encoder:
    """Return the encoder of tuples with elements of these types, or with 2 to 8 elements of the one type given."""
    encoders = [ENCODERS[name] for name in types]

    def encode(value: object) -> bytes:
        if not isinstance(value, list | tuple):
            raise InputError(f"{describe(value)} where a tuple (a list) is due")
        elements = encoders * len(value) if homogeneous else encoders
        if homogeneous and not 2 <= len(value) <= _MAX_ELEMENTS:
            raise InputError(f"a tuple has 2 to {_MAX_ELEMENTS} elements, not {len(value)}")
        if len(elements) != len(value):
            raise InputError(f"a tuple of {len(elements)} elements is due, not of {len(value)}")
        return encode_tuple([ENCODED_NIL if v is None else e(v) for e, v in zip(elements, value, strict=True)])

    return encode


def _wanted(what: str, value: object) -> InputError:
    return InputError(f"{describe(value)} where {what} is due")


def _boolean(value: object) -> bytes:
    if not isinstance(value, bool):
        raise _wanted("a boolean", value)
    return encode_boolean(value)


def _integer(what: str, value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _wanted(what, value)
    return value


def _long(value: object) -> bytes:
    number = _integer("a long", value)
    if not -_LONG_LIMIT <= number < _LONG_LIMIT:
        raise InputError("out of the range of a long (64 bits); :db.type/bigint takes it")
    return encode_long(number)


def _bigint(value: object) -> bytes:
    number = _integer("a bigint", value)
    if number.bit_length() > _BIGINT_BITS:
        raise InputError("more than 4300 digits, which JSON readers refuse")
    return encode_bigint(number)


def _double(value: object) -> bytes:
    return encode_double(_number("a double", value))


def _float(value: object) -> bytes:
    number = _number("a float", value)
    try:
        kept = nearest_float(number)
    except OverflowError:
        raise InputError("out of the range of a float; :db.type/double takes it") from None
    if isinstance(value, int) and kept != value:
        raise InputError("an integer that a float cannot hold exactly; :db.type/double takes it")
    if kept == 0 != number:
        raise InputError("too near to 0 for a float; :db.type/double takes it")
    return encode_float(kept)


def _number(what: str, value: object) -> float:
    if isinstance(value, str) and value in _NOT_FINITE:
        return _NOT_FINITE[value]
    if isinstance(value, float):
        return value
    try:
        number = float(_integer(what, value))
    except OverflowError:
        raise InputError(f"out of the range of {what}") from None
    if number != value:
        raise InputError(f"an integer that {what} cannot hold exactly; :db.type/bigint takes it")
    return number


def _bigdec(value: object) -> bytes:
    if isinstance(value, float):
        raise InputError("a JSON number for a bigdec: write it as a string to keep every digit")
    if not isinstance(value, Decimal):
        value = _parse_bigdec(value)
    if not value.is_finite():
        raise InputError(f"{value} is no bigdec")
    if len(value.as_tuple().digits) > DIGITS_MAX:
        raise InputError(f"more than {DIGITS_MAX} digits")
    return encode_bigdec(value)


def _parse_bigdec(value: object) -> Decimal:
    if isinstance(value, str) and _NUMBER.fullmatch(value) is None:
        raise InputError("no decimal number")
    try:
        return Decimal(value if isinstance(value, str) else _integer("a bigdec (a string)", value))
    except InvalidOperation:
        raise InputError("out of the range of a bigdec") from None


def _instant(value: object) -> bytes:
    if isinstance(value, str):
        value = parse_instant(value)
    if not isinstance(value, datetime):
        raise _wanted("an instant (ISO 8601)", "a date" if isinstance(value, date) else value)
    if value.tzinfo is None:
        raise InputError("a datetime without a time zone; give it tzinfo")
    micros = micros_of(value)
    if not FIRST_MICRO <= micros <= LAST_MICRO:
        raise InputError("an instant lies in the years 1 to 9999, UTC")
    return encode_micros(micros)


def parse_instant(text: str) -> datetime:
    """Parse ISO 8601; a date alone is its midnight, and what names no offset is UTC. Raises ``InputError``."""
    match = _ISO_8601.fullmatch(text)
    if match is None:
        raise InputError("no instant (write 2026-01-31T12:00:00Z)")
    year, month, day, hour, minute, second, fraction, _zulu, sign, hours, minutes = match.groups()
    if fraction and len(fraction) > 6:
        raise InputError("an instant is kept to the microsecond: at most 6 digits after the second")
    if hours and not (int(hours) < 24 and int(minutes) < 60):
        raise InputError("no instant (an offset is at most 23:59)")
    offset = timedelta(hours=int(hours or 0), minutes=int(minutes or 0))
    try:
        zone = timezone(-offset if sign == "-" else offset)
        micros = int((fraction or "0").ljust(6, "0"))
        return datetime(
            int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), micros, tzinfo=zone
        )
    except ValueError as error:
        raise InputError(f"no instant ({error})") from None


def _string(value: object) -> bytes:
    return _text(STRING, "a string", value)


def _text(tag: int, what: str, value: object) -> bytes:
    if not isinstance(value, str):
        raise _wanted(what, value)
    try:
        return encode_text(tag, value)
    except UnicodeEncodeError:
        raise InputError("a lone surrogate, which is no text") from None


def _keyword(value: object) -> bytes:
    if isinstance(value, str) and not value.startswith(":"):
        value = ":" + value
    if isinstance(value, str) and (len(value) == 1 or _WRONG_IN_NAMES.search(value)):
        raise InputError("no keyword (it has no name, or white space in it)")
    return _text(KEYWORD, "a keyword (a string)", value)


def _symbol(value: object) -> bytes:
    if isinstance(value, str) and (not value or _WRONG_IN_NAMES.search(value)):
        raise InputError("no symbol (it is empty, or has white space in it)")
    return _text(SYMBOL, "a symbol (a string)", value)


def _uri(value: object) -> bytes:
    return _text(URI, "a uri (a string)", value)


def _uuid(value: object) -> bytes:
    if isinstance(value, str):
        if re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", value) is None:
            raise InputError("no uuid (write 8-4-4-4-12 hexadecimal digits)")
        value = UUID(value)
    if not isinstance(value, UUID):
        raise _wanted("a uuid (a string)", value)
    return encode_uuid(value)


def _bytes(value: object) -> bytes:
    if isinstance(value, str):
        try:
            value = base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError):
            raise InputError("no base64") from None
    if not isinstance(value, bytes | bytearray):
        raise _wanted("bytes (base64)", value)
    return encode_bytes(BYTES, bytes(value))


def _ref(value: object) -> bytes:
    """Encode a reference that names its entity by id; the transaction resolves every other form."""
    if isinstance(value, dict) and value.keys() <= {ID, "db/id"} and value:
        value = next(iter(value.values()))
    number = _integer("an entity id", value)
    if not 1 <= number <= MAX_ENTITY:
        raise InputError("an entity id is 1 to 2**53-1")
    return encode_ref(number)


ENCODERS: Final[Mapping[str, Encoder]] = {
    "string": _string,
    "keyword": _keyword,
    "symbol": _symbol,
    "boolean": _boolean,
    "long": _long,
    "bigint": _bigint,
    "double": _double,
    "float": _float,
    "bigdec": _bigdec,
    "instant": _instant,
    "uuid": _uuid,
    "uri": _uri,
    "bytes": _bytes,
    "ref": _ref,
}
