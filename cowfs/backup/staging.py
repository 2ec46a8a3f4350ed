"""``staged``: the data file of a database that is being made, which gets its name when it is complete, and not before.

A new directory is made beside its name, and renamed. One that is there and empty is filled: it may be a volume, or the
directory that somebody stands in, which cannot be renamed over. It then keeps its owner and mode. What ends the work in the
middle leaves nothing behind; what a killed process has left is removed by the next one that makes the same database.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from cowfs.engine.locktable import sync_directory
from cowfs.engine.stage import allowed, deferred
from cowfs.engine.translate import domain_error, translated
from cowfs.errors import AccessDenied, InvalidTarget

_MARK = ".restore-"
_OF_VOLUMES = frozenset({"lost+found"})  # what a new filesystem has in it


@dataclass(frozen=True)
class Access:
    """Owner, group and mode of a data file and its directory, as bits for the owner, the group and others."""

    uid: int
    gid: int
    file: int
    directory: int

    @classmethod
    def of(cls, path: Path) -> Access:
        """Return what ``path``, a data file or a directory with a ``data.mdb``, grants.

        The owner may read and write what is made of it. What an access control list says is more than bits can: then only
        the owner is granted anything.
        """
        data = path / "data.mdb" if path.is_dir() else path
        status = data.stat()
        granted = status.st_mode & 0o666
        readable = granted & 0o444
        directory = path.stat().st_mode & 0o777 if path.is_dir() else readable | readable >> 2
        if any(_has_acl(place) for place in (path, data)):
            granted, directory = granted & 0o600, directory & 0o700
        return cls(status.st_uid, status.st_gid, granted | 0o600, directory | 0o700)

    def give(self, path: Path, bits: int) -> None:
        """Give ``path`` the owner as far as the user may, and these bits less the umask."""
        umask = os.umask(0o077)
        os.umask(umask)
        for owner in ((self.uid, self.gid), (-1, self.gid)):
            with suppress(OSError):
                os.chown(path, *owner)
                break
        status = path.stat()
        if status.st_gid != self.gid:  # another group than the one that was granted it: it is one of the others
            bits &= 0o707 | (bits & 0o007) << 3
        if status.st_uid != self.uid and os.geteuid() == 0:
            bits &= 0o700
        path.chmod(bits & ~umask)


@contextmanager
def staged(new: Path, access: Access) -> Iterator[Path]:
    """Yield the path of a file to write; at the end of the block it is the ``data.mdb`` of the database ``new``, on disk.

    Raises ``InvalidTarget`` when ``new`` is neither missing nor an empty directory, ``AccessDenied``.
    """
    filled = is_there(new)
    directory = new.resolve() if filled else new.resolve().parent
    prefix = f".{'data.mdb' if filled else new.resolve().name}{_MARK}"
    _clear_leftovers(directory, prefix)
    with deferred():
        place = _make(new, directory, prefix, directory_wanted=not filled)
        data = place if filled else place / "data.mdb"
        try:
            with translated(new), _at_work(data) as descriptor:
                with allowed():
                    yield data
                access.give(data, access.file)
                os.fsync(descriptor)
                _put_in_place(new, place, directory, access, filled=filled)
        except BaseException:
            with suppress(OSError):  # it is closed by now: NFS and FUSE keep a file that is open under another name
                _discard(place)
            raise


@contextmanager
def _at_work(data: Path) -> Iterator[int]:
    """Yield a descriptor of ``data``, with the lock that says that somebody is at work here."""
    descriptor = os.open(data, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _put_in_place(new: Path, place: Path, directory: Path, access: Access, *, filled: bool) -> None:
    if filled:
        if (directory / "data.mdb").exists():
            raise InvalidTarget(f"{new}: somebody else has made a database there meanwhile")
        target = directory / "data.mdb"
    else:
        access.give(place, access.directory)
        sync_directory(place)
        target = new.resolve()
    place.rename(target)
    try:
        sync_directory(directory)
    except BaseException:  # its name may not be on disk: take it back, to discard it
        target.rename(place)
        raise


def _discard(place: Path) -> None:
    """Remove what was being made, and what was made of it under a longer name."""
    if place.is_dir():
        shutil.rmtree(place)
        return
    for path in place.parent.iterdir():
        if path.name.startswith(place.name):
            path.unlink()


def is_there(new: Path) -> bool:
    """Return whether ``new`` is an empty directory, False when nothing is there. Raises ``InvalidTarget`` otherwise."""
    try:
        names = set(os.listdir(new)) - _OF_VOLUMES
    except FileNotFoundError:
        if os.path.lexists(new):
            raise InvalidTarget(f"{new}: a link that leads nowhere") from None
        if not new.resolve().parent.is_dir():
            raise InvalidTarget(f"{new}: its parent directory does not exist") from None
        return False
    except NotADirectoryError:
        raise InvalidTarget(f"{new}: a file is in the way; restore into a new directory") from None
    except PermissionError:
        raise AccessDenied(f"{new}: no permission to make a directory there") from None
    except OSError as error:
        raise InvalidTarget(f"{new}: cannot be made: {error.strerror}") from None
    if any(not name.startswith(f".data.mdb{_MARK}") for name in names):
        raise InvalidTarget(f"{new}: exists; restore into a new directory")
    return True


def _make(new: Path, directory: Path, prefix: str, *, directory_wanted: bool) -> Path:
    try:
        if directory_wanted:
            return Path(tempfile.mkdtemp(prefix=prefix, dir=directory))
        descriptor, name = tempfile.mkstemp(prefix=prefix, dir=directory)
        os.close(descriptor)
        return Path(name)
    except PermissionError:
        raise AccessDenied(f"{new}: no permission to make a directory there") from None
    except OSError as error:
        raise domain_error(error, new) from error


def _clear_leftovers(directory: Path, prefix: str) -> None:
    """Remove what killed processes have left here under the prefix; who is still at work has locked it."""
    with suppress(OSError):
        for name in os.listdir(directory):
            if name.startswith(prefix):
                _clear(directory / name)


def _clear(place: Path) -> None:
    data = place / "data.mdb" if place.is_dir() else place
    try:
        descriptor = os.open(data, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return  # it may only just have been made
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        data.unlink()
    except BlockingIOError:
        return
    finally:
        os.close(descriptor)
    if place != data:
        shutil.rmtree(place)


def _has_acl(path: Path) -> bool:
    try:
        os.getxattr(path, "system.posix_acl_access")
    except OSError as error:
        return error.errno not in (errno.ENODATA, errno.ENOTSUP, errno.ENOSYS)
    return True
