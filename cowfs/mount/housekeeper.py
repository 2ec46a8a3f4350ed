"""``Housekeeper``: what the mount does while nobody asks.

Ten times a second it looks for new commits, so that each gets its directory, and ends the walks of processes that are gone.
It also takes the signals: libfuse's own handling can miss one that comes just before it waits for a request, so here a
signal ends the loop and then makes a request of its own, which wakes it. Where that does not reach it (the mount was
detached while in use, or something else is mounted on top) the main thread is interrupted until it has ended.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import signal
import threading
from pathlib import Path
from types import FrameType

from cowfs.commits.commits import Commits
from cowfs.engine.env import Env
from cowfs.errors import CowfsError
from cowfs.mount.operations import Filesystem

log = logging.getLogger("cowfs.mount")

_TICK = 0.1  # seconds
_PATIENCE = 1.0  # seconds that unmounting may take before it is hurried
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Housekeeper:
    """A thread beside the one that serves. ``start`` it, in the main thread, when the mount is usable."""

    def __init__(self, filesystem: Filesystem, history: Commits, env: Env, point: Path) -> None:
        self._filesystem = filesystem
        self._env = env
        self._history = history
        self._point = point
        self._thread = threading.Thread(target=self._run, name="housekeeper", daemon=True)
        self._reading, self._writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._stopped = threading.Event()
        self._complained = ""

    def start(self) -> None:
        """Take over the signals and begin."""
        for number in _SIGNALS:
            signal.signal(number, _note)
        signal.set_wakeup_fd(self._writing)
        self._thread.start()

    def stop(self) -> None:
        """End the thread, give the signals back; does nothing when it was never started."""
        if self._thread.is_alive():
            self._stopped.set()
            os.write(self._writing, b"\0")
            self._thread.join()
        signal.set_wakeup_fd(-1)
        os.close(self._reading)
        os.close(self._writing)

    def _run(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # they are the main thread's
        while not self._stopped.is_set():
            if select.select([self._reading], [], [], _TICK)[0]:
                if not self._stopped.is_set() and any(os.read(self._reading, 64)):
                    self._end_serving()
            else:
                self._look()

    def _look(self) -> None:
        try:
            with self._filesystem.turn:
                self._history.newest()
                self._filesystem.walks.expire()
                self._env.evict_dead_readers()
            self._complained = ""
        except Exception as error:  # this thread takes the signals: it must not end
            if repr(error) != self._complained:  # once, not ten times a second
                log.error("%s", error, exc_info=not isinstance(error, CowfsError))  # noqa: TRY400
                self._complained = repr(error)

    def _end_serving(self) -> None:
        log.info("a signal asks to unmount")
        self._filesystem.stop()
        with contextlib.suppress(OSError):
            self._point.stat()
        main_thread = threading.main_thread().ident
        while main_thread is not None and not self._stopped.wait(_PATIENCE):
            signal.pthread_kill(main_thread, signal.SIGTERM)


def _note(_number: int, _frame: FrameType | None) -> None:
    """Do nothing: the signal has woken the housekeeper through its pipe."""
