"""``cowfs restore``."""

from __future__ import annotations

from pathlib import Path

import click

from cowfs.backup.restore import restore as restore_backup
from cowfs.cli.output import complain, echo, reporting
from cowfs.cli.progress import progress_bar
from cowfs.errors import CorruptDatabase
from cowfs.units import bytes_text


@click.command()
@click.argument("backup", type=click.Path(readable=False, path_type=Path))
@click.argument("new", metavar="NEW-DB", type=click.Path(readable=False, path_type=Path))
@click.option("--no-check", is_flag=True, help="Skip the check of the restored database.")
@click.option("--compact", is_flag=True, help="Leave out free pages, for the smallest file. Takes longer.")
def restore(backup: Path, new: Path, no_check: bool, compact: bool) -> None:
    """Make a new database from a backup.

    BACKUP is a directory with a data.mdb (a copy of snapshots/..., or a directory of a mount), or that file itself.
    NEW-DB, a new or empty directory, gets its data.mdb only when that is complete, checked and on disk; when anything
    fails, nothing is left there. Free pages take no room on disk. NEW-DB gets the owner and permissions of the backup, as
    far as you may set them and your umask allows.
    """
    if no_check and compact:
        raise click.BadParameter("it needs the check, and does not go with --no-check", param_hint="--compact")
    try:
        done = restore_backup(backup, new, checked=not no_check, compact=compact, progress=progress_bar)
    except CorruptDatabase as error:
        for finding in error.findings:
            complain(finding)
        raise
    size = f"{bytes_text(done.size)}, {bytes_text(done.allocated)} on disk"
    with reporting(f"{new} is restored"):
        echo(f"{new}: restored from {backup}, txid {done.txid}{', not checked' if no_check else ', checked'} ({size})")
