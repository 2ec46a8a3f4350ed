"""The operations one by one, in this process and without a kernel: what their errors become."""

from __future__ import annotations

import ctypes
import errno
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import lmdb
import pytest
from fuse import c_stat, fuse_file_info

from cowfs import errors
from cowfs.commits.observed import ObservedCommits
from cowfs.engine.env import Env
from cowfs.mount import daemon
from cowfs.mount.bindings import Walks
from cowfs.mount.errnos import ERRNOS, errno_of
from cowfs.mount.handles import Handles
from cowfs.mount.operations import Filesystem
from cowfs.views.node import Stability
from cowfs.views.tree import SnapshotsDirectory, TopDirectory, Tree, unbound


@pytest.fixture
def filesystem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Filesystem]:
    """A filesystem that is not mounted; every request seems to come from a process that cannot be seen."""
    with Env.create(tmp_path / "db", durable=False) as env:
        history = ObservedCommits(env, 3)
        filesystem = Filesystem(Tree(history), env, lambda: None)
        monkeypatch.setattr(filesystem, "_caller", lambda: 0)
        yield filesystem
        history.close()


def _leaves(kind: type[errors.CowfsError]) -> list[type[errors.CowfsError]]:
    return [leaf for child in kind.__subclasses__() for leaf in _leaves(child)] or [kind]


def test_every_leaf_of_the_error_tree_has_an_errno_and_nothing_else_has() -> None:
    assert set(ERRNOS) == set(_leaves(errors.CowfsError))
    assert all(number in errno.errorcode for number in ERRNOS.values())


def test_every_leaf_is_in_the_drawing_of_the_tree() -> None:
    assert errors.__doc__ is not None
    for leaf in _leaves(errors.CowfsError):
        assert f"── {leaf.__name__} " in errors.__doc__


def _raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object) -> Any:
        raise error

    return fail


@pytest.mark.parametrize("leaf", _leaves(errors.CowfsError))
def test_an_error_of_cowfs_is_answered_by_the_table(
    filesystem: Filesystem, monkeypatch: pytest.MonkeyPatch, leaf: type[errors.CowfsError]
) -> None:
    monkeypatch.setattr(filesystem._tree, "node", _raising(leaf("on purpose")))
    for operation in (filesystem.getattr, filesystem.open, filesystem.opendir):
        assert Filesystem._wrapper(operation, b"/live", ctypes.pointer(fuse_file_info())) == -ERRNOS[leaf]


_UNFORESEEN = [
    ValueError("on purpose"),
    KeyError(7),
    AssertionError(),
    RecursionError(),
    MemoryError(),
    KeyboardInterrupt(),
    SystemExit(0),
    OSError("without an errno"),
    OSError(0, "no errno"),
    OSError(-5, "negative"),
    lmdb.Error("not an OSError"),
    errors.CowfsError("the root of the tree itself"),
]


@pytest.mark.parametrize("error", _UNFORESEEN, ids=repr)
def test_what_nobody_foresaw_is_eio_and_a_traceback_in_the_log(
    filesystem: Filesystem, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: BaseException
) -> None:
    monkeypatch.setattr(filesystem._tree, "node", _raising(error))
    for operation in (filesystem.getattr, filesystem.open, filesystem.opendir):
        caplog.clear()
        with caplog.at_level(logging.INFO, "cowfs.mount"):
            assert Filesystem._wrapper(operation, b"/live", ctypes.pointer(fuse_file_info())) == -errno.EIO
        (record,) = caplog.records
        assert record.levelno == logging.ERROR
        assert operation.__name__ in record.getMessage()
        assert "Traceback" in caplog.text
        assert "_raising" in caplog.text or "fail" in caplog.text


