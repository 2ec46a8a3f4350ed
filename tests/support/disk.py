"""What a loss of power could leave of the files that ``tests.support.recorder`` has recorded.

Of a file is there what was synced, and of the changes after that whatever the kernel happened to write back. A page goes
to the disk as it was at some moment since, and a disk breaks it at sectors of 512 bytes at worst: so each page, or sector,
is as it was after any number of the changes that touch it, whatever the others are. The size is that of any moment since,
too; what nobody wrote reads as zeros.

What a directory holds is sure when it was synced, not before: until then each name that was made, renamed or removed may be
as it was. A rename happens or does not; it never leaves both names, or neither. Syncing a file says nothing of its name.

A writer acknowledges in a file ``acknowledged``, a line for each thing that is done, which begins with a number; half a
line is none. Inside of a recorder these lines are events, too: they say what had returned before the power was cut.
"""

from __future__ import annotations

import os
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import NamedTuple

from tests.support.recorder import Event, Kind

ACKNOWLEDGED = "acknowledged"
_PAGE = 4096
_SECTOR = 512

# How a page is left: given the numbers of the changes that touch it, and how many changes there are, the number of the first
# that is not in it.
Version = Callable[[random.Random, Sequence[int], int], int]

# Which unit the disk breaks changes at, and the version of each.
CHOICES: dict[str, tuple[int, Version]] = {
    "all": (_PAGE, lambda _choice, _numbers, count: count),
    "nothing": (_PAGE, lambda _choice, _numbers, _count: 0),
    "only the last change": (_PAGE, lambda _choice, numbers, count: count if numbers[-1] == count - 1 else 0),
    "all but the last change": (_PAGE, lambda _choice, _numbers, count: count - 1),
    "half of the pages": (_PAGE, lambda choice, _numbers, count: choice.choice((0, count))),
    "any version of each page": (_PAGE, lambda choice, numbers, _count: choice.choice((-1, *numbers)) + 1),
    "any version of each sector": (_SECTOR, lambda choice, numbers, _count: choice.choice((-1, *numbers)) + 1),
}


@dataclass(frozen=True)
class Cut:
    """One loss of power: the events before ``position`` have happened, and these lines were acknowledged.

    ``files`` is what the disk holds after it, ``directories`` those that are there, ``choices`` says what was chosen for
    each file that was not synced.
    """

    position: int
    next_event: str
    choices: Mapping[str, str]
    files: Mapping[str, bytes]
    directories: Sequence[str]
    lines: tuple[str, ...]

    @property
    def acknowledged(self) -> tuple[int, ...]:
        """The numbers of the lines, in order: two writers may acknowledge out of it."""
        return tuple(sorted(int(line.split()[0]) for line in self.lines))

    def restore(self, directory: Path) -> None:
        """Write the files into ``directory``, which need not exist."""
        for name in (".", *self.directories):
            (directory / name).mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            (directory / name).write_bytes(content)

    def describe(self) -> str:
        """Say where it cuts, and what is left."""
        left = "; ".join(f"{name} ({len(self.files[name])} bytes): {how}" for name, how in self.choices.items())
        return (
            f"cut before event {self.position} ({self.next_event}), {self.lines[-1:]} acknowledged; "
            f"left of what was not synced: {left or 'all was synced'}"
        )


NOTHING = Cut(0, "", {}, {}, (), ())


def cuts(events: Sequence[Event], seed: int, count: int, before: Cut | None = None) -> Iterator[Cut]:
    """Yield ``count`` cuts in the order of their positions, all after the first acknowledgement.

    With ``before`` they are anywhere, and the disk held at first what that cut has left. Half of them are just before
    something is synced, when most is in doubt; the others are anywhere. For the same seed, and a writer that does the same,
    they leave the same of data.mdb, however often the kernel has written lock.mdb back.
    """
    choice = random.Random(seed)
    first = (
        0 if before else next(number for number, event in enumerate(events) if event.name == ACKNOWLEDGED and event.data) + 1
    )
    anywhere = [number for number in range(first, len(events)) if not events[number].name.endswith("lock.mdb")]
    anywhere.append(len(events))
    syncs = [number for number in anywhere[:-1] if events[number].kind in (Kind.SYNC, Kind.SYNC_DIRECTORY)] or anywhere
    positions = [choice.choice(syncs if number % 2 else anywhere) for number in range(count)]
    disk, done = Disk(before or NOTHING), 0
    for number, position in enumerate(sorted(positions)):
        for event in events[done:position]:
            disk.apply(event)
        done = position
        yield disk.cut(f"{seed} {number}", position, str(events[position]) if position < len(events) else "the end")


class _Change(NamedTuple):
    """A change of a file that is not synced: where it writes what, and the size after it."""

    offset: int
    data: bytes
    size: int

    def parts(self, unit: int) -> Iterator[tuple[int, int, bytes]]:
        """Yield the change in parts that do not cross a multiple of ``unit``: its index, the offset, the bytes."""
        at, end = self.offset, self.offset + len(self.data)
        while at < end:
            stop = min(end, at - at % unit + unit)
            yield at // unit, at, self.data[at - self.offset : stop - self.offset]
            at = stop


