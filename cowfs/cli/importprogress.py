"""``ImportProgress``: how far an import has come, and how to go on from there or undo it."""

from __future__ import annotations

from pathlib import Path

from cowfs.cli.arguments import shown_path


class ImportProgress:
    """The lines that are committed, of several files that are imported one after the other.

    ``undo`` says how to undo an import that cannot go on from a line. Nothing of a ``dry_run`` is ever committed.
    """

    def __init__(self, files: tuple[Path, ...], from_line: int, *, undo: str | None = None, dry_run: bool = False) -> None:
        self._files = files
        self._undo = undo
        self._dry_run = dry_run
        self._whole = 0  # files
        self._first = from_line
        self._committed = from_line - 1  # the last line of the file after these

    @property
    def first_line(self) -> int:
        """The line of the present file that the import begins at."""
        return self._first

    def commit(self, line: int) -> None:
        """Take note that the lines of the present file are committed up to this one."""
        self._committed = line

    def end_file(self) -> None:
        """Take note that all of the present file is committed."""
        self._whole += 1
        self._first, self._committed = 1, 0

    def __str__(self) -> str:
        """What is committed, and what to do now."""
        if self._dry_run:
            return "dry run: nothing was done"
        if self._whole == len(self._files):
            return f"all lines are committed; {self._undo}" if self._undo else "all lines are committed"
        return f"{self._done()}; {self._undo or self._go_on()}"

    def _done(self) -> str:
        file, lines = shown_path(self._files[self._whole]), f"lines {self._first} to {self._committed}"
        some = self._committed >= self._first
        if not self._whole:
            return f"{f'{lines} are' if some else 'nothing of the file is'} committed"
        before = f"{shown_path(self._files[0])} is" if self._whole == 1 else f"{self._whole} files are"
        return f"{before} committed, and {lines if some else 'nothing'} of {file}"

    def _go_on(self) -> str:
        rest = f" and the files from {shown_path(self._files[self._whole])} on" if self._whole else ""
        return f"go on with --from-line {self._committed + 1}{rest}"
