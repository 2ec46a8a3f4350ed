"""``Loop``: libfuse's loop over requests, in Python, so that each request can be looked at before libfuse processes it.

libfuse resolves a node to its path before it calls an operation. When the directory of a named snapshot was removed, what is
open in it has no path any more, and fstat(2), for which the kernel does not say which handle it is about, fails in libfuse.
So a look at the attributes of such a node is turned into one by handle, which needs no path.
"""

from __future__ import annotations

import ctypes
import errno
import struct
from collections.abc import Callable
from ctypes import byref, c_int, c_size_t, c_void_p
from typing import Any, Final

from fuse import _libfuse

_HEADER: Final = struct.Struct("<4xI8xQ")  # struct fuse_in_header in linux/fuse.h: opcode, node
_GETATTR: Final = 3
_GETATTR_IN: Final = struct.Struct("<I4xQ")  # struct fuse_getattr_in, after the header: flags, handle
_HEADER_SIZE: Final = 40
_BY_HANDLE: Final = 1  # FUSE_GETATTR_FH


class Loop:
    """The loop of one mount."""

    def __init__(self, handle_of: Callable[[int], int | None]) -> None:
        """``handle_of`` returns the handle whose attributes are those of a node, or None to ask for them by path."""
        self._handle_of = handle_of
        self._request: Any = b"\0" * _HEADER_SIZE

    @property
    def node(self) -> int:
        """While an operation runs: the kernel's number of the node that it is about."""
        return int(_HEADER.unpack_from(self._request)[1])

    def main(self, count: int, arguments: Any, operations: Any, size: int, data: Any) -> int:
        """Do what ``fuse_main_real`` does, with one thread: mount, serve, unmount. Returns the exit code."""
        point, threads = c_void_p(), c_int()
        fuse = _setup(count, arguments, operations, size, byref(point), byref(threads), data)
        if not fuse:
            return 1
        try:
            return self._serve(c_void_p(_get_session(fuse)))
        finally:
            _teardown(fuse, point)

    def _serve(self, session: c_void_p) -> int:
        """Serve until the session ends, which receiving says, too. What each turn needs is made once."""
        channel = c_void_p(_next_channel(session, None))
        size = _buffer_size(channel)
        memory = ctypes.create_string_buffer(size)
        self._request = memoryview(memory)
        place, taken = c_void_p(ctypes.addressof(memory)), byref(channel)
        while (got := _receive(taken, place, size)) > 0 or got == -errno.EINTR:
            if got > 0:
                self._look(got)
                _process(session, place, got, channel)
            elif _exited(session):
                break
        _reset(session)
        return 1 if got < 0 else 0

    def _look(self, size: int) -> None:
        opcode, node = _HEADER.unpack_from(self._request)
        if opcode == _GETATTR and size >= _HEADER_SIZE + _GETATTR_IN.size:
            handle = self._handle_of(node)
            if handle is not None:
                _GETATTR_IN.pack_into(self._request, _HEADER_SIZE, _BY_HANDLE, handle)


def _function(name: str, result: Any, *arguments: Any) -> Any:
    """Return a function of libfuse with its types; pointers to what is libfuse's own are numbers."""
    return ctypes.CFUNCTYPE(result, *arguments)((name, _libfuse))


_setup = _function("fuse_setup", c_void_p, c_int, c_void_p, c_void_p, c_size_t, c_void_p, c_void_p, c_void_p)
_teardown = _function("fuse_teardown", None, c_void_p, c_void_p)
_get_session = _function("fuse_get_session", c_void_p, c_void_p)
_next_channel = _function("fuse_session_next_chan", c_void_p, c_void_p, c_void_p)
_buffer_size = _function("fuse_chan_bufsize", c_size_t, c_void_p)
_exited = _function("fuse_session_exited", c_int, c_void_p)
_receive = _function("fuse_chan_recv", c_int, c_void_p, c_void_p, c_size_t)
_process = _function("fuse_session_process", None, c_void_p, c_void_p, c_size_t, c_void_p)
_reset = _function("fuse_session_reset", None, c_void_p)
