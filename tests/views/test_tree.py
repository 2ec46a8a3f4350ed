from __future__ import annotations

import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import cowfs
from cowfs import Store
from cowfs import ids as txids
from cowfs.commits.observed import ObservedCommits
from cowfs.commits.opened import open_commits
from cowfs.commits.retained import RetainedCommits
from cowfs.engine.env import Env
from cowfs.errors import NotFound, UnsupportedFormat
from cowfs.pages.freelist import read_free_pages
from cowfs.store.history.retention import Retention
from cowfs.store.model.layout import FORMAT_KEY, META, Format
from cowfs.views.node import Directory, File, Node, Stability
from cowfs.views.tree import Tree

from .conftest import SCHEMA, add, put
from .nodes import content


@pytest.fixture
def tree(history: RetainedCommits) -> Tree:
    return Tree(history)


@pytest.fixture
def foreign_tree(foreign: Env) -> Iterator[Tree]:
    history = ObservedCommits(foreign, keep=10)
    yield Tree(history)
    history.close()


def at(tree: Tree, path: str) -> Node:
    return tree.node(path)


def listed(tree: Tree, path: str) -> list[str]:
    directory = at(tree, path)
    assert isinstance(directory, Directory)
    return [entry.name for entry in directory.entries()]


def walk(tree: Tree, path: str = "/") -> Iterator[tuple[str, Node]]:
    node = at(tree, path)
    yield path, node
    if isinstance(node, Directory):
        for entry in node.entries():
            yield from walk(tree, f"{path.rstrip('/')}/{entry.name}")


def test_the_top(tree: Tree) -> None:
    assert listed(tree, "/") == ["browse", "live", "snapshots"]
    assert at(tree, "//live/").inode == at(tree, "/live").inode


def test_each_commit_is_a_directory(store: Store, tree: Tree) -> None:
    commits = [tree.history.newest().txid]
    for number in range(3):
        commits.append(add(store, f"item {number}"))
        assert listed(tree, "/snapshots") == ["1", *map(str, commits), "latest"]
    for place in ("/snapshots/latest", *(f"/snapshots/{txid}" for txid in commits)):
        assert listed(tree, place) == ["data.mdb", "schema.json", "snapshot.json"]
    trees = ["attributes", "entities", "log", "unique"]
    assert listed(tree, "/live") == [*sorted([*trees, "history"]), "data.mdb", "schema.json", "snapshot.json"]
    for place in ("/browse/latest", *(f"/browse/{txid}" for txid in commits)):
        assert listed(tree, place) == [*trees, "schema.json", "snapshot.json"]
    assert listed(tree, "/browse") == ["latest"]
    assert [json.loads(content(at(tree, f"/snapshots/{txid}/snapshot.json")))["txid"] for txid in commits] == commits


def test_a_listing_is_whole_though_commits_are_given_up_meanwhile(store: Store, tree: Tree) -> None:
    for number in range(12):
        add(store, f"item {number}")
    before = listed(tree, "/snapshots")
    names = []
    directory = at(tree, "/snapshots")
    assert isinstance(directory, Directory)
    for entry in directory.entries():
        names.append(entry.name)
        add(store, f"while {entry.name} is listed")
        store.retain(Retention(commits=0))
    assert names == before
    tree.history.newest()
    assert len(set(names) & set(listed(tree, "/snapshots"))) == 1, "all but latest were given up"


def test_what_is_listed_is_what_its_path_leads_to(store: Store, tree: Tree) -> None:
    add(store, "second")
    for path, node in walk(tree):
        if isinstance(node, Directory):
            for name, inode, directory, _link in node.entries():
                found = at(tree, f"{path}/{name}")
                assert (found.inode, isinstance(found, Directory)) == (inode, directory)


def test_inodes_are_unique(store: Store, tree: Tree) -> None:
    for number in range(4):
        add(store, f"item {number}")
        tree.history.newest()
    nodes = list(walk(tree))
    assert len({node.inode for _path, node in nodes}) == len(nodes) > 2 + 4 * 8
    assert all(0 < node.inode < 2**64 for _path, node in nodes)


