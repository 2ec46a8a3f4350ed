"""Durations and amounts of bytes as people write them: ``5m``, ``7d``, ``1h30m``; ``512``, ``2GiB``, ``1.5M``."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Final

from cowfs.errors import InputError

_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "y": 31_557_600}
_BYTES: Final = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_DURATION: Final = re.compile(r"(?:\d{1,9}[smhdwy])+", re.ASCII)
_AMOUNT: Final = re.compile(r"(\d{1,18}(?:\.\d{1,6})?)(?: ?(?:([kmgt])(?:i?b)?|b))?", re.ASCII | re.IGNORECASE)


def parse_duration(text: str) -> int:
    """Return the seconds of a duration like ``90s``, ``5m``, ``1h30m``, ``7d``, ``2w`` or ``1y``. Raises ``InputError``."""
    if not _DURATION.fullmatch(text):
        raise InputError(f"{text!r} is no duration like 90s, 5m, 1h30m, 7d, 2w or 1y")
    return sum(int(count) * _SECONDS[unit] for count, unit in re.findall(r"(\d+)([smhdwy])", text))


def parse_bytes(text: str) -> int:
    """Return the bytes of an amount like ``4096``, ``64MiB`` or ``2G`` (units are powers of 1024). Raises ``InputError``.

    ``1.3k`` is rounded down to a whole number of bytes. A fraction without a unit, and less than one byte, are refused.
    """
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise InputError(f"{text!r} is no amount of bytes like 4096, 64MiB or 2GiB")
    unit = _BYTES[(match[2] or "").lower()]
    amount = Fraction(match[1]) * unit
    if amount.denominator > 1 and (unit == 1 or amount < 1):
        raise InputError(f"{text!r} is no whole number of bytes")
    return int(amount)


def duration_text(seconds: float, parts: int = 2) -> str:
    """Return a duration as people write it, in its largest ``parts`` units: ``3d4h``; ``90s`` is ``1m30s``.

    With four parts it is exact to the second. What is below zero is shown as ``0s``.
    """
    left = max(int(seconds), 0)
    counts: list[str] = []
    for unit in ("d", "h", "m", "s"):
        count, left = divmod(left, _SECONDS[unit])
        if count or (unit == "s" and not counts):
            counts.append(f"{count}{unit}")
        if counts:
            parts -= 1
        if parts == 0:
            break
    return "".join(counts)


def bytes_text(count: int) -> str:
    """Return an amount of bytes for people, rounded: ``0 B``, ``1.5 KiB``, ``2.0 GiB``."""
    if count < 1024:
        return f"{count} B"
    amount = float(count)
    for unit in ("KiB", "MiB", "GiB"):
        amount /= 1024
        if amount < 1023.95:  # else it would be shown as 1024.0
            return f"{amount:.1f} {unit}"
    return f"{amount / 1024:,.1f} TiB"


def exact_bytes_text(count: int) -> str:
    """Return an amount of bytes for people, exact and rounded: ``122,503,168 bytes (116.8 MiB)``; ``512 bytes``."""
    exact = f"{count:,} byte{'' if count == 1 else 's'}"
    return exact if count < 1024 else f"{exact} ({bytes_text(count)})"
