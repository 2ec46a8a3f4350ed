"""Nobody gains access through a mount: what ACLs and directories above take away, the mount does not give."""

from __future__ import annotations

import errno
import itertools
import os
import stat
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cowfs import Store
from cowfs.errors import MountError
from cowfs.mount.permissions import Permissions
from cowfs.mount.rights import Rights, parse_rights, readable
from tests.support import churn
from tests.support.commands import run
from tests.support.mounted import Mount, mounted

_ACCESS = "system.posix_acl_access"
_USER_OBJ, _USER, _GROUP_OBJ, _GROUP, _MASK, _OTHER = 0x01, 0x02, 0x04, 0x08, 0x10, 0x20
_NAMELESS = 0xFFFFFFFF

_OWNER, _UIDS, _GIDS = 1, range(1, 5), range(1, 4)


def _acl(text: str) -> bytes:
    """Return the attribute of an ACL like ``u::6 u:4711:0 g::4 m::6 o::4``."""
    tags = {"u": (_USER_OBJ, _USER), "g": (_GROUP_OBJ, _GROUP), "m": (_MASK, _MASK), "o": (_OTHER, _OTHER)}
    entries = []
    for entry in text.split():
        kind, who, bits = entry.split(":")
        entries.append((tags[kind][bool(who)], int(who or _NAMELESS), int(bits)))
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, bits, who) for tag, who, bits in sorted(entries))


# -- what bits can say ------------------------------------------------------------------------------------------------


def _kernel_grants(rights: Rights, uid: int, gids: frozenset[int], wanted: int) -> bool:
    """``posix_acl_permission`` in fs/posix_acl.c, for bits that are less the mask already."""
    if uid == rights.uid:
        return rights.owner & wanted == wanted
    for named, bits in rights.users:
        if uid == named:
            return bits & wanted == wanted
    found = False
    for group, bits in ((rights.gid, rights.group), *rights.groups):
        if group in gids:
            found = True
            if bits & wanted == wanted:
                return True
    return not found and rights.other & wanted == wanted


def _rights(uids: st.SearchStrategy[int]) -> st.SearchStrategy[Rights]:
    bits = st.sampled_from((7, 7, 7, 5, 4, 1, 0))
    users = st.dictionaries(st.sampled_from(_UIDS), bits, max_size=2).map(lambda named: tuple(named.items()))
    groups = st.dictionaries(st.sampled_from(_GIDS), bits, max_size=2).map(lambda named: tuple(named.items()))
    return st.builds(Rights, uids, st.sampled_from(_GIDS), bits, bits, bits, users, groups)


@given(
    _rights(st.just(_OWNER)),
    st.lists(_rights(st.sampled_from(_UIDS)), max_size=2),
    st.frozensets(st.sampled_from(_GIDS)),
)
def test_no_class_is_shown_more_than_everybody_in_it_has(
    file: Rights, directories: list[Rights], owners: frozenset[int]
) -> None:
    shown = readable(file, directories, owners)
    everybody = [frozenset(some) for count in range(4) for some in itertools.combinations(_GIDS, count)]
    for uid in (*_UIDS, 9):
        for gids in [owners] if uid == _OWNER else everybody:
            let_in = shown & (stat.S_IRUSR if uid == _OWNER else stat.S_IRGRP if file.gid in gids else stat.S_IROTH)
            may = _kernel_grants(file, uid, gids, 4) and all(_kernel_grants(d, uid, gids, 1) for d in directories)
            assert may or not let_in, (uid, gids)


@given(st.integers(0, 0o777), st.lists(st.integers(0, 0o777), max_size=3))
def test_mode_bits_alone_are_shown_as_they_are(file: int, directories: list[int]) -> None:
    """Where owner and group are everywhere the same."""
    expected = file & 0o444
    for mode in directories:
        expected &= mode << 2
    rights = [_of_mode(1, 1, mode) for mode in (file, *directories)]
    assert readable(rights[0], rights[1:], frozenset()) == expected


