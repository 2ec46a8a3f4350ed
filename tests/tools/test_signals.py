"""What every command does when a signal ends it: it cleans up, says how far it came, and dies of the signal."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from cowfs.mount import mountpoint
from tests.support.commands import COWFS, LIMIT, Argument, cowfs_here, run
from tests.support.mounted import log_of, unmount

_HEEDED = "import signal; [signal.signal(number, signal.SIG_DFL) for number in (1, 2, 15)]"  # whatever started the tests
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

# The program, after some lines of a test that have it strike at a certain moment.
_PROGRAM = """
import os, signal, sys, threading
from cowfs.cli.demo import command as demo, geonames
from cowfs.backup import restore, staging
from cowfs.cli import main, transact
from cowfs.mount import daemon
from cowfs.engine import env
from cowfs.engine.stage import Stage

def before(module, name, action):
    original = getattr(module, name)
    def replacement(*arguments, **options):
        action(*arguments)
        return original(*arguments, **options)
    setattr(module, name, replacement)

def after(module, name, action):
    original = getattr(module, name)
    def replacement(*arguments, **options):
        result = original(*arguments, **options)
        action(*arguments)
        return result
    setattr(module, name, replacement)

def strike(number):
    return lambda *_: os.kill(os.getpid(), number)

def at(stage, action, count=1):
    left = [count]
    def maybe(now):
        left[0] -= now is stage
        if now is stage and left[0] == 0:
            action()
    after(env, "enter", maybe)
