"""Columns: an attribute's datoms as ``lines`` in ``ave``'s order, in pieces, from where they can be begun."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from cowfs.pages.reader import Reader
from cowfs.store.model.encoding import KEY_VALUE_PREFIX
from cowfs.store.model.layout import AVE, entity_key, stop_after
from cowfs.store.model.lines import Pairs, line, line_size, lines, lines_size
from cowfs.store.read.indexes import AVE_LONG, AVE_SHARED, RawDatom, ave_records

_FIRST_BATCH = 64  # entries of the index that are read at once, to begin with
_BATCH = 1024  # and at most
_PIECE = 1 << 16  # bytes of long lines that become a piece


class Piece(NamedTuple):
    """Lines that follow each other; ``key`` is where the index is read to begin with them, None where it cannot be begun."""

    key: bytes | None
    lines: bytes


def column_size(reader: Reader, aid: bytes) -> int:
    """Return how many bytes the lines of an attribute have, by reading all of its datoms."""
    return sum(_size(reader, batch) for batch in _batches(reader, aid, stop_after(aid)))


def pieces(reader: Reader, start: bytes, stop: bytes) -> Iterator[Piece]:
    """Yield the lines of one attribute for start <= key < stop in ``ave``; both are the attribute's bounds or a line's key.

    Little is in memory at a time: some hundred lines, or those of one value that is long, or of many long ones that begin
    with the same 467 bytes. Raises ``CorruptDatabase``.
    """
    for batch in _batches(reader, start, stop):
        if batch.long:
            yield from _long_pieces(ave_records(reader, batch.start, batch.stop))
        else:
            yield Piece(batch.start, lines(batch.pairs))


def starts(reader: Reader, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, int]]:
    """Yield some of the keys in start <= key < stop at which ``pieces`` can begin, in order or from the last to the first.

    With each comes how many bytes the lines from ``start`` to there have; in reverse, those from there to ``stop``. It takes
    as long as making the lines, for instants half of that. ``start`` and ``stop`` are as for ``pieces``; ``start`` comes
    first, or last.
    """
    size = 0
    for batch in _batches(reader, start, stop, reverse=reverse):
        if reverse:
            size += _size(reader, batch)
            yield batch.start, size
        else:
            yield batch.start, size
            size += _size(reader, batch)


def _key_size(pair: tuple[bytes, bytes]) -> int:
    return len(pair[0])


class _Batch(NamedTuple):
    """Entries of the index that follow each other, start <= key < stop, and with each all those that its place depends on.

    Of one with ``long`` keys ``pairs`` may lack some in the middle: it is to be read again.
    """

    start: bytes
    stop: bytes
    long: bool
    pairs: Pairs


def _batches(reader: Reader, start: bytes, stop: bytes, *, reverse: bool = False) -> Iterator[_Batch]:
    """Yield the entries with start <= key < stop in batches, the first of them small: it may be enough."""
    pairs = reader.scan(AVE, start, stop, reverse=reverse)
    count = _FIRST_BATCH
    found = list(islice(pairs, count))
    while found:
        found, after = _whole(found, pairs)
        first, last = (found[-1][0], found[0][0]) if reverse else (found[0][0], found[-1][0])
        begin = first if len(first) < AVE_LONG else first[:AVE_SHARED]
        yield _Batch(begin, last + b"\0", max(map(_key_size, found)) >= AVE_LONG, found)
        count = min(2 * count, _BATCH)
        found = [*after, *islice(pairs, count)]


def _whole(found: Pairs, pairs: Iterator[tuple[bytes, bytes]]) -> tuple[Pairs, Pairs]:
    """Return the entries with all whose values begin with the same 467 bytes as the last, and what was read beyond those."""
    last = found[-1][0]
    if len(last) >= AVE_LONG:
        for pair in pairs:
            if pair[0][:AVE_SHARED] != last[:AVE_SHARED]:
                return found, [pair]
            found[-1] = pair  # only the ends are looked at
    return found, []


def _size(reader: Reader, batch: _Batch) -> int:
    """Return how many bytes the lines of a batch have."""
    if batch.long:
        return sum(line_size(encoding, e, tx) for e, _aid, encoding, tx in ave_records(reader, batch.start, batch.stop))
    return lines_size(batch.pairs)


def _long_pieces(records: Iterator[RawDatom]) -> Iterator[Piece]:
    key: bytes | None = None
    made: list[bytes] = []
    size = 0
    shared = b""
    for e, aid, encoding, tx in records:
        begin: bytes | None = None
        if len(encoding) < KEY_VALUE_PREFIX:
            begin, shared = b"%b%b%b" % (aid, encoding, entity_key(e)), b""
        elif encoding[:KEY_VALUE_PREFIX] != shared:
            shared = encoding[:KEY_VALUE_PREFIX]
            begin = aid + shared
        if size >= _PIECE:
            yield Piece(key, b"".join(made))
            made, size = [], 0
        if not made:
            key = begin
        made.append(line(encoding, e, tx))
        size += len(made[-1])
    yield Piece(key, b"".join(made))
