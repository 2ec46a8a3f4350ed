from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cowfs.errors import CorruptDatabase, DatabaseError, NotADatabase, UnsupportedFormat
from cowfs.pages.btree import parse_branch, parse_leaf_node
from cowfs.pages.format import (
    HEADER_SIZE,
    INTEGER_KEY,
    LEAF,
    MAX_TXNID,
    META_SIZE,
    NO_PAGE,
    NODE_SIZE,
    OVERFLOW,
    OVERFLOW_HEADER,
    PAGE_HEADER,
    Root,
    TreeInfo,
    node_offsets,
    overflow_run,
    pack_meta,
    parse_meta,
)
from tests.support.environments import empty_file, findings, newest, stock, write_all_kinds

U64 = st.integers(0, 2**64 - 1)
PAGE_SIZES = [512 << power for power in range(7)]


def records(flags: int, pad: st.SearchStrategy[int], last_pgno: int) -> st.SearchStrategy[TreeInfo]:
    pages = st.just(NO_PAGE) if last_pgno < 2 else st.integers(2, last_pgno) | st.just(NO_PAGE)
    return st.builds(TreeInfo, pad, st.just(flags), st.integers(0, 65535), U64, U64, U64, U64, pages)


@st.composite
def roots(draw: st.DrawFn) -> Root:
    page_size, last_pgno = draw(st.sampled_from(PAGE_SIZES)), draw(st.integers(1, 2**40))
    free = draw(records(INTEGER_KEY, st.just(page_size), last_pgno))
    main = draw(records(0, st.integers(0, 2**32 - 1), last_pgno))
    return Root(draw(st.integers(0, MAX_TXNID)), page_size, draw(U64), last_pgno, free, main)


@settings(deadline=None)
@given(roots(), st.integers(0, 1))
def test_a_meta_page_is_parsed_as_it_was_packed(root: Root, slot: int) -> None:
    page = pack_meta(root, slot)
    assert len(page) == root.page_size
    assert parse_meta(page, slot) == parse_meta(page[:META_SIZE], slot) == root


@given(st.binary(max_size=200))
def test_any_bytes_are_a_meta_page_or_a_clear_error(data: bytes) -> None:
    with pytest.raises(NotADatabase):
        parse_meta(data, 0)


def test_metas_of_lmdb_are_packed_as_lmdb_packs_them(tmp_path: Path) -> None:
    with stock(tmp_path / "db") as env, env.begin(write=True) as txn:
        txn.put(b"key", b"value")
    data = (tmp_path / "db" / "data.mdb").read_bytes()
    for slot in (0, 1):
        page = data[slot * 4096 : (slot + 1) * 4096]
        assert pack_meta(parse_meta(page, slot), slot)[HEADER_SIZE:META_SIZE] == page[HEADER_SIZE:META_SIZE]


@pytest.mark.parametrize(
    ("offset", "form", "value", "error", "text"),
    [
        (0, "<Q", 1, CorruptDatabase, "not a meta page"),
        (10, "<H", 2, CorruptDatabase, "not a meta page"),
        (16, "<I", 0xBEEFC0DF, NotADatabase, "magic"),
        (20, "<I", 2, UnsupportedFormat, "data version 2"),
        (20, "<I", 3, UnsupportedFormat, "data version 3"),
        (20, "<I", 999, UnsupportedFormat, "data version 999"),
        (40, "<I", 0, CorruptDatabase, "page size"),
        (40, "<I", 256, CorruptDatabase, "page size"),
        (40, "<I", 4095, CorruptDatabase, "page size"),
        (40, "<I", 65536, CorruptDatabase, "page size"),
        (44, "<H", 0, CorruptDatabase, "freelist"),
        (44, "<H", 12, CorruptDatabase, "freelist"),
        (80, "<Q", 1, CorruptDatabase, "freelist"),
        (80, "<Q", 10, CorruptDatabase, "freelist"),
        (128, "<Q", 0, CorruptDatabase, "main"),
        (128, "<Q", 2**64 - 2, CorruptDatabase, "main"),
        (136, "<Q", 0, CorruptDatabase, "last page"),
        (136, "<Q", 2**48, CorruptDatabase, "last page"),
    ],
)
def test_a_wrong_meta_page_is_named(offset: int, form: str, value: int, error: type[DatabaseError], text: str) -> None:
    page = bytearray(empty_file(4096, last_pgno=9))
    struct.pack_into(form, page, offset, value)
    with pytest.raises(error, match=text):
        parse_meta(bytes(page), 0)


@pytest.mark.parametrize("start", [bytes(12) + b"\xde\xc0\xef\xbe", bytes(16) + b"\xbe\xef\xc0\xde"])
def test_files_of_other_machines_are_named(start: bytes) -> None:
    with pytest.raises(UnsupportedFormat, match="64-bit little-endian"):
        parse_meta(start.ljust(4096, b"\0"), 0)