@dataclass
class _File:
    """A file: what is on disk for sure, and the changes since."""

    number: int
    synced: bytearray = field(default_factory=bytearray)
    changes: list[_Change] = field(default_factory=list)

    @property
    def size(self) -> int:
        return self.changes[-1].size if self.changes else len(self.synced)

    def write(self, offset: int, data: bytes) -> None:
        self.changes.append(_Change(offset, data, max(self.size, offset + len(data))))

    def truncate(self, size: int) -> None:
        self.changes.append(_Change(size, bytes(max(0, self.size - size)), size))

    def sync(self) -> None:
        self.synced = self.left(random.Random(0), "all")
        self.changes = []

    def left(self, choice: random.Random, how: str) -> bytearray:
        """Return what is left of it after a loss of power, by one of ``CHOICES``."""
        unit, version = CHOICES[how]
        numbers: defaultdict[int, list[int]] = defaultdict(list)
        for number, change in enumerate(self.changes):
            for index, _offset, _data in change.parts(unit):
                numbers[index].append(number)
        until = {index: version(choice, touching, len(self.changes)) for index, touching in numbers.items()}
        content = self.synced.ljust(max([len(self.synced), *(change.size for change in self.changes)]), b"\0")
        for number, change in enumerate(self.changes):
            for index, offset, data in change.parts(unit):
                if number < until[index]:
                    content[offset : offset + len(data)] = data
        return content[: self._size_left(choice, how)]

    def _size_left(self, choice: random.Random, how: str) -> int:
        """Return a size that it had since it was synced; mostly the last, or a cut file would hide all other damage."""
        if how == "nothing":
            return len(self.synced)
        if how == "all" or choice.random() < 0.75:
            return self.size
        return choice.choice([len(self.synced), *(change.size for change in self.changes)])


@dataclass
class _Directory:
    """A directory: the names that are on disk for sure, those that a program sees, and the changes between them.

    A change says for some names what they are now, None that they are not there.
    """

    number: int
    synced: dict[str, _Node] = field(default_factory=dict)
    names: dict[str, _Node] = field(default_factory=dict)
    changes: list[dict[str, _Node | None]] = field(default_factory=list)

    def change(self, change: dict[str, _Node | None]) -> None:
        self.changes.append(change)
        _change(self.names, change)

    def sync(self) -> None:
        self.synced = dict(self.names)
        self.changes = []

    def left(self, choice: random.Random) -> dict[str, _Node]:
        """Return the names that are left after a loss of power: all, those of some moment since, or any of the changes."""
        how, count = choice.choice(("all", "a moment", "any")), choice.randint(0, len(self.changes))
        names = dict(self.synced)
        for number, change in enumerate(self.changes):
            if how == "all" or (number < count if how == "a moment" else choice.random() < 0.5):
                _change(names, change)
        return names


_Node = _File | _Directory


def _change(names: dict[str, _Node], change: Mapping[str, _Node | None]) -> None:
    for name, node in change.items():
        if node is None:
            names.pop(name, None)
        else:
            names[name] = node


class Disk:
    """The files of a recording, after some of its events, on a disk that held at first what ``before`` has left."""

    def __init__(self, before: Cut = NOTHING) -> None:
        self._count = 0
        self._root = _Directory(0)
        self._lines = "".join(f"{line}\n" for line in before.lines).encode()
        for name in before.directories:
            self._sync_new(name, _Directory(self._next_number()))
        for name, content in before.files.items():
            self._sync_new(name, _File(self._next_number(), bytearray(content)))

    def apply(self, event: Event) -> None:
        """Go on by one event."""
        kind, name = event.kind, event.name
        if name == ACKNOWLEDGED:
            self._lines += event.data
        elif kind is Kind.CREATE:
            self._change(name, _File(self._next_number()))
        elif kind is Kind.MKDIR:
            self._change(name, _Directory(self._next_number()))
        elif kind is Kind.REMOVE:
            self._change(name, None)
        elif kind is Kind.RENAME:
            new = PurePath(os.fsdecode(event.data))
            parent, node = self._directory(str(new.parent)), self._node(name)
            parent.change({PurePath(name).name: None, new.name: node})
        elif kind is Kind.SYNC_DIRECTORY:
            self._directory(name).sync()
        else:
            self._apply_to_file(self._node(name), event)

    def cut(self, seed: str, position: int, next_event: str) -> Cut:
        """Cut the power now: each file, and each directory, is left in its own way."""
        choices: dict[str, str] = {}
        files: dict[str, bytes] = {}
        directories: list[str] = []
        self._leave(self._root, "", seed, (choices, files, directories))
        return Cut(position, next_event, choices, files, directories, tuple(self._lines.decode().split("\n")[:-1]))

    def _leave(
        self, directory: _Directory, path: str, seed: str, left: tuple[dict[str, str], dict[str, bytes], list[str]]
    ) -> None:
        choices, files, directories = left
        for name, node in directory.left(random.Random(f"{seed} {directory.number}")).items():
            if isinstance(node, _Directory):
                directories.append(path + name)
                self._leave(node, f"{path}{name}/", seed, left)
                continue
            choice = random.Random(f"{seed} {node.number}")
            how = choice.choice(list(CHOICES))
            files[path + name] = bytes(node.left(choice, how))
            if node.changes:
                choices[path + name] = how

    def _apply_to_file(self, file: _Node, event: Event) -> None:
        assert isinstance(file, _File), event
        if event.kind is Kind.WRITE:
            file.write(event.number, event.data)
        elif event.kind is Kind.TRUNCATE:
            file.truncate(event.number)
        else:
            file.sync()

    def _change(self, name: str, node: _Node | None) -> None:
        path = PurePath(name)
        self._directory(str(path.parent)).change({path.name: node})

    def _sync_new(self, name: str, node: _Node) -> None:
        self._change(name, node)
        self._directory(str(PurePath(name).parent)).sync()

    def _node(self, name: str) -> _Node:
        node: _Node = self._root
        for part in PurePath(name).parts:
            assert isinstance(node, _Directory), name
            node = node.names[part]
        return node

    def _directory(self, name: str) -> _Directory:
        node = self._node(name)
        assert isinstance(node, _Directory), name
        return node

    def _next_number(self) -> int:
        self._count += 1
        return self._count
