"""``Filesystem``: the operations of FUSE, on libfuse's own arguments.

fusepy is the binding; its methods are overridden where a copy or an object for every request can be spared. Rules it keeps
(each was broken once):

1. No exception leaves an operation other than as an errno from the one table; what nobody foresaw is EIO and a traceback
   in the log. (fusepy's own wrapper returns stale memory for some exceptions, which tools then store as a file's content.)
2. One node is made for each request, and bound to a handle at open: everything read through a handle is of one commit.
3. Paths that show another commit later (live, snapshots/latest) are opened with direct_io, and the kernel may remember no
   attribute: libfuse has one node, one page cache and one size for a path. Frozen paths keep their cache: they never change.
4. Every operation that would change something answers EROFS; those that are not here are unknown to the kernel, which asks
   once (extended attributes by name, locks) and then never again.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import stat
import threading
import time
from collections.abc import Callable
from ctypes import addressof
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from fuse import FUSE, _libfuse, c_stat

from cowfs.errors import EnvironmentFailure, NotFound, ReadOnly
from cowfs.mount.errnos import errno_of
from cowfs.mount.process import ProcessIds
from cowfs.mount.walks import Walks
from cowfs.pages.env import Env
from cowfs.views.node import Directory, File, Node
from cowfs.views.tree import Tree

log = logging.getLogger("cowfs.mount")

_LATEST = b"/snapshots/latest"
_READING = ("getattr", "open", "read", "release", "opendir", "readdir", "releasedir", "listxattr", "statfs", "init")
_CHANGING = (
    "mknod", "mkdir", "unlink", "rmdir", "symlink", "rename", "link", "chmod", "chown", "truncate", "write", "create",
    "utimens",
)  # fmt: skip
_EXPECTED = frozenset({errno.ENOENT, errno.EROFS, errno.ENOTDIR})  # answers, not failures
_COMPLAIN_EVERY = 60.0  # seconds
_MOST_COMPLAINTS = 1000


@dataclass
class Handle:
    """An open file or directory: its node, and the process that opened it."""

    node: Node
    pid: int
    entries: list[tuple[bytes, Node]] = field(default_factory=list)


class Filesystem(FUSE):  # type: ignore[misc]  # fusepy has no types
    """The mounted filesystem: make one, then ``serve``."""

    def __init__(self, tree: Tree, env: Env, ready: Callable[[], None]) -> None:
        """``ready`` is called once the kernel has connected: from then on the mount is usable."""
        self.turn = threading.RLock()  # requests and housekeeping take turns
        self.walks = Walks(tree.history)
        self._tree = tree
        self._env = env
        self._ready = ready
        self._processes = ProcessIds()
        self._handles: dict[int, Handle] = {}
        self._last_handle = 0
        self._buffers: dict[int, Any] = {}
        self._context: Any = None
        self._loop: Any = None
        self._complained: dict[str, float] = {}  # until when not to say the same again

    def serve(self, mountpoint: str, options: dict[str, str | bool]) -> None:
        """Mount with libfuse's ``options``, serve until it is unmounted or stopped. RuntimeError: libfuse's exit code."""
        operations = SimpleNamespace(
            **dict.fromkeys(_READING + _CHANGING, True), use_ns=True, flag_nullpath_ok=1, flag_nopath=1
        )
        # file names are bytes: fusepy gets each of them as a character of Latin-1, and gives libfuse the bytes again
        characters = {name: _as_latin_1(value) if isinstance(value, str) else value for name, value in options.items()}
        super().__init__(
            operations, _as_latin_1(mountpoint), encoding="latin-1", foreground=True, nothreads=True, **characters
        )

    @staticmethod
    def _wrapper(operation: Callable[..., int | None], *arguments: Any) -> int:
        """Run one operation; the negative errno of what it raises is its result."""
        filesystem: Filesystem = operation.__self__  # type: ignore[attr-defined]
        try:
            with filesystem.turn:
                return operation(*arguments) or 0
        except BaseException as error:
            number = errno_of(error)
            if number not in _EXPECTED:
                filesystem.complain(operation.__name__, error)
            return -number

    def complain(self, operation: str, error: BaseException) -> None:
        """Log a failed operation; of the same failure once a minute, or one bad page would fill the disk with its log."""
        text = f"{operation}: {error!r}"
        now = time.monotonic()
        if now < self._complained.get(text, 0.0):
            return
        if len(self._complained) >= _MOST_COMPLAINTS:
            self._complained.clear()
        self._complained[text] = now + _COMPLAIN_EVERY
        log.error("%s: %s", operation, error, exc_info=error)

    # -- life ----------------------------------------------------------------------------------------------------

    def init(self, _connection: Any) -> None:
        """The kernel has connected."""
        self._context = _libfuse.fuse_get_context()
        self._loop = self._context.contents.fuse
        self._ready()

    def stop(self) -> None:
        """Make ``serve`` return after its next request; may be called from another thread."""
        _libfuse.fuse_exit(ctypes.c_void_p(self._loop))

    # -- attributes ----------------------------------------------------------------------------------------------

    def getattr(self, path: bytes, buffer: Any) -> None:
        """stat(2) by path."""
        self._fill(buffer.contents, self._node(path, self._caller()))

    def fgetattr(self, path: bytes | None, buffer: Any, info: Any) -> None:
        """fstat(2): of the node that the handle was opened at, whatever its path shows now."""
        if info:
            self._fill(buffer.contents, self._handles[info.contents.fh].node)
        elif path is not None:
            self.getattr(path, buffer)

    def listxattr(self, _path: bytes, _buffer: Any, _size: int) -> None:
        """There are no extended attributes; `tar --xattrs` warns where one cannot even ask."""

    def statfs(self, _path: bytes, buffer: Any) -> None:
        """statvfs(2): what the filesystem below says."""
        below = os.statvfs(self._env.path)
        result = buffer.contents
        for name in (
            "f_bsize",
            "f_frsize",
            "f_blocks",
            "f_bfree",
            "f_bavail",
            "f_files",
            "f_ffree",
            "f_favail",
            "f_namemax",
        ):
            setattr(result, name, getattr(below, name))

    # -- files ---------------------------------------------------------------------------------------------------

    def open(self, path: bytes, info: Any) -> None:
        """Open for reading, bound to the commit that the path shows now."""
        fields = info.contents
        if fields.flags & os.O_ACCMODE != os.O_RDONLY:
            raise ReadOnly("a snapshot cannot be written")
        pid = self._caller()
        node = self._node(path, pid)
        fields.fh = self._new_handle(node, pid)
        if node.frozen:
            fields.keep_cache = 1
        else:
            fields.direct_io = 1

    def read(self, _path: bytes | None, buffer: Any, size: int, offset: int, info: Any) -> int:
        """Read into libfuse's buffer, without a copy between."""
        array = self._buffers.get(size)
        if array is None:
            array = self._buffers[size] = ctypes.c_char * size
        node = self._handles[info.contents.fh].node
        assert isinstance(node, File)  # noqa: S101 - only files are opened
        return node.readinto(offset, memoryview(array.from_address(addressof(buffer.contents))).cast("B"))

    def release(self, _path: bytes | None, info: Any) -> None:
        """The last descriptor of the handle was closed."""
        self._end_handle(info.contents.fh)

    # -- directories ---------------------------------------------------------------------------------------------

    def opendir(self, path: bytes, info: Any) -> None:
        """List a directory; from now on the process walks its commit."""
        pid = self._caller()
        if path == _LATEST:
            self.walks.list_latest(pid)
        node = self._node(path, pid)
        assert isinstance(node, Directory)  # noqa: S101 - the kernel has asked getattr
        if node.snapshot is not None and node.frozen:
            self.walks.list_snapshot(pid, node.snapshot)
        info.contents.fh = self._new_handle(node, pid)

    def readdir(self, _path: bytes | None, buffer: Any, filler: Any, offset: int, info: Any) -> None:
        """Give the entries from ``offset`` on, each with its type, until the buffer is full."""
        handle = self._handles[info.contents.fh]
        if not handle.entries:
            handle.entries = self._list(handle.node)
        entry = c_stat()
        for index in range(offset, len(handle.entries)):
            name, node = handle.entries[index]
            entry.st_ino = node.inode
            entry.st_mode = stat.S_IFDIR if isinstance(node, Directory) else stat.S_IFREG
            if filler(buffer, name, entry, index + 1):
                break

    def releasedir(self, _path: bytes | None, info: Any) -> None:
        """The directory was closed."""
        self._end_handle(info.contents.fh)

    # -- what would change something -----------------------------------------------------------------------------

    def _refuse(self, *_: Any) -> None:
        raise ReadOnly("a snapshot cannot be written")

    mknod = mkdir = unlink = rmdir = symlink = rename = link = chmod = chown = truncate = ftruncate = _refuse
    write = create = utimens = _refuse

    # -- inside --------------------------------------------------------------------------------------------------

    def _caller(self) -> int:
        """Return the id of the process whose request this is."""
        return self._processes.of(self._context.contents.pid)

    def _node(self, path: bytes, pid: int) -> Node:
        node = self._tree.node(path.decode(errors="surrogateescape"), self.walks.latest(pid))
        if node.snapshot is not None and path != _LATEST:
            self.walks.use(pid, node.snapshot)
        return node

    def _list(self, node: Node) -> list[tuple[bytes, Node]]:
        assert isinstance(node, Directory)  # noqa: S101 - only directories are listed
        entries: list[tuple[bytes, Node]] = [(b".", node), (b"..", node)]
        try:
            entries += [(os.fsencode(name), child) for name, child in node.children()]
        except NotFound as error:  # the C library takes ENOENT from a listing for its end: rsync --delete would empty a copy
            raise EnvironmentFailure(f"a directory cannot be listed: {error}") from error
        return entries

    def _fill(self, result: Any, node: Node) -> None:
        """Fill a struct stat, which libfuse has zeroed."""
        attributes = node.attributes()
        owner = os.fstat(self._env.file.fd)
        readable = owner.st_mode & (self._env.path.stat().st_mode & 0o111) << 2  # who may not enter may not read
        if isinstance(node, Directory):
            result.st_mode = stat.S_IFDIR | readable | readable >> 2
            result.st_nlink = 2
        else:
            result.st_mode = stat.S_IFREG | readable
            result.st_nlink = 1
        result.st_ino = node.inode
        result.st_uid = owner.st_uid
        result.st_gid = owner.st_gid
        result.st_size = attributes.size
        result.st_blocks = attributes.blocks
        result.st_blksize = 1 << 17
        result.st_atimespec.tv_sec = result.st_mtimespec.tv_sec = result.st_ctimespec.tv_sec = attributes.mtime

    def _new_handle(self, node: Node, pid: int) -> int:
        self._last_handle += 1
        self._handles[self._last_handle] = Handle(node, pid)
        if node.snapshot is not None:
            node.snapshot.retain()
            self.walks.opened(pid, node.snapshot)
        return self._last_handle

    def _end_handle(self, number: int) -> None:
        handle = self._handles.pop(number)
        if handle.node.snapshot is not None:
            self.walks.closed(handle.pid, handle.node.snapshot)
            handle.node.snapshot.release()


def _as_latin_1(text: str) -> str:
    return os.fsencode(text).decode("latin-1")
