from __future__ import annotations

import random
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from cowfs.engine.env import Env
from cowfs.errors import CorruptDatabase, EnvironmentFailure
from cowfs.pages import btree
from cowfs.pages.btree import TreeReader
from cowfs.pages.datafile import DataFile
from cowfs.pages.difference import changed_entries
from cowfs.pages.format import BRANCH, INTEGER_KEY, LEAF, NO_PAGE, PAGE_HEADER, REVERSE_KEY, Root, TreeInfo, pack_meta
from cowfs.pages.freelist import freed_pages, read_free_pages
from cowfs.pages.reader import Reader
from tests.support.environments import PLAIN, empty_file, findings, newest, stock

Model = dict[bytes, bytes]

KEYS = st.binary(min_size=1, max_size=3) | st.binary(min_size=1, max_size=511) | st.sampled_from([b"\0", b"\xff" * 511])
SIZES = st.sampled_from([0, 1, 100, 1000, 2025, 2026, 2027, 4080, 4081, 10_000, 200_000])
PUTS = st.lists(st.tuples(KEYS, SIZES), max_size=60)
BOUNDS = st.lists(st.tuples(KEYS | st.just(b""), KEYS | st.none() | st.just(b"\xff" * 600)), max_size=8)


@contextmanager
def everywhere(path: Path) -> Iterator[list[Reader]]:
    """Yield all readers of the newest root: our own, and the write transaction's."""
    with Env.open(path, durable=False) as env, env.hold() as hold, env.write() as txn:
        yield [hold, txn]
        txn.abort()


def expected(model: Model, start: bytes, stop: bytes | None) -> list[tuple[bytes, bytes]]:
    return sorted((k, v) for k, v in model.items() if start <= k and (stop is None or k < stop))


