"""``attributes/``: names, sizes, and that any way of reading a column gives the same bytes."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cowfs import Store
from cowfs.commits.held import HeldCommit
from cowfs.errors import NotFound
from cowfs.pages.reader import Reader
from cowfs.store.datomcheck import check_store
from cowfs.store.model.layout import COUNT_KEYS, META
from cowfs.store.model.lines import line
from cowfs.store.read.db import Db
from cowfs.store.read.indexes import ave_records, exact
from cowfs.views import columns, filenames
from cowfs.views.columns import AttributesDirectory, Checkpoints, ColumnFile, Lines, NamespaceDirectory
from cowfs.views.context import CommitContext
from cowfs.views.node import Stability

LONG = "long and longer " * 40
MANY = {":db/cardinality": ":db.cardinality/many"}
SCHEMA: dict[str, dict[str, Any]] = {
    ":item/name": {":db/valueType": ":db.type/string"},
    ":item/number": {":db/valueType": ":db.type/long"},
    ":item/texts": {":db/valueType": ":db.type/string", **MANY},
    ":item/when": {":db/valueType": ":db.type/instant"},
    ":item/other": {":db/valueType": ":db.type/ref"},
    ":item/ratio": {":db/valueType": ":db.type/double"},
    ":item/none": {},
    ":plain": {},
}


def ground_of(store: Store) -> CommitContext:
    return CommitContext(HeldCommit(store.env, store.env.hold()), Stability.FROZEN, b"here")


def column(context: CommitContext, name: str) -> ColumnFile:
    node = AttributesDirectory(context)
    *space, last = name[1:].split("/")
    for part in space:
        child = node.child(part)
        assert isinstance(child, NamespaceDirectory)
        return child.child(last + ".tsv")
    found = node.child(last + ".tsv")
    assert isinstance(found, ColumnFile)
    return found


def rendered(context: CommitContext, name: str) -> bytes:
    key = context.db.attribute(name).key
    return b"".join(line(encoding, e, tx) for e, _aid, encoding, tx in ave_records(context.db.reader, *exact(key)))


def read(file: ColumnFile | Lines, offset: int, size: int) -> bytes:
    buffer = bytearray(size)
    return bytes(buffer[: file.readinto(offset, memoryview(buffer))])


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CommitContext]:
    """The context of a store with columns of many kinds, of some thousand lines each."""
    with Store.create(tmp_path_factory.mktemp("columns") / "db", SCHEMA, durability="none") as store:
        chance = random.Random(1)
        for begin in range(0, 3000, 500):
            store.transact([item(number, chance) for number in range(begin + 1, begin + 501)])
        found = ground_of(store)
        yield found
        assert list(check_store(found.db.reader, found.db.txnid)) == []
        found.snapshot.release()


def item(number: int, chance: random.Random) -> dict[str, Any]:
    texts = {"short", f"tab\t{number % 7}", LONG, LONG + str(number % 5), LONG + "y" * chance.randrange(3000)}
    return {
        ":db/id": number,
        ":item/name": f"name {chance.randrange(2000)}",
        ":item/number": chance.randrange(-(10**6), 10**6),
        ":item/texts": chance.sample(sorted(texts), chance.randrange(4)),
        ":item/when": chance.choice(["2026-01-31T12:00:00Z", "0001-01-01T00:00:00.5Z", "9999-12-31T23:59:59.999999Z"]),
        ":item/ratio": chance.choice(["NaN", "Infinity", "-Infinity", -0.0, 1e-300, chance.uniform(-1e20, 1e20)]),
        ":item/other": chance.randrange(1, 4000),
        ":plain": chance.choice([True, 5, "five", 0.5, 2**80]),
    }


@pytest.mark.parametrize("name", SCHEMA)
@pytest.mark.parametrize("step", [4096, 131_072, 10**7])
def test_a_column_read_from_its_beginning(context: CommitContext, name: str, step: int) -> None:
    file, whole = column(context, name), rendered(context, name)
    attributes = file.attributes()
    assert (attributes.size, attributes.blocks) == (len(whole), -(-len(whole) // 512))
    assert attributes.mtime == context.snapshot.mtime
    assert b"".join(read(file, at, step) for at in range(0, len(whole) + step, step)) == whole


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([name for name in SCHEMA if name != ":item/none"]),
    st.sampled_from([100, 5000, columns._APART]),
    st.lists(st.tuples(st.floats(0, 1.01), st.integers(0, 200_000)), min_size=1, max_size=8),
)
def test_any_reads_are_slices(context: CommitContext, name: str, apart: int, reads: list[tuple[float, int]]) -> None:
    whole = rendered(context, name)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(columns, "_APART", apart)
        file = column(context, name)
        for where, size in reads:
            offset = int(where * len(whole))
            assert read(file, offset, size) == whole[offset : offset + size]
            known = file._lines._known
            assert sorted(set(known.offsets)) == known.offsets
            assert len(known.keys) == len(known.offsets)


@pytest.mark.parametrize(("name", "step"), [(":item/number", 8192), (":item/texts", 131_072)])
def test_read_backward(context: CommitContext, name: str, step: int) -> None:
    file, whole = column(context, name), rendered(context, name)
    for at in range(len(whole) // step * step, -1, -step):
        assert read(file, at, step) == whole[at : at + step]


class Counting(Reader):
    """A reader that counts the entries which are scanned."""

    def __init__(self, context: CommitContext) -> None:
        self.reader = context.db.reader
        self.entries = 0

    def get(self, name: bytes, key: bytes) -> bytes | None:
        return self.reader.get(name, key)

    def scan(
        self, name: bytes, start: bytes = b"", stop: bytes | None = None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        for pair in self.reader.scan(name, start, stop, reverse=reverse):
            self.entries += 1
            yield pair


def test_what_reads_cost(context: CommitContext, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "_APART", 4096)
    attribute = context.db.attribute(":item/number")
    size = context.db.column_size(attribute.name)
    reader = Counting(context)
    lines = Lines(Db(reader, context.db.txnid), Checkpoints.of(attribute.key, size))
    read(lines, size - 200, 200)
    assert reader.entries < 300  # the tail is found from the end
    reader.entries = 0
    for at in range(0, size, 1000):
        read(lines, at, 1000)
    assert reader.entries < context.db.count(attribute.name) + 1100  # each line is made once, though the tail was known
    reader.entries = 0
    read(lines, size // 2, 10)
    assert reader.entries < 1500  # from the nearest checkpoint, by one batch


def test_names(context: CommitContext) -> None:
    top = AttributesDirectory(context)
    assert [(entry.name, entry.directory) for entry in top.entries()] == [("item", True), ("plain.tsv", False)]
    space = top.child("item")
    assert isinstance(space, NamespaceDirectory)
    names = [entry.name for entry in space.entries()]
    assert names == [name + ".tsv" for name in ("name", "none", "number", "other", "ratio", "texts", "when")]
    for directory in (top, space):
        assert directory.attributes().mtime == context.snapshot.mtime
        for entry in directory.entries():
            assert directory.child(entry.name).inode == entry.inode
    for name in ("name", "none.TSV", "", "item", ".tsv"):
        with pytest.raises(NotFound):
            space.child(name)
    with pytest.raises(NotFound):
        top.child("other")
    assert top.child("plain.tsv").attributes().size > 0
    assert space.child("none.tsv").attributes().size == 0


def test_names_that_no_file_can_have(tmp_path: Path) -> None:
    odd = [":a", ":a.tsv/b", ":.hidden/.x", ":a%2Etsv/b", ":" + "é" * 60 + "%" * 60 + "/" + "%" * 70]
    with Store.create(tmp_path / "db", {name: {} for name in odd}, durability="none") as store:
        store.transact([{":db/id": 1, **dict.fromkeys(odd, 5)}])
        context = ground_of(store)
        top = AttributesDirectory(context)
        found = []
        for entry in top.entries():
            node = top.child(entry.name)
            inner = [node.child(e.name) for e in node.entries()] if isinstance(node, NamespaceDirectory) else [node]
            names = [entry.name, *([e.name for e in node.entries()] if isinstance(node, NamespaceDirectory) else [])]
            assert all(len(name.encode()) <= 255 and "/" not in name and name[0] != "." for name in names)
            found += [file._attribute.name for file in inner if isinstance(file, ColumnFile)]
        assert sorted(found) == sorted(odd)
        assert [entry.name for entry in top.entries()][-1] == "a.tsv"
        assert {"a%2Etsv", "a%252Etsv", "%2Ehidden"} < {entry.name for entry in top.entries()}
        context.snapshot.release()


def test_a_store_of_an_older_version(tmp_path: Path) -> None:
    with Store.create(tmp_path / "db", SCHEMA, durability="none") as store:
        store.transact([{":db/id": n, ":item/name": str(n)} for n in range(1, 100)])
        with store.env.write() as txn:
            txn.put(META, COUNT_KEYS + store.schema[":item/name"].key, (99).to_bytes(8, "big"))
        context = ground_of(store)
        file = column(context, ":item/name")
        assert file.size == len(rendered(context, ":item/name"))
        assert read(file, 0, 10**6) == rendered(context, ":item/name")
        context.snapshot.release()


@given(st.text() | st.text("./%\0\n~aé\ud800"), st.sampled_from(["", ".json"]))
def test_file_names_lead_back(name: str, suffix: str) -> None:
    encoded = filenames.encode(name, suffix)
    assert len(encoded.encode()) <= filenames.NAME_MAX
    assert "/" not in encoded
    assert encoded[0] not in ".\0"
    if filenames.is_shortened(encoded, suffix):
        assert len(name) > 50
    else:
        assert filenames.decode(encoded, suffix) == name


@given(st.text(min_size=100, max_size=400), st.text(min_size=100, max_size=400))
def test_two_names_have_two_file_names(one: str, other: str) -> None:
    assert (filenames.encode(one) == filenames.encode(other)) == (one == other)


@pytest.mark.parametrize("wrong", ["%", "%2", "%61", ".a", "a/b", "%ff", "%FF", "", "a%~" + "0" * 32])
def test_what_is_no_file_name(wrong: str) -> None:
    if wrong == "%":
        assert filenames.decode(wrong) == ""
        return
    with pytest.raises(NotFound):
        filenames.decode(wrong)
