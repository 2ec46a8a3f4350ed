"""``unique/``: lookup refs as paths. A unique attribute is a directory, a value of it a link to the entity that has it.

    unique/person/email/ann@x.org.json -> ../../../entities/1000-1999/1042.json
    unique/code/7.json                 -> ../../entities/0-999/3.json          an attribute without a namespace

A value's file name is its text: a string, or what is written as one in JSON, is the text itself, a reference the id of the
entity, and all else its JSON. Where an attribute has no declared type, a string that could be other JSON is quoted.
Where an attribute without a namespace is called like a namespace, its values lie beside the directories of the other ones.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from cowfs import ids as txids
from cowfs.errors import InputError, NotFound
from cowfs.store.model.encoding import Ref, Value, decode, key_value
from cowfs.store.model.schema import Attribute
from cowfs.store.model.values import to_json
from cowfs.store.read.indexes import RawDatom, ave_records, exact
from cowfs.views import filenames
from cowfs.views.blocks import SUFFIX, DatedDirectory, block_name, seconds_of, to_text
from cowfs.views.context import CommitContext, DataNode
from cowfs.views.node import Attributes, Entry, Link, Node

_KIND = "unique"
_TEXTS = ("string", "keyword", "symbol", "uri")
_WRITTEN_AS_STRINGS = (*_TEXTS, "uuid", "instant", "bigdec", "bytes")
_JSON = re.compile(r'-?\d+(\.\d+)?([eE][+-]?\d+)?|true|false|".*"|\{":db/id": ?\d+\}', re.ASCII | re.DOTALL)
_DIGEST = re.compile(r"%~[0-9a-f]{32}\Z")


def value_text(attribute: Attribute, value: Value) -> str:
    """Return the text of an attribute's value: of no two of its values the same."""
    if isinstance(value, Ref) and attribute.type == "ref":
        return str(int(value))
    shown = to_json(value)
    if not isinstance(shown, str):
        return to_text(shown)
    return to_text(shown) if attribute.type is None and _JSON.fullmatch(shown) else shown


def value_from(attribute: Attribute, text: str) -> Any:
    """Return what ``attribute.encode`` takes for the value with this text. Raises ``ValueError``."""
    if attribute.type in _WRITTEN_AS_STRINGS or (attribute.type is None and _JSON.fullmatch(text) is None):
        return text
    if attribute.type == "ref":
        return txids.parse(text)
    return json.loads(text)


class UniqueDirectory(DatedDirectory):
    """``unique/``: the namespaces of unique attributes, and the unique attributes without one."""

    def __init__(self, context: CommitContext) -> None:
        super().__init__(context, _KIND)

    def child(self, name: str) -> Node:
        """Return a namespace, or an attribute, or raise ``NotFound``."""
        own, inside = self._names().get(name, (None, {}))
        if own is None and not inside:
            raise NotFound(f"no unique attribute in {name!r}")
        return UniqueValuesDirectory(self._context, (name,), own, inside)

    def entries(self) -> Iterator[Entry]:
        """Yield the namespaces and attributes."""
        for name in self._names():
            yield Entry(name, self._context.inode(*_directory((name,))), directory=True)

    def _names(self) -> dict[str, tuple[Attribute | None, dict[str, Attribute]]]:
        """Return, by file name, the attribute that is called so, and the attributes in that namespace by theirs."""
        names: dict[str, tuple[Attribute | None, dict[str, Attribute]]] = {}
        for attribute in self._context.db.schema.values():
            if attribute.unique is not None:
                first, _slash, second = attribute.name[1:].partition("/")
                name = filenames.encode(first)
                own, inside = names.get(name, (None, {}))
                names[name] = (own, {**inside, filenames.encode(second): attribute}) if second else (attribute, inside)
        return names


class UniqueValuesDirectory(DatedDirectory):
    """A namespace's attributes, or the values of an attribute (``own``), or both."""

    def __init__(
        self, context: CommitContext, path: tuple[str, ...], own: Attribute | None, inside: Mapping[str, Attribute]
    ) -> None:
        super().__init__(context, *_directory(path))
        self._path = path
        self._own = own
        self._inside = inside

    def child(self, name: str) -> Node:
        """Return an attribute's directory, or the link of a value, or raise ``NotFound``."""
        if name in self._inside:
            return UniqueValuesDirectory(self._context, (*self._path, name), self._inside[name], {})
        if self._own is None:
            raise NotFound(f"no unique attribute {name!r} here")
        return UniqueLink(self._context, self._own, self._record(self._own, name), len(self._path))

    def entries(self) -> Iterator[Entry]:
        """Yield the attributes, then the values in their order."""
        for name in self._inside:
            yield Entry(name, self._context.inode(*_directory((*self._path, name))), directory=True)
        if self._own is not None:
            for record in ave_records(self._context.db.reader, *exact(self._own.key)):
                name = _file_name(self._own, record)
                if name not in self._inside:
                    yield Entry(name, self._context.inode(*_link(record)), directory=False, link=True)

    def _record(self, attribute: Attribute, name: str) -> RawDatom:
        """Return the datom whose value has this file name. Raises ``NotFound``."""
        for record in ave_records(self._context.db.reader, *exact(_beginning(attribute, name))):
            if _file_name(attribute, record) == name:
                return record
        raise NotFound(f"no value {name!r} of {attribute.name}")


class UniqueLink(DataNode, Link):
    """The link from a value to its entity, as old as the transaction that gave the entity this value."""

    def __init__(self, context: CommitContext, attribute: Attribute, record: RawDatom, depth: int) -> None:
        """``depth`` is how many directories it is below ``unique/``."""
        super().__init__(context, *_link(record))
        self.attribute = attribute
        self.target = f"{'../' * (depth + 1)}entities/{block_name(record.e)}/{record.e}{SUFFIX}"
        self._tx = record.tx

    def attributes(self) -> Attributes:
        """Return what lstat(2) tells."""
        return Attributes(seconds_of(self.snapshot, self._tx), len(self.target))


def _file_name(attribute: Attribute, record: RawDatom) -> str:
    return filenames.encode(value_text(attribute, decode(record.encoding)), SUFFIX)


def _beginning(attribute: Attribute, name: str) -> bytes:
    """Return how the key in ``ave`` begins of the value with a file name, as far as that tells. Raises ``NotFound``."""
    if not name.endswith(SUFFIX):
        raise NotFound(f"{name!r} is no value's file name")
    try:
        if not filenames.is_shortened(name, SUFFIX):
            return attribute.key + key_value(attribute.encode(value_from(attribute, filenames.decode(name, SUFFIX))))
    except (InputError, ValueError) as error:
        raise NotFound(f"{name!r} is no value of {attribute.name}") from error
    if attribute.type not in _TEXTS:
        return attribute.key
    try:
        return attribute.key + attribute.encode(filenames.decode(_DIGEST.sub("", name.removesuffix(SUFFIX))))[:-1]
    except InputError:  # cut in the middle of a character
        return attribute.key


def _directory(path: tuple[str, ...]) -> tuple[str, bytes]:
    """Return the kind and the key of the inode of a directory below ``unique/``."""
    return f"{_KIND}/directory", "/".join(path).encode(errors="surrogateescape")


def _link(record: RawDatom) -> tuple[str, bytes]:
    """Return the kind and the key of the inode of a link."""
    return f"{_KIND}/link", record.aid + record.encoding
