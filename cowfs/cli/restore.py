"""``cowfs restore``: a backup becomes a new database; the backup itself is never touched."""

from __future__ import annotations

import os
from pathlib import Path

import click

from cowfs.cli.output import complain, echo, reporting
from cowfs.cli.progress import progress_bar
from cowfs.cli.staging import Access, is_there, staged
from cowfs.cli.verify import txid_at, verify
from cowfs.errors import CorruptDatabase
from cowfs.pages.compact import compact as write_compacted
from cowfs.pages.failure import translated
from cowfs.pages.image import Image
from cowfs.pages.reading import reading
from cowfs.units import bytes_text


@click.command()
@click.argument("backup", type=click.Path(readable=False, path_type=Path))
@click.argument("new", metavar="NEW-DB", type=click.Path(readable=False, path_type=Path))
@click.option("--no-check", is_flag=True, help="Do not check the restored database before it gets its name.")
@click.option("--compact", is_flag=True, help="Leave the free pages out: make the smallest file. It takes longer.")
def restore(backup: Path, new: Path, no_check: bool, compact: bool) -> None:
    """Make a database in the new (or empty) directory NEW-DB from BACKUP.

    BACKUP is a directory with a data.mdb (a copy of snapshots/..., or a directory of a mount), or that file itself.
    NEW-DB appears when it is complete, checked and on disk; when anything fails it does not appear. Free pages take no room
    on disk. It gets the owner and the permissions of the backup, as far as you may give them and your umask allows.
    """
    if no_check and compact:
        raise click.BadParameter("it needs the check, and does not go with --no-check", param_hint="--compact")
    is_there(new)  # or say so before the backup is opened
    with reading(backup) as reader, staged(new, Access.of(backup)) as target:
        _write(Image(reader.file, reader.root, reader.root.txnid), target)
        txid = txid_at(reader) if no_check else _require_sound(target, backup)
        if compact:
            _compact(target)
            _require_sound(target, backup)
        status = target.stat()
    size = f"{bytes_text(status.st_size)}, {bytes_text(status.st_blocks * 512)} on disk"
    with reporting(f"{new} is restored"):
        echo(f"{new}: restored from {backup}, txid {txid}{', not checked' if no_check else ', checked'} ({size})")


def _write(image: Image, target: Path) -> None:
    """Write the image to ``target``, holes where it is free."""
    runs, buffer = image.runs(), memoryview(bytearray(1 << 20))
    with target.open("r+b", buffering=0) as file, progress_bar("restoring", sum(size for _at, size in runs)) as progress:
        for start, size in runs:
            offset, end = start, start + size
            while offset < end:
                count = image.readinto(offset, buffer[: end - offset])
                offset += os.pwrite(file.fileno(), buffer[:count], offset)
                progress(count)
        file.truncate(image.size)
        os.fsync(file.fileno())


def _compact(target: Path) -> None:
    """Write ``target`` anew without its free pages, which are as many as the file is too long."""
    compacted = target.with_name(target.name + ".compact")
    try:
        with translated(target), compacted.open("xb") as file:
            write_compacted(target, file.fileno())
        with compacted.open("rb") as source, target.open("r+b", buffering=0) as file:
            while chunk := source.read(1 << 20):
                file.write(chunk)
            file.truncate()
            os.fsync(file.fileno())
    finally:
        compacted.unlink(missing_ok=True)


def _require_sound(target: Path, backup: Path) -> int:
    """Check ``target``; return the txid of its commit. Raises ``CorruptDatabase`` after all findings were printed."""
    with reading(target) as reader, progress_bar("checking", reader.root.pages) as progress:
        report = verify(reader, progress)
        findings = list(report.findings)
        txid = reader.root.txnid if report.db is None else report.db.txid
    if findings:
        for finding in findings:
            complain(finding)
        raise CorruptDatabase(f"{backup}: damaged, {len(findings)} findings; nothing was restored")
    return txid
