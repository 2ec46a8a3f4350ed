"""Calls that fail once: ``tests.support.faults`` says what must hold after each of them."""

from __future__ import annotations

import errno
import os
import re
import sys
from pathlib import Path

import pytest

from tests.support.commands import python, run
from tests.support.failing import How, failing_filesystem

_COMMIT = ("write db/data.mdb", "fsync db/data.mdb", "write db/lock.mdb")  # calls of each
_INIT = ("mkdir new", "create new", "write new", "fsync new", "rename new", "fsyncdir new", "fsyncdir .")
_RESTORE = ("mkdir .new", "create .new", "write .new", "truncate .new", "fsync .new", "rename .new", "fsyncdir .")
_COMPACTING_RESTORE = ("write new/.data", "truncate new/.data", "fsync new/.data", "unlink new/.data", "rename new/.data")
_CALLS = """
    import errno, os, sys
    name = sys.argv[2]
    os.chdir(sys.argv[1])
    os.mkdir(name)
    file = os.open(f"{name}/file", os.O_RDWR | os.O_CREAT)
    assert os.write(file, b"xxxx") == 4
    for call in (lambda: os.pwrite(file, b"yyyy", 0), lambda: os.fsync(file), lambda: os.ftruncate(file, 2)):
        try:
            call()
        except OSError as error:
            print(errno.errorcode[error.errno], os.pread(file, 10, 0).decode(), end=" ")
    os.rename(name, f"{name}.new")
    print(os.pread(file, 10, 0).decode())
    """


def test_the_call_that_was_asked_for_fails(tmp_path: Path) -> None:
    cases = [
        (4, How.CLEANLY, "write", "EIO xxxx xx"),
        (4, How.HALFWAY, "write", "EIO yyxx yy"),
        (4, How.AFTER, "write", "EIO yyyy yy"),
        (5, How.CLEANLY, "fsync", "EIO yyyy yy"),
        (6, How.CLEANLY, "truncate", "EIO yyyy yyyy"),
        (8, How.CLEANLY, None, "yy"),
    ]
    with failing_filesystem(tmp_path) as faults:
        for index, (number, how, call, printed) in enumerate(cases):
            with faults.failing(number, errno.EIO, how):
                assert python(_CALLS, faults.point, str(index)) == f"{printed}\n"
            assert faults.struck() == (None if call is None else f"{call} {index}/file EIO")
        assert sorted(os.listdir(faults.point)) == [f"{index}.new" for index in range(len(cases))]
    assert not os.path.ismount(faults.point)


@pytest.mark.parametrize(
    ("scenario", "code", "how", "expected"),
    [
        ("init", "ENOSPC", How.CLEANLY, _INIT),
        ("commit", "EIO", How.HALFWAY, _COMMIT),
        ("open store", "ENOSPC", How.CLEANLY, _COMMIT[:2]),
        ("threads", "EIO", How.CLEANLY, _COMMIT[:2]),
        ("snapshot", "EIO", How.AFTER, _COMMIT),
        ("mount", "EIO", How.CLEANLY, _COMMIT[:2]),
        ("import", "ENOSPC", How.CLEANLY, _COMMIT),
        ("retain", "ENOSPC", How.HALFWAY, _COMMIT[:2]),
        ("restore", "EIO", How.CLEANLY, _RESTORE),
        ("compacting restore", "ENOSPC", How.CLEANLY, _COMPACTING_RESTORE),
    ],
)
def test_each_call_fails_once(tmp_path: Path, scenario: str, code: str, how: How, expected: tuple[str, ...]) -> None:
    with failing_filesystem(tmp_path) as faults:
        command = (sys.executable, "-m", "tests.support.faults", scenario, faults.point, faults.plan, code, how.name)
        printed = run(*command).stdout
    print(printed)
    assert [call for call in expected if not re.search(rf"{re.escape(call)}\S* {code}", printed)] == []
