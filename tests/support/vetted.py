"""Whether all leaves that a commit replaced were vetted: LMDB copies each page that it changes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from cowfs.engine.env import Env
from cowfs.engine.vetting import _FREELIST, MAIN
from cowfs.pages.btree import TreeReader, parse_branch
from cowfs.pages.format import BRANCH, PAGE_HEADER, TreeInfo

Leaf = tuple[bytes, bytes, bytes | None]  # the database, and the bounds of its keys


def leaves(env: Env) -> dict[int, Leaf]:
    """Return every leaf page of the newest root."""
    reader = TreeReader(env.file, env.file.newest_root())
    records: dict[bytes, TreeInfo | None] = {_FREELIST: reader.root.free, MAIN: reader.root.main}
    records |= {name: reader.record(name) for name in reader.keys(MAIN)}
    found: dict[int, Leaf] = {}
    for name, record in records.items():
        if record is not None and not record.empty:
            found.update(_below(reader, name, record.root, b"", None))
    return found


def _below(reader: TreeReader, name: bytes, pgno: int, low: bytes, high: bytes | None) -> Iterator[tuple[int, Leaf]]:
    page = reader.file.page(pgno)
    if PAGE_HEADER.unpack_from(page, 0)[2] != BRANCH:
        yield pgno, (name, low, high)
        return
    branch = parse_branch(page, pgno, reader.root.last_pgno)
    keys = [key[::-1] for key in branch.keys] if name == _FREELIST else branch.keys
    bounds = [low, *keys[1:], high]
    for at, child in enumerate(branch.children):
        yield from _below(reader, name, child, bounds[at] or b"", bounds[at + 1])


@contextmanager
def all_vetted(env: Env) -> Iterator[None]:
    """Demand that every leaf that the one commit of the block replaces was vetted."""
    before = leaves(env)
    yield
    for pgno in before.keys() - leaves(env).keys():
        name, low, high = before[pgno]
        known = [(range_.low, range_.high) for range_ in env._vetting._ranges.get(name, ())]
        assert any(_within(high, end) for start, end in known if start <= low), (name, low, high, known)


def _within(high: bytes | None, end: bytes | None) -> bool:
    return end is None or (high is not None and high <= end)