@pytest.mark.parametrize("page_size", PAGE_SIZES)
def test_lmdb_and_cowfs_agree_on_every_page_size(tmp_path: Path, page_size: int) -> None:
    write_all_kinds(tmp_path / "db", page_size=page_size, scale=50)
    with stock(tmp_path / "db") as env, newest(tmp_path / "db") as reader:
        assert reader.root.page_size == env.stat()["psize"] == page_size
        for name in (b"deep", b"big"):
            with env.begin(db=env.open_db(name)) as txn:
                assert list(reader.scan(name)) == list(txn.cursor())
    assert findings(tmp_path / "db") == []


def page_of(*nodes: bytes, flags: int = LEAF, size: int = 512) -> bytes:
    page = bytearray(size)
    offsets, upper = [], size
    for node in nodes:
        upper -= len(node) + (len(node) & 1)
        page[upper : upper + len(node)] = node
        offsets.append(upper)
    lower = HEADER_SIZE + 2 * len(nodes)
    page[:lower] = PAGE_HEADER.pack(5, 0, flags, lower, upper) + struct.pack(f"<{len(nodes)}H", *offsets)
    return bytes(page)


def leaf_node(key: bytes, data: bytes, flags: int = 0) -> bytes:
    return struct.pack("<HHHH", len(data) & 0xFFFF, len(data) >> 16, flags, len(key)) + key + data


def branch_node(key: bytes, child: int) -> bytes:
    return struct.pack("<HHHH", child & 0xFFFF, child >> 16 & 0xFFFF, child >> 32, len(key)) + key


@given(st.lists(st.tuples(st.binary(max_size=20), st.binary(max_size=20)), max_size=8))
def test_leaf_nodes_are_parsed_as_they_were_packed(items: list[tuple[bytes, bytes]]) -> None:
    page = page_of(*(leaf_node(*item) for item in items))
    nodes = [parse_leaf_node(page, offset, 5) for offset in node_offsets(page, 5)]
    assert [(node.key, node.data) for node in nodes] == items


def test_branch_children_have_48_bits_and_the_first_key_is_ignored() -> None:
    children = [2, 2**16 + 1, 2**32 + 3, 2**47]
    page = page_of(*(branch_node(b"key%d" % child, child) for child in children), flags=1)
    branch = parse_branch(page, 5, 2**47)
    assert (branch.children, branch.keys) == (children, [b"", *(b"key%d" % child for child in children[1:])])


@pytest.mark.parametrize(
    ("page", "text"),
    [
        (page_of(flags=1), "without children"),
        (page_of(branch_node(b"", 1), flags=1), "child page 1"),
        (page_of(branch_node(b"", 100), flags=1), "child page 100"),
        (page_of(struct.pack("<HHHH", 2, 0, 0, 600), flags=1), "outside the page"),
    ],
)
def test_a_wrong_branch_is_named(page: bytes, text: str) -> None:
    with pytest.raises(CorruptDatabase, match=f"page 5: .*{text}"):
        parse_branch(page, 5, 99)


@pytest.mark.parametrize(("lower", "upper"), [(14, 500), (17, 500), (18, 17), (18, 514), (65535, 65535), (500, 498)])
def test_free_space_that_does_not_fit_is_named(lower: int, upper: int) -> None:
    with pytest.raises(CorruptDatabase, match="page 5: free space"):
        node_offsets(PAGE_HEADER.pack(5, 0, LEAF, lower, upper).ljust(512, b"\0"), 5)


@pytest.mark.parametrize("offset", [0, 400, 512 - NODE_SIZE + 1, 65535])
def test_a_node_offset_outside_the_used_part_is_named(offset: int) -> None:
    page = PAGE_HEADER.pack(5, 0, LEAF, 18, 450) + struct.pack("<H", offset)
    with pytest.raises(CorruptDatabase, match="page 5: a node lies outside"):
        node_offsets(page.ljust(512, b"\0"), 5)


@pytest.mark.parametrize(
    "node", [struct.pack("<HHHH", 0, 1, 0, 0), struct.pack("<HHHH", 0, 0, 0, 9), leaf_node(b"", b"", 1)]
)
def test_leaf_data_outside_the_page_is_named(node: bytes) -> None:
    with pytest.raises(CorruptDatabase, match="page 5: a node's data"):
        parse_leaf_node(page_of(node), 512 - len(node), 5)


def test_an_overflow_run_tells_its_length() -> None:
    assert overflow_run(OVERFLOW_HEADER.pack(5, 0, OVERFLOW, 2**32 - 1), 5) == 2**32 - 1


@pytest.mark.parametrize("header", [(6, 0, OVERFLOW, 1), (5, 0, LEAF, 1), (5, 0, OVERFLOW | LEAF, 1), (5, 0, OVERFLOW, 0)])
def test_what_is_no_overflow_page_is_named(header: tuple[int, int, int, int]) -> None:
    with pytest.raises(CorruptDatabase, match="page 5: not an overflow page"):
        overflow_run(OVERFLOW_HEADER.pack(*header), 5)
