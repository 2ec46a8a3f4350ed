"""The log as files: ``log/``, one document a transaction, and ``log/current``, which grows with every one.

    log/1000-1999/1042.json     what transaction 1042 asserted and retracted; its mtime is its instant
    log/current                 only below ``live/``: the transactions since the mount began, one a line, for ``tail -f``

``store.jsondatoms`` has the form of a datom.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from cowfs.commits.held import HeldCommit
from cowfs.errors import NotFound
from cowfs.store.model.layout import LOG, TX_SIZE, number_key
from cowfs.store.read.db import Db
from cowfs.store.read.jsondatoms import transaction_json
from cowfs.store.read.log import TxRow
from cowfs.views.blocks import BlocksDirectory, Document, Rendered, recall, remember, to_text
from cowfs.views.context import CommitContext
from cowfs.views.node import Attributes, Entry, File, Node, Stability

_KIND = "log"
_CURRENT = "current"
_PIECE_LINES = 64
_PIECE_BYTES = 1 << 16
_LOOK_BYTES = (
    1 << 22
)  # that one look at log/current renders at most (and the line that exceeds them): then others have a turn


class LogDirectory(BlocksDirectory):
    """``log/``: the transactions up to the commit."""

    def __init__(self, context: CommitContext, current: CurrentLog | None = None) -> None:
        """``current`` is what ``log/current`` shows, below ``live/``."""
        super().__init__(context, _KIND)
        self._current = current if context.stability is Stability.MOVING else None

    def numbers(self, start: int, stop: int | None = None) -> Iterator[int]:
        """Yield the transactions with start <= txid < stop."""
        for key in self.context.db.reader.keys(LOG, number_key(start), None if stop is None else number_key(stop)):
            yield int.from_bytes(key[:TX_SIZE], "big")

    def document(self, number: int) -> LogFile:
        """Return what a transaction did; raise ``NotFound`` when there is no such transaction."""
        return LogFile(self.context, number, self.document_kind)

    def child(self, name: str) -> Node:
        """Return ``current``, a block, or a document, or raise ``NotFound``."""
        if name == _CURRENT and self._current is not None:
            return CurrentLogFile(self.context, self._current)
        return super().child(name)

    def entries(self) -> Iterator[Entry]:
        """Yield the blocks, then ``current``."""
        yield from super().entries()
        if self._current is not None:
            yield Entry(_CURRENT, self.context.inode(*_CURRENT_KEY), directory=False)


class LogFile(Document):
    """What a transaction asserted and retracted, a datom a line."""

    def __init__(self, context: CommitContext, txid: int, kind: str = f"{_KIND}/document") -> None:
        """Render it. Raises ``NotFound`` when there is no such transaction."""
        document = recall(context.snapshot, _KIND, txid)
        if document is None:
            row = context.db.log(txid)
            if row is None:
                raise NotFound(f"no transaction {txid}")
            document = Rendered(_document(row), int(row.instant.timestamp()))
            remember(context.snapshot, _KIND, txid, document)
        super().__init__(context, kind, txid, document)


@dataclass
class _Piece:
    """Some lines that follow each other: of the transactions ``first`` to ``last``, the bytes up to ``end``."""

    start: int
    first: int
    last: int
    end: int
    lines: int = 1


class CurrentLog:
    """The text that grows: a line for each transaction after the one that was newest when this was made.

    The bytes that it once had stay as they are, and it holds no commit: lines are rendered when they are read, from the log
    of the newest commit, which has all of them. One look takes in only so many new ones; whoever reads on gets the rest.
    """

    def __init__(self, newest: Callable[[], HeldCommit]) -> None:
        """``newest`` returns the newest commit of a store, which is used before it is called again."""
        self._newest = newest
        snapshot = newest()
        self._seen = snapshot.txid
        self.mtime = snapshot.mtime
        self._pieces: list[_Piece] = []
        self._kept: tuple[int, int, bytes] = (0, 0, b"")  # where a piece begins and ends, and its bytes

    @property
    def size(self) -> int:
        """How many bytes there are, as far as was looked."""
        return self._pieces[-1].end if self._pieces else 0

    def look(self) -> Db:
        """Take in what was committed since the last look; return the newest commit."""
        db = self._newest().db
        assert db is not None  # noqa: S101 - who makes one has looked
        before = self.size
        if db.txid > self._seen:
            for row in db.transactions(self._seen + 1, db.txid + 1):
                self._append(row)
                if self.size - before >= _LOOK_BYTES:
                    return db
            self._seen = db.txid
        return db

    def readinto(self, offset: int, buffer: memoryview) -> int:
        """Fill ``buffer`` from ``offset`` on."""
        db = self.look()
        done = 0
        for number in range(max(bisect_right(self._pieces, offset, key=_start) - 1, 0), len(self._pieces)):
            piece = self._pieces[number]
            at = offset + done - piece.start
            part = self._bytes(piece, db)[at : at + len(buffer) - done]
            buffer[done : done + len(part)] = part
            done += len(part)
            if done == len(buffer):
                break
        return done

    def _append(self, row: TxRow) -> None:
        size = len(_line(row))
        last = self._pieces[-1] if self._pieces else None
        if last is None or last.lines >= _PIECE_LINES or last.end - last.start + size > _PIECE_BYTES:
            start = self.size
            self._pieces.append(_Piece(start, row.txid, row.txid, start + size))
        else:
            last.last = row.txid
            last.end += size
            last.lines += 1
        self._seen = row.txid
        self.mtime = int(row.instant.timestamp())

    def _bytes(self, piece: _Piece, db: Db) -> bytes:
        if self._kept[:2] != (piece.start, piece.end):
            content = b"".join(_line(row) for row in db.transactions(piece.first, piece.last + 1))
            self._kept = (piece.start, piece.end, content)
        return self._kept[2]


class CurrentLogFile(File):
    """``log/current``. It is of no commit: alone of all files it follows the newest one even while it is open.

    ``tail -f`` asks the open file for its size, and reads on where it was; so the file that is open must grow.
    """

    stability = Stability.MOVING

    def __init__(self, context: CommitContext, log: CurrentLog) -> None:
        self.inode = context.inode(*_CURRENT_KEY)
        self._log = log

    def attributes(self) -> Attributes:
        """Return what stat(2) tells now."""
        self._log.look()
        return Attributes(self._log.mtime, self._log.size, -(-self._log.size // 512))

    def readinto(self, offset: int, buffer: memoryview) -> int:
        """Fill ``buffer`` from ``offset`` on."""
        return self._log.readinto(offset, buffer)


_CURRENT_KEY = (f"{_KIND}/{_CURRENT}", b"")


def _document(row: TxRow) -> bytes:
    lines = [f'  "{key}": {_listed(value)}' for key, value in transaction_json(row).items()]
    return "{{\n{}\n}}\n".format(",\n".join(lines)).encode()


def _listed(value: object) -> str:
    """Return a field as JSON: of a list, each element on a line of its own."""
    if not isinstance(value, list) or not value:
        return to_text(value)
    return "[\n    {}\n  ]".format(",\n    ".join(map(to_text, value)))


def _line(row: TxRow) -> bytes:
    return f"{to_text(transaction_json(row))}\n".encode()


def _start(piece: _Piece) -> int:
    return piece.start
