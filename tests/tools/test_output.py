"""What every command does when it cannot write its output: to a closed pipe, a full disk, a terminal that is gone."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.commands import COWFS, LIMIT, cowfs_here, run
from tests.support.forked import BROKEN_PIPE, CLOSED, Program

_FULL = "/dev/full"
_READING = {
    "--help": (),
    "--version": (),
    "export --help": (),
    "export": ("db",),
    "diff": ("db", "1"),
    "diff --json": ("db", "1"),
    "log": ("db",),
    "log --json": ("db",),
    "status": ("db",),
    "status --json": ("db",),
    "check": ("db",),
    "check --json": ("db",),
    "retain": ("db",),
    "retain --commits 3 --dry-run": ("db",),
    "snapshot list": ("db",),
    "snapshot list --json": ("db",),
    "transact --dry-run": ("db", "data"),
    "import --dry-run": ("db", "lines"),
    "revert --dry-run": ("db", "1"),
}
_WRITING = {
    "init": (("new",), "{new} is made"),
    "transact": (("db", "data"), "txid 4 is committed"),
    "transact --json": (("db", "data"), "txid 4 is committed"),
    "import": (("db", "lines"), "all lines are committed"),
    "revert": (("db", "1"), "txid 4 is committed"),
    "snapshot create": (("db", "two"), "two names txid 3"),
    "snapshot delete": (("db", "one"), "one is deleted"),
    "retain --commits 3": (("db",), "the bounds are changed"),
    "restore": (("db", "new"), "{new} is restored"),
}
_FILES = ("db", "new", "data", "lines")


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory with a database ``db``, which has a snapshot ``one``, and files to put into it."""
    (tmp_path / "data").write_text('[{"note/text": "second"}]')
    (tmp_path / "lines").write_text('{"note/text": "third"}\n')
    cowfs_here("init", tmp_path / "db")
    cowfs_here("transact", tmp_path / "db", tmp_path / "data")
    cowfs_here("snapshot", "create", tmp_path / "db", "one")
    return tmp_path


def _words(command: str, operands: tuple[str, ...], place: Path) -> list[str]:
    return [*command.split(), *(str(place / name) if name in _FILES else name for name in operands)]


@pytest.mark.parametrize("command", _READING)
def test_output_that_cannot_be_written_is_one_line(forked: Program, place: Path, command: str) -> None:
    words = _words(command, _READING[command], place)
    for stdout, reason in ((_FULL, "No space left on device"), (CLOSED, "Bad file descriptor")):
        code, said = forked.run(*words, stdout=stdout)
        assert code == 1
        assert re.fullmatch(rf"cowfs: standard output: {reason}( \((dry run: )?nothing was done\))?\n", said)
    assert forked.run(*words, stdout=BROKEN_PIPE) == (-signal.SIGPIPE, "")


@pytest.mark.parametrize("command", _WRITING)
def test_what_was_done_is_said_when_it_cannot_be_printed(forked: Program, place: Path, command: str) -> None:
    operands, done = _WRITING[command]
    code, said = forked.run(*_words(command, operands, place), stdout=_FULL)
    expected = done.format(new=place / "new")
    assert (code, said) == (1, f"cowfs: standard output: No space left on device ({expected})\n")
    cowfs_here("check", place / operands[-1] if operands[-1] == "new" else place / "db")


def test_what_was_done_is_done_when_nobody_reads_it(forked: Program, place: Path) -> None:
    for stdout, code in ((BROKEN_PIPE, -signal.SIGPIPE), (CLOSED, 1)):
        assert forked.run("transact", place / "db", place / "data", stdout=stdout)[0] == code
    assert len(cowfs_here("export", place / "db").splitlines()) == 3
    cowfs_here("check", place / "db")


