"""``Rights``: what mode bits and the access ACL of a file grant, to whom; and which classes of users may read it.

The kernel knows who asks, and which groups they are in. Mode bits are one answer for a whole class, so a class is granted
what everybody in it gets, also those whom an ACL gives less than the rest of it.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from operator import and_, or_
from typing import Final

_ACL_VERSION: Final = b"\2\0\0\0"
_ENTRY: Final = struct.Struct("<HHI")  # tag, permissions, id; linux/posix_acl_xattr.h
_USER, _GROUP_OBJ, _GROUP, _MASK = 0x02, 0x04, 0x08, 0x10
_READ, _SEARCH, _ALL = 4, 1, 7


@dataclass(frozen=True)
class Rights:
    """What a file or a directory grants: bits of 4 (read), 2 (write), 1 (search), less the mask of its ACL.

    ``users`` and ``groups`` are those that an ACL names, as pairs of id and bits.
    """

    uid: int
    gid: int
    owner: int
    group: int
    other: int
    users: tuple[tuple[int, int], ...] = ()
    groups: tuple[tuple[int, int], ...] = ()

    def of_user(self, uid: int, gids: frozenset[int]) -> int:
        """Return what the user ``uid`` gets, who is in exactly the groups ``gids``."""
        if uid == 0:
            return _ALL
        if uid == self.uid:
            return self.owner
        if uid in dict(self.users):
            return dict(self.users)[uid]
        mine = [bits for gid, bits in self._all_groups() if gid in gids]
        return reduce(or_, mine) if mine else self.other

    def of_group(self, gid: int, owner: int) -> int:
        """Return what everybody in the group ``gid`` gets, but ``owner``, whatever other groups they are in."""
        surely = [bits for group, bits in self._all_groups() if group == gid]
        if surely:
            return self._of_some(owner) & reduce(or_, surely)
        return self.of_others(gid, owner)

    def of_others(self, gid: int, owner: int) -> int:
        """Return what everybody gets who is not in the group ``gid``, but ``owner``, whatever groups they are in."""
        perhaps = (bits for group, bits in self._all_groups() if group != gid)
        return self._of_some(owner) & reduce(and_, perhaps, self.other)

    def _all_groups(self) -> tuple[tuple[int, int], ...]:
        return ((self.gid, self.group), *self.groups)

    def _of_some(self, owner: int) -> int:
        """Return what all get that are named, the owner of this and the users of its ACL, but ``owner`` and root."""
        named = {**dict(self.users), self.uid: self.owner}
        return reduce(and_, (bits for uid, bits in named.items() if uid not in (owner, 0)), _ALL)


def parse_rights(status: os.stat_result, acl: bytes | None) -> Rights:
    """Return what ``status`` and ``acl``, the extended attribute, grant; an ACL of another form: to the owner only."""
    owner, group, other = (status.st_mode >> shift & _ALL for shift in (6, 3, 0))
    if acl is None:
        return Rights(status.st_uid, status.st_gid, owner, group, other)
    if not acl.startswith(_ACL_VERSION) or len(acl) % _ENTRY.size != len(_ACL_VERSION):
        return Rights(status.st_uid, status.st_gid, owner, 0, 0)
    entries = list(_ENTRY.iter_unpack(acl[len(_ACL_VERSION) :]))
    mask = next((bits for tag, bits, _ in entries if tag == _MASK), _ALL)
    named = {tag: tuple((who, bits & mask) for kind, bits, who in entries if kind == tag) for tag in (_USER, _GROUP)}
    group = next((bits for tag, bits, _ in entries if tag == _GROUP_OBJ), 0) & mask
    return Rights(status.st_uid, status.st_gid, owner, group, other, named[_USER], named[_GROUP])


def readable(file: Rights, directories: Iterable[Rights], gids: frozenset[int]) -> int:
    """Return the mode bits (of 0o444) of the classes that may read ``file`` by way of all ``directories``.

    ``gids`` are the groups of the file's owner.
    """
    owner, group, other = file.owner, file.of_group(file.gid, file.uid), file.of_others(file.gid, file.uid)
    bits = (owner & _READ) << 6 | (group & _READ) << 3 | other & _READ
    for directory in directories:
        classes = (
            directory.of_user(file.uid, gids),
            directory.of_group(file.gid, file.uid),
            directory.of_others(file.gid, file.uid),
        )
        bits &= sum(_READ << shift for shift, granted in zip((6, 3, 0), classes, strict=True) if granted & _SEARCH)
    return bits
