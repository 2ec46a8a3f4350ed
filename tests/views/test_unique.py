"""Lookup refs as paths: every value of a unique attribute has one name, and it leads to its entity."""

from __future__ import annotations

import posixpath
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cowfs import Store
from cowfs.commits.retained import RetainedCommits
from cowfs.errors import NotFound, TransactionError
from cowfs.views.context import CommitContext
from cowfs.views.entities import EntitiesDirectory
from cowfs.views.node import Directory, Link, Node, Stability
from cowfs.views.unique import UniqueDirectory

from .conftest import fresh
from .nodes import at, listed

IDENTITY = {":db/unique": ":db.unique/identity"}
TYPES = ["string", "keyword", "symbol", "boolean", "long", "bigint", "double", "float", "bigdec"]
TYPES += ["instant", "uuid", "uri", "bytes", "ref"]
SCHEMA: dict[str, dict[str, Any]] = {
    **{f":of/{kind}": {":db/valueType": f":db.type/{kind}", **IDENTITY} for kind in TYPES},
    ":of/tuple": {":db/valueType": ":db.type/tuple", ":db/tupleType": ":db.type/long", **IDENTITY},
    ":of/any": IDENTITY,
    ":code": {":db/valueType": ":db.type/long", ":db/unique": ":db.unique/value"},
    ":both": {":db/valueType": ":db.type/string", **IDENTITY},
    ":both/inside": {":db/valueType": ":db.type/string", **IDENTITY},
    ":both/x.json": {":db/valueType": ":db.type/string", **IDENTITY},
    ":.hidden/..": {":db/valueType": ":db.type/string", ":db/cardinality": ":db.cardinality/many", **IDENTITY},
    ":plain/name": {":db/valueType": ":db.type/string"},
}


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with fresh(tmp_path / "unique", SCHEMA) as store:
        yield store


def context(history: RetainedCommits) -> CommitContext:
    return CommitContext(history.newest(), Stability.MOVING, b"here")


def unique(history: RetainedCommits) -> UniqueDirectory:
    return UniqueDirectory(context(history))


def link(node: Node) -> Link:
    assert isinstance(node, Link)
    return node


def entity_of(history: RetainedCommits, *path: str) -> int:
    """Follow a link, and return the entity that it leads to."""
    where = posixpath.normpath(posixpath.join("unique", *path[:-1], link(at(unique(history), *path)).target))
    top, *rest = where.split("/")
    assert top == "entities"
    at(EntitiesDirectory(context(history)), *rest)
    return int(rest[-1].removesuffix(".json"))


def test_the_directories(store: Store, history: RetainedCommits) -> None:
    assert listed(unique(history)) == ["%2Ehidden", "both", "code", "of"]
    assert listed(at(unique(history), "of")) == sorted([*TYPES, "tuple", "any"])
    assert listed(at(unique(history), "%2Ehidden")) == ["%2E."]
    for path in (
        ["plain"],
        [".hidden"],
        ["of", "name"],
        ["of", "x.json"],
        ["code", "1.json"],
        ["code", "1"],
        [""],
        ["\udcff"],
    ):
        with pytest.raises(NotFound):
            at(unique(history), *path)


def test_a_value_leads_to_its_entity(store: Store, history: RetainedCommits) -> None:
    tempids = store.transact(
        [{":db/id": 1042, ":of/string": "ann@x.org", ":code": 7, ":.hidden/..": ["", "/", ".."]}]
    ).tempids
    assert tempids == {}
    assert link(at(unique(history), "of", "string", "ann@x.org.json")).target == "../../../entities/1000-1999/1042.json"
    assert link(at(unique(history), "code", "7.json")).target == "../../entities/1000-1999/1042.json"
    assert listed(at(unique(history), "%2Ehidden", "%2E.")) == ["%.json", "%2E..json", "%2F.json"]
    for path in (["of", "string", "ann@x.org.json"], ["code", "7.json"], ["%2Ehidden", "%2E.", "%2F.json"]):
        assert entity_of(history, *path) == 1042
    found = link(at(unique(history), "code", "7.json"))
    assert (found.attributes().size, found.attributes().mtime) == (len(found.target), history.newest().mtime)


def test_values_beside_attributes(store: Store, history: RetainedCommits) -> None:
    store.transact([{":db/id": 1, ":both": "x", ":both/inside": "y"}, {":db/id": 2, ":both": "z"}])
    both = at(unique(history), "both")
    assert listed(both) == ["inside", "x.json", "z.json"]
    assert entity_of(history, "both", "z.json") == 2
    assert entity_of(history, "both", "inside", "y.json") == 1
    assert isinstance(at(both, "x.json"), Directory), "an attribute goes before a value of the same file name"


