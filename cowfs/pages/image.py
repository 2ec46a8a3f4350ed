"""``Image``: a root as the bytes of a data.mdb, made without copying anything.

The image of a root is, page by page:

- pages 0 and 1: two synthesized meta pages, both with this root, so that any LMDB opens exactly this commit;
- pages free at this root: zeros (they are garbage to it, and the live file may reuse them at any time);
- the values in the ranges of keys that the caller leaves blank: zeros (a store's records of roots that the image lacks);
- every other page up to the last: the live file's bytes, which never change while the root is held;
- at the end ``txid mod page size`` zero bytes. Tools like rsync tell files apart by size and whole-second mtime; the
  padding gives two commits of one second, and of equally many pages, different sizes. LMDB ignores it.

So the bytes of an image never change while its root is held, and two images of one root are equal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from cowfs.errors import CorruptDatabase
from cowfs.pages.btree import TreeReader
from cowfs.pages.datafile import DataFile
from cowfs.pages.format import DUP_SORT, Root, pack_meta
from cowfs.pages.freelist import PageSet, read_free_pages

KeyRange = tuple[bytes, bytes, bytes]
"""The name of a database, the first key of a range, and the first after it."""


class Image:
    """The data.mdb of one held root. Making it costs nothing; the first read parses the freelist.

    ``size`` is in bytes. It lives as long as the file is open and the root is held.
    """

    def __init__(self, file: DataFile, root: Root, tag: int, blank: Iterable[KeyRange] = ()) -> None:
        """Make the image of ``root``.

        ``tag`` is the number (the commit's txid) whose remainder by the page size is the padding. The values in the
        ranges of keys ``blank`` are zeros in the image.
        """
        self.root = root
        self._blank = tuple(blank)
        self._file = file
        self._pages_end = root.pages * root.page_size
        self._free: PageSet | None = None
        self._metas = b""
        self._blanks: list[tuple[int, int]] = []  # offset, bytes
        self.size = self._pages_end + tag % root.page_size

    def readinto(self, offset: int, buffer: memoryview) -> int:
        """Fill ``buffer`` with the image's bytes from ``offset`` on; return how many, fewer only at the image's end.

        The bytes go from the page cache into ``buffer`` without a copy between. Raises ``CorruptDatabase`` when the file
        lacks a page that is in use.
        """
        length = min(len(buffer), self.size - offset)
        if length <= 0:
            return 0
        self.prepare()
        from_pages = min(length, self._pages_end - offset)
        if from_pages < length:  # the padding
            padding = max(from_pages, 0)
            buffer[padding:length] = bytes(length - padding)
        if from_pages > 0:
            self._read_pages(offset, buffer[:from_pages])
        return length

    def prepare(self) -> None:
        """Parse the freelist now rather than at the first read. Raises ``CorruptDatabase`` when it is damaged."""
        if self._free is None:
            reader = TreeReader(self._file, self.root)
            self._metas = pack_meta(self.root, 0) + pack_meta(self.root, 1)
            self._blanks = [extent for blank in self._blank for extent in reader.extents(*blank)]
            self._free = read_free_pages(reader)

    def chunks(self, chunk_size: int = 1 << 20) -> Iterator[memoryview]:
        """Yield the image from its beginning to its end in pieces; each is valid until the next one is asked for."""
        buffer = memoryview(bytearray(chunk_size))
        offset = 0
        while count := self.readinto(offset, buffer):
            yield buffer[:count]
            offset += count

    def runs(self) -> list[tuple[int, int]]:
        """Return (offset, bytes) of the parts that are in use; all else is zeros. Raises ``CorruptDatabase``."""
        self.prepare()
        assert self._free is not None  # noqa: S101 - prepared
        size = self.root.page_size
        return [(first * size, count * size) for first, count in self._free.gaps(0)]

    def _read_pages(self, offset: int, buffer: memoryview) -> None:
        """Fill ``buffer`` from ``offset`` on; all of it lies before the padding."""
        free = self._free
        assert free is not None  # noqa: S101 - readinto has prepared
        page_size = self.root.page_size
        end = offset + len(buffer)
        first, last = offset // page_size, (end - 1) // page_size
        count = self._file.readinto(buffer, offset)
        if count < len(buffer):
            self._read_rest(offset + count, buffer[count:])
        for pgno in free.among(first, last):
            _overlay(buffer, offset, pgno * page_size, bytes(page_size))
        for position, size in self._blanks:
            if position < end and offset < position + size:
                _overlay(buffer, offset, position, bytes(size))
        if offset < len(self._metas):
            _overlay(buffer, offset, 0, self._metas)

    def _read_rest(self, offset: int, buffer: memoryview) -> None:
        """Read on after a short read; past the end of the file only free pages may be."""
        while buffer:
            count = self._file.readinto(buffer, offset)
            if count == 0:
                self._require_free(offset // self.root.page_size, (offset + len(buffer) - 1) // self.root.page_size)
                return
            offset += count
            buffer = buffer[count:]

    def _require_free(self, first: int, last: int) -> None:
        for pgno in range(first, last + 1):
            if self._free is None or pgno not in self._free:
                raise CorruptDatabase("missing, the file ends before it", pgno)


def pages_in_use(reader: TreeReader) -> int:
    """Return how many pages are not free at the reader's root, the two meta pages included.

    From the trees' own counts, in time proportional to the number of named databases; LMDB does not count trees of
    duplicates in their parent's record, so where there may be any the freelist is counted instead.
    """
    root = reader.root
    records = [root.free, root.main, *(record for _name, record in reader.databases())]
    if any(record.flags & DUP_SORT for record in records):
        return root.pages - len(read_free_pages(reader))
    return 2 + sum(record.pages for record in records)


def _overlay(buffer: memoryview, offset: int, position: int, data: bytes) -> None:
    """Put ``data``, which belongs at ``position`` of the image, over the part of it that ``buffer`` covers."""
    start = max(position, offset)
    end = min(position + len(data), offset + len(buffer))
    if start < end:
        buffer[start - offset : end - offset] = data[start - position : end - position]
