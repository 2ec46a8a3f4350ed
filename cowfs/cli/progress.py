"""Progress of long work, on a terminal only."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click


@contextmanager
def progress_bar(label: str, length: int | None) -> Iterator[Callable[[int], None]]:
    """Yield a function to call with how much more is done; it draws a bar on standard error when that is a terminal."""
    if not sys.stderr.isatty() or not length:
        yield lambda _done: None
        return
    with click.progressbar(length=length, label=label, file=sys.stderr, update_min_steps=max(length // 200, 1)) as bar:
        yield bar.update