def test_a_terminal_that_went_away_is_one_line(place: Path) -> None:
    master, slave = pty.openpty()
    os.close(master)
    try:
        command = [*COWFS, "export", str(place / "db")]
        result = subprocess.run(command, stdout=slave, stderr=subprocess.PIPE, text=True, timeout=LIMIT, check=False)
        assert (result.returncode, result.stderr) == (1, "cowfs: standard output: Input/output error\n")
    finally:
        os.close(slave)


@pytest.mark.parametrize("stderr", [CLOSED, _FULL, BROKEN_PIPE])
def test_an_error_that_cannot_be_said_is_an_exit_code(forked: Program, place: Path, stderr: str | None) -> None:
    for words, code in ((("status", "missing"), 1), (("umount", "missing"), 2), (("explode",), 2), (("check",), 2)):
        assert forked.run_with(words, (os.devnull, os.devnull, stderr)) == code
    assert forked.run_with(("export", str(place / "db")), (os.devnull, _FULL, stderr)) == 1
    assert forked.run_with(("status", str(place / "db")), (os.devnull, os.devnull, stderr)) == 0


def test_no_database_gets_the_number_of_a_closed_stream(forked: Program, place: Path) -> None:
    before = cowfs_here("export", place / "db")
    for words in (
        ("transact", "db", "data"),
        ("snapshot", "create", "db", "x"),
        ("status", "none"),
        ("transact", "db", "none"),
    ):
        arguments = tuple(str(place / word) if word in ("db", "data", "none") else word for word in words)
        assert forked.run_with(arguments, (CLOSED, CLOSED, CLOSED)) == 1
        cowfs_here("check", place / "db")
    assert cowfs_here("export", place / "db").startswith(before)


def test_a_closed_standard_input_is_one_line(forked: Program, place: Path) -> None:
    for command in ("transact", "import"):
        code, said = forked.run(command, place / "db", "-", stdin=CLOSED)
        assert code == 1
        assert said.startswith("cowfs: standard input: Bad file descriptor")


def test_an_input_that_ends_in_an_error_is_one_line(forked: Program, place: Path) -> None:
    for command in ("transact", "import"):
        code, said = forked.run(command, place / "db", "-", stdin="/proc/self/mem")
        assert code == 1
        assert said.startswith("cowfs: standard input: Input/output error")
        assert len(said.splitlines()) == 1


def test_a_command_that_prints_nothing_needs_no_output(forked: Program, place: Path) -> None:
    assert forked.run("umount", place / "db", stdout=CLOSED)[0] == 2
    assert forked.run("snapshot", "delete", place / "db", "none", stdout=CLOSED) == (
        2,
        "cowfs: no snapshot is named 'none'\n",
    )


def test_in_a_shell(place: Path) -> None:
    script = '"$@" | head -n 1; echo "${PIPESTATUS[0]}"; "$@" >&-; echo $?; "$@" >/dev/full 2>&-; echo $?'
    lines = "".join(f'{{"note/text": "{number}"}}\n' for number in range(2000))
    cowfs_here("import", "--no-sync", place / "db", "-", stdin=lines)
    result = run("bash", "-c", script, "bash", *COWFS, "export", place / "db")
    first, *codes = result.stdout.splitlines()
    assert json.loads(first) == {":db/id": 1, ":note/text": "second"}
    assert codes == ["141", "1", "1"]
    assert result.stderr == "cowfs: standard output: Bad file descriptor\n"


def test_names_and_text_go_out_in_any_locale(place: Path) -> None:
    cowfs_here("transact", place / "db", stdin='[{"note/text": "Näme \\ud83d\\udc1f"}]')
    strange = os.fsencode(place) + b"/d\xff"
    (place / "db").rename(os.fsdecode(strange))
    environment = {"PYTHONIOENCODING": "latin-1", "LC_ALL": "C.UTF-8"}
    exported = run(*COWFS, "export", strange, env=environment).stdout
    assert json.loads(exported.splitlines()[-1])[":note/text"] == "Näme 🐟"
    assert run(*COWFS, "check", strange, env=environment).stdout.startswith(f"{os.fsdecode(strange)}: ok")