@settings(deadline=None, max_examples=60)
@given(st.lists(PUTS, min_size=1, max_size=4), BOUNDS, st.integers(0, 2**32))
def test_get_and_scan_are_a_dict_in_order(commits: list[list[tuple[bytes, int]]], bounds: Any, seed: int) -> None:
    model: Model = {}
    choice = random.Random(seed)
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "db")
        with Env.create(path, durable=False) as env:
            for puts in commits:
                with env.write() as txn:
                    txn.create([b"a"])
                    for key in choice.sample(sorted(model), len(model) // 3):
                        assert txn.delete(b"a", key)
                        del model[key]
                    for key, size in puts:
                        model[key] = choice.randbytes(size)
                        txn.put(b"a", key, model[key])
        event(f"depth {depth(path, b'a')}")
        with everywhere(path) as readers:
            for reader in readers:
                require_equal(reader, model, bounds)
        assert findings(path) == []


def depth(path: Path, name: bytes) -> int:
    with newest(path) as reader:
        record = reader.record(name)
        return -1 if record is None else record.depth


def require_equal(reader: Reader, model: Model, bounds: list[tuple[bytes, bytes | None]]) -> None:
    for start, stop in [(b"", None), (b"", b""), *bounds]:
        items = expected(model, start, stop)
        assert list(reader.scan(b"a", start, stop)) == items
        assert list(reader.scan(b"a", start, stop, reverse=True)) == items[::-1]
        assert list(reader.keys(b"a", start, stop)) == [key for key, _value in items]
        assert list(reader.prefixes(b"a", 1, start, stop)) == sorted({key[:1] for key, _value in items})
        assert reader.get(b"a", start) == model.get(start)
    for key in model:
        assert reader.get(b"a", key) == model[key]
        assert reader.get(b"a", key + b"\0") == model.get(key + b"\0")


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("deep")
    with stock(path) as env:
        database = env.open_db(b"deep")
        with env.begin(write=True, db=database) as txn:
            for number in range(2000):
                txn.put(b"%05d" % number + b"." * 490, b"%d" % number)
    return path


def test_a_deep_tree_is_read_as_lmdb_reads_it(deep: Path) -> None:
    assert depth(deep, b"deep") >= 4
    choice = random.Random(5)
    with stock(deep) as env, newest(deep) as reader, env.begin(db=env.open_db(b"deep")) as txn:
        items = list(txn.cursor())
        assert list(reader.scan(b"deep")) == items
        assert list(reader.scan(b"deep", reverse=True)) == items[::-1]
        for _ in range(300):
            start, stop = (b"%05d" % choice.randrange(-5, 2100) for _ in range(2))
            piece = [item for item in items if start <= item[0] < stop]
            assert list(reader.scan(b"deep", start, stop)) == piece
            assert list(reader.scan(b"deep", start, stop, reverse=True)) == piece[::-1]
            assert list(reader.keys(b"deep", start, stop)) == [key for key, _value in piece]
            size = choice.randrange(1, 6)
            assert list(reader.prefixes(b"deep", size, start, stop)) == sorted({key[:size] for key, _value in piece})
            assert reader.get(b"deep", start) is None
            assert reader.get(b"deep", start + b"." * 490) == txn.get(start + b"." * 490)


def test_a_scan_reads_only_what_it_yields(deep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    page = DataFile.page
    monkeypatch.setattr(DataFile, "page", lambda self, pgno: read.append(pgno) or page(self, pgno))  # type: ignore[func-returns-value]
    with newest(deep) as reader:
        assert next(reader.scan(b"deep", b"01000"))[1] == b"1000"
        levels = depth_and_main = len(read)
        read.clear()
        assert next(reader.scan(b"deep", b"01000", reverse=True))[1] == b"1999"
        assert 4 <= levels <= 7 and len(read) <= depth_and_main
        read.clear()
        assert reader.get(b"deep", b"01000" + b"." * 490) == b"1000"
        assert len(read) == 1, "the branches are kept"


def test_what_many_keys_begin_with_is_passed_over(deep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    page = DataFile.page
    monkeypatch.setattr(DataFile, "page", lambda self, pgno: read.append(pgno) or page(self, pgno))  # type: ignore[func-returns-value]
    with newest(deep) as reader:
        assert list(reader.prefixes(b"deep", 2)) == [b"00", b"01"]
        assert len(read) < 40, "of some 300 leaves"


def test_a_key_that_is_shorter_than_the_prefix_is_damage(tmp_path: Path) -> None:
    with stock(tmp_path) as env, env.begin(write=True, db=env.open_db(b"a")) as txn:
        txn.put(b"long enough", b"")
        txn.put(b"short", b"")
    with newest(tmp_path) as reader, pytest.raises(CorruptDatabase, match="less than 6 bytes"):
        list(reader.prefixes(b"a", 6))


def test_memory_for_branches_has_a_bound(deep: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(btree, "_BRANCHES_KEPT", 2)
    with newest(deep) as reader:
        assert [value for _key, value in reader.scan(b"deep")] == [b"%d" % number for number in range(2000)]
        assert len(reader._branches) <= 2


def test_empty_and_missing_databases(tmp_path: Path) -> None:
    with stock(tmp_path / "db") as env:
        env.open_db(b"empty")
        with env.begin(write=True) as txn:
            txn.put(b"an entry", b"of the main tree")
    with everywhere(tmp_path / "db") as readers:
        for reader in readers:
            for name in (b"empty", b"missing", b"an", b"empty2", b"x" * 300):
                assert list(reader.scan(name)) == list(reader.scan(name, b"a", b"z", reverse=True)) == []
                assert reader.get(name, b"key") is None
    with newest(tmp_path / "db") as reader:
        assert [name for name, _record in reader.databases()] == [b"empty"]
        assert reader.record(b"missing") is reader.record(b"an entry") is None
        assert reader.get(b"", b"an entry") == b"of the main tree"


def test_an_environment_without_any_page(tmp_path: Path) -> None:
    Env.create(tmp_path / "db").close()
    with everywhere(tmp_path / "db") as readers:
        for reader in readers:
            assert (list(reader.scan(b"")), reader.get(b"", b"key"), reader.get(b"a", b"key")) == ([], None, None)


@pytest.mark.parametrize("flags", [0, REVERSE_KEY])
def test_databases_are_found_whatever_the_order_of_the_main_tree(tmp_path: Path, flags: int) -> None:
    names = [b"%03d" % number + b"n" * 60 for number in range(200)]
    (tmp_path / "data.mdb").write_bytes(empty_file(4096, main_flags=flags))
    with stock(tmp_path, max_dbs=300) as env, env.begin(write=True) as txn:
        for name in names:
            txn.put(b"key", name, db=env.open_db(name, txn))
    with newest(tmp_path) as reader:
        assert sorted(name for name, _record in reader.databases()) == names
        assert [reader.get(name, b"key") for name in names] == names
        assert reader.record(b"n") is None


def test_trees_in_another_order_are_left_to_check(all_kinds: Path) -> None:
    with newest(all_kinds) as reader:
        assert {name for name, _record in reader.databases()} > set(PLAIN)
        for name in (b"dup", b"dup fixed", b"reverse", b"integer"):
            for refused in (lambda name=name: list(reader.scan(name, b"a")), lambda name=name: reader.get(name, b"a")):
                with pytest.raises(EnvironmentFailure, match="not in plain key order"):
                    refused()
        integers = [int.from_bytes(key, "little") for key, _value in reader.scan(b"integer")]
        assert integers == list(range(100))


def test_depth_and_pages_of_a_circle_are_bounded(deep: Path) -> None:
    with newest(deep) as reader:
        record = reader.record(b"deep")
        assert record is not None
        circle = btree.Branch([b""], [record.root])
        reader._branches[record.root] = circle
        for read in (lambda: list(reader.scan(b"deep")), lambda: reader.get(b"deep", b"a")):
            with pytest.raises(CorruptDatabase, match=f"page {record.root}: "):
                read()
        broad = TreeReader(reader.file, reader.root)
        broad._branches[record.root] = btree.Branch([b"", *(b"\1" * 9 for _ in range(2999))], [_a_leaf(reader)] * 3000)
        with pytest.raises(CorruptDatabase, match="runs in a circle"):
            list(broad.scan(b"deep"))


def _a_leaf(reader: TreeReader) -> int:
    record = reader.record(b"")
    assert record is not None and record.depth == 1
    return record.root


def test_a_tree_whose_pages_each_name_the_next_twice_ends(damaged: Path) -> None:
    """30 branch pages make 2**30 ways to one leaf: no walk may take them all. Keys are integers here, or plain."""
    doubling = 30
    leaf = doubling + 2
    record = TreeInfo(0, 0, doubling + 1, doubling, 1, 0, 1, 2)
    free = replace(record, pad=4096, flags=INTEGER_KEY)
    root = Root(2, 4096, 1 << 30, leaf, free, record)
    pages = [pack_meta(root, 0), pack_meta(root, 1)]
    pages += [_page(pgno, BRANCH, [(pgno + 1, b""), (pgno + 1, b"\5" + bytes(7))]) for pgno in range(2, leaf)]
    pages.append(_page(leaf, LEAF, [(8, bytes(8) + bytes(8))]))
    (damaged / "data.mdb").write_bytes(b"".join(pages))
    with newest(damaged) as reader:
        walks: list[Callable[[], object]] = [
            lambda: list(reader.scan(b"")),
            lambda: list(reader.scan(b"", reverse=True)),
            lambda: list(reader.keys(b"")),
            lambda: list(reader.prefixes(b"", 4)),
            lambda: list(reader.extents(b"", b"", b"\xff")),
            lambda: list(reader.databases()),
            lambda: list(reader.leaves(reader.root.main)),
            lambda: list(reader.scan_integers(reader.root.free, 0, 2**64)),
            lambda: freed_pages(reader, 0, 2**63),
            lambda: read_free_pages(reader),
            lambda: list(
                changed_entries(reader, TreeReader(reader.file, replace(root, main=replace(record, root=NO_PAGE))), b"")
            ),
        ]
        for walk in walks:
            with pytest.raises(CorruptDatabase):
                walk()
        assert findings(damaged)


def _page(pgno: int, flags: int, nodes: list[tuple[int, bytes]]) -> bytes:
    """Return a page with nodes of (child, key), or of (size of the data, key and data)."""
    lower, upper, pointers, body = 16 + 2 * len(nodes), 4096, b"", b""
    for number, data in nodes:
        node = struct.pack("<IHH", number, 0, len(data) - (number if flags == LEAF else 0)) + data
        upper -= len(node)
        pointers, body = pointers + struct.pack("<H", upper), node + body
    return PAGE_HEADER.pack(pgno, 0, flags, lower, upper) + pointers + bytes(upper - lower) + body