def _of_mode(uid: int, gid: int, mode: int) -> Rights:
    return Rights(uid, gid, mode >> 6 & 7, mode >> 3 & 7, mode & 7)


@pytest.mark.parametrize(
    ("above", "shown"),
    [
        ((0, 0, 0o755), 0o440),
        ((0, 0, 0o711), 0o440),
        ((0, 0, 0o700), 0o000),
        ((0, 2, 0o750), 0o440),  # a directory of the service's group, of which its user is a member
        ((0, 3, 0o750), 0o000),
        ((9, 2, 0o750), 0o440),
        ((9, 2, 0o050), 0o400),  # its owner, who may be in the group, is kept out
        ((1, 3, 0o700), 0o400),
        ((0, 3, 0o705), 0o400),  # those in group 3 are kept out, and some in group 2 may be
    ],
)
def test_a_directory_above_of_another_owner(above: tuple[int, int, int], shown: int) -> None:
    assert readable(_of_mode(1, 2, 0o640), [_of_mode(*above)], frozenset({2})) == shown


def test_root_passes_everywhere() -> None:
    assert readable(_of_mode(0, 0, 0o600), [_of_mode(1, 1, 0o700)], frozenset({0})) == 0o400


def test_an_acl_is_parsed_less_its_mask() -> None:
    status = os.stat_result((stat.S_IFREG | 0o674, 0, 0, 1, 7, 8, 0, 0, 0, 0))
    acl = _acl("u::6 u:11:7 u:12:2 g::6 g:13:5 m::5 o::4")
    assert parse_rights(status, acl) == Rights(7, 8, 6, 4, 4, ((11, 5), (12, 0)), ((13, 5),))
    assert parse_rights(status, None) == Rights(7, 8, 6, 7, 4)
    for wrong in (b"", acl[:-1], b"\3" + acl[1:]):
        assert parse_rights(status, wrong) == Rights(7, 8, 6, 0, 0), "of another form"


# -- on files ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "above" / "db"
    path.mkdir(parents=True)
    (path / "data.mdb").touch()
    for place, mode in ((path.parent, 0o755), (path, 0o755), (path / "data.mdb", 0o664)):
        place.chmod(mode)
    return path


def _modes(database: Path, *, others: bool = False) -> Iterator[tuple[str, str]]:
    """Yield the modes of files and directories, at each look."""
    with (database / "data.mdb").open("rb") as file:
        permissions = Permissions(file.fileno(), database, others=others)
        while True:
            shown = permissions.shown()
            yield f"{shown.file:o}", f"{shown.directory:o}"


def test_acls_and_modes_hold_at_once(database: Path) -> None:
    modes = _modes(database)
    assert next(modes) == ("644", "755")
    os.setxattr(database / "data.mdb", _ACCESS, _acl("u::6 g::0 g:4711:4 m::4 o::4"))
    assert next(modes) == ("604", "705"), "the mask is not the group's"
    os.setxattr(database / "data.mdb", _ACCESS, _acl("u::6 u:4711:0 g::4 m::4 o::4"))
    assert next(modes) == ("600", "700"), "one user is denied"
    os.removexattr(database / "data.mdb", _ACCESS)
    assert next(modes) == ("644", "755")
    os.setxattr(database, _ACCESS, _acl("u::7 g::5 g:4711:0 m::5 o::5"))
    assert next(modes) == ("640", "750"), "one group may not enter"
    os.removexattr(database, _ACCESS)
    database.chmod(0o555)
    assert next(modes) == ("644", "555")
    database.chmod(0o750)
    assert next(modes) == ("640", "750")


def test_directories_above_count_where_others_get_in(database: Path) -> None:
    own, all_ = _modes(database), _modes(database, others=True)
    database.parent.chmod(0o700)
    assert (next(own)[0], next(all_)[0]) == ("644", "600")
    os.setxattr(database.parent, _ACCESS, _acl("u::7 u:4711:5 g::0 m::5 o::0"))
    assert (next(own)[0], next(all_)[0]) == ("644", "600")


