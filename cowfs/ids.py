"""Transaction ids as text: the decimal names of directories under ``snapshots/``.

A txid is a positive integer below 2**64. Its one spelling is decimal without sign, space or leading zero, so that
every commit has exactly one name.
"""

from __future__ import annotations

import re

_SPELLING = re.compile(r"0|[1-9][0-9]{0,19}", re.ASCII)


def parse(name: str) -> int | None:
    """Return the txid that ``name`` spells, or None when it spells none."""
    if _SPELLING.fullmatch(name) is None:
        return None
    txid = int(name)
    return txid if txid < 2**64 else None
