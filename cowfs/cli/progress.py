"""Progress of long work, on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from cowfs.backup.reporting import Advance
from cowfs.cli.output import progress_stream
from cowfs.escaping import escaped


@contextmanager
def progress_bar(label: str, length: int | None) -> Iterator[Advance]:
    """Yield a function to call with how much more is done; it draws a bar on standard error when that is a terminal."""
    if not sys.stderr.isatty() or not length:
        yield lambda _done: None
        return
    step, file = max(length // 200, 1), progress_stream()
    with click.progressbar(length=length, label=escaped(label), file=file, update_min_steps=step) as bar:
        yield bar.update