def test_the_text_of_each_type(store: Store, history: RetainedCommits) -> None:
    store.transact(
        [
            {
                ":db/id": 5,
                ":of/string": '"7"',
                ":of/keyword": ":a/b",
                ":of/symbol": "s",
                ":of/boolean": True,
                ":of/long": -3,
                ":of/bigint": 2**70,
                ":of/double": 1.0,
                ":of/float": float("inf"),
                ":of/bigdec": "1.50",
                ":of/instant": "2026-01-31T12:00:00Z",
                ":of/uuid": UUID(int=1),
                ":of/uri": "http://x/y",
                ":of/bytes": "AAA/",
                ":of/ref": 4,
                ":of/tuple": [1, None],
                ":of/any": "7",
            }
        ]
    )
    shown = {name: listed(at(unique(history), "of", name)) for name in listed(at(unique(history), "of"))}
    assert shown == {
        "string": ['"7".json'],
        "keyword": [":a%2Fb.json"],
        "symbol": ["s.json"],
        "boolean": ["true.json"],
        "long": ["-3.json"],
        "bigint": [f"{2**70}.json"],
        "double": ["1.0.json"],
        "float": ["Infinity.json"],
        "bigdec": ["1.50.json"],
        "instant": ["2026-01-31T12:00:00Z.json"],
        "uuid": [f"{UUID(int=1)}.json"],
        "uri": ["http:%2F%2Fx%2Fy.json"],
        "bytes": ["AAA%2F.json"],
        "ref": ["4.json"],
        "tuple": ["[1, null].json"],
        "any": ['"7".json'],
    }
    for name, (value,) in shown.items():
        assert entity_of(history, "of", name, value) == 5
    for path in ("keyword/a%2Fb", "long/-03", "double/1", "bigdec/1.5", "instant/2026-01-31T12:00Z", "ref/04", "any/7"):
        with pytest.raises(NotFound):
            at(unique(history), "of", *f"{path}.json".split("/"))
    for name in (
        "",
        ".json",
        "%.json",
        "x",
        "%zz.json",
        "\0.json",
        "\udcff.json",
        "9" * 300 + ".json",
        "[[.json",
        "{}.json",
    ):
        for kind in shown:
            with pytest.raises(NotFound):
                at(unique(history), "of", kind, name)


def test_long_values_are_found_by_their_shortened_names(store: Store, history: RetainedCommits) -> None:
    values = ["é" * 150 + str(n) for n in range(3)] + ["/" * 120, "\n" * 90 + "x", "x" * 5000, "." + "x" * 300, "\x85" * 200]
    store.transact([{":db/id": n + 1, ":of/string": value, ":of/any": value} for n, value in enumerate(values)])
    store.transact([{":db/id": 99, ":of/bytes": b"\0" * 400}])
    for kind in ("string", "any"):
        names = listed(at(unique(history), "of", kind))
        assert sorted(entity_of(history, "of", kind, name) for name in names) == list(range(1, len(values) + 1))
        assert all(len(name.encode()) <= 255 and name.endswith(".json") for name in names)
        with pytest.raises(NotFound):
            at(unique(history), "of", kind, f"{'x' * 200}%~{'0' * 32}.json")
    (name,) = listed(at(unique(history), "of", "bytes"))
    assert entity_of(history, "of", "bytes", name) == 99


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300) | st.from_regex(r'\A[-0-9.eE"tru{}:/ ]{1,6}\Z')
NUMBER = st.integers(-(2**80), 2**80) | st.floats(allow_nan=False, allow_infinity=False) | st.booleans()
REF = st.builds(lambda e: {":db/id": e}, st.integers(1, 99))
VALUES: dict[str, st.SearchStrategy[Any]] = {
    ":of/string": TEXT,
    ":of/any": TEXT | NUMBER | REF | NUMBER.map(str),
    ":of/double": st.floats(),
    ":of/float": st.floats(width=32),
    ":of/bigint": st.integers(),
    ":of/bigdec": st.decimals(allow_nan=False, allow_infinity=False),
    ":of/instant": st.datetimes(timezones=st.just(UTC)),
    ":of/bytes": st.binary(max_size=300),
    ":of/tuple": st.lists(st.none() | st.integers(-9, 9), min_size=2, max_size=3),
    ":.hidden/..": st.lists(TEXT, min_size=1, max_size=3),
}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.fixed_dictionaries({}, optional=VALUES), min_size=1, max_size=6))
def test_what_is_listed_is_what_a_path_leads_to(entities: list[dict[str, Any]]) -> None:
    with tempfile.TemporaryDirectory() as folder, fresh(Path(folder) / "db", SCHEMA) as store:
        for entity in entities:
            if entity:
                with suppress(TransactionError):  # it has the values of several others
                    store.transact([entity])
        history = RetainedCommits(store.env)
        seen = []
        for namespace in listed(unique(history)):
            for name in listed(at(unique(history), namespace)):
                directory = at(unique(history), namespace, name)
                if not isinstance(directory, Directory):
                    continue
                for entry in directory.entries():
                    assert entry.link
                    assert at(directory, entry.name).inode == entry.inode
                    assert len(entry.name.encode()) <= 255
                    entity_of(history, namespace, name, entry.name)
                    seen.append((namespace, name, entry.name))
        with store.db() as db:
            datoms = [d for d in db.datoms("ave") if db.attribute(d.a).unique]
        assert len(set(seen)) == len(seen) == len(datoms)
        history.close()


def test_a_large_attribute_is_listed_as_it_is_asked_for(store: Store, history: RetainedCommits) -> None:
    for start in range(0, 8000, 2000):
        store.transact([{":of/string": f"user{n:06}@example.org"} for n in range(start, start + 2000)])
    directory = at(unique(history), "of", "string")
    assert isinstance(directory, Directory)
    begin = time.perf_counter()
    first = next(directory.entries())
    early = time.perf_counter() - begin
    names = listed(directory)
    whole = time.perf_counter() - begin - early
    assert (first.name, len(names)) == (names[0], 8000)
    print(f"the first after {early * 1e3:.2f} ms, each {whole / len(names) * 1e6:.1f} us")
