"""How far the main thread has come with a write transaction, for whoever handles the signals of the process.

Two moments are not theirs to interrupt. LMDB waits for the write lock in C, where no handler of Python runs; the process
may be killed there, as it has begun nothing. And a handler that raised an exception as a commit returns would leave its
caller without knowing that it was made; from there on a signal waits until the caller has taken note.
"""

from __future__ import annotations

import threading
from enum import Enum


class Stage(Enum):
    """Where the main thread is."""

    FREE = "free"  # to be interrupted: an exception undoes what was begun
    WAITING = "waiting"  # for another writer
    COMMITTED = "committed"  # or just being committed; the caller has not called ``acknowledge`` yet


_stage = Stage.FREE


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
