"""``cowfs restore``: a backup becomes a new database; the backup itself is never touched."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import click

from cowfs.cli.progress import progress_bar
from cowfs.cli.verify import txid_at, verify
from cowfs.errors import AccessDenied, CorruptDatabase, PlaceError
from cowfs.pages.failure import translated
from cowfs.pages.image import Image
from cowfs.pages.locktable import sync_directory
from cowfs.pages.reading import reading


@click.command()
@click.argument("backup", type=click.Path(readable=False, path_type=Path))
@click.argument("new", metavar="NEW-DB", type=click.Path(readable=False, path_type=Path))
@click.option("--no-check", is_flag=True, help="Do not check the restored database before it gets its name.")
def restore(backup: Path, new: Path, no_check: bool) -> None:
    """Make a database in the new (or empty) directory NEW-DB from BACKUP.

    BACKUP is a directory with a data.mdb (a copy of snapshots/..., or a directory of a mount), or that file itself. NEW-DB
    appears when it is complete, checked and on disk; when anything fails it does not appear.
    """
    target = _make_beside(new)
    try:
        with translated(target):
            txid = _copy(backup, target / "data.mdb")
            if not no_check:
                _require_sound(target, backup)
            target.chmod(0o755)
            target.rename(new.resolve())
            sync_directory(new.resolve().parent)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    click.echo(f"{new}: restored from {backup}, txid {txid}{' (not checked)' if no_check else ', checked'}")


def _make_beside(new: Path) -> Path:
    """Make the directory, beside ``new``, that will be renamed to it; ``new`` must be free."""
    try:
        if new.exists() and (not new.is_dir() or any(new.iterdir())):
            raise PlaceError(f"{new}: exists; restore into a new directory")
        return Path(tempfile.mkdtemp(prefix=f".{new.name}.restore-", dir=new.resolve().parent))
    except FileNotFoundError:
        raise PlaceError(f"{new}: its parent directory does not exist") from None
    except PermissionError:
        raise AccessDenied(f"{new}: no permission to make a directory there") from None
    except OSError as error:
        raise PlaceError(f"{new}: cannot be made: {error.strerror}") from None


def _copy(backup: Path, target: Path) -> int:
    """Write the newest root of ``backup`` as an image to ``target``, on disk; return its txid."""
    with reading(backup) as reader, target.open("xb") as file:
        image = Image(reader.file, reader.root, reader.root.txnid)
        with progress_bar("restoring", image.size) as progress:
            for chunk in image.chunks():
                file.write(chunk)
                progress(len(chunk))
        file.flush()
        os.fsync(file.fileno())
        sync_directory(target.parent)
        return txid_at(reader)


def _require_sound(target: Path, backup: Path) -> None:
    with reading(target) as reader, progress_bar("checking", reader.root.pages) as progress:
        findings = list(verify(reader, progress).findings)
    if findings:
        for finding in findings:
            click.echo(finding, err=True)
        raise CorruptDatabase(f"{backup}: damaged, {len(findings)} findings; nothing was restored")
