"""Entity ids in the data of an import: whether they name entities of this store, or entities of the store of an export.

An export names its entities by number. In a store that has entities of its own the same numbers are others, so an import
does one of three things with a positive id of its data:

    OwnEntities   a map may name an entity that this file made, or that has no data; any other is refused
    NewEntities   every id gets a new id, which is remembered for the whole import
    none of them  an id is an id of this store, as in a transaction

Tempids, lookup refs, and upserts by unique identity attributes mean the same in all three.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from cowfs.errors import EntityTaken, TransactionError
from cowfs.pages.reader import Reader
from cowfs.store.model.layout import entity_key
from cowfs.store.model.values import ID_KEYS
from cowfs.store.read.last_modified import has_datoms
from cowfs.store.tx.forms import FormReader


class ImportIds(Protocol):
    """What the ids of an import mean; asked by each of its transactions, and then told its outcome."""

    @property
    def renumbered(self) -> Mapping[int, int] | None:
        """The entity that each id of the data has become so far; None when ids are those of this store."""

    def check(self, reader: Reader, forms: FormReader, highest: int) -> None:
        """Look at the forms of a transaction before anything is written.

        ``reader`` reads the store before the transaction, ``highest`` is its highest id. Raises ``EntityTaken``.
        """

    def done(self, became: Mapping[int | str, int]) -> None:
        """Take note that the transaction of the last check is done; ``became`` are the entities of its tempids."""


class OwnEntities:
    """Refuses maps that name an entity which had data before the present file of the import first named it."""

    renumbered = None

    def __init__(self) -> None:
        self._made: set[int] = set()  # by the present file
        self._earlier: set[int] = set()  # by files before it
        self._pending: set[int] = set()

    def end_file(self) -> None:
        """Take note that the next form is of another file, in which the same ids may mean other entities."""
        self._earlier |= self._made
        self._made.clear()

    def skip(self, form: Any) -> None:
        """Take the entities that a form names as made by this import: its line was imported before."""
        self._made.update(_entities_of(form))

    def check(self, reader: Reader, forms: FormReader, highest: int) -> None:
        """Raise ``EntityTaken``, which names the first form, when a map names an entity that is not of this file."""
        named = {number for number in forms.subjects if number > 0} | {number for _form, number in forms.chosen}
        taken = {number for number in named - self._made if number <= highest and has_datoms(reader, entity_key(number))}
        for form, number in forms.chosen:
            if number in taken and number in self._earlier:
                raise EntityTaken(f"entity {number} has data from an earlier file", form, in_import=True)
            if number in taken:
                raise EntityTaken(f"entity {number} has data that this import did not make", form)
        self._pending = named - taken

    def done(self, became: Mapping[int | str, int]) -> None:
        """Take note of the entities that the transaction made."""
        self._made |= self._pending


class NewEntities:
    """Gives every id a new id, also where it stands as a reference, when it is first named."""

    def __init__(self) -> None:
        self.renumbered: dict[int, int] = {}
        self._bare: set[int] = set()  # ids that were named, and of which nothing is asserted yet
        self._pending: set[int] = set()

    def check(self, reader: Reader, forms: FormReader, highest: int) -> None:
        """Find of which ids the forms assert nothing."""
        nodes = forms.nodes
        subjects = {nodes.find(node) for node in forms.subjects}
        named = {name: nodes.find(node) for name, node in nodes.expected.items()}
        known = {number: self.renumbered[number] for number in self._bare}
        self._pending = {number for number, node in (known | named).items() if node not in subjects}

    def done(self, became: Mapping[int | str, int]) -> None:
        """Remember what the ids have become."""
        self.renumbered.update({name: e for name, e in became.items() if isinstance(name, int) and name > 0})
        self._bare = self._pending

    def require_complete(self) -> None:
        """Raise ``TransactionError`` when there are ids of which nothing was asserted: the data is not whole."""
        if self._bare:
            first, count = min(self._bare), len(self._bare)
            others = f" (and {count - 1:,} more)" if count > 1 else ""
            raise TransactionError(f"entity {first} of the data{others} is referred to, and no line defines it")


def _entities_of(form: Any) -> Iterator[int]:
    """Yield the ids by which a form names the entities of which it asserts something."""
    waiting = [form[1:4]] if isinstance(form, list) else [form]
    if isinstance(form, list) and len(form) > 1 and _is_id(form[1]):
        yield form[1]
    while waiting:
        part = waiting.pop()
        if isinstance(part, dict):
            if len(part) > 1:
                yield from filter(_is_id, (part[key] for key in ID_KEYS if key in part))
            waiting.extend(part.values())
        elif isinstance(part, list):
            waiting.extend(part)


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0
