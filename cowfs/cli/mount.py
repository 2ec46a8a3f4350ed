"""``cowfs mount`` and ``cowfs umount``."""

from __future__ import annotations

import hashlib
import logging
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import click

from cowfs.cli.arguments import DATABASE
from cowfs.cli.signals import pending
from cowfs.engine.location import locate
from cowfs.engine.opening import require_database
from cowfs.engine.stage import deferred
from cowfs.errors import CowfsError
from cowfs.mount import daemon
from cowfs.mount.mountpoint import prepare, require_fuse, unmount

_POINT = click.argument("mountpoint", type=click.Path(readable=False, path_type=Path))


@click.command()
@DATABASE
@_POINT
@click.option("-f", "--foreground", is_flag=True, help="Stay in the foreground; log to standard error.")
@click.option("-o", "options", metavar="OPTS", multiple=True, help="Mount options, comma separated (allow_other, ...).")
@click.option(
    "--keep",
    type=click.IntRange(0),
    default=daemon.DEFAULT_KEEP,
    show_default=True,
    help="Older commits to keep as directories, of an environment without a store.",
)
@click.option(
    "--log",
    "log_path",
    type=click.Path(readable=False, path_type=Path, dir_okay=False),
    help="Log file of a background mount.",
)
@click.option("--ready-fd", type=int, hidden=True)
def mount(
    database: Path,
    mountpoint: Path,
    foreground: bool,
    options: tuple[str, ...],
    keep: int,
    log_path: Path | None,
    ready_fd: int | None,
) -> None:
    """Mount DB at MOUNTPOINT, and return when it is ready.

    DB is a cowfs database, or any other LMDB environment, of which only the images are shown.
    """
    database = locate(database).path  # however it is spelled: it names the mount, and nothing may be mounted inside of it
    if foreground:
        chosen = daemon.MountOptions(keep, tuple(option for group in options for option in group.split(",") if option))
        _serve(database, mountpoint, chosen, ready_fd)
        return
    require_fuse()
    prepare(mountpoint, database)
    require_database(database)  # or say at once why it cannot work
    command = [sys.executable, "-m", "cowfs.cli", "mount", "--foreground", f"--keep={keep}"]
    command += [f"-o{group}" for group in options]
    daemon.start(command, [str(database.resolve()), str(mountpoint.resolve())], log_path or _log_path(database))


@click.command()
@_POINT
@click.option("-l", "--lazy", is_flag=True, help="Detach it now, even if it is in use.")
def umount(mountpoint: Path, lazy: bool) -> None:
    """Unmount what `cowfs mount` has mounted at MOUNTPOINT."""
    unmount(mountpoint, lazy=lazy)


def _serve(database: Path, mountpoint: Path, options: daemon.MountOptions, ready_fd: int | None) -> None:
    """Serve in this process; where ``ready_fd`` is given, say there when it is usable or why it failed."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s cowfs[%(process)d] %(levelname)s %(message)s")
    to_report = [] if ready_fd is None else [ready_fd]  # once, whatever happens later
    for descriptor in to_report:
        os.set_inheritable(descriptor, False)

    def ready() -> None:
        """Report it, now that the mount takes signals itself. One that came before, or a starter that is gone, ends it."""
        try:
            if to_report:
                daemon.report_ready(to_report.pop())
        except BrokenPipeError:
            signal.raise_signal(signal.SIGTERM)
        number = pending()
        if number is not None:
            signal.raise_signal(number)

    try:
        with deferred():  # an exception would be lost in libfuse
            daemon.serve(database, mountpoint, options, ready)
    except CowfsError as error:
        with suppress(BrokenPipeError):
            if to_report:
                daemon.report_failure(to_report.pop(), error)
        raise


def _log_path(database: Path) -> Path:
    """Return where the background mount of ``database`` logs: in the user's state directory, by the XDG base directories."""
    state = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "cowfs"
    resolved = database.resolve()
    digest = hashlib.sha256(os.fsencode(resolved)).hexdigest()[:8]
    return state / f"{resolved.name}-{digest}.log"