def test_an_oserror_keeps_its_errno(
    filesystem: Filesystem, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (errno.ENOENT, errno.EROFS, errno.ENOSPC, errno.EACCES):
        monkeypatch.setattr(filesystem._tree, "node", _raising(OSError(number, "on purpose")))
        assert Filesystem._wrapper(filesystem.getattr, b"/live", ctypes.pointer(c_stat())) == -number
    assert len(caplog.records) == 2  # not for what is an answer rather than a failure


def test_a_handle_that_was_never_opened_is_eio(filesystem: Filesystem, caplog: pytest.LogCaptureFixture) -> None:
    info = ctypes.pointer(fuse_file_info())
    info.contents.fh = 999
    buffer = ctypes.pointer(ctypes.c_byte())
    assert Filesystem._wrapper(filesystem.read, None, buffer, 1, 0, info) == -errno.EIO
    assert Filesystem._wrapper(filesystem.fgetattr, None, ctypes.pointer(c_stat()), info) == -errno.EIO
    assert Filesystem._wrapper(filesystem.release, None, info) == -errno.EIO
    assert len(caplog.records) == 3


def test_the_same_failure_is_logged_once_a_minute(
    filesystem: Filesystem, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(filesystem._tree, "node", _raising(errors.CorruptDatabase("on purpose", 7)))
    for _ in range(3):
        assert Filesystem._wrapper(filesystem.getattr, b"/live", ctypes.pointer(c_stat())) == -errno.EIO
    assert len(caplog.records) == 1
    later = time.monotonic() + 61
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert Filesystem._wrapper(filesystem.getattr, b"/live", ctypes.pointer(c_stat())) == -errno.EIO
    assert len(caplog.records) == 2


def test_a_listing_that_fails_is_never_an_empty_directory(
    filesystem: Filesystem, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    info = ctypes.pointer(fuse_file_info())
    assert Filesystem._wrapper(filesystem.opendir, b"/snapshots", info) == 0
    monkeypatch.setattr(SnapshotsDirectory, "entries", _raising(errors.NotFound("on purpose")))
    assert Filesystem._wrapper(filesystem.readdir, None, None, None, 0, info) == -errno.EIO
    assert "cannot be listed" in caplog.text


def test_the_turn_is_given_back_after_a_failure(filesystem: Filesystem, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(filesystem._tree, "node", _raising(KeyboardInterrupt()))
        assert Filesystem._wrapper(filesystem.getattr, b"/live", ctypes.pointer(c_stat())) == -errno.EIO
    buffer = ctypes.pointer(c_stat())
    assert Filesystem._wrapper(filesystem.getattr, b"/live", buffer) == 0
    assert buffer.contents.st_nlink == 2


def test_every_mutating_operation_of_fuse_is_refused(filesystem: Filesystem, caplog: pytest.LogCaptureFixture) -> None:
    changing = (
        "mknod", "unlink", "symlink", "rename", "link", "chmod", "chown", "truncate", "ftruncate", "write",
        "create", "utimens",
    )  # fmt: skip
    for name in changing:
        assert Filesystem._wrapper(getattr(filesystem, name), b"/live/data.mdb", None, None) == -errno.EROFS
    for path in (b"/live/data.mdb", b"/new", b"/live/new", b"/snapshots/latest/new", b"/snapshots/latest", b"/snapshots/1"):
        assert Filesystem._wrapper(filesystem.rmdir, path) == -errno.EROFS
    assert caplog.records == []


def test_the_errno_of_an_error_is_always_positive() -> None:
    for error in [*_UNFORESEEN, *(leaf("x") for leaf in _leaves(errors.CowfsError))]:
        assert errno_of(error) > 0


class _CutFilesystem:
    """A filesystem whose connection is cut after it was usable, or before."""

    usable = True

    def __init__(self, _tree: Tree, _env: Env, ready: Callable[[], None]) -> None:
        self.walks = Walks(_tree.history)
        self._ready = ready

    def serve(self, _point: str, _options: dict[str, str | bool]) -> None:
        if _CutFilesystem.usable:
            self._ready()
        raise RuntimeError(1)


class _NoHousekeeper:
    def __init__(self, *_: object) -> None:
        self.start = self.stop = lambda: None


@pytest.mark.parametrize("usable", [True, False])
def test_a_connection_that_is_cut_ends_a_mount_and_is_an_error_only_at_its_beginning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, usable: bool
) -> None:
    Env.create(tmp_path / "db", durable=False).close()
    (tmp_path / "mnt").mkdir()
    monkeypatch.setattr(daemon, "Filesystem", _CutFilesystem)
    monkeypatch.setattr(daemon, "Housekeeper", _NoHousekeeper)
    monkeypatch.setattr(_CutFilesystem, "usable", usable)
    called: list[bool] = []
    with nullcontext() if usable else pytest.raises(errors.MountError):
        daemon.serve(tmp_path / "db", tmp_path / "mnt", daemon.MountOptions(), lambda: called.append(True))
    assert called == [True] * usable


def test_what_is_open_below_a_name_is_known_to_the_kernel_by_any_of_its_handles(filesystem: Filesystem) -> None:
    class Named(TopDirectory):
        stability = Stability.NAMED

    node = Named(filesystem._tree.history, unbound, filesystem._tree._current)
    handles = Handles(filesystem.walks)
    first, second, other = (handles.open("/a/x", node, number, 5) for number in (7, 7, 8))
    handles.open("/live", filesystem._tree.node("/live"), 9, 5)
    assert [handles.of_named(inode) for inode in (7, 8, 9, 10)] == [first, other, None, None]
    handles.close(first)
    assert handles.of_named(7) == second
    handles.close(second)
    assert handles.of_named(7) is None
    assert [handles.opened_in(*where) for where in (("/a", 5), ("/a/x", 5), ("/a", 6), ("/b", 5))] == [
        True,
        True,
        False,
        False,
    ]
    handles.remove("/a")
    assert not handles.opened_in("/a", 5)
    assert handles.of_named(8) == other