# -- in a mount -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def mount() -> Iterator[Mount]:
    """A mount that others get into, of a database that they can reach.

    Where the tests are run by an ordinary user nobody else gets in, but the same is shown.
    """
    option = "allow_other" if os.geteuid() == 0 else "default_permissions"
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name) / "way"
        directory.mkdir()
        for place in (directory, directory.parent):
            place.chmod(0o755)
        Store.create(directory / "db", {":note/text": {}}, durability="none").close()
        with mounted(directory / "db", directory.parent / "mnt", "-o", option) as mount:
            yield mount
        churn.require_sound(directory / "db")


# somebody as user, group and further group; an ordinary user who runs the tests can be nobody else
_UID, _GID, _OTHER_GID = 4711, 4712, 4713
_EVERYBODY = [
    (uid, gid, further) for uid in (_UID, _UID + 1) for gid in (_GID, _OTHER_GID) for further in (_GID, _OTHER_GID)
] * (os.geteuid() == 0)  # fmt: skip


@pytest.mark.parametrize(
    ("place", "acl", "shown"),
    [
        ("db", "", 0o644),
        ("db/data.mdb", f"u::6 u:{_UID}:0 g::4 m::4 o::4", 0o600),
        ("db/data.mdb", f"u::6 g::0 g:{_OTHER_GID}:6 m::6 o::0", 0o600),
        ("db/data.mdb", f"u::6 g::4 g:{_OTHER_GID}:0 m::4 o::4", 0o640),
        ("db", f"u::7 u:{_UID}:0 g::5 m::5 o::5", 0o600),
        (".", f"u::7 u:{_UID}:0 g::5 m::5 o::5", 0o600),
        (".", "u::7 g::0 o::0", 0o600),
    ],
)
def test_nobody_reads_in_the_mount_what_the_database_denies(mount: Mount, place: str, acl: str, shown: int) -> None:
    way = mount.database.parent
    before = stat.S_IMODE((way / place).stat().st_mode)
    if _EVERYBODY:
        os.chown(mount.database / "data.mdb", 0, _GID)
    try:
        if acl:
            os.setxattr(way / place, _ACCESS, _acl(acl))
        image = mount.live / "data.mdb"
        assert stat.S_IMODE(image.stat().st_mode) == shown
        let_in = [somebody for somebody in _EVERYBODY if _reads(image, *somebody)]
        assert all(_reads(mount.database / "data.mdb", *somebody) for somebody in let_in)
        assert bool(let_in) == (shown != 0o600 and _EVERYBODY != [])
    finally:
        if _ACCESS in os.listxattr(way / place):
            os.removexattr(way / place, _ACCESS)
        (way / place).chmod(before)


def _reads(path: Path, uid: int, gid: int, further: int) -> bool:
    person = (f"--reuid={uid}", f"--regid={gid}", f"--groups={further}")
    return run("setpriv", *person, "head", "-c", "1", path, code=None).returncode == 0


def test_others_write_and_make_nothing_in_a_mount(mount: Mount) -> None:
    for somebody in _EVERYBODY[:1]:
        person = [f"--{name}={number}" for name, number in zip(("reuid", "regid", "groups"), somebody, strict=True)]
        assert "Permission denied" in run("setpriv", *person, "mkdir", mount.snapshots / "mine", code=1).stderr
    (mount.snapshots / "ours").mkdir()
    (mount.snapshots / "ours").rmdir()
    with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
        (mount.live / "data.mdb").open("ab")


def test_allow_other_is_refused_where_it_would_keep_the_mounting_user_out(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    os.setxattr(database / "data.mdb", _ACCESS, _acl(f"u::6 u:{_UID}:6 g::0 m::6 o::0"))
    monkeypatch.setattr(os, "geteuid", lambda: _UID)
    monkeypatch.setattr(os, "getegid", lambda: _GID)
    monkeypatch.setattr(os, "getgroups", list)
    with (database / "data.mdb").open("rb") as file:
        with pytest.raises(MountError, match="mount it without allow_other"):
            Permissions(file.fileno(), database, others=True).require_self()
        Permissions(file.fileno(), database).shown()  # and without it there is nothing to refuse
