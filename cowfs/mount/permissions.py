"""``Permissions``: the owner, the group and the mode of everything in a mount, so that nobody gains access through it.

They come from ``data.mdb``: who may read that may read the mount. The owner's write bit stays, since modes travel with a
copy, whose owner wants to write and delete it. The kernel asks a mount for nothing but mode bits, so a class of users (the
owner, the group, others) is shown as able to read only if everybody in it is, at the database itself, by

1. mode and access ACL (acl(5)) of ``data.mdb``;
2. those of the directory of the database, which one must be able to search; and
3. where others than the mounting user get in, those of every directory above it.

They are looked at in each request, so that a change holds at once; ACLs again when a ctime has changed.
"""

from __future__ import annotations

import errno
import os
import pwd
import stat
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from cowfs.errors import MountError
from cowfs.mount.rights import Rights, parse_rights, readable

_ACL: Final = "system.posix_acl_access"
_SETTLED: Final = 2_000_000_000  # nanoseconds after which a further change has another ctime, on any filesystem


@dataclass(frozen=True)
class Shown:
    """Owner and group of everything in a mount, and the mode bits of its files and of its directories."""

    uid: int
    gid: int
    file: int
    directory: int


class Permissions:
    """What a mount of a database shows, now."""

    def __init__(self, fd: int, directory: Path, *, others: bool = False) -> None:
        """``fd`` is of ``data.mdb`` in ``directory``; ``others`` says whether others than the mounting user get in."""
        self._path = os.path.realpath(directory)
        above = _above(self._path) if others else []
        self._places = [_Place(fd), *(_Place(path) for path in (self._path, *above))]
        self._looked: list[Rights] = []
        self._shown = Shown(0, 0, 0, 0)

    def shown(self) -> Shown:
        """Return what is shown. Raises ``OSError`` when the database is no longer where it was."""
        looked = [place.look() for place in self._places]
        if looked != self._looked:
            self._looked = looked
            self._shown = _show(looked[0], looked[1:])
        return self._shown

    def require_self(self) -> None:
        """Raise ``MountError`` when the mounting user, who can read the database, could not read the mount."""
        shown, uid = self.shown(), os.geteuid()
        needed = stat.S_IRUSR if uid == shown.uid else stat.S_IRGRP if shown.gid in _own_groups() else stat.S_IROTH
        if uid != 0 and not shown.file & needed:
            raise MountError(
                f"{self._path}: mount it without allow_other: what an ACL or a directory above lets you"
                " read cannot be said in mode bits, and you could not read the mount"
            )


class _Place:
    """A file (by its descriptor) or a directory (by its path) that is looked at again and again; its ACL after changes."""

    def __init__(self, place: str | int) -> None:
        self._place = place
        self._seen: object = None
        self._rights: Rights | None = None

    def look(self) -> Rights:
        """Return what it grants, the same object as long as that is the same."""
        found = os.stat(self._place)  # noqa: PTH116 - at every request
        seen = (found.st_mode, found.st_uid, found.st_gid, found.st_ctime_ns)
        if seen != self._seen or self._rights is None:
            settled = time.time_ns() - found.st_ctime_ns > _SETTLED
            self._seen = seen if settled else None
            rights = parse_rights(found, _acl(self._place))
            if rights != self._rights:
                self._rights = rights
        return self._rights


def _show(file: Rights, directories: list[Rights]) -> Shown:
    bits = readable(file, directories, _groups_of(file.uid))
    owner_writes, owner_makes = (rights.owner << 6 & stat.S_IWUSR for rights in (file, directories[0]))
    return Shown(file.uid, file.gid, bits | owner_writes, bits | bits >> 2 | owner_makes)


def _above(path: str) -> list[str]:
    """Return the directories above ``path``, up to the root."""
    found = []
    while path != (path := os.path.dirname(path)):  # noqa: PTH120 - as strings, for stat at every request
        found.append(path)
    return found


def _acl(place: str | int) -> bytes | None:
    """Return the access ACL of a path or a descriptor, None where it has none."""
    try:
        return os.getxattr(place, _ACL)
    except OSError as error:
        if error.errno in (errno.ENODATA, errno.ENOTSUP):
            return None
        raise


def _groups_of(uid: int) -> frozenset[int]:
    """Return the groups that the user ``uid`` is in."""
    if uid == os.geteuid():
        return _own_groups()
    try:
        user = pwd.getpwuid(uid)
        return frozenset(os.getgrouplist(user.pw_name, user.pw_gid))
    except KeyError:
        return frozenset()


def _own_groups() -> frozenset[int]:
    return frozenset((os.getegid(), *os.getgroups()))