def test_inodes_stay_while_the_commit_changes(store: Store, tree: Tree) -> None:
    before = {path: node.inode for path, node in walk(tree)}
    txid = tree.history.newest().txid
    frozen = content(at(tree, f"/snapshots/{txid}/data.mdb"))
    live = content(at(tree, "/live/snapshot.json"))
    add(store, "second")
    after = {path: node.inode for path, node in walk(tree)}
    assert before.items() <= after.items()
    assert content(at(tree, f"/snapshots/{txid}/data.mdb")) == frozen
    assert content(at(tree, "/live/snapshot.json")) != live


def test_only_a_commit_by_its_txid_is_frozen(tree: Tree) -> None:
    for path, node in walk(tree):
        assert (node.stability is Stability.FROZEN) == any(name.isdigit() for name in path.split("/"))


def test_latest_is_what_the_caller_says(store: Store, tree: Tree) -> None:
    bound = tree.history.newest().retain()
    second = add(store, "second")
    latest = tree.node("/snapshots/latest/snapshot.json", lambda _name, _resolve: bound)
    assert json.loads(content(latest))["txid"] == bound.txid == second - 1
    assert json.loads(content(tree.node("/live/snapshot.json", lambda _name, _resolve: bound)))["txid"] == second
    bound.release()


WRONG = [
    "0042",
    "+5",
    " 5",
    "5 ",
    "-1",
    "0",
    "1.0",
    "1e0",
    "5_0",
    "\u0665",
    "\u00b2",
    str(2**64),
    "9" * 400,
    "x" * 5000,
    ".",
    "..",
    "LATEST",
    "latest ",
    "\udcff\udc80",
    "\0",
    "a\nb",
]


@pytest.mark.parametrize("name", WRONG)
@pytest.mark.parametrize("place", ["/", "/live", "/snapshots", "/snapshots/latest"])
def test_a_name_that_is_none_is_not_found(tree: Tree, place: str, name: str) -> None:
    with pytest.raises(NotFound):
        at(tree, f"{place}/{name}")


def test_other_spellings_of_a_commit_are_not_found(store: Store, tree: Tree) -> None:
    txid = tree.history.newest().txid
    assert at(tree, f"/snapshots/{txid}").stability is Stability.FROZEN
    for spelling in (f"0{txid}", f"+{txid}", f" {txid}", f"{txid} ", f"{txid}.", f"{txid}\n", f"0x{txid:x}"):
        with pytest.raises(NotFound):
            at(tree, f"/snapshots/{spelling}")
    with pytest.raises(NotFound, match="not a directory on the way"):
        at(tree, f"/snapshots/{txid}/data.mdb/more")
    with pytest.raises(NotFound, match=f"no snapshot {txid + 1}"):
        at(tree, f"/snapshots/{txid + 1}")


@given(st.text(max_size=25) | st.integers(-(2**65), 2**65).map(str) | st.binary(max_size=9).map(os.fsdecode))
def test_a_txid_has_one_spelling(name: str) -> None:
    parsed = txids.parse(name)
    assert parsed is None or (str(parsed) == name and 0 <= parsed < 2**64)
    if name.isascii() and name.isdecimal() and str(int(name)) == name:
        assert parsed == (int(name) if int(name) < 2**64 else None)


def test_snapshot_json_says_which_commit_this_is(store: Store, tree: Tree) -> None:
    report = store.transact([{":item/name": "second"}])
    summary = at(tree, "/live/snapshot.json")
    image = at(tree, "/live/data.mdb")
    with store.db() as db:
        pages = db.reader.root.pages  # type: ignore[attr-defined]
        assert json.loads(content(summary)) == {
            "txid": report.txid,
            "instant": report.instant.isoformat().replace("+00:00", "Z"),
            "pages": pages,
            "page_size": 4096,
            "bytes": pages * 4096 + report.txid % 4096,
            "datoms": db.datom_count,
        }
    assert image.attributes().size == len(content(image)) == pages * 4096 + report.txid % 4096
    assert summary.attributes().mtime == image.attributes().mtime == int(report.instant.timestamp())
    assert summary.attributes().size == len(content(summary))


