"""``LockTable``: LMDB's lock.mdb, in which cowfs claims reader slots of its own, the pin among them.

Layout (LMDB 0.9, POSIX, format 0x10001; ``MDB_txninfo`` and ``MDB_reader`` in mdb.c), little endian::

    0 magic u32 | 4 format u32 | 8 reader mutex | then txnid u64, number of slots in use u32, both in the first cache lines
    next cache line: writer mutex | then the slots, 64 bytes each:
    0 txnid u64 (2**64-1: idle) | 8 process u32 (0: free) | 16 thread u64 | 24 nonce, 16 bytes (ours: LMDB leaves them alone)

Locks by fcntl: byte 0 shared by everybody who has the environment open, byte N by the process that slots say is N.

Two kinds of slots are ours. Their process numbers are none that a process can have, so no LMDB takes them for its own:

- the pin, process ``PIN``: it holds the oldest root that is retained, and belongs to all processes of cowfs together. Every
  one of them locks its byte, shared; LMDB takes it for dead, and frees it, only when no process of cowfs runs;
- one for each process that holds roots, with a random number; its ``thread`` is the real process id.

Rules, each of which was broken in an experiment before it was written down:

1. POSIX drops all locks of a process on a file when it closes any descriptor of it. So our descriptor is opened before LMDB
   opens the environment and closed after LMDB has closed it; when LMDB fails to open, it is kept for the next attempt.
   Our own locks are of the open file (OFD): they do not drop.
2. LMDB's first opener begins the table anew, and the pin would be gone. So the first opener is us: whoever gets the lock on
   byte 0 alone begins the table anew, all but the pin, exactly as LMDB does, and then shares the lock before LMDB comes.
   A process that has byte 0 alone to make or remove the files does not begin the table, so byte ``_OPENING`` keeps it and
   openers apart: an opener that cannot have byte 0 alone shares it with a process that has begun the table.
3. A pin that is there when its byte can be read, inside of the number of slots in use, has been there all the time since it
   was claimed: no program that honours LMDB's locks can have used a page of a root from its txnid on again.
4. Slots are claimed under the reader mutex, which is robust: when its owner died, it is made consistent.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import platform
import random
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import wraps
from pathlib import Path
from typing import Concatenate, Final, NamedTuple, ParamSpec, TypeVar

from cowfs.engine.translate import translated
from cowfs.errors import AccessDenied, EnvironmentFailure, ReadersFull, UnsupportedFormat
from cowfs.pages.format import MAGIC

PIN: Final = 0x7F_C0_DB_00
IDLE: Final = 2**64 - 1
NONCE_SIZE: Final = 16
_PIN_BYTES: Final = PIN.to_bytes(4, "little")
_OPENING: Final = PIN + 1  # this byte is locked before byte 0, until the table is begun or the files are made
_OURS: Final = range(0x40_00_00_00, 0x50_00_00_00)  # process numbers of our slots; a real one is below 2**22
_FORMAT: Final = 0x1_00_01
_CACHE_LINE: Final = 64
_MUTEX_SIZE: Final = 48 if platform.machine() == "aarch64" else 40  # sizeof(pthread_mutex_t) in glibc and musl

_SLOT = struct.Struct("<QI4xQ16s24x")
_HEADER = struct.Struct("<II")
_FLOCK = struct.Struct("hhqqi4x")  # struct flock
_READER_MUTEX: Final = 8
_TXNID: Final = _READER_MUTEX + _MUTEX_SIZE
_COUNT: Final = _TXNID + 8
_WRITER_MUTEX: Final = -(-(_COUNT + 4) // _CACHE_LINE) * _CACHE_LINE
_SLOTS: Final = _WRITER_MUTEX + _CACHE_LINE

_P = ParamSpec("_P")
_R = TypeVar("_R")

_libc = ctypes.CDLL(None)
_PTHREAD_PROCESS_SHARED: Final = 1
_PTHREAD_MUTEX_ROBUST: Final = 1
_FUTEX_OWNER: Final = 0x3FFF_FFFF  # robust-futex-ABI.rst in Linux
_FUTEX_OWNER_DIED: Final = 0x4000_0000


class Slot(NamedTuple):
    """One reader slot that is in use."""

    number: int
    txnid: int
    process: int
    thread: int
    nonce: bytes

    @property
    def pid(self) -> int:
        """The id of the process that holds it."""
        return self.thread if self.process in _OURS else self.process


class Pin(NamedTuple):
    """The pin: no page of a root from ``txnid`` on has been used again since the pin with this nonce was claimed."""

    txnid: int
    nonce: bytes


def _as_ours(method: Callable[Concatenate[LockTable, _P], _R]) -> Callable[Concatenate[LockTable, _P], _R]:
    """Raise what the operating system refuses inside of the method as the error of cowfs that it means."""

    @wraps(method)
    def translating(self: LockTable, /, *args: _P.args, **options: _P.kwargs) -> _R:
        with translated(self.path):
            return method(self, *args, **options)

    return translating


class LockTable:
    """The lock file of an environment.

    To write: ``guard`` it, open LMDB, ``attach``; ``close`` it after LMDB. To read LMDB is not needed: ``share`` it.
    """

    _kept: dict[tuple[int, int], int] = {}  # noqa: RUF012 - descriptors that may not be closed in this process, by rule 1
    _abandoned: list[mmap.mmap | None] = []  # noqa: RUF012 - and maps: Python closes a descriptor with each

    def __init__(self, path: Path) -> None:
        self.path = path
        self._fd = -1
        self._name = os.fspath(path)
        self._identity = 0, 0
        self._shared = False  # without LMDB
        self._refused: OSError | None = None  # why it could not be opened
        self._map: mmap.mmap | None = None
        self._words = memoryview(b"").cast("Q")
        self._halves = memoryview(b"").cast("I")
        self._capacity = 0
        self._pin_index = -1
        self._own_index = -1
        self._own_process = 0

    # -- opening and closing -------------------------------------------------------------------------------------

    @_as_ours
    def guard(self, newest_txnid: Callable[[], int], slots: int) -> None:
        """Take part in the locks before LMDB does; as the first of all begin the table anew, with room for ``slots``.

        ``newest_txnid`` reads the id of the newest commit. Does nothing where the lock file cannot be written.
        """
        self._open(os.O_CREAT)
        if self._fd < 0:
            return
        _lock(self._fd, fcntl.F_WRLCK, _OPENING, wait=True)
        if _lock(self._fd, fcntl.F_WRLCK, 0, wait=False):
            self._begin_anew(newest_txnid(), slots)
            self._unmap()  # now: closing a map closes a descriptor
        _lock(self._fd, fcntl.F_RDLCK, 0, wait=True)
        _lock(self._fd, fcntl.F_RDLCK, PIN, wait=True)
        _lock(self._fd, fcntl.F_UNLCK, _OPENING, wait=False)

    @_as_ours
    def share(self, newest_txnid: Callable[[], int], slots: int) -> bool:
        """Take part in the table without LMDB, to hold roots that are read; begin it where there is none.

        False on a read-only filesystem, where nothing can be held. Raises ``AccessDenied``, ``EnvironmentFailure`` when LMDB
        has the environment open in this process, and ``UnsupportedFormat`` when the table is not laid out as we know it.
        """
        self._open(os.O_CREAT)
        if self._fd < 0 and self._refused is not None:
            if self._refused.errno == errno.EROFS:
                return False
            raise AccessDenied(f"{self.path}: no permission to hold a commit there ({self._refused.strerror})")
        self._shared = True
        if self._foreign_maps():
            raise EnvironmentFailure(f"{self.path}: already open in this process")
        self.guard(newest_txnid, slots)
        self._remap()
        if self._map is None or _HEADER.unpack_from(self._map) != (MAGIC, _FORMAT):
            raise UnsupportedFormat(f"{self.path}: this LMDB keeps its reader slots in a way that cowfs does not know")
        return True

    @_as_ours
    def in_use(self) -> bool:
        """Whether somebody has the environment open with this lock file, which is there; for a table that is not open."""
        self._open()
        used = self._fd >= 0 and _locked(self._fd, 0)
        self.keep()  # it may be this process that has it open, without us
        return used

    @_as_ours
    def begin_alone(self) -> bool:
        """Keep everybody from opening the environment until ``end_alone``; return whether nobody has. Makes the file."""
        self._open(os.O_CREAT)
        if self._fd < 0 and self._refused is not None:
            raise self._refused
        alone = all(_lock(self._fd, fcntl.F_WRLCK, byte, wait=False) for byte in (_OPENING, 0))
        if not alone:
            self.keep()  # it may be this process that has it open, without us
        return alone

    def end_alone(self) -> None:
        """Let others open the environment."""
        self.close()

    def in_place(self) -> bool:
        """Whether the file still has its name: without it the next program that comes makes another, and sees no lock."""
        if self._fd < 0:
            return True
        try:
            status = os.stat(self._name)  # noqa: PTH116 - at every hold
        except OSError:
            return False
        return (status.st_dev, status.st_ino) == self._identity

    @_as_ours
    def keep(self) -> None:
        """Keep the descriptor for the next attempt: LMDB could not open, perhaps since this process has it open already."""
        if self._fd >= 0:
            self._unmap()
            for byte in (0, PIN, _OPENING):
                _lock(self._fd, fcntl.F_UNLCK, byte, wait=False)
            self._kept[self._identity] = self._fd
            self._fd = -1

    @_as_ours
    def attach(self, pid: int, txnid: int) -> bool:
        """Map the table that LMDB uses now, in which process ``pid`` has just begun to read ``txnid``.

        False where LMDB works without a lock.mdb (a read-only filesystem). Raises ``UnsupportedFormat`` when the table is
        not laid out as we know it.
        """
        self._open()
        if self._fd < 0:
            return False
        _lock(self._fd, fcntl.F_RDLCK, 0, wait=True)
        _lock(self._fd, fcntl.F_RDLCK, PIN, wait=True)
        self._remap()
        if not any(slot.process == pid and slot.txnid == txnid for slot in self.slots()):
            raise UnsupportedFormat(f"{self.path}: this LMDB keeps its reader slots in a way that cowfs does not know")
        return True

    @_as_ours
    def close(self) -> None:
        """Give the own slot back and close the file; only after LMDB has closed the environment."""
        if self._own_index >= 0:
            if self._slot(self._own_index).thread == os.getpid():  # else it belongs to the process that we were forked from
                self._halves[self._half(self._own_index)] = 0
            self._own_index = -1
        if self._shared and self._foreign_maps():
            self._abandoned.append(self._map)
            self._map = None
            self.keep()
        self._unmap()
        if self._fd >= 0:
            descriptor, self._fd = self._fd, -1
            os.close(descriptor)

    # -- reading -------------------------------------------------------------------------------------------------

    def slots(self) -> Iterator[Slot]:
        """Yield the slots that are in use, idle ones included."""
        count = min(self._halves[_COUNT // 4], self._capacity) if self._map is not None else 0
        for index in range(count):
            slot = self._slot(index)
            if slot.process:
                yield slot

    def pin(self) -> Pin | None:
        """Return the pin, None when there is none."""
        index = self._pin_index
        if index < 0 or index >= self._halves[_COUNT // 4] or self._halves[self._half(index)] != PIN:
            index = self._pin_index = next((slot.number for slot in self.slots() if slot.process == PIN), -1)
            if index < 0:
                return None
        slot = self._slot(index)
        return Pin(slot.txnid, slot.nonce)

    def pinned(self, nonce: bytes, txnid: bytes) -> bool:
        """Return whether the pin is there with that nonce and exactly that txnid (its 8 bytes): the quick look."""
        index = self._pin_index
        if index < 0 or self._map is None or index >= self._halves[_COUNT // 4]:
            return False
        at = _SLOTS + index * _SLOT.size
        slot = self._map[at : at + 24 + NONCE_SIZE]
        return slot[24:] == nonce and slot[:8] == txnid and slot[8:12] == _PIN_BYTES

    def oldest_held(self) -> int | None:
        """Return the oldest txnid that any process holds for reading, the pin aside; None when nobody reads."""
        held = [slot.txnid for slot in self.slots() if slot.process != PIN and slot.txnid != IDLE]
        return min(held, default=None)

    def newest_txnid(self) -> int:
        """Return the id of the newest commit as LMDB announces it to readers."""
        return self._words[_TXNID // 8]

    def writing(self) -> bool:
        """Return whether a living process has the write lock, from the word of the mutex that glibc keeps the owner in."""
        owner = self._halves[_WRITER_MUTEX // 4]
        return bool(owner & _FUTEX_OWNER) and not owner & _FUTEX_OWNER_DIED

    # -- the pin -------------------------------------------------------------------------------------------------

    def claim_pin(self, txnid: int, nonce: bytes) -> None:
        """Claim the pin anew, at ``txnid``; only under the write lock. Raises ``ReadersFull``."""
        with self._reader_mutex():
            pin = self.pin()
            index = self._free_index() if pin is None else self._pin_index
            self._publish(index, txnid, PIN, 0, nonce)
            self._pin_index = index

    def raise_pin(self, txnid: int) -> None:
        """Let go the roots below ``txnid``; never backwards, whoever else does it at the same time."""
        with self._reader_mutex():
            pin = self.pin()
            if pin is not None and pin.txnid < txnid:
                self._words[self._word(self._pin_index)] = txnid

    @_as_ours
    def sync(self) -> None:
        """Put the table, with the pin and the file's name, on disk."""
        if self._map is not None:
            self._map.flush()
            sync_directory(self.path.parent)

    # -- the slot of this process --------------------------------------------------------------------------------

    def hold(self, txnid: int) -> None:
        """Set what this process holds: every root from ``txnid`` on (``IDLE``: none). Raises ``ReadersFull``."""
        if self._own_index < 0:
            if txnid == IDLE:
                return
            self._claim_own(txnid)
        self._words[self._word(self._own_index)] = txnid

    @_as_ours
    def evict_dead(self) -> None:
        """Free the slots of processes that have died: until then their roots are kept, and the file only grows."""
        for slot in list(self.slots()):
            ours = slot.process in (PIN, self._own_process) or slot.process == os.getpid()
            if not ours and not _locked(self._fd, slot.process):
                with self._reader_mutex():
                    if self._slot(slot.number).process == slot.process and not _locked(self._fd, slot.process):
                        self._halves[self._half(slot.number)] = 0

    @_as_ours
    def _claim_own(self, txnid: int) -> None:
        while not self._own_process:
            process = random.choice(_OURS)  # noqa: S311 - it need not be unguessable, only free
            if _lock(self._fd, fcntl.F_WRLCK, process, wait=False):
                self._own_process = process
        with self._reader_mutex():
            index = self._free_index()
            self._publish(index, txnid, self._own_process, os.getpid(), bytes(NONCE_SIZE))
            self._own_index = index

    # -- inside --------------------------------------------------------------------------------------------------

    def _open(self, create: int = 0) -> None:
        if self._fd >= 0:
            return
        try:
            with suppress(FileNotFoundError):
                status = self.path.stat()
                self._fd = self._kept.pop((status.st_dev, status.st_ino), -1)
            if self._fd < 0:
                self._fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC | create, 0o644)
            self._identity = _identity(self._fd)
        except OSError as error:
            self._refused = error
            if error.errno not in (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EROFS):
                raise

    def _begin_anew(self, newest_txnid: int, slots: int) -> None:
        """Do what LMDB's first opener does, but keep the pin. Nobody else has the environment open."""
        _allocate(self._fd, max(os.fstat(self._fd).st_size, _SLOTS + slots * _SLOT.size))
        self._remap()
        assert self._map is not None  # noqa: S101 - just mapped
        known = _HEADER.unpack_from(self._map) == (MAGIC, _FORMAT)
        pin = self.pin() if known else None
        _begin_mutex(self._map, _READER_MUTEX)
        _begin_mutex(self._map, _WRITER_MUTEX)
        self._words[_TXNID // 8] = newest_txnid
        for index in range(self._capacity if not known else min(self._halves[_COUNT // 4], self._capacity)):
            if pin is None or index != self._pin_index:
                self._halves[self._half(index)] = 0
        self._halves[_COUNT // 4] = 0 if pin is None else self._pin_index + 1
        _HEADER.pack_into(self._map, 0, MAGIC, _FORMAT)

    def _foreign_maps(self) -> bool:
        """Whether LMDB has the file open in this process, without us: then its locks would drop with our descriptor."""
        device, inode = self._identity
        named = f" {os.major(device):02x}:{os.minor(device):02x} {inode} "
        ending = f" {os.path.realpath(self.path)}"  # some filesystems show another device there
        with open("/proc/self/maps", errors="surrogateescape") as maps:
            text = maps.read()
        lines = text.split("\n") if named in text or ending in text else []  # rarely so, and each opening asks
        count = sum(named in line or line.endswith(ending) for line in lines)
        return count > (self._map is not None)

    def _remap(self) -> None:
        self._unmap()
        size = os.fstat(self._fd).st_size
        self._map = mmap.mmap(self._fd, size)
        whole = memoryview(self._map)[: size // 8 * 8]
        self._words, self._halves = whole.cast("Q"), whole.cast("I")
        self._capacity = max(size - _SLOTS, 0) // _SLOT.size
        self._pin_index = -1

    def _unmap(self) -> None:
        self._words.release()
        self._halves.release()
        if self._map is not None:
            self._map.close()
            self._map = None

    def _slot(self, index: int) -> Slot:
        assert self._map is not None  # noqa: S101 - the callers have seen to it
        return Slot(index, *_SLOT.unpack_from(self._map, _SLOTS + index * _SLOT.size))

    @staticmethod
    def _word(index: int) -> int:
        """Return where in ``_words`` the txnid of a slot is: a store of one word, which LMDB reads without a lock."""
        return (_SLOTS + index * _SLOT.size) // 8

    @staticmethod
    def _half(index: int) -> int:
        """Return where in ``_halves`` the process of a slot is."""
        return (_SLOTS + index * _SLOT.size + 8) // 4

    def _free_index(self) -> int:
        count = self._halves[_COUNT // 4]
        for index in range(min(count, self._capacity)):
            if self._halves[self._half(index)] == 0:
                return index
        if count >= self._capacity:
            raise ReadersFull(f"{self.path}: all reader slots are taken by running processes; end a mount or a reader")
        return int(count)

    def _publish(self, index: int, txnid: int, process: int, thread: int, nonce: bytes) -> None:
        """Fill a slot, in the order in which LMDB does: it is read without the mutex."""
        assert self._map is not None  # noqa: S101 - the callers have seen to it
        self._halves[self._half(index)] = 0
        _SLOT.pack_into(self._map, _SLOTS + index * _SLOT.size, txnid, 0, thread, nonce)
        if index >= self._halves[_COUNT // 4]:
            self._halves[_COUNT // 4] = index + 1
        self._halves[self._half(index)] = process

    @contextmanager
    def _reader_mutex(self) -> Iterator[None]:
        assert self._map is not None  # noqa: S101 - the callers have seen to it
        anchor = ctypes.c_char.from_buffer(self._map, _READER_MUTEX)
        mutex = ctypes.c_void_p(ctypes.addressof(anchor))
        code = _libc.pthread_mutex_lock(mutex)
        if code == errno.EOWNERDEAD:
            code = _libc.pthread_mutex_consistent(mutex)
        if code:
            raise EnvironmentFailure(f"{self.path}: the reader mutex cannot be had: {os.strerror(code)}")
        try:
            yield
        finally:
            _libc.pthread_mutex_unlock(mutex)
            del anchor  # it would keep the map from being closed


def _identity(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


def _allocate(descriptor: int, size: int) -> None:
    """Make the file ``size`` bytes long, all of it with room on the disk: storing into a hole of a map may be a SIGBUS."""
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
        os.ftruncate(descriptor, size)


def _lock(descriptor: int, kind: int, byte: int, *, wait: bool) -> bool:
    """Lock one byte for the open file; return whether it was to be had."""
    command = fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK
    try:
        fcntl.fcntl(descriptor, command, _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0))
    except OSError as error:
        if not wait and error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def _locked(descriptor: int, byte: int) -> bool:
    """Return whether somebody, by another open file, has locked the byte."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    return bool(_FLOCK.unpack(fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, asked))[0] != fcntl.F_UNLCK)


def _begin_mutex(table: mmap.mmap, offset: int) -> None:
    """Make the mutex at ``offset`` a new one: shared by processes, and robust."""
    table[offset : offset + _MUTEX_SIZE] = bytes(_MUTEX_SIZE)
    anchor = ctypes.c_char.from_buffer(table, offset)
    attributes = ctypes.create_string_buffer(64)
    code = (
        _libc.pthread_mutexattr_init(attributes)
        or _libc.pthread_mutexattr_setpshared(attributes, _PTHREAD_PROCESS_SHARED)
        or _libc.pthread_mutexattr_setrobust(attributes, _PTHREAD_MUTEX_ROBUST)
        or _libc.pthread_mutex_init(ctypes.c_void_p(ctypes.addressof(anchor)), attributes)
    )
    if code:
        raise EnvironmentFailure(f"a mutex in lock.mdb cannot be made: {os.strerror(code)}")


def sync_directory(path: Path) -> None:
    """Put the names in the directory ``path`` on disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
