"""The ``cowfs`` command: its subcommands, and what an error becomes."""

from __future__ import annotations

import sys
from typing import Any

import click

from cowfs import __version__
from cowfs.cli import check, demo, export, imports, init, mount, restore, status, transact
from cowfs.errors import CowfsError, NotFound, PlaceError

_WRONG_COMMAND = (PlaceError, NotFound)


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
            click.echo(f"cowfs: {error}", err=True)
            sys.exit(2 if isinstance(error, _WRONG_COMMAND) else 1)
        except RecursionError:
            click.echo("cowfs: the JSON is nested too deeply", err=True)
            sys.exit(1)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="cowfs")
def main() -> None:
    """A datom store in LMDB whose every commit is a directory."""


for command in (
    init.init,
    transact.transact,
    imports.import_,
    export.export,
    mount.mount,
    mount.umount,
    status.status,
    check.check,
    restore.restore,
    demo.demo,
):
    main.add_command(command)
