from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from cowfs.errors import CorruptDatabase, EnvironmentFailure
from cowfs.pages.btree import TreeReader, parse_branch
from cowfs.pages.datafile import DataFile
from cowfs.pages.difference import Change, changed_entries
from cowfs.pages.format import HEADER_SIZE, NO_PAGE
from tests.support.environments import KINDS, PLAIN, Counting, empty_file, findings, newest, stock, write_all_kinds
from tests.support.retained import put, retaining, span_of
from tests.support.writer import STYLES, commit

SIZES = st.sampled_from([0, 1, 30, 100, 200, 3000, 9000])
CHANGES = st.lists(
    st.tuples(st.integers(0, 300), SIZES | st.none() | st.just("the same again"), st.integers(1, 90)), max_size=8
)


def brute(old: TreeReader, new: TreeReader, name: bytes) -> list[Change]:
    one, other = dict(old.scan(name)), dict(new.scan(name))
    return [(key, one.get(key), other.get(key)) for key in sorted({*one, *other}) if one.get(key) != other.get(key)]


@contextmanager
def readers(path: Path, commits: Iterator[None]) -> Iterator[list[TreeReader]]:
    """Yield a reader of the root before each of ``commits``, and after the last; who makes them holds the first."""
    with DataFile(path) as file:
        found = [TreeReader(file, file.newest_root())]
        for _ in commits:
            found.append(TreeReader(file, file.newest_root()))
        yield found


def require_exact(found: list[TreeReader], name: bytes) -> None:
    for old in found:
        for new in found:
            assert list(changed_entries(old, new, name)) == brute(old, new, name)


def _commits(path: Path, commits: list[list[tuple[int, int | str | None, int]]], choice: random.Random) -> Iterator[None]:
    """Make commits, which put, delete, or write once more, runs of keys."""
    with stock(path) as env, env.begin():
        database = env.open_db(b"a")
        for changes in commits:
            with env.begin(write=True) as txn:
                for first, size, count in changes:
                    for number in range(first, first + count):
                        key = b"%06d" % number + b"." * (number % 40)
                        if size is None:
                            txn.delete(key, db=database)
                        elif isinstance(size, int):
                            txn.put(key, choice.randbytes(size), db=database)
                        else:
                            txn.put(key, txn.get(key, b"new", db=database), db=database)
            yield


