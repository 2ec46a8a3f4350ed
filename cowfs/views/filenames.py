"""Names of things as names of files: reversibly, and so that every name can be one.

A file name is the name itself in UTF-8, with ``%XX`` for each byte of it that no file name may have or that would say
something else: ``/``, NUL and the other control characters, ``%``, and a dot at the beginning. A name that would get longer
than 255 bytes keeps its beginning, and its digest says which one it is: ``<beginning>%~<32 hexadecimal digits>``. It has no
way back: who looks for one compares ``encode`` of what there is.
"""

from __future__ import annotations

import re
from functools import partial
from hashlib import blake2b
from typing import Final

from cowfs.errors import NotFound

NAME_MAX: Final = 255

_SPECIAL = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff%/]|\A\.|\A\Z")
_ESCAPED = re.compile(rb"%([0-9A-F]{2})")
_SHORTENED = re.compile(r"%~[0-9a-f]{32}\Z")
_EMPTY = "%"  # stands for the name that is empty: no other one has it, as a % is always followed by something


def encode(name: str, suffix: str = "") -> str:
    """Return the file name of ``name``, followed by ``suffix`` (plain, such as ``.json``): at most 255 bytes together."""
    encoded = _SPECIAL.sub(_escape, name) + suffix
    if len(encoded) * 3 > NAME_MAX and len(encoded.encode()) > NAME_MAX:
        return _shortened(name, encoded[: len(encoded) - len(suffix)], suffix)
    return encoded


def decode(file_name: str, suffix: str = "") -> str:
    """Return the name that ``encode`` makes this file name of. Raises ``NotFound`` when none has it, or it is cut."""
    body = file_name.removesuffix(suffix) if suffix else file_name
    if body == _EMPTY:
        name = ""
    else:
        try:
            raw = _ESCAPED.sub(_byte, body.encode("utf-8", "surrogatepass"))
            name = raw.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            raise NotFound(f"no name has the file name {file_name!r}") from None
    if encode(name, suffix) != file_name:
        raise NotFound(f"no name has the file name {file_name!r}")
    return name


def is_shortened(file_name: str, suffix: str = "") -> bool:
    """Return whether the file name has a digest, so that only comparing with ``encode`` finds what it stands for."""
    return _SHORTENED.search(file_name.removesuffix(suffix)) is not None


def _escape(found: re.Match[str]) -> str:
    character = found.group()
    if not character:
        return _EMPTY
    return "".join(map("%{:02X}".format, character.encode("utf-8", "surrogatepass")))


def _byte(found: re.Match[bytes]) -> bytes:
    return bytes((int(found.group(1), 16),))


def _shortened(name: str, encoded: str, suffix: str) -> str:
    digest = blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    room = NAME_MAX - len(suffix.encode()) - len(digest) - 2
    start = encoded.encode()[:room].decode("utf-8", "ignore")
    return f"{_cut_escape(start)}%~{digest}{suffix}"


_cut_escape = partial(re.compile(r"%[0-9A-F]?\Z").sub, "")
