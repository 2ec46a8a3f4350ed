"""``--help``: what each command says of itself."""

from __future__ import annotations

import click
import pytest
from click.testing import CliRunner

from cowfs.cli.main import commands


def _groups(command: click.Command, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], click.Group]]:
    if not isinstance(command, click.Group):
        return []
    below = [found for name, child in command.commands.items() for found in _groups(child, (*path, name))]
    return [(path, command), *below]


_GROUPS = _groups(commands)


@pytest.mark.parametrize(("path", "group"), _GROUPS, ids=[" ".join(("cowfs", *path)) for path, _group in _GROUPS])
def test_the_summary_of_every_command_fits_its_line(path: tuple[str, ...], group: click.Group) -> None:
    shown = CliRunner().invoke(commands, [*path, "--help"], terminal_width=80).output
    listed = {line.split()[0]: line for line in shown.partition("Commands:")[2].splitlines() if line.strip()}
    assert listed.keys() == group.commands.keys()
    assert [line for line in listed.values() if line.endswith("...") or not line.endswith(".")] == []


def test_every_option_of_every_command_has_a_help_text() -> None:
    silent = [
        f"{name} {option.name}"
        for _path, group in _GROUPS
        for name, command in group.commands.items()
        for option in command.params
        if isinstance(option, click.Option) and not option.help and not option.hidden
    ]
    assert silent == []
