"""``Vetting``: what LMDB is about to touch in a write transaction, checked by our own parser before.

LMDB believes its file. A node pointer out of its page is a SIGBUS, a free page that is in use an abort, or lost data. So the
pages on the way to each key that a transaction reads or writes, and the records of the freelist that its new pages may come
from, are held against what ``check`` demands of them: O(change), not O(database). The transaction is refused when they fail.

What was vetted from the second transaction on need not be vetted again, for a while, as long as nobody else writes the file
(``filewatch``): our own commits make sound pages of sound ones. So it is remembered as ranges of keys, not as page numbers,
which change with each commit. A range that is not known costs some 40 us for each page on the way to it, one that is known
about 1 us.

Which pages LMDB touches (functions of mdb.c, 0.9.36):

- a get, a put and a delete: the path from the root to the leaf (``mdb_page_search``), and the record of the named database
  in the main tree; of a value on pages of its own their first page (``mdb_ovpage_free``);
- a cursor that goes on: the next leaf (``mdb_cursor_sibling``);
- a delete that leaves a page less than a quarter full: the pages beside it (``mdb_rebalance``), above the leaves also the
  leftmost path below them. What the page held when it was vetted says whether that can be; when it can, the pages beside all
  that may have been merged are vetted;
- new pages: the oldest records of the freelist, one after another until there are enough (``mdb_page_alloc``); for a long
  value, which needs pages side by side, up to 60 more for each of these; and the ends of the freelist
  with all its leaves whose records may be used up (``mdb_freelist_save``).

A free page that is in use in a part of the database that the transaction does not touch is found by ``check`` only.
"""

from __future__ import annotations

import time
from bisect import bisect_right, insort
from collections.abc import Iterable, Iterator
from operator import gt
from typing import Final

from cowfs.engine.filewatch import FileWatch
from cowfs.errors import CorruptDatabase
from cowfs.pages.btree import Branch, TreeReader, parse_leaf_node
from cowfs.pages.datafile import DataFile
from cowfs.pages.format import BRANCH, HEADER_SIZE, LEAF, MAX_DEPTH, NODE_SIZE, PAGE_HEADER, TreeInfo, node_offsets
from cowfs.pages.freelist import parse_free_record
from cowfs.pages.soundpage import sound_branch, sound_leaf

MAIN: Final = b""
_FREELIST: Final = b"\0freelist"  # beside the names of databases: LMDB's own are C strings
_TRUSTED: Final = 5.0  # seconds that a page is taken to be as it was: memory may be read again from the disk later
_MAX_RANGES: Final = 1 << 16
_ENDLESS: Final = 1 << 62  # pages, or bytes, that no transaction can use up
_SLACK: Final = 32  # new pages that any transaction may take
_RETRIES: Final = 60  # records of the freelist that LMDB looks at for each page of a run (mdb_page_alloc)
_AHEAD: Final = 16  # records more than are needed now: the way to the first of them costs as much as five
_THRESHOLD: Final = 4  # a page of which less than one in so many bytes is used is merged (FILL_THRESHOLD)


class Range:
    """The keys of one leaf when it was vetted, low <= key < high (None: no bound); only our own commits changed it since.

    ``last`` was its last key, ``big`` has the values on pages of their own that are still to be vetted. ``room`` and
    ``spare`` are the bytes that can be put before the leaf may be split, and deleted before it may be merged. Its last
    leaf, in the freelist, is not merged before a record of the transaction ``stay``, or of a later one, is deleted.
    """

    __slots__ = ("big", "high", "largest", "last", "low", "room", "spare", "stay")

    def __init__(self, low: bytes, high: bytes | None, page_size: int = 0) -> None:
        self.low = low
        self.high = high
        self.last = low
        self.big: dict[bytes, tuple[int, int]] = {}
        self.room = self.spare = page_size
        self.largest = self.stay = 0

    def __contains__(self, key: bytes) -> bool:
        return self.low <= key and (self.high is None or key < self.high)

    def join(self, other: Range) -> None:
        """Take over the keys of a range that lies beside this one."""
        if other.low < self.low:
            self.low = other.low
        else:
            self.high, self.last, self.stay = other.high, other.last, other.stay
        self.big |= other.big
        self.room, self.largest = min(self.room, other.room), max(self.largest, other.largest)

    def __lt__(self, other: Range) -> bool:
        return self.low < other.low


