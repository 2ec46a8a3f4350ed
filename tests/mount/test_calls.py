"""Every call that would change something, on every kind of path, and names that are not there."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cowfs import Store
from tests.support.commands import run
from tests.support.mounted import Mount, mounted

Call = Callable[[bytes], object]

_FILES = (
    b"live/data.mdb",
    b"live/snapshot.json",
    b"snapshots/latest/data.mdb",
    b"snapshots/1/data.mdb",
    b"snapshots/1/schema.json",
)
_DIRECTORIES = (b"", b"live", b"snapshots", b"snapshots/latest", b"snapshots/1")
_NEW = (
    b"new",
    b"live/new",
    b"live/lock.mdb",
    b"snapshots/at/new",
    b"snapshots/ago/1d",
    b"snapshots/1/lock.mdb",
    b"snapshots/latest/new",
    b"live/\xff",
)


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    directory = tmp_path_factory.mktemp("calls")
    Store.create(directory / "db", {":note/text": {}}, durability="none").close()
    with mounted(directory / "db", directory / "mnt") as mount:
        yield mount


def _path(path: bytes) -> Path:
    return Path(os.fsdecode(path))


def _opens(flags: int) -> Call:
    def call(path: bytes) -> None:
        os.close(os.open(path, flags, 0o644))

    return call


_ON_ANY: dict[str, Call] = {
    "chmod": lambda path: _path(path).chmod(0o644),
    "chown": lambda path: os.chown(path, 12345, 12345),
    "utime": lambda path: os.utime(path, (1, 1)),
    "touch": lambda path: os.utime(path),
    "rename": lambda path: _path(path).rename(_path(path).with_name("renamed")),
    "symlink": lambda path: _path(path + b".link").symlink_to("target"),
}
_ON_FILES: dict[str, Call] = {
    "open for writing": _opens(os.O_WRONLY),
    "open for reading and writing": _opens(os.O_RDWR),
    "open to append": _opens(os.O_WRONLY | os.O_APPEND),
    "open and create": _opens(os.O_WRONLY | os.O_CREAT),
    "open and truncate": _opens(os.O_RDWR | os.O_TRUNC),
    "open for reading and truncate": _opens(os.O_RDONLY | os.O_TRUNC),
    "truncate": lambda path: os.truncate(path, 0),
    "extend": lambda path: os.truncate(path, 1 << 30),
    "unlink": os.unlink,
    "link": lambda path: os.link(path, path + b".link"),
    "replace": lambda path: _path(path).replace(_path(path).with_name("snapshot.json.new")),
}
_ON_DIRECTORIES: dict[str, Call] = {"rmdir": os.rmdir}
_ON_NEW: dict[str, Call] = {
    "create": _opens(os.O_WRONLY | os.O_CREAT | os.O_EXCL),
    "mkdir": os.mkdir,
    "mknod": lambda path: os.mknod(path, 0o644 | stat.S_IFREG),
    "mkfifo": os.mkfifo,
    "symlink": lambda path: _path(path).symlink_to("target"),
}


def _answer(call: Call, path: bytes) -> str:
    """Return the name of the errno that the call ends with, "done" when it is carried out."""
    try:
        call(path)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return "done"


def _cases() -> Iterator[tuple[str, Call, bytes]]:
    for calls, paths in (
        (_ON_ANY, (*_FILES, *_DIRECTORIES[1:])),
        (_ON_FILES, _FILES),
        (_ON_DIRECTORIES, _DIRECTORIES[1:]),
        (_ON_NEW, _NEW),
    ):
        for name, call in calls.items():
            for path in paths:
                yield name, call, path


@pytest.mark.parametrize(
    ("call", "path"), [pytest.param(call, path, id=f"{name} {path!r}") for name, call, path in _cases()]
)
def test_what_would_change_something_answers_erofs(mount: Mount, call: Call, path: bytes) -> None:
    assert _answer(call, os.fsencode(mount.point) + b"/" + path) == "EROFS"


@pytest.mark.parametrize("name", ["chmod", "chown", "utime", "touch", "symlink"])
def test_the_mount_point_itself_answers_erofs(mount: Mount, name: str) -> None:
    assert _answer(_ON_ANY[name], os.fsencode(mount.point) + b"/.") == "EROFS"


def test_nothing_was_changed_by_all_that(mount: Mount) -> None:
    assert sorted(os.listdir(mount.point)) == ["browse", "live", "snapshots"]
    assert sorted(os.listdir(mount.snapshots)) == ["1", "latest"]
    assert sorted(os.listdir(mount.point / "browse")) == ["latest"]
    for directory in (mount.latest, mount.snapshot(1)):
        assert sorted(os.listdir(directory)) == ["data.mdb", "schema.json", "snapshot.json"]


def test_an_open_file_answers_erofs_or_ebadf(mount: Mount) -> None:
    descriptor = os.open(mount.snapshot(1) / "data.mdb", os.O_RDONLY)
    try:
        assert _answer(lambda _: os.write(descriptor, b"x"), b"") == "EBADF"
        assert _answer(lambda _: os.fchmod(descriptor, 0o777), b"") == "EROFS"
        assert _answer(lambda _: os.fchown(descriptor, 1, 1), b"") == "EROFS"
        assert _answer(lambda _: os.utime(descriptor, (1, 1)), b"") == "EROFS"
        assert _answer(lambda _: os.ftruncate(descriptor, 0), b"") in ("EINVAL", "EBADF")  # by the kernel: not for writing
    finally:
        os.close(descriptor)


_NOT_THERE = (
    b"nothing", b"live/nothing", b"live/entities2", b"snapshots/2", b"snapshots/0", b"snapshots/01", b"snapshots/+1",
    b"snapshots/-1", b"snapshots/1 ", b"snapshots/ 1", b"snapshots/1\n", b"snapshots/latest2", b"snapshots/LATEST",
    b"snapshots/18446744073709551616", b"snapshots/99999999999999999999999", b"snapshots/1/nothing", b"snapshots/1/lock.mdb",
    b"snapshots/latest/lock.mdb", b"snapshots/\xd9\xa1", b"\xff\xfe", b"live/\xff", b"snapshots/\x80\x81", b"live/a\nb",
    b"live/%00", "live/é".encode(), b"snapshots/nothing/data.mdb",
)  # fmt: skip


@pytest.mark.parametrize("path", _NOT_THERE)
def test_names_that_are_not_there_answer_enoent(mount: Mount, path: bytes) -> None:
    absolute = os.fsencode(mount.point) + b"/" + path
    for call in (
        os.stat,
        os.lstat,
        os.listdir,
        os.unlink,
        os.rmdir,
        _opens(os.O_RDONLY),
    ):
        assert _answer(call, absolute) == "ENOENT"


@pytest.mark.parametrize(
    ("name", "answers"),
    [(b"x" * 255, {"ENOENT"}), (b"x" * 300, {"ENOENT", "ENAMETOOLONG"}), (b"\xff" * 1025, {"ENAMETOOLONG"})],
)
def test_long_names_are_not_there(mount: Mount, name: bytes, answers: set[str]) -> None:
    for directory in (b"/", b"/live/", b"/snapshots/", b"/snapshots/1/"):
        assert _answer(os.stat, os.fsencode(mount.point) + directory + name) in answers


def test_a_file_is_no_directory(mount: Mount) -> None:
    for path in ("live/data.mdb/x", "snapshots/1/snapshot.json/x"):
        assert _answer(os.stat, os.fsencode(mount.point / path)) == "ENOTDIR"
    assert _answer(os.listdir, os.fsencode(mount.live / "data.mdb")) == "ENOTDIR"
    assert _answer(_opens(os.O_RDONLY | os.O_DIRECTORY), os.fsencode(mount.live / "data.mdb")) == "ENOTDIR"
    with pytest.raises(IsADirectoryError):
        mount.live.read_bytes()


def test_there_are_no_extended_attributes_and_they_disturb_nobody(mount: Mount, tmp_path: Path) -> None:
    for path in (mount.live, mount.live / "data.mdb", mount.snapshot(1) / "data.mdb"):
        assert _answer(lambda path: os.getxattr(path, b"user.x"), os.fsencode(path)) == "ENOTSUP"
        assert _answer(lambda path: os.setxattr(path, b"user.x", b"y"), os.fsencode(path)) in ("ENOTSUP", "EROFS")
        assert _answer(lambda path: os.removexattr(path, b"user.x"), os.fsencode(path)) in ("ENOTSUP", "EROFS")
        assert os.listxattr(path) == []
    for command in (["cp", "-a"], ["cp", "--preserve=all"], ["rsync", "-aAX"]):
        result = run(*command, mount.snapshot(1) / "data.mdb", tmp_path / command[-1])
        assert result.stdout + result.stderr == ""
    tar = run("tar", "--xattrs", "--acls", "-C", mount.snapshots, "-cf", tmp_path / "archive.tar", "1")
    assert tar.stdout + tar.stderr == ""


def test_reading_at_and_beyond_the_end(mount: Mount) -> None:
    assert sorted(os.listdir(mount.point / "browse")) == ["latest"]
    for directory in (mount.latest, mount.snapshot(1)):
        for name in ("data.mdb", "snapshot.json"):
            descriptor = os.open(directory / name, os.O_RDONLY)
            try:
                size = os.fstat(descriptor).st_size
                assert len(os.pread(descriptor, size + 100, 0)) == size
                assert len(os.pread(descriptor, 100, size - 1)) == 1
                assert os.pread(descriptor, 100, size) == b""
                assert os.pread(descriptor, 100, size + (1 << 40)) == b""
            finally:
                os.close(descriptor)
