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
    try:
        done = restore_backup(backup, new, checked=not no_check, compact=compact, progress=progress_bar)
    except CorruptDatabase as error:
        for finding in error.findings:
            complain(finding)
        raise
    size = f"{bytes_text(done.size)}, {bytes_text(done.allocated)} on disk"
    with reporting(f"{new} is restored"):
        echo(f"{new}: restored from {backup}, txid {done.txid}{', not checked' if no_check else ', checked'} ({size})")
