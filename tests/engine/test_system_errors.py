"""What the operating system refuses becomes an error of cowfs, whichever call it is, and everything is usable after it."""

from __future__ import annotations

import errno
import fcntl
import logging
import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from cowfs.engine.env import Env
from cowfs.engine.locktable import IDLE
from cowfs.engine.translate import domain_error
from cowfs.errors import CorruptDatabase, CowfsError, DiskFull, EnvironmentFailure
from cowfs.pages.datafile import DataFile
from tests.support.retained import put, require_retained, retaining

_MOST = 200  # calls of one kind that an operation makes
_STEPS = {"pread": 17, "fstat": 5}  # not each of many that are alike


class Failing:
    """Stands in for a call of the system: the call number ``at`` fails with ``number``, and only that one."""

    def __init__(self, real: Callable[..., Any], number: int, at: int) -> None:
        self.real, self.number, self.at = real, number, at
        self.calls = 0

    def __call__(self, *args: Any, **options: Any) -> Any:
        self.calls += 1
        if self.calls == self.at + 1:
            raise OSError(self.number, os.strerror(self.number))
        return self.real(*args, **options)


# Which module has the call, its name, and how it may fail.
FAULTS: dict[str, tuple[Any, str, int]] = {
    "open": (os, "open", errno.EMFILE),
    "fstat": (os, "fstat", errno.EIO),
    "pread": (os, "pread", errno.ENOMEM),
    "fsync": (os, "fsync", errno.EIO),
    "fallocate": (os, "posix_fallocate", errno.ENOSPC),
    "fcntl": (fcntl, "fcntl", errno.ENOLCK),
    "mmap": (mmap, "mmap", errno.ENOMEM),
    "msync": (mmap.mmap, "flush", errno.EIO),
}


@contextmanager
def failing(fault: str, at: int) -> Iterator[Failing]:
    module, name, number = FAULTS[fault]
    with pytest.MonkeyPatch.context() as patch:
        if fault == "msync":  # a method of a type that cannot be changed

            class Map(mmap.mmap):
                flush = lambda self, *args: shim(*args)  # noqa: E731

            shim = Failing(lambda *_args: None, number, at)
            patch.setattr(mmap, "mmap", Map)
        else:
            shim = Failing(getattr(module, name), number, at)
            patch.setattr(module, name, shim)
        yield shim


def opened_to_write(path: Path) -> None:
    with retaining(path, durable=True) as (env, _keeper):
        put(env, 1)


def opened_to_read(path: Path) -> None:
    with Env.open(path, readonly=True) as env, env.hold() as hold:
        assert hold.get(b"a", b"1") is not None


def begun(path: Path) -> None:
    """With no pin, so that it is claimed, and no table, so that it is begun."""
    (path / "lock.mdb").unlink(missing_ok=True)
    opened_to_write(path)


def given_up(path: Path) -> None:
    with retaining(path, durable=True) as (env, _keeper):
        put(env, 1)
        env.give_up_history()
        env.evict_dead_readers()
        env.sync()
        put(env, 1)


def made(path: Path) -> None:
    Env.create(path.with_name(f"new {len(os.listdir(path.parent))}"), durable=True).close()


DEEDS: list[Callable[[Path], None]] = [opened_to_write, opened_to_read, begun, given_up, made]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with retaining(tmp_path / "db") as (env, _keeper):
        for number in range(10):
            put(env, number)
    return tmp_path / "db"


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("deed", DEEDS)
def test_each_call_that_fails_is_one_error(
    path: Path, deed: Callable[[Path], None], fault: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    for at in count(step=_STEPS.get(fault, 1)):
        with failing(fault, at) as shim:
            try:
                deed(path)
            except CowfsError as error:
                assert shim.calls > at
                assert "\n" not in str(error)
                assert "[Errno" not in str(error)
        if shim.calls <= at:
            break
        assert at < _MOST
        assert Env._open == {}, "nothing is left open"
        with retaining(path) as (env, _keeper):
            put(env, at)
            require_retained(env, {})


@pytest.mark.parametrize("deed", [begun, given_up])
def test_a_pin_that_could_not_be_put_on_disk_is_put_there_before_it_is_relied_on(
    path: Path, deed: Callable[[Path], None]
) -> None:
    """The next commit may come from a process that knows nothing of the failure."""
    with failing("msync", 0), pytest.raises(EnvironmentFailure, match=r"lock\.mdb: Input/output error"):
        deed(path)
    with failing("msync", _MOST) as shim:
        opened_to_write(path)
    assert shim.calls == 1
    with failing("msync", _MOST) as shim:
        opened_to_write(path)
    assert shim.calls == 0


def test_what_a_read_error_says_of_the_data(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost bytes are damage; a machine that is short of something is not."""
    with DataFile(path) as file:
        for number, expected in (
            (errno.EIO, CorruptDatabase),
            (errno.EBADMSG, CorruptDatabase),
            (errno.EUCLEAN, CorruptDatabase),
            (errno.ENOMEM, EnvironmentFailure),
            (errno.ENOTCONN, EnvironmentFailure),
            (errno.ESTALE, EnvironmentFailure),
        ):
            for name, read in (
                ("pread", lambda: file.page(2)),
                ("preadv", lambda: file.readinto(memoryview(bytearray(9)), 0)),
            ):
                with monkeypatch.context() as patch:
                    patch.setattr(os, name, Failing(getattr(os, name), number, 0))
                    with pytest.raises(expected, match=os.strerror(number)):
                        read()


def test_an_error_about_a_place_that_is_gone_is_still_an_error_of_ours(tmp_path: Path) -> None:
    assert isinstance(domain_error(OSError(errno.EIO, "x"), tmp_path / "gone"), EnvironmentFailure)
    assert isinstance(domain_error(OSError(errno.ENOSPC, "x"), tmp_path / "gone"), DiskFull)


def test_the_slot_of_a_reader_is_idle_after_a_failure(path: Path) -> None:
    with Env.open(path, readonly=True) as env:
        with failing("pread", 1), pytest.raises(CowfsError):
            env.hold()
        assert env.readers() == []
        assert env._table.oldest_held() in (None, IDLE)
