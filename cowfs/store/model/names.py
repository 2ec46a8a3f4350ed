"""Attribute names: ``:person/email``. The colon may be left out on the way in; ``:person/_friend`` goes the other way."""

from __future__ import annotations

import re
from typing import Any

from cowfs.errors import SchemaError
from cowfs.store.model.values import describe, one_line

_NAME = re.compile(r":[^\s:/\x00-\x1f\x7f][^\s/\x00-\x1f\x7f]*(/[^\s/\x00-\x1f\x7f]+)?")
_MAX_BYTES = 255
_SHOWN = 80  # characters of a name in an error


def canonical(name: str) -> str:
    """Return ``name`` with its colon."""
    return name if name.startswith(":") else ":" + name


def checked(name: Any) -> str:
    """Return the canonical form of a new attribute's name. Raises ``SchemaError`` when no attribute can have it."""
    problem = fault(name)
    if problem is not None:
        raise SchemaError(f"{shown(name)}: {problem}")
    return canonical(name)


def shown(name: Any) -> str:
    """Return a name that may be none, or anything else that stands in its place, for an error."""
    return one_line(canonical(name), _SHOWN) if isinstance(name, str) else describe(name)


def fault(name: Any) -> str | None:
    """Return why no attribute can have this name, None when one can."""
    if not isinstance(name, str):
        return "an attribute's name is a string"
    full = canonical(name)
    if _NAME.fullmatch(full) is None:
        return "an attribute's name is name or namespace/name, without white space"
    if forward(full) is not None:
        return "a name that begins with _ is the reverse of an attribute"
    if full.startswith((":db/", ":db.")):
        return "the namespace db is reserved"
    if not full.isascii() and any("\ud800" <= character <= "\udfff" for character in full):
        return "a lone surrogate, which is no text"
    if len(full.encode()) > _MAX_BYTES:
        return f"an attribute's name has at most {_MAX_BYTES} bytes"
    return None


def forward(name: str) -> str | None:
    """Return the attribute of which the canonical ``name`` is the reverse, or None when it is not a reverse name."""
    space, slash, last = name.rpartition("/")
    if not slash:
        space, last = ":", name[1:]
    if not last.startswith("_") or len(last) == 1:
        return None
    return space + slash + last[1:]
