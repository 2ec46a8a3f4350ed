"""How far the main thread has come with a write transaction, for whoever handles the signals of the process.

Two moments are not theirs to interrupt. LMDB waits for the write lock in C, where no handler of Python runs; the process
may be killed there, as it has begun nothing. And a handler that raised an exception as a commit returns would leave its
caller without knowing that it was made; from there on a signal waits until the caller has taken note.

Code that would leave something half made marks its region with ``deferred``, and the parts of it that may be interrupted
all the same with ``allowed``. Without a handler that asks ``is_deferred`` both do nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import Enum


class Stage(Enum):
    """Where the main thread is."""

    FREE = "free"  # to be interrupted: an exception undoes what was begun
    WAITING = "waiting"  # for another writer
    COMMITTED = "committed"  # or just being committed; the caller has not called ``acknowledge`` yet


_stage = Stage.FREE
_deferred = 0  # regions that the main thread is in
_raise_pending: Callable[[], None] | None = None


def enter(stage: Stage) -> None:
    """Say where the calling thread is; nothing happens when that is not the main one."""
    global _stage
    if threading.get_ident() == threading.main_thread().ident:
        _stage = stage


def current() -> Stage:
    """Return where the main thread is."""
    return _stage


def acknowledge() -> None:
    """Say that the caller of the last commit knows of it."""
    if _stage is Stage.COMMITTED:
        enter(Stage.FREE)


def on_allowed(raise_pending: Callable[[], None]) -> None:
    """Have ``raise_pending`` called where signals may interrupt again; it raises for one that came meanwhile."""
    global _raise_pending
    _raise_pending = raise_pending


def is_deferred() -> bool:
    """Return whether the main thread is in a region that signals must not interrupt."""
    return _deferred > 0


@contextmanager
def deferred() -> Iterator[None]:
    """Keep signals from interrupting the block, except in its ``allowed`` parts. One that comes stays pending."""
    global _deferred
    _deferred += 1
    try:
        yield
    finally:
        _deferred -= 1


@contextmanager
def allowed() -> Iterator[None]:
    """Let signals interrupt the block, inside a ``deferred`` one: what undoes it goes between the two."""
    global _deferred
    before, _deferred = _deferred, 0
    try:
        if _raise_pending is not None:
            _raise_pending()
        yield
    finally:
        _deferred = before
