"""What a terminal is not shown as it is."""

from __future__ import annotations

import json
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from cowfs.escaping import escaped

_DANGEROUS = [
    *map(chr, range(0x20)),
    *map(chr, range(0x7F, 0xA0)),
    *"\u00ad\u061c\u180e\u200b\u200c\u200d\u200e\u200f\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2060",
    *"\u2066\u2067\u2068\u2069\ufeff\ufff9\ufffe\U000e0041\ue000\U0010ffff\ud800\udcff",
]


def test_controls_formats_and_surrogates_are_escaped() -> None:
    for character in _DANGEROUS:
        shown = escaped(f"a{character}b")
        assert shown.isascii()
        assert shown.isprintable()
        assert json.loads(f'"{shown}"') == f"a{character}b"


def test_text_of_all_scripts_is_not() -> None:
    text = 'Ann \\ "x" Näme Ωμέγα שלום سلام नमस्ते 日本語\u3000ガ 🐟\u00a0€ e\u0301'
    assert escaped(text) == text
    assert escaped("two\nlines", keep="\n") == "two\nlines"


@given(st.text(st.characters()))
def test_nothing_is_left_that_is_not_printed(text: str) -> None:
    assert all(char.isprintable() or unicodedata.category(char) == "Zs" for char in escaped(text))
    assert escaped(escaped(text)) == escaped(text)


@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_an_escaped_document_is_the_same_document(document: object) -> None:
    text = json.dumps(document, indent=2, ensure_ascii=False)
    assert json.loads(escaped(text, keep="\n")) == document