"""


@pytest.fixture
def database(tmp_path: Path) -> Path:
    cowfs_here("init", tmp_path / "db")
    cowfs_here("transact", tmp_path / "db", stdin='[{"note/text": "first"}]')
    return tmp_path / "db"


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    file = tmp_path / "lines"
    file.write_text("".join(f'{{"note/text": "{number}"}}\n' for number in range(1000)))
    return file


@contextmanager
def _started(strikes: str, *arguments: Argument, **options: str) -> Iterator[subprocess.Popen[str]]:
    """Start the program with what a test has to say; its input stays open. Kill it at the end."""
    command = [sys.executable, "-c", f"{_HEEDED}\n{_PROGRAM}\n{strikes}\nmain.main()", *map(os.fsdecode, arguments)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, stderr=pipe, text=True, env={**os.environ, **options}
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def _end(process: subprocess.Popen[str], number: int) -> tuple[str, str]:
    """Return what was printed and said by a process that must end of a signal, without a traceback."""
    printed, said = process.communicate(timeout=LIMIT)
    assert process.returncode == -number, said
    assert "Traceback" not in said
    return printed, said


def _wait_for(word: str, process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == f"{word}\n"


def _struck(strikes: str, *arguments: Argument, number: int = signal.SIGTERM) -> tuple[str, str]:
    """Run the program, which has to end of a signal; return what was printed and said."""
    with _started(strikes, *arguments) as process:
        return _end(process, number)


# -- waiting for another writer -------------------------------------------------------------------------------------------


def test_a_command_that_waits_for_another_writer_ends_at_once(database: Path, lines: Path) -> None:
    holding = "import pathlib\nwith env.Env.open(pathlib.Path(sys.argv[1])).write():\n    print('writing', flush=True)\n"
    with _started(f"{holding}    sys.stdin.read()\n    os._exit(0)", database) as writer:
        _wait_for("writing", writer)
        for number, command, expected in (
            (signal.SIGTERM, "transact", ""),
            (signal.SIGINT, "import", "cowfs: nothing of the file is committed; go on with --from-line 1\n"),
        ):
            lines.write_text('{"note/text": "second"}\n')
            with _started("at(Stage.WAITING, lambda: print('waiting', flush=True))", command, database, lines) as process:
                _wait_for("waiting", process)
                process.send_signal(number)
                assert _end(process, number)[1] == expected
    assert len(cowfs_here("export", database).splitlines()) == 1
    cowfs_here("check", database)


# -- what was committed ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", _SIGNALS)
def test_a_signal_in_a_commit_waits_until_it_is_said(database: Path, tmp_path: Path, number: signal.Signals) -> None:
    data = tmp_path / "data"
    data.write_text('[{"note/text": "second"}]')
    printed, said = _struck(f"at(Stage.COMMITTED, strike({number}))", "transact", database, data, number=number)
    assert (printed, said) == ("", "cowfs: txid 3 is committed\n")
    assert len(cowfs_here("export", database).splitlines()) == 2
    cowfs_here("check", database)


def test_a_signal_before_the_commit_undoes_the_transaction(database: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_text('[{"note/text": "second"}]')
    assert _struck("at(Stage.FREE, strike(15))", "transact", database, data) == ("", "")
    assert len(cowfs_here("export", database).splitlines()) == 1
    cowfs_here("check", database)


def _go_on(database: Path, said: str) -> int:
    """Return how many lines an import said that it has committed, which are those that there are."""
    match = re.fullmatch(
        r"cowfs: (?:lines 1 to (\d+) are|nothing of the file is) committed; go on with --from-line (\d+)\n", said
    )
    assert match is not None, said
    committed = int(match[1] or 0)
    assert int(match[2]) == committed + 1
    assert len(cowfs_here("export", database).splitlines()) == committed + 1
    cowfs_here("check", database)
    return committed


def test_an_import_says_how_far_it_came(database: Path, lines: Path) -> None:
    _printed, said = _struck("at(Stage.COMMITTED, strike(15), 3)", "import", "--batch", "10", database, lines)
    assert _go_on(database, said) == 30
    cowfs_here("import", "--from-line", "31", database, lines)
    texts = [json.loads(line)[":note/text"] for line in cowfs_here("export", database).splitlines()]
    assert texts == ["first", *map(str, range(1000))]


@pytest.mark.parametrize("milliseconds", [1, 7, 30])
def test_an_import_counts_right_whenever_the_signal_comes(database: Path, lines: Path, milliseconds: int) -> None:
    strikes = f"at(Stage.COMMITTED, threading.Timer({milliseconds} / 1000, strike(15)).start)"
    with _started(strikes, "import", "--batch", "3", database, lines) as process:
        _printed, said = process.communicate(timeout=LIMIT)
    assert process.returncode == -signal.SIGTERM, said
    if "all lines" not in said:
        _go_on(database, said)


def test_an_import_of_several_files_says_which_are_done(database: Path, lines: Path, tmp_path: Path) -> None:
    (tmp_path / "more").write_text('{"note/text": "a"}\n\n{"note/text": "b"}\n' * 10)
    with _started("", "import", "--batch", "5", database, tmp_path / "more", "-") as process:
        assert process.stdin is not None
        process.stdin.write('{"note/text": "c"}\n' * 12)
        process.stdin.flush()
        until = time.monotonic() + LIMIT
        while cowfs_here("export", database).count("\n") < 31 and time.monotonic() < until:
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _printed, said = _end(process, signal.SIGINT)
    done = f"{tmp_path / 'more'} is committed, and lines 1 to 10 of standard input"
    assert said == f"cowfs: {done}; go on with --from-line 11 and the files from standard input on\n"
    (tmp_path / "wrong").write_text('{"note/text": "d"}\n7\n')
    result = run(*COWFS, "import", database, tmp_path / "more", tmp_path / "wrong", tmp_path / "never", code=1)
    assert f"({tmp_path / 'more'} is committed, and nothing of {tmp_path / 'wrong'}; go on with" in result.stderr
    result = run(*COWFS, "import", database, tmp_path / "more", tmp_path / "more", tmp_path / "never", code=1)
    assert f"(2 files are committed, and nothing of {tmp_path / 'never'}; go on with --from-line 1 and" in result.stderr


def test_a_signal_that_was_ignored_from_the_start_is_ignored(database: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_text('[{"note/text": "second"}]')
    program = f"{_PROGRAM}\nat(Stage.COMMITTED, strike(1))\nmain.main()"
    result = run("nohup", sys.executable, "-c", program, "transact", database, data)
    assert "txid 3 " in result.stdout


def test_a_command_that_waits_for_its_input_ends(database: Path) -> None:
    with _started("before(transact, 'read_text', lambda *_: print('reading', flush=True))", "transact", database) as process:
        _wait_for("reading", process)
        process.send_signal(signal.SIGINT)
        assert _end(process, signal.SIGINT) == ("", "")


def test_a_signal_that_strikes_in_a_finalizer_is_not_lost(database: Path) -> None:
    strikes = """
class Dropped:
    def __del__(self):
        os.kill(os.getpid(), 15)

before(transact, "read_text", lambda *_: Dropped())
"""
    with _started(strikes, "transact", database) as process:
        process.wait(LIMIT)
        assert _end(process, signal.SIGTERM) == ("", "")


def test_ctrl_c_is_quiet_from_the_start() -> None:
    program = """