@settings(deadline=None, max_examples=80)
@given(st.lists(CHANGES, min_size=1, max_size=4), st.sampled_from([512, 4096]), st.integers(0, 2**32))
def test_random_commits(commits: list[list[tuple[int, int | str | None, int]]], page_size: int, seed: int) -> None:
    """Pages of 512 bytes make trees of up to four levels, so that the two differ in depth."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "db")
        path.mkdir()
        (path / "data.mdb").write_bytes(empty_file(page_size))
        with readers(path, _commits(path, commits, random.Random(seed))) as found:
            records = [reader.record(b"a") for reader in found]
            event(f"depths {sorted({record.depth for record in records if record is not None})}")
            require_exact(found, b"a")
            require_exact(found, b"none")
            require_exact(found, b"")
        assert findings(path) == []


@pytest.mark.parametrize("style", STYLES)
def test_stock_writers(tmp_path: Path, style: str) -> None:
    more, options = STYLES[style]
    choice = random.Random(1)

    def commits() -> Iterator[None]:
        with stock(tmp_path / "db", **options) as env, env.begin():
            database = env.open_db(b"a")
            for _ in range(30):
                commit(env, database, more, choice)
                yield

    with stock(tmp_path / "db"):
        pass
    with readers(tmp_path / "db", commits()) as found:
        some = choice.sample(found, 8)
        require_exact(some, b"a")
        require_exact(some, b"dropped")
        require_exact(some, b"")


def test_retained_roots(tmp_path: Path) -> None:
    with retaining(tmp_path / "db") as (env, _keeper), ExitStack() as holds:
        for number in range(60):
            put(env, number, 3000)
        found: list[TreeReader] = [holds.enter_context(env.hold(txnid)) for txnid in list(span_of(env))[::7]]
        assert len(found) > 5
        require_exact(found, b"a")


def test_every_page_that_is_read_is_one_that_differs(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with stock(path) as env:
        database = env.open_db(b"a")
        with env.begin(write=True) as txn:
            for number in range(50_000):
                txn.put(b"%08d" % number, b"." * 100, db=database)
        file = Counting(path)
        with env.begin(), file:
            old = TreeReader(file, file.newest_root())
            with env.begin(write=True) as txn:
                txn.put(b"00025000", b"other", db=database)
                txn.put(b"00049999", bytes(20_000), db=database)
            new = TreeReader(file, file.newest_root())
            record = new.record(b"a")
            assert record is not None
            assert record.depth == 3
            file.reads = 0
            assert [key for key, _old, _new in changed_entries(old, new, b"a")] == [b"00025000", b"00049999"]
            # the two paths in both trees, twice the root of the main tree, and the run of the big value
            assert file.reads <= 2 * (1 + 2 * (record.depth - 1)) + 2 + 2
            file.reads = 0
            assert list(changed_entries(new, new, b"a")) == []
            assert file.reads == 0


def test_equal_big_values_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with stock(path) as env:
        database = env.open_db(b"a")
        with env.begin(write=True) as txn:
            for number in range(40):
                txn.put(b"%04d" % number, bytes(100_000), db=database)
        file = Counting(path)
        with env.begin(), file:
            old = TreeReader(file, file.newest_root())
            with env.begin(write=True) as txn:
                txn.put(b"0020", b"small", db=database)
                txn.put(b"0030", bytes(100_000), db=database)  # at another page, with the same bytes
            new = TreeReader(file, file.newest_root())
            file.reads = 0
            assert list(changed_entries(old, new, b"a")) == [(b"0020", bytes(100_000), b"small")]
            assert file.reads < 20


def test_trees_in_another_order_are_refused(all_kinds: Path) -> None:
    with newest(all_kinds) as reader:
        for name in KINDS:
            if name in PLAIN:
                assert list(changed_entries(reader, reader, name)) == []
            else:
                with pytest.raises(EnvironmentFailure, match="order"):
                    changed_entries(reader, reader, name)


@pytest.mark.parametrize("damage", ["circle", "leaf too high", "branch for a leaf", "no page", "depth"])
def test_damage_is_an_error(damaged: Path, damage: str) -> None:
    """Compared with nothing at all, since what two roots share is not looked at."""
    path = damaged / "db"
    write_all_kinds(path, scale=400)
    with newest(path) as reader:
        record = reader.record(b"deep")
        assert record is not None
        assert record.depth == 3
        page_size = reader.file.page_size
        branches = parse_branch(reader.file.page(record.root), record.root, reader.root.last_pgno).children
        lower = parse_branch(reader.file.page(branches[0]), branches[0], reader.root.last_pgno).children
        main = reader.file.page(reader.root.main.root)
    data = bytearray((path / "data.mdb").read_bytes())

    def point(pgno: int, to: int) -> None:
        """Let the first child of branch ``pgno`` be page ``to``."""
        at = pgno * page_size
        node = at + int.from_bytes(data[at + HEADER_SIZE : at + HEADER_SIZE + 2], "little")
        data[node : node + 2] = to.to_bytes(2, "little")

    if damage == "circle":
        point(branches[0], lower[1])
    elif damage == "leaf too high":
        point(record.root, lower[0])
    elif damage == "branch for a leaf":
        point(branches[0], record.root)
    elif damage == "no page":
        point(branches[0], 0)
    else:
        at = reader.root.main.root * page_size + main.index(record.pack())
        data[at + 6] = 200
    (path / "data.mdb").write_bytes(data)
    with newest(path) as reader, pytest.raises(CorruptDatabase):
        nothing = replace(reader.root, main=replace(reader.root.main, root=NO_PAGE))
        list(changed_entries(TreeReader(reader.file, nothing), reader, b"deep"))
