"""``Filesystem``: the operations of FUSE, on libfuse's own arguments.

fusepy is the binding; its methods are overridden where a copy or an object for every request can be spared. Rules it keeps
(each was broken once):

1. No exception leaves an operation other than as an errno from the one table; what nobody foresaw is EIO and a traceback
   in the log. (fusepy's own wrapper returns stale memory for some exceptions, which tools then store as a file's content.)
2. One node is made for each request, and bound to a handle at open: everything read through a handle is of one commit.
3. Paths that may show another commit while they are open (live, snapshots/latest) are opened with direct_io, and the kernel
   may remember no name: libfuse has one node, one page cache and one size for a path. Frozen paths keep their cache: they
   never change; the cache of a named one is begun anew when it is opened. How long which name and which attributes are
   remembered is in ``timeouts``.
4. Every operation that would change something answers EROFS, whatever the mode bits say, but mkdir and rmdir of a name in
   snapshots/; those that are not here are unknown to the kernel, which asks once (extended attributes by name, locks) and
   then never again.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import pwd
import stat
import threading
import time
from collections.abc import Callable
from ctypes import addressof
from types import SimpleNamespace
from typing import Any

from fuse import FUSE, _libfuse, c_stat

from cowfs.commits.held import HeldCommit
from cowfs.engine.env import Env
from cowfs.errors import Busy, NameTaken, NotFound, ReadOnly, WrongName
from cowfs.mount.bindings import Walks
from cowfs.mount.callers import ProcessIds
from cowfs.mount.errnos import errno_of
from cowfs.mount.handles import Handles
from cowfs.mount.loop import Loop
from cowfs.mount.permissions import Permissions
from cowfs.mount.timeouts import Timeouts
from cowfs.views.node import Directory, File, Link, Node, Stability
from cowfs.views.tree import Tree

log = logging.getLogger("cowfs.mount")

_READING = (
    "getattr",
    "readlink",
    "open",
    "read",
    "release",
    "opendir",
    "readdir",
    "releasedir",
    "listxattr",
    "statfs",
    "init",
)
_CHANGING = (
    "mknod", "mkdir", "unlink", "rmdir", "symlink", "rename", "link", "chmod", "chown", "truncate", "write", "create",
    "utimens",
)  # fmt: skip
_EXPECTED = frozenset({errno.ENOENT, errno.EROFS, errno.ENOTDIR})  # answers, not failures
_ANSWERS = (WrongName, NameTaken, Busy)
_LOG_INTERVAL = 60.0  # seconds
_MAX_COMPLAINTS = 1000
_COMMIT_DEPTH = 2  # of the directory of a commit: it may be given up, so its name is looked up each time


class Filesystem(FUSE):  # type: ignore[misc]  # fusepy has no types
    """The mounted filesystem: make one, then ``serve``."""

    def __init__(self, tree: Tree, env: Env, ready: Callable[[], None]) -> None:
        """``ready`` is called once the kernel has connected: from then on the mount is usable."""
        self.turn = threading.RLock()  # requests and housekeeping take turns
        self.walks = Walks(tree.history)
        self._tree = tree
        self._env = env
        self._permissions = Permissions(env.file.fd, env.directory)
        self._ready = ready
        self._processes = ProcessIds()
        self._handles = Handles(self.walks)
        self._requests = Loop(self._handles.of_named)
        self._buffers: dict[int, Any] = {}
        self._context: Any = None
        self._loop: Any = None
        self._timeouts: Timeouts | None = None
        self._complained: dict[str, float] = {}  # until when not to say the same again

    def serve(self, mountpoint: str, options: dict[str, str | bool]) -> None:
        """Mount with libfuse's ``options``, serve until it is unmounted or stopped. RuntimeError: libfuse's exit code.

        Where the options let others in, raise ``MountError`` when that would keep the mounting user out.
        """
        if "default_permissions" in options:
            self._permissions = Permissions(self._env.file.fd, self._env.directory, others=True)
            self._permissions.require_self()
        operations = SimpleNamespace(
            **dict.fromkeys(_READING + _CHANGING, True), use_ns=True, flag_nullpath_ok=1, flag_nopath=1
        )
        # file names are bytes: fusepy gets each of them as a character of Latin-1, and gives libfuse the bytes again
        characters = {name: _as_latin_1(value) if isinstance(value, str) else value for name, value in options.items()}
        _libfuse.fuse_main_real = self._requests.main  # which fusepy calls, and does not return from before the end
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
            if number not in _EXPECTED and not isinstance(error, _ANSWERS):
                filesystem.complain(operation.__name__, error)
            return -number

    def complain(self, operation: str, error: BaseException) -> None:
        """Log a failed operation; of the same failure once a minute, or one bad page would fill the disk with its log."""
        text = f"{operation}: {error!r}"
        now = time.monotonic()
        if now < self._complained.get(text, 0.0):
            return
        if len(self._complained) >= _MAX_COMPLAINTS:
            self._complained.clear()
        self._complained[text] = now + _LOG_INTERVAL
        log.error("%s: %s", operation, error, exc_info=error)

    # -- life ----------------------------------------------------------------------------------------------------

    def init(self, _connection: Any) -> None:
        """The kernel has connected."""
        self._context = _libfuse.fuse_get_context()
        self._loop = self._context.contents.fuse
        self._timeouts = Timeouts(self._loop)
        if not self._timeouts.known:
            log.info("the timeouts of names and attributes are not where libfuse could be told: walks take longer")
        self._ready()

    def stop(self) -> None:
        """Make ``serve`` return after its next request; may be called from another thread."""
        _libfuse.fuse_exit(ctypes.c_void_p(self._loop))

    # -- attributes ----------------------------------------------------------------------------------------------

    def getattr(self, path: bytes, buffer: Any) -> None:
        """stat(2) by path."""
        node = self._node(path, self._caller())
        self._fill(buffer.contents, node)
        frozen = node.stability is Stability.FROZEN and path.count(b"/") > _COMMIT_DEPTH
        directory = isinstance(node, Directory)
        self._remember(name=frozen and directory, attributes=frozen and not directory)

    def fgetattr(self, path: bytes | None, buffer: Any, info: Any) -> None:
        """fstat(2): of the node that the handle was opened at, whatever its path shows now."""
        if info:
            node = self._handles[info.contents.fh].node
            self._fill(buffer.contents, node)
            self._remember(name=False, attributes=False)
        elif path is not None:
            self.getattr(path, buffer)

    def readlink(self, path: bytes, buffer: Any, size: int) -> None:
        """Give the target of a symbolic link, cut where libfuse's buffer ends."""
        node = self._node(path, self._caller())
        if not isinstance(node, Link):
            raise OSError(errno.EINVAL, "not a symbolic link")
        target = node.target.encode(errors="surrogateescape")[: size - 1] + b"\0"
        ctypes.memmove(buffer, target, len(target))

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
        fields.fh = self._handles.open(_text(path), node, self._requests.node, pid)
        if node.stability is Stability.FROZEN:
            fields.keep_cache = 1
        elif node.stability is Stability.MOVING:
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
        self._handles.close(info.contents.fh)

    # -- directories ---------------------------------------------------------------------------------------------

    def opendir(self, path: bytes, info: Any) -> None:
        """List a directory; from now on the process walks its commit."""
        pid = self._caller()
        node = self._node(path, pid)
        assert isinstance(node, Directory)  # noqa: S101 - the kernel has asked getattr
        if node.moving is not None:
            self.walks.list_moving(pid, node.moving, lambda: self._unbound(path))
            node = self._node(path, pid)
        elif node.stability is not Stability.MOVING and node.snapshot is not None:
            named = node.stability is Stability.NAMED
            self.walks.list_snapshot(pid, node.snapshot, _commit_in(_text(path)) if named else None)
        info.contents.fh = self._handles.open(_text(path), node, self._requests.node, pid)

    def readdir(self, _path: bytes | None, buffer: Any, filler: Any, offset: int, info: Any) -> None:
        """Give the entries from ``offset`` on, each with its type, until the buffer is full."""
        listing = self._handles[info.contents.fh].listing
        assert listing is not None  # noqa: S101 - only directories are listed
        shown = c_stat()
        while (entry := listing.entry(offset)) is not None:
            shown.st_ino = entry.inode
            shown.st_mode = stat.S_IFDIR if entry.directory else stat.S_IFLNK if entry.link else stat.S_IFREG
            offset += 1
            if filler(buffer, entry.name.encode(errors="surrogateescape"), shown, offset):
                break

    def releasedir(self, _path: bytes | None, info: Any) -> None:
        """The directory was closed."""
        self._handles.close(info.contents.fh)

    # -- what would change something -----------------------------------------------------------------------------

    def _refuse(self, *_: Any) -> None:
        raise ReadOnly("a snapshot cannot be written")

    mknod = unlink = symlink = rename = link = chmod = chown = truncate = ftruncate = _refuse
    write = create = utimens = _refuse

    def mkdir(self, path: bytes, _mode: int) -> None:
        """Make a named snapshot of the newest commit, where only those can be made."""
        self._tree.make(_text(path), self._user())

    def rmdir(self, path: bytes) -> None:
        """Give the name of a named snapshot back, unless a process walks it: the kernel would let it find nothing more."""
        name = _text(path)
        if self.walks.walked(name, besides=self._caller()):
            raise Busy(f"{name}: being walked")
        self._tree.remove(name)
        self.walks.remove(name)
        self._handles.remove(name)

    # -- inside --------------------------------------------------------------------------------------------------

    def _remember(self, *, name: bool, attributes: bool) -> None:
        """Let the kernel remember what this operation answers."""
        if self._timeouts is not None:
            self._timeouts.set(name=name, attributes=attributes)

    def _caller(self) -> int:
        """Return the id of the process whose request this is."""
        return self._processes.of(self._context.contents.pid)

    def _user(self) -> str:
        """Return the name of the user whose request this is."""
        number = self._context.contents.uid
        try:
            return pwd.getpwuid(number).pw_name
        except KeyError:
            return str(number)

    def _node(self, path: bytes, pid: int) -> Node:
        node = self._tree.node(_text(path), lambda name, resolve: self.walks.sees(pid, name, resolve))
        if isinstance(node, Directory) and node.deleted and not self._uses(pid, _text(path)):
            raise NotFound("the snapshot's name was deleted; what is below it is there for who uses it")
        if node.txid is not None and not (isinstance(node, Directory) and node.moving is not None):
            self.walks.use(pid, node.txid)
        return node

    def _uses(self, pid: int, name: str) -> bool:
        """Whether the process walks the snapshot at the path ``name``, or has opened something there."""
        return self.walks.walks(pid, name) or self._handles.opened_in(name, pid)

    def _unbound(self, path: bytes) -> HeldCommit:
        """Return what a moving directory shows to a process that is not bound."""
        snapshot = self._tree.node(_text(path)).snapshot
        assert snapshot is not None  # noqa: S101 - what moves is a snapshot
        return snapshot

    def _fill(self, result: Any, node: Node) -> None:
        """Fill a struct stat, which libfuse has zeroed."""
        attributes = node.attributes()
        shown = self._permissions.shown()
        if isinstance(node, Directory):
            result.st_mode = stat.S_IFDIR | shown.directory
            result.st_nlink = 2
        else:
            result.st_mode = stat.S_IFLNK | 0o777 if isinstance(node, Link) else stat.S_IFREG | shown.file
            result.st_nlink = 1
        result.st_ino = node.inode
        result.st_uid = shown.uid
        result.st_gid = shown.gid
        result.st_size = attributes.size
        result.st_blocks = attributes.blocks
        result.st_blksize = 1 << 17
        result.st_atimespec.tv_sec = result.st_mtimespec.tv_sec = result.st_ctimespec.tv_sec = attributes.mtime


def _text(path: bytes) -> str:
    return path.decode(errors="surrogateescape")


def _commit_in(path: str) -> str:
    """Return the path of the directory of a commit that ``path`` is in."""
    return "/".join(path.split("/")[: _COMMIT_DEPTH + 1])


def _as_latin_1(text: str) -> str:
    return os.fsencode(text).decode("latin-1")