import importlib.abc, os, signal, sys
signal.signal(2, signal.default_int_handler)
class Strike(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name in ("cowfs.cli.main", "cowfs.store", "lmdb"):
            os.kill(os.getpid(), 2)
sys.meta_path.insert(0, Strike())
from cowfs.cli.start import main
main()
"""
    result = subprocess.run(
        [sys.executable, "-c", program, "--help"], capture_output=True, text=True, timeout=LIMIT, check=False
    )
    assert (result.returncode, result.stdout, result.stderr) == (-signal.SIGINT, "", "")


# -- restore --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "strikes",
    [
        "after(staging, '_make', strike(15))",
        "after(restore, '_write', strike(15))",
        "after(restore, '_write', strike(15)); before(staging.shutil, 'rmtree', strike(2))",
        "before(restore, '_require_sound', strike(15)); before(staging.shutil, 'rmtree', strike(15))",
    ],
)
def test_an_interrupted_restore_leaves_nothing(database: Path, tmp_path: Path, strikes: str) -> None:
    (tmp_path / "empty").mkdir()
    before = sorted(os.listdir(tmp_path))
    for target in ("new", "empty"):
        assert _struck(strikes, "restore", database, tmp_path / target) == ("", "")
        assert sorted(os.listdir(tmp_path)) == before
        assert os.listdir(tmp_path / "empty") == []


def test_a_restore_that_was_done_says_so(database: Path, tmp_path: Path) -> None:
    said = _struck("before(staging, '_put_in_place', strike(15))", "restore", database, tmp_path / "new")
    assert said == ("", f"cowfs: {tmp_path / 'new'} is restored\n")
    cowfs_here("check", tmp_path / "new")
    assert sorted(os.listdir(tmp_path)) == ["db", "new"]


# -- mount and demo -------------------------------------------------------------------------------------------------------


@pytest.fixture
def point(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "mnt").mkdir()
    yield tmp_path / "mnt"
    unmount(tmp_path / "mnt")


def test_a_mount_that_is_interrupted_as_it_begins_is_none(database: Path, point: Path) -> None:
    _struck("before(daemon.Filesystem, 'serve', strike(2))", "mount", "-f", database, point, number=signal.SIGINT)
    assert mountpoint.mounted_at(point) is None


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_mount_that_nobody_waits_for_any_more_ends(database: Path, point: Path, number: signal.Signals) -> None:
    strikes = f"before(daemon.select, 'select', lambda *_: os.kill(os.getpid(), {number}))"
    _struck(strikes, "mount", database, point, "--log", log_of(point), number=number)
    until = time.monotonic() + LIMIT
    while "no longer mounted" not in (log := log_of(point).read_text()):
        if not log and number != signal.SIGKILL and mountpoint.mounted_at(point) is None:
            break  # it was ended before it had begun
        assert time.monotonic() < until, log
        time.sleep(0.01)
    assert mountpoint.mounted_at(point) is None
    assert "Traceback" not in log


def _demo(directory: Path) -> tuple[str, dict[str, str]]:
    """Return what makes the demo a small one, in ``directory``."""
    directory.mkdir()
    return (
        "some = list(geonames._entities())[:400]; geonames._entities = lambda: iter(some)",
        {"TMPDIR": str(directory)},
    )


def _running() -> Iterator[bytes]:
    """Yield the command line of every process, its words ended by a zero byte: not every machine has a ``ps``."""
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
            yield (process / "cmdline").read_bytes()


def _nothing_is_left_of(directory: Path) -> None:
    assert os.listdir(directory) == []
    assert not any(directory in mount.point.parents for mount in mountpoint.mounts())
    assert [words for words in _running() if f"{directory}/".encode() in words] == []


def test_an_interrupted_demo_leaves_nothing(tmp_path: Path) -> None:
    small, environment = _demo(tmp_path / "demo")
    strikes = f"{small}\nafter(demo, '_wait_for', strike(15)); before(demo.shutil, 'rmtree', strike(2))"
    with _started(strikes, "demo", **environment) as process:
        printed, said = _end(process, signal.SIGTERM)
    assert "$ cowfs mount db mnt" in printed
    assert said == ""
    _nothing_is_left_of(tmp_path / "demo")


def test_a_demo_that_nobody_reads_leaves_nothing(tmp_path: Path) -> None:
    small, environment = _demo(tmp_path / "demo")
    with _started(small, "demo", **environment) as process:
        assert process.stdout is not None
        while "$ cowfs mount db mnt" not in process.stdout.readline():
            assert process.poll() is None
        process.stdout.close()
        process.wait(LIMIT)
        assert process.stderr is not None
        assert (process.returncode, process.stderr.read()) == (-signal.SIGPIPE, "")
    _nothing_is_left_of(tmp_path / "demo")