def test_schema_json_makes_the_same_store_again(store: Store, tree: Tree, tmp_path: Path) -> None:
    schema = json.loads(content(at(tree, "/live/schema.json")))
    assert schema.keys() >= SCHEMA.keys()
    with Store.create(tmp_path / "again", schema, durability="none") as again:
        assert again.schema.to_json() == store.schema.to_json() == schema


def test_data_mdb_is_a_store_like_any_other(store: Store, tree: Tree, tmp_path: Path) -> None:
    txid = tree.history.newest().txid
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "data.mdb").write_bytes(content(at(tree, f"/snapshots/{txid}/data.mdb")))
    add(store, "second")
    with cowfs.open(tmp_path / "copy") as copy, copy.db() as db:
        assert db.txid == txid
        assert [entity[":item/name"] for entity in db.export()] == ["first"]


def test_blocks_are_the_pages_in_use(store: Store, tree: Tree) -> None:
    for number in range(20):
        add(store, f"item {number}")
    blocks = at(tree, "/live/data.mdb").attributes().blocks
    with store.env.hold() as hold:
        assert blocks * 512 == (hold.root.pages - len(read_free_pages(hold))) * 4096
        assert 0 < blocks * 512 < hold.root.pages * 4096


def test_a_file_is_read_at_any_offset(tree: Tree) -> None:
    for name in ("data.mdb", "schema.json", "snapshot.json"):
        node = at(tree, f"/live/{name}")
        assert isinstance(node, File)
        whole = content(node)
        for offset in (0, 1, len(whole) - 1, len(whole), len(whole) + 7, 2**40):
            for length in (0, 1, 50):
                buffer = bytearray(b"\xaa" * length)
                count = node.readinto(offset, memoryview(buffer))
                assert bytes(buffer[:count]) == whole[offset : offset + length]
                assert bytes(buffer[count:]) == b"\xaa" * (length - count)


def test_a_foreign_environment_has_images_only(foreign: Env, foreign_tree: Tree) -> None:
    txid = put(foreign, b"second")
    assert listed(foreign_tree, "/live") == ["data.mdb", "snapshot.json", "README"]
    assert b"not a cowfs store" in content(at(foreign_tree, "/live/README"))
    assert listed(foreign_tree, "/") == ["live", "snapshots"]
    with pytest.raises(NotFound):
        at(foreign_tree, "/browse")
    with pytest.raises(NotFound):
        at(foreign_tree, "/live/schema.json")
    summary = json.loads(content(at(foreign_tree, f"/snapshots/{txid}/snapshot.json")))
    written = datetime.fromtimestamp(int((foreign.path / "data.mdb").stat().st_mtime), UTC)
    assert (summary["txid"], summary.keys()) == (txid, {"txid", "instant", "pages", "page_size", "bytes"})
    assert summary["instant"] == written.isoformat().replace("+00:00", "Z")
    assert at(foreign_tree, "/live/data.mdb").attributes().mtime == int(written.timestamp())
    frozen = content(at(foreign_tree, f"/snapshots/{txid}/data.mdb"))
    put(foreign, b"third")
    assert content(at(foreign_tree, f"/snapshots/{txid}/data.mdb")) == frozen


def test_a_store_of_a_later_format_is_refused(foreign: Env) -> None:
    with foreign.write() as txn:
        txn.create([META])
        txn.put(META, FORMAT_KEY, Format(99, strict=False).pack())
    with pytest.raises(UnsupportedFormat):
        open_commits(foreign, keep=1)
    assert foreign.readers() == [], "nothing is held"
