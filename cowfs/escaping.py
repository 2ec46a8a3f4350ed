r"""Text that a terminal shows as it is.

A character that moves the cursor, gives the terminal a command, turns the direction of a line, or cannot be seen is written
as JSON writes it in a string, like ``\u202e`` or ``\n``. So a JSON document that is escaped this way is the same document.
"""

from __future__ import annotations

import re
import unicodedata

_TO_LOOK_AT = re.compile(r"[^\x20-\x7e]")
_SHORT = {"\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


def escaped(text: str, keep: str = "") -> str:
    """Return ``text`` with escapes, for a terminal; the characters in ``keep`` stay as they are."""
    if keep:
        return _TO_LOOK_AT.sub(lambda found: found.group() if found.group() in keep else _shown(found.group()), text)
    return _TO_LOOK_AT.sub(lambda found: _shown(found.group()), text)


def escape(character: str) -> str:
    """Return the escape of one character: JSON's, in UTF-16 units."""
    short = _SHORT.get(character)
    if short is not None:
        return short
    units = character.encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def _shown(character: str) -> str:
    """Return a character, or its escape: of controls, formats, surrogates, separators of lines, and what is not assigned."""
    if character.isprintable() or unicodedata.category(character) == "Zs":
        return character
    return escape(character)
