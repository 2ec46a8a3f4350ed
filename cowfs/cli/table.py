"""Results on a terminal: lines under headings, and columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from cowfs.cli.output import echo
from cowfs.escaping import escaped


def print_lines(lines: Mapping[str, Sequence[str]]) -> None:
    """Print lines, each group behind its heading."""
    for heading, group in lines.items():
        for number, line in enumerate(group):
            echo(f"{heading if number == 0 else '':<12} {line}")


def table(header: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[str] = ()) -> list[str]:
    """Return the lines of a table; the columns named in ``right`` are aligned to the right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for row in (header, *rows):
        cells = [
            cell.rjust(width) if name in right else cell.ljust(width)
            for name, cell, width in zip(header, row, widths, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return lines


def shown(text: str) -> str:
    """Return a text of a user for a line or a cell: blanks for line ends, escapes for what is not to be seen."""
    return escaped(" ".join(text.split()))
