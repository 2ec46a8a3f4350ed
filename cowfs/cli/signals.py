"""What SIGINT, SIGTERM and SIGHUP do to a command: it cleans up behind itself, says how far it came, and dies of the signal.

A signal becomes an exception in the main thread, ``SignalReceived``, so that every ``finally`` runs; after that, no further
one disturbs. It waits while a commit is being made (``engine.stage``), until ``allow`` says that the command has taken note,
and in the regions that are marked as ``deferred``.

While LMDB waits for another writer no handler of Python runs. So a thread watches, too: when the main thread is found there
some time after a signal, the process says how far it came and dies at once. It has begun nothing that would be left behind.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from types import FrameType
from typing import NoReturn

from cowfs.engine import stage
from cowfs.engine.stage import Stage

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_LOOK_AGAIN = 0.05  # seconds
_LOOKS = 3  # that find the main thread waiting for a writer, before the process ends

_libc = ctypes.CDLL(None)


class EndedEarly(BaseException):
    """A command has to end now. ``done`` says what it has done for good, when that is worth a line."""

    def __init__(self, done: str = "") -> None:
        super().__init__(done)
        self.done = done


class SignalReceived(EndedEarly):
    """A signal asked the process to end."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@dataclass
class _State:
    """What is known of the signals of this process."""

    taken: frozenset[int] = frozenset()
    pending: int | None = None  # the one that came
    ending: threading.Lock = field(default_factory=threading.Lock)  # taken by the thread that ends the command
    watcher_ends: bool = False
    done: object = ""  # what is said when a signal finds the main thread waiting


_state = _State()


def install(say: Callable[[str], None]) -> None:
    """Take the signals over for the rest of the process, but for those that it was started to ignore.

    ``say`` prints on standard error what was done.
    """
    _state.taken = frozenset(number for number in _SIGNALS if signal.getsignal(number) is not signal.SIG_IGN)
    stage.on_allowed(_raise_pending)
    reading, writing = os.pipe2(os.O_CLOEXEC)
    os.set_blocking(writing, False)
    with suppress(RuntimeError):  # where no thread can be had
        threading.Thread(target=_watch, args=(reading, say), name="signals", daemon=True).start()
    signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    sys.unraisablehook = _raise_again
    for number in _state.taken:
        signal.signal(number, _received)


def allow() -> None:
    """Take note of the commit that was made: signals may end the command again. Raises one that came meanwhile."""
    stage.acknowledge()
    if not stage.is_deferred():
        _raise_pending()


@contextmanager
def saying(done: object) -> Iterator[None]:
    """Let the command say ``str(done)``, what it has done for good, when it has to end early within the block."""
    before, _state.done = _state.done, done
    try:
        yield
    except EndedEarly as early:
        early.done = early.done or str(done)
        raise
    finally:
        _state.done = before


def pending() -> int | None:
    """Return the signal that came, and waits."""
    return _state.pending


def die_of(number: int) -> NoReturn:
    """End the process by a signal, so that the shell sees what it has ended of."""
    _libc.signal(number, ctypes.c_void_p(int(signal.SIG_DFL)))  # signal.signal is for the main thread only
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # the first process of a container does not die of signals


def _received(number: int, _frame: FrameType | None) -> None:
    _state.pending = number
    if not stage.is_deferred() and stage.current() is not Stage.COMMITTED:
        _raise_pending()


def _raise_pending() -> None:
    if _state.pending is None:
        return
    if not _state.ending.acquire(blocking=False):
        while _state.watcher_ends:  # it says right now how far we came: no step further
            time.sleep(1)
        return
    for number in _state.taken:
        signal.signal(number, signal.SIG_IGN)
    raise SignalReceived(_state.pending)


def _raise_again(lost: sys.UnraisableHookArgs) -> None:
    """Send a signal again, a moment later, whose exception struck in a finalizer, where Python drops it."""
    if not isinstance(lost.exc_value, SignalReceived):
        sys.__unraisablehook__(lost)
        return
    for number in _state.taken:
        signal.signal(number, _received)
    _state.ending.release()
    threading.Timer(_LOOK_AGAIN, os.kill, (os.getpid(), lost.exc_value.number)).start()


def _watch(reading: int, say: Callable[[str], None]) -> None:
    while True:
        (number,) = os.read(reading, 1)
        if number in _state.taken:
            _end_if_waiting(number, say)


def _end_if_waiting(number: int, say: Callable[[str], None]) -> None:
    """End the process if the main thread waits for another writer; return when it ends by itself."""
    looks = 0
    while not _state.ending.locked():
        looks = looks + 1 if stage.current() is Stage.WAITING else 0
        if looks == _LOOKS and _state.ending.acquire(blocking=False):
            _state.watcher_ends = True
            say(str(_state.done))
            die_of(number)
        time.sleep(_LOOK_AGAIN)
