"""The ``cowfs`` command: its subcommands, and what an error becomes."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

import click

from cowfs import __version__
from cowfs.cli import check, diff, export, imports, init, log, mount, restore, retain, revert, snapshot, status, transact
from cowfs.cli.demo import command as demo
from cowfs.cli.output import complain
from cowfs.cli.program import run
from cowfs.errors import CowfsError, InvalidTarget, NameTaken, NotFound, WrongName

_WRONG_COMMAND = (InvalidTarget, NotFound, WrongName, NameTaken)


class _Complaints(logging.Handler):
    """What the library warns of, one line each on standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record."""
        complain(f"cowfs: {record.getMessage()}")


@contextmanager
def _complaints() -> Iterator[None]:
    handler = _Complaints(logging.WARNING)
    logger = logging.getLogger("cowfs")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Commands(click.Group):
    """A group in the order in which its commands were added, whose errors are one line each."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of the README."""
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; an error of cowfs ends it with one line and its exit code."""
        try:
            return super().invoke(ctx)
        except CowfsError as error:
            complain(f"cowfs: {error}")
            sys.exit(2 if isinstance(error, _WRONG_COMMAND) else 1)
        except click.MissingParameter:
            raise
        except click.BadParameter as error:
            complain(f"cowfs: {error.format_message()}")
            sys.exit(error.exit_code)
        except MemoryError:
            complain("cowfs: not enough memory (`ulimit -v` may limit it)")
            sys.exit(1)
        except RecursionError:
            complain("cowfs: the JSON is nested too deeply")
            sys.exit(1)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="cowfs")
@click.pass_context
def commands(context: click.Context) -> None:
    """A datom store in LMDB whose every commit is a directory."""
    if context.invoked_subcommand != "mount":  # which has a log
        context.with_resource(_complaints())


for command in (
    init.init,
    transact.transact,
    imports.import_,
    export.export,
    log.log,
    diff.diff,
    revert.revert,
    snapshot.snapshot,
    retain.retain,
    mount.mount,
    mount.umount,
    status.status,
    check.check,
    restore.restore,
    demo.demo,
):
    commands.add_command(command)


def main() -> NoReturn:
    """Be the program ``cowfs``."""
    run(commands)
