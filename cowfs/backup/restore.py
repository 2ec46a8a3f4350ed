"""``restore``: a backup becomes a new database; the backup itself is never touched."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cowfs.backup.reporting import Progress, silent
from cowfs.backup.staging import Access, is_there, staged
from cowfs.backup.verify import check, txid_at
from cowfs.engine import compaction
from cowfs.engine.opening import reading
from cowfs.engine.rootrecord import image_of
from cowfs.engine.translate import translated
from cowfs.errors import CorruptDatabase, InputError
from cowfs.pages.image import Image

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class Restored:
    """What was restored: the ``txid`` of its commit, the ``size`` of its data.mdb and what is ``allocated``, in bytes."""

    txid: int
    size: int
    allocated: int


def restore(
    backup: str | Path, new: str | Path, *, checked: bool = True, compact: bool = False, progress: Progress = silent
) -> Restored:
    """Make a database in the new (or empty) directory ``new`` from ``backup``, and return what it has become.

    ``backup`` is a directory with a data.mdb (a copy of ``snapshots/...``, or a directory of a mount), or that file itself.
    ``new`` appears when it is complete, checked and on disk; when this raises it does not appear. Free pages take no room
    on disk; ``compact`` leaves them out. It gets the owner and the permissions of the backup, as far as the user may give
    them, less the umask.

    Raises ``CorruptDatabase``, which has the findings; ``InvalidTarget``, ``AccessDenied``, ``DiskFull``; what opening
    the backup raises; ``InputError`` for ``compact`` without the check, as LMDB compacts nothing that is not sound.
    """
    backup, new = Path(backup), Path(new)
    if compact and not checked:
        raise InputError("compact needs the check")
    is_there(new)  # or say so before the backup is opened
    with reading(backup) as reader, staged(new, Access.of(backup)) as target:
        _write(image_of(reader.file, reader.root, reader.root.txnid), target, progress)
        txid = _require_sound(target, backup, progress) if checked else txid_at(reader)
        if compact:
            _compact(target)
            _require_sound(target, backup, progress)
        status = target.stat()
    return Restored(txid, status.st_size, status.st_blocks * 512)


def _write(image: Image, target: Path, progress: Progress) -> None:
    """Write the image to ``target``, holes where it is free."""
    runs, buffer = image.runs(), memoryview(bytearray(_CHUNK))
    length = sum(size for _at, size in runs)
    with target.open("r+b", buffering=0) as file, progress("restoring", length) as advance:
        for start, size in runs:
            offset, end = start, start + size
            while offset < end:
                count = image.readinto(offset, buffer[: end - offset])
                offset += os.pwrite(file.fileno(), buffer[:count], offset)
                advance(count)
        file.truncate(image.size)
        os.fsync(file.fileno())


def _compact(target: Path) -> None:
    """Rewrite ``target`` without its free pages, which are as many as the file is too long."""
    compacted = target.with_name(target.name + ".compact")
    try:
        with translated(target), compacted.open("xb") as file:
            compaction.compact(target, file.fileno())
        with compacted.open("rb") as source, target.open("r+b", buffering=0) as file:
            while chunk := source.read(_CHUNK):
                file.write(chunk)
            file.truncate()
            os.fsync(file.fileno())
    finally:
        compacted.unlink(missing_ok=True)


def _require_sound(target: Path, backup: Path, progress: Progress) -> int:
    """Check ``target``; return the txid of its commit. Raises ``CorruptDatabase``."""
    report = check(target, progress=lambda _label, length: progress("checking", length))
    if not report.ok:
        message = f"{backup}: damaged, {len(report.findings)} findings; nothing was restored"
        raise CorruptDatabase(message, findings=report.findings)
    return report.txid
