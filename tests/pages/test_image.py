from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cowfs.engine.env import Env, require_whole
from cowfs.engine.holds import Hold
from cowfs.engine.opening import reading
from cowfs.engine.rootrecord import image_of
from cowfs.errors import CorruptDatabase
from cowfs.pages.datafile import DataFile
from cowfs.pages.format import META_SIZE, Root, parse_meta
from cowfs.pages.freelist import read_free_pages
from cowfs.pages.image import pages_in_use
from cowfs.pages.pagecheck import check_pages
from tests.support.commands import run
from tests.support.environments import findings, image_bytes, newest, stock
from tests.support.stock import opened, require_balance
from tests.support.writer import STYLES, require_certified, writing

Model = dict[bytes, bytes]

SIZES = st.sampled_from([0, 1, 50, 1500, 3000, 10_000, 60_000])
PUTS = st.dictionaries(st.integers(0, 40), SIZES, max_size=12)
COMMITS = st.lists(st.tuples(PUTS, st.integers(0, 10), st.booleans()), min_size=1, max_size=12)


class Kept(NamedTuple):
    """A held root, the model at its commit, and its image as it was then."""

    hold: Hold
    model: Model
    image: bytes


@settings(deadline=None, max_examples=40)
@given(COMMITS, st.integers(0, 2**32))
def test_images_never_change_and_are_what_was_committed(commits: list[tuple[dict[int, int], int, bool]], seed: int) -> None:
    model: Model = {}
    kept: list[Kept] = []
    choice = random.Random(seed)
    with tempfile.TemporaryDirectory() as directory, Env.create(Path(directory, "db"), durable=False) as env:
        for puts, deletes, keep in commits:
            with env.write() as txn:
                txn.create([b"a"])
                for key in choice.sample(sorted(model), min(deletes, len(model))):
                    txn.delete(b"a", key)
                    del model[key]
                for number, size in puts.items():
                    key = b"%d" % number * 20
                    model[key] = choice.randbytes(size)
                    txn.put(b"a", key, model[key])
            if keep:
                hold = env.hold()
                kept.append(Kept(hold, dict(model), image_bytes(env.file, hold.root)))
        for number, (hold, then, image) in enumerate(kept):
            assert image_bytes(env.file, hold.root) == image
            require_image(Path(directory, str(number)), hold, image)
            with newest(Path(directory, str(number))) as reader:
                assert dict(reader.scan(b"a")) == then
            hold.close()


def require_image(path: Path, hold: Hold, image: bytes) -> None:
    """Hold that ``image`` is what the image of a root should be; leave it as the environment ``path``."""
    root = hold.root
    page_size = root.page_size
    assert len(image) == root.pages * page_size + root.txnid % page_size
    for slot in (0, 1):
        assert parse_meta(image[slot * page_size :], slot) == root
        assert not any(image[slot * page_size + META_SIZE : (slot + 1) * page_size])
    free = read_free_pages(hold)
    for pgno in free.among(0, root.last_pgno):
        assert not any(image[pgno * page_size : (pgno + 1) * page_size])
    assert not any(image[root.pages * page_size :])
    assert pages_in_use(hold) == root.pages - len(free)
    path.mkdir()
    (path / "data.mdb").write_bytes(image)
    assert findings(path) == []
    with DataFile(path) as file:
        assert image_bytes(file, file.newest_root()) == image


@pytest.fixture
def held(tmp_path: Path) -> Iterator[Kept]:
    """A root with some free pages, written on with two more commits."""
    choice = random.Random(4)
    model: Model = {}
    with Env.create(tmp_path / "db", durable=False) as env:
        for commit in range(8):
            with env.write() as txn:
                txn.create([b"a"])
                for number in choice.sample(range(60), 20):
                    model[b"%d" % number] = choice.randbytes(choice.choice([10, 2000, 9000]))
                    txn.put(b"a", b"%d" % number, model[b"%d" % number])
            if commit == 5:
                hold, then = env.hold(), dict(model)
        with hold:
            yield Kept(hold, then, image_bytes(env.file, hold.root))