class Vetting:
    """The vetting of one open environment; used under the write lock only, from ``begin`` to ``end`` of each transaction."""

    def __init__(self, file: DataFile) -> None:
        self._file = file
        self._watch: FileWatch | None = None  # from the second transaction on
        self._ranges: dict[bytes, list[Range]] = {}
        self._lows: dict[bytes, list[bytes]] = {}
        self._count = 0
        self._last = -1  # the last commit, when it was ours
        self._since = 0.0  # when, and at which transaction, trust began
        self._since_txnid = 0
        self._reader: TreeReader | None = None
        self._begin = 0  # the transaction at hand
        self._deleted = False  # whether it has deleted anything
        self._branches: dict[int, Branch] = {}  # that are sound, of the commit that the transaction at hand stands on
        self._beside: set[int] = set()  # of these, the ones beside which all is vetted
        self._latest: dict[bytes, Range] = {}  # by database; it is one of ``_ranges``
        self._used: dict[int, tuple[bytes, bytes]] = {}  # pages on vetted paths, and a key whose path they were on
        self._free: set[int] = set()  # the pages in the records of the freelist that are vetted
        self._free_at = -1  # the transaction for which ``_free`` is exact: in a later one some may be in use
        self._records: Iterator[tuple[int, bytes]] | None = None
        self._usable = 0  # LMDB may use the pages freed by transactions below this
        self._vetted = 0  # and the records of those below this are vetted
        self._enough = -_SLACK  # new pages for which these are enough, less those that any transaction may take
        self._needed = 0  # new pages of this transaction, at most
        self._long = file.page_size // 2 - 32  # bytes of a node, above which its value may get pages of its own

    def close(self) -> None:
        """End the watch of the file."""
        if self._watch is not None:
            self._watch.close()

    # -- a transaction -------------------------------------------------------------------------------------------

    def begin(self, txnid: int, oldest: int) -> None:
        """Begin transaction ``txnid``; the pages freed by those before ``oldest`` may be used again. Nothing is read yet."""
        now = time.monotonic()
        unwatched = self._watch is None or self._watch.changed()
        if self._watch is None and self._begin:  # ending a watch takes the kernel some 10 ms, lost on a single transaction
            self._watch = FileWatch(self._file.path)
        if unwatched or txnid - 1 != self._last or now - self._since > _TRUSTED or self._count > _MAX_RANGES:
            self._forget()
            self._since, self._since_txnid = now, txnid
        self._begin, self._last, self._deleted = txnid, -1, False
        self._usable = min(oldest, txnid - 1)
        self._reader = self._records = None
        self._branches.clear()
        self._beside.clear()
        if self._vetted == self._usable:
            self._enough = _ENDLESS
        else:
            self._enough = max(self._enough - self._needed, 0) - _SLACK if self._enough < _ENDLESS else -_SLACK
        self._needed = 0

    def _forget(self) -> None:
        self._ranges.clear()
        self._lows.clear()
        self._latest.clear()
        self._used.clear()
        self._free.clear()
        self._count = self._vetted = self._needed = 0
        self._enough = -_SLACK

    def end(self, txnid: int) -> None:
        """The transaction has ended, and the newest commit is ``txnid`` now: what was written to the file since was ours."""
        if self._watch is not None:
            self._watch.skip()
        if txnid < self._begin and self._deleted:  # what it counted as room is not there
            self._forget()
        self._last = txnid
        self._reader = self._records = None

    # -- what it is about to do ----------------------------------------------------------------------------------

    def key(self, name: bytes, key: bytes) -> Range:
        """Vet what a look for ``key`` in the database ``name`` touches. Raises ``CorruptDatabase``."""
        known = self._latest.get(name)
        if known is None or key < known.low or (known.high is not None and key >= known.high):
            if known is None and name not in (MAIN, _FREELIST):  # its record is read from the main tree
                self.key(MAIN, name)
            known = self._latest[name] = self._find(name, key) or self._vet(name, key)
        if known.big and key in known.big:
            self._vet_run(*known.big.pop(key))
        return known

    def onwards(self, name: bytes, key: bytes) -> Range:
        """Vet what a cursor touches that looks for ``key`` and may go on to the next one; return how far it may go.

        Before it goes on from the ``last`` key of the range, or from a later one, this is due again for that key.
        """
        known = self.key(name, key)
        for run in known.big.values():
            self._vet_run(*run)
        known.big.clear()
        if key >= known.last and known.high is not None:
            following = self.key(name, known.high)
            for run in following.big.values():
                self._vet_run(*run)
            following.big.clear()
        return known

    def backwards(self, name: bytes, key: bytes | None) -> Range:
        """The same for a cursor that goes to the keys before ``key`` (None: from the end), which may leave its range."""
        known = self.onwards(name, key or b"\xff" * 512)
        if known.low:
            self.onwards(name, self._before(name, known.low).low)
        return known

    def put(self, name: bytes, key: bytes, size: int) -> None:
        """Vet what putting a value of ``size`` bytes touches, and the pages that it may take."""
        known = self._latest.get(name)
        if known is None or known.big or key < known.low or (known.high is not None and key >= known.high):
            known = self.key(name, key)
        node = NODE_SIZE + len(key) + size
        known.room -= node + 2
        least = node if node <= self._long else NODE_SIZE + len(key) + 8
        if least < known.largest:  # what it replaces may have been longer
            known.spare -= known.largest - least + 1
        if known.room < 0:  # the leaf may have been split, so that a part of it need not be more than a quarter full
            known.room, known.spare = self._file.page_size // 2, min(known.spare, 0)
        self._needed += 2
        if self._needed > self._enough or node > self._long:
            self._take(0, 1 + (HEADER_SIZE + size) // self._file.page_size if node > self._long else 0)

    def put_many(self, name: bytes, items: Iterable[tuple[bytes, bytes]]) -> None:
        """Vet many puts at once; in the order of their keys is fastest."""
        put = self.put
        for key, value in items:
            put(name, key, len(value))

    def delete(self, name: bytes, key: bytes) -> None:
        """Vet what deleting ``key`` touches: the pages beside its own, too, when these may be merged."""
        known = self.key(name, key)
        known.room += NODE_SIZE + len(key)
        self._deleted = True
        known.spare -= known.largest + 3  # with its pointer, at an even offset
        if known.spare < 0:
            self._absorb(name, known)
        self._take(3, 0)

    def create(self, name: bytes) -> None:
        """Vet what making the named database touches."""
        self.put(MAIN, name, TreeInfo.SIZE)

    def commit(self) -> None:
        """Vet what the commit touches beside all that: the ends of the freelist."""
        freed = self._needed * 8 // self._file.page_size
        self._take(4, freed + 1 if freed else 0)
        known = self._latest.get(_FREELIST)
        if known is None or known.low or known.high is not None:  # not all of it is known
            self.key(_FREELIST, b"\xff" * 8)
            first = self.key(_FREELIST, b"")
            while first.high is not None and self._vetted > first.stay:  # so many records of it may be deleted
                self._absorb(_FREELIST, first)

    # -- ranges --------------------------------------------------------------------------------------------------

    def _find(self, name: bytes, key: bytes) -> Range | None:
        lows = self._lows.get(name)
        if lows:
            at = bisect_right(lows, key) - 1
            if at >= 0:
                known = self._ranges[name][at]
                if known.high is None or key < known.high:
                    return known
        return None

    def _remember(self, name: bytes, known: Range) -> Range:
        ranges, lows = self._ranges.setdefault(name, []), self._lows.setdefault(name, [])
        at = bisect_right(lows, known.low) - 1
        if at >= 0 and lows[at] == known.low:
            if self._latest.get(name) is ranges[at]:
                del self._latest[name]
            ranges[at] = known
        else:
            insort(ranges, known)
            insort(lows, known.low)
            self._count += 1
        return known

    def _before(self, name: bytes, low: bytes) -> Range:
        """Return the range that ends at ``low``, vetted if need be."""
        lows = self._lows[name]
        at = bisect_right(lows, low) - 2
        if at >= 0 and self._ranges[name][at].high == low:
            return self._ranges[name][at]
        return self._vet(name, low, before=True)

    # -- pages ---------------------------------------------------------------------------------------------------

    def _base(self) -> TreeReader:
        """Return the reader of the commit that the transaction stands on."""
        if self._reader is None:
            newest = self._begin - 1
            pages = self._file.meta_pages()
            pages.require_writable()
            if pages.newest.txnid != newest:
                raise CorruptDatabase(f"it is not that of transaction {newest}, which LMDB says is there", newest & 1)
            self._reader = TreeReader(self._file, pages.newest)
        return self._reader

    def _vet(self, name: bytes, key: bytes, *, before: bool = False) -> Range:
        """Vet the path to ``key``, or to the last key before it; return the range of its leaf."""
        reader = self._base()
        record = reader.root.free if name == _FREELIST else reader.record(name)
        if record is None or record.empty:
            return self._remember(name, Range(b"", None, self._file.page_size))
        if name != _FREELIST and record.flags:
            raise CorruptDatabase(f"the record of database {name!r} has the flags {record.flags:#x}", record.root)
        pgno, low, high = record.root, None, None
        for level in range(1, MAX_DEPTH + 1):
            self._use(pgno, name, key)
            page = b"" if pgno in self._branches else self._file.page(pgno)
            if page and _kind(page, pgno) == LEAF:
                if level != record.depth:
                    raise CorruptDatabase(f"a leaf at level {level} of a tree of depth {record.depth}", pgno)
                return self._remember(name, self._leaf(name, page, pgno, low, high))
            branch = self._branch(name, page, pgno, low, high)
            at = bisect_right(branch.keys, key, 1) - 1
            if before and at and branch.keys[at] == key:
                at -= 1
            pgno, low, high = _child(branch, at, low, high)
        raise CorruptDatabase(f"the tree is deeper than {MAX_DEPTH} levels", record.root)

    def _branch(self, name: bytes, page: bytes, pgno: int, low: bytes | None, high: bytes | None) -> Branch:
        branch = self._branches.get(pgno)
        if branch is None:
            last_pgno = self._base().root.last_pgno
            branch = sound_branch(page, pgno, last_pgno, low, high, integers=name == _FREELIST)
            self._branches[pgno] = branch
        return branch

    def _leaf(self, name: bytes, page: bytes, pgno: int, low: bytes | None, high: bytes | None) -> Range:
        leaf = sound_leaf(page, pgno, low, high, integers=name == _FREELIST, main=name == MAIN)
        known = Range(low or b"", high)
        known.last, known.big, known.largest = leaf.last, leaf.big, leaf.largest
        known.room = len(page) - leaf.used
        known.spare = (
            leaf.used - HEADER_SIZE - (len(page) - HEADER_SIZE) // _THRESHOLD
        )  # PAGEFILL of mdb.c: but for the header
        if name == _FREELIST:
            known.stay = _filled_from(page, pgno)
        return known

    def _absorb(self, name: bytes, known: Range) -> None:
        """Vet the leaves beside a range that may be merged with them, and make one range of all.

        It can be merged again when as much was deleted from it as the fuller of the merged leaves can spare.
        """
        sides = [side for side in (self._preceding(name, known), self._following(name, known)) if side is not None]
        ranges, lows = self._ranges[name], self._lows[name]
        first = bisect_right(lows, min([known.low, *(side.low for side in sides)])) - 1
        for side in sides:
            known.join(side)
        known.spare = min((side.spare for side in sides), default=_ENDLESS)
        ranges[first : first + 1 + len(sides)] = [known]
        lows[first : first + 1 + len(sides)] = [known.low]
        self._latest[name] = known
        if sides:
            self._vet_branches_beside(name, known.low)
            self._vet_branches_beside(name, known.last)

    def _following(self, name: bytes, known: Range) -> Range | None:
        return None if known.high is None else self._find(name, known.high) or self._vet(name, known.high)

    def _preceding(self, name: bytes, known: Range) -> Range | None:
        return self._before(name, known.low) if known.low else None

    def _vet_branches_beside(self, name: bytes, key: bytes) -> None:
        """Vet the branch pages beside those on the path to ``key``, and the leftmost path below each of them."""
        reader = self._base()
        record = reader.root.free if name == _FREELIST else reader.record(name)
        if record is None or record.empty:
            return
        pgno, low, high = record.root, None, None
        for level in range(1, record.depth - 1):
            branch = self._branch(name, self._file.page(pgno), pgno, low, high)
            at = bisect_right(branch.keys, key, 1) - 1
            if branch.children[at] in self._beside:
                pgno, low, high = _child(branch, at, low, high)
                continue
            self._beside.add(branch.children[at])
            for other in (at - 1, at + 1):
                if 0 <= other < len(branch.children):
                    child, start, _stop = _child(branch, other, low, high)
                    if _kind(self._file.page(child), child) != BRANCH:
                        raise CorruptDatabase(f"a leaf at level {level + 1} of a tree of depth {record.depth}", child)
                    self._find(name, start or b"") or self._vet(name, start or b"")
            pgno, low, high = _child(branch, at, low, high)

    def _vet_run(self, size: int, first: int) -> None:
        """Vet the run of pages that begins at page ``first`` and holds a value of ``size`` bytes."""
        self._base().require_run(first, size)

    # -- free pages ----------------------------------------------------------------------------------------------

    def _take(self, pages: int, run: int) -> None:
        """Vet the records of the freelist that so many new pages, and a run of ``run`` pages, may come from."""
        self._needed += pages + run
        if self._needed > self._enough or run > 1:
            self._vet_records(self._needed, _RETRIES * run if run > 1 else _AHEAD)

    def _vet_records(self, pages: int, retries: int) -> None:
        """Vet records that LMDB may use until they have so many pages, and ``retries`` more of them."""
        if self._vetted >= self._since_txnid:  # all that follows was written by our own commits
            self._vetted = self._usable
        if self._vetted < self._usable and self._records is None:
            reader = self._base()
            self._records = reader.scan_integers(reader.root.free, self._vetted, self._usable, size=None)
        while self._vetted < self._usable and self._records is not None and (self._enough < pages or retries > 0):
            record = next(self._records, None)
            if record is None:
                self._vetted = self._usable
            else:
                self._vet_record(*record)
            retries -= 1
        if self._vetted == self._usable:  # there are no more: other new pages come from the end of the file
            self._enough = _ENDLESS

    def _vet_record(self, txnid: int, value: bytes) -> None:
        root = self._base().root
        pages = parse_free_record(bytes(8), value, root.free.root).tolist()
        if pages and (not 2 <= pages[-1] <= pages[0] <= root.last_pgno or not all(map(gt, pages, pages[1:]))):
            raise CorruptDatabase(f"the freelist of transaction {txnid} names pages that cannot be", root.free.root)
        if not self._free.isdisjoint(pages):
            self._refresh_free()
            if not self._free.isdisjoint(pages):
                raise CorruptDatabase(
                    f"the freelist of transaction {txnid} names pages that are free already", root.free.root
                )
        self._free.update(pages)
        for pgno in self._used.keys() & pages:
            self._require_unused(pgno, *self._used.pop(pgno))
        self._vetted = txnid + 1
        self._enough += len(pages)

    def _refresh_free(self) -> None:
        """Read again which pages are free by the records that are vetted: our commits have used some."""
        if self._free_at == self._begin:
            return
        reader = self._base()
        self._free = set()
        for _txnid, value in reader.scan_integers(reader.root.free, 0, self._vetted, size=None):
            self._free.update(parse_free_record(bytes(8), value, reader.root.free.root))
        self._free_at = self._begin

    def _use(self, pgno: int, name: bytes, key: bytes) -> None:
        """Note that a page is on the way to a key; it cannot be free then."""
        if pgno in self._free:
            self._refresh_free()
            if pgno in self._free:
                raise CorruptDatabase("in use, and free", pgno)
        self._used[pgno] = name, key

    def _require_unused(self, pgno: int, name: bytes, key: bytes) -> None:
        """Raise ``CorruptDatabase`` when a free page is on the way to the key now, as it was when that was vetted."""
        reader = self._base()
        record = reader.root.free if name == _FREELIST else reader.record(name)
        at = None if record is None or record.empty else record.root
        low = high = None
        while at is not None and at != pgno:
            page = self._file.page(at)
            if _kind(page, at) == LEAF:
                return
            branch = self._branch(name, page, at, low, high)
            at, low, high = _child(branch, bisect_right(branch.keys, key, 1) - 1, low, high)
        if at is not None:
            raise CorruptDatabase("in use, and free", pgno)


def _child(branch: Branch, at: int, low: bytes | None, high: bytes | None) -> tuple[int, bytes | None, bytes | None]:
    """Return a child's page, and the bounds of its keys within those of its parent."""
    keys = branch.keys
    return branch.children[at], keys[at] if at else low, keys[at + 1] if at + 1 < len(keys) else high


def _filled_from(page: bytes, pgno: int) -> int:
    """Return the transaction of a freelist leaf from which on its records keep it from being merged; 0 when none do."""
    filled = 0
    for offset in reversed(node_offsets(page, pgno)):
        node = parse_leaf_node(page, offset, pgno)
        filled += 2 + NODE_SIZE + len(node.key) + len(node.data)
        if filled >= len(page) // _THRESHOLD:
            return int.from_bytes(node.key, "little")
    return 0


def _kind(page: bytes, pgno: int) -> int:
    """Return ``BRANCH`` or ``LEAF``, exactly."""
    kind = int(PAGE_HEADER.unpack_from(page, 0)[2])
    if kind not in (BRANCH, LEAF):
        raise CorruptDatabase(f"neither a branch nor a leaf (flags {kind:#x})", pgno)
    return kind