def test_any_piece_of_an_image_is_a_slice_of_it(held: Kept) -> None:
    choice = random.Random(9)
    size, page_size = len(held.image), held.hold.root.page_size
    edges = [page * page_size + step for page in range(held.hold.root.pages + 1) for step in (-1, 0, 1)]
    image = image_of(held.hold.file, held.hold.root, held.hold.root.txnid)
    assert image.size == size
    for _ in range(3000):
        offset = max(0, choice.choice([choice.randrange(size + 100), choice.choice(edges)]))
        length = choice.choice([0, 1, 8, 511, page_size - 1, page_size, page_size + 1, 20_000, 200_000])
        buffer = bytearray(b"\xaa" * length)
        count = image.readinto(offset, memoryview(buffer))
        expected = held.image[offset : offset + length]
        assert (count, bytes(buffer)) == (len(expected), expected + b"\xaa" * (length - len(expected)))


@pytest.mark.parametrize("chunk_size", [1, 4095, 4096, 1 << 20])
def test_chunks_are_the_image(held: Kept, chunk_size: int) -> None:
    image = image_of(held.hold.file, held.hold.root, held.hold.root.txnid)
    image.prepare()
    length = len(held.image) if chunk_size > 1 else 5000
    chunks = image.chunks(chunk_size)
    content = b"".join(bytes(chunk) for chunk, _ in zip(chunks, range(-(-length // chunk_size)), strict=False))
    assert content == held.image[: len(content)]
    assert len(content) == length


def test_the_size_tells_commits_apart(held: Kept) -> None:
    root = held.hold.root
    sizes = {image_of(held.hold.file, root, txid).size for txid in range(5000, 5000 + root.page_size)}
    assert len(sizes) == root.page_size
    assert min(sizes) == root.pages * root.page_size


def test_a_short_read_is_continued(held: Kept, monkeypatch: pytest.MonkeyPatch) -> None:
    readinto = DataFile.readinto
    monkeypatch.setattr(DataFile, "readinto", lambda self, buffer, offset: readinto(self, buffer[:5000], offset))
    assert image_bytes(held.hold.file, held.hold.root) == held.image


def test_an_image_is_an_environment_like_any_other(held: Kept, tmp_path: Path) -> None:
    """For stock LMDB, which reads it, writes it, and balances its books, in processes of its own."""
    path = tmp_path / "image"
    require_image(path, held.hold, held.image)
    assert require_balance(path) == held.hold.root.txnid
    assert opened(path)[0]["databases"]["a"][0] == len(held.model)
    assert dumped(path, "a") == held.model
    with stock(path) as env:
        database = env.open_db(b"a")
        for number in range(30):
            with env.begin(write=True) as txn:
                assert txn.id() == held.hold.root.txnid + 1 + number
                txn.put(b"%d" % (number % 7), b"written" * number, db=database)
    assert findings(path) == []
    require_balance(path)
    assert dumped(path, "a").keys() >= held.model.keys()


def dumped(path: Path, database: str) -> Model:
    lines = run("mdb_dump", "-s", database, path).stdout.splitlines()
    data = [bytes.fromhex(line) for line in lines[lines.index("HEADER=END") + 1 : lines.index("DATA=END")]]
    return dict(zip(data[::2], data[1::2], strict=True))


def digest(file: DataFile, root: Root) -> bytes:
    result = blake2b()
    for chunk in image_of(file, root, root.txnid).chunks():
        result.update(chunk)
    return result.digest()


@pytest.mark.parametrize("style", STYLES)
def test_a_held_root_stays_whatever_writes_beside_it(tmp_path: Path, style: str) -> None:
    """RootLog held while another process writes in every style; each is released while others are still held."""
    Env.create(tmp_path / "db").close()
    with writing(style, tmp_path / "db", 3), Env.open(tmp_path / "db", readonly=True) as env:
        first = env.hold()
        roots = [(first, digest(env.file, first.root))]
        while env.newest_txnid() < first.root.txnid + 400 and env.file.size() < 100 << 20:
            hold = env.hold()
            roots.append((hold, digest(env.file, hold.root)))
            if len(roots) > 6:
                roots.pop(1)[0].close()
        for hold, before in roots:
            assert digest(env.file, hold.root) == before
            assert list(check_pages(env.file, hold.root)) == []
            require_certified(hold, hold.root.txnid)
            require_whole(env.file)
        require_opened(tmp_path, env.file, first)
        for hold, _before in roots:
            hold.close()


def require_opened(directory: Path, file: DataFile, hold: Hold) -> None:
    """Hold that LMDB reads from the image what we read from the root."""
    path = directory / "image"
    path.mkdir()
    (path / "data.mdb").write_bytes(image_bytes(file, hold.root))
    databases = opened(path)[0]["databases"]
    for name, record in hold.databases():
        assert databases[name.decode()][0] == record.entries
    if "duplicates" not in databases:
        assert require_balance(path) == hold.root.txnid
        assert dumped(path, "a") == dict(hold.scan(b"a"))


@pytest.fixture
def free_tail(tmp_path: Path) -> Path:
    """An environment whose last fifty pages, at least, are free."""
    with Env.create(tmp_path / "db", durable=False) as env:
        for number in range(3):
            with env.write() as txn:
                txn.create([b"a", b"b"])
                txn.put(b"a", b"%d" % number, b"%d" % number * 100)
                txn.put(b"b", b"large", bytes(300_000))
        with env.write() as txn:
            txn.delete(b"b", b"large")
            txn.put(b"a", b"key", b"value")
    return tmp_path / "db"


def last_used(reader: Hold) -> int:
    free = read_free_pages(reader)
    return max(pgno for pgno in range(reader.root.pages) if pgno not in free)


def test_free_pages_after_the_end_of_the_file_are_zeros(free_tail: Path) -> None:
    """As LMDB leaves them: never written. At every place where the file may end."""
    with DataFile(free_tail) as file:
        root = file.newest_root()
        whole = image_bytes(file, root)
    with Env.open(free_tail) as env, env.hold() as hold:
        used = last_used(hold)
        assert used < root.last_pgno - 20
        for end in (root.pages * 4096 - 1, (used + 2) * 4096 + 100, (used + 1) * 4096 + 1, (used + 1) * 4096):
            os.truncate(free_tail / "data.mdb", end)
            require_whole(env.file)
            assert image_bytes(env.file, root) == whole
            assert list(check_pages(env.file, root)) == []
            piece = bytearray(5000)
            assert image_of(env.file, root, 0).readinto(root.last_pgno * 4096 - 1000, memoryview(piece)) == 5000
            assert not any(piece)


def test_a_missing_leaf_is_an_error_though_the_freelist_is_whole(tmp_path: Path, damaged: Path) -> None:
    with Env.create(tmp_path / "db", durable=False) as env:
        for number in range(50):
            with env.write() as txn:
                txn.create([b"a"])
                txn.put(b"a", b"%d" % (number % 20), b"%d" % number * 900)
            with env.hold() as hold:
                used = last_used(hold)
                freelist = hold.root.free.root
            if number > 20 and used != freelist:
                break
    assert number < 49, "the last page in use is a leaf of a database"
    (damaged / "data.mdb").write_bytes((tmp_path / "db" / "data.mdb").read_bytes()[: used * 4096])
    for opener in (Env.open, lambda path: reading(path).__enter__()):
        with pytest.raises(CorruptDatabase, match=f"page {used}: missing: .* is cut short, it has {used} pages of"):
            opener(damaged)


def test_used_pages_after_the_end_of_the_file_are_an_error(free_tail: Path, damaged: Path) -> None:
    content = (free_tail / "data.mdb").read_bytes()
    with Env.open(free_tail) as env, env.hold() as hold:
        used, root = last_used(hold), hold.root
        free = read_free_pages(hold)
    for cut in (used * 4096 + 4095, used * 4096 + 1, used * 4096):
        (damaged / "data.mdb").write_bytes(content[:cut])
        missing = next(pgno for pgno in range(cut // 4096, root.pages) if pgno not in free)
        with DataFile(damaged) as file:
            with pytest.raises(CorruptDatabase, match=f"page {missing}: missing"):
                require_whole(file)
            with pytest.raises(CorruptDatabase, match=f"page {missing}: missing"):
                image_bytes(file, root)
