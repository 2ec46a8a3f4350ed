"""What a person sees: on a terminal no output of any command has a character that does more, or less, than to be seen."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import tty
import unicodedata
from pathlib import Path

import pytest

from tests.support.commands import cowfs_here
from tests.support.forked import Program

_EVIL = "\u009b31m\u202e\u2028\u200b\x7f\u0085"
_ATTRIBUTE = f"evil/{_EVIL.translate({0x2028: None, 0x85: None, 0x7F: None})}"
_PROGRESS = re.compile(r"\r.*?\x1b\[\?25h\n", re.DOTALL)
_READING = (
    "export",
    "diff",
    "diff --json",
    "log",
    "log --json",
    "log --datoms",
    "status",
    "status --json",
    "check",
    "retain",
)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """A database in a directory, and with an attribute, values, a snapshot's reason, that would do harm on a terminal."""
    database = tmp_path / f"db{_EVIL}\n"
    cowfs_here("init", database)
    cowfs_here("transact", database, stdin=json.dumps([{_ATTRIBUTE: f"{_EVIL}\x1b[2J\r\n"}]))
    cowfs_here("snapshot", "create", database, "one", "--reason", f"{_EVIL}\x1b[2J")
    return database


def _on_a_terminal(forked: Program, *arguments: str | Path, stdin: str = os.devnull) -> str:
    """Return what a command shows on a terminal, on standard output and standard error, without progress."""
    return _PROGRESS.sub("", _drawn_on_a_terminal(forked, *arguments, stdin=stdin))


def _drawn_on_a_terminal(forked: Program, *arguments: str | Path, stdin: str = os.devnull) -> str:
    master, slave = pty.openpty()
    try:
        tty.setraw(slave)
        name = os.ttyname(slave)
        forked.run_with(arguments, (stdin, name, name))
        shown = b""
        while select.select([master], [], [], 0)[0]:
            shown += os.read(master, 1 << 16)
        return shown.decode()
    finally:
        os.close(slave)
        os.close(master)


def _is_harmless(text: str) -> bool:
    return all(char == "\n" or char.isprintable() or unicodedata.category(char) == "Zs" for char in text)


@pytest.mark.parametrize("command", _READING)
def test_what_is_printed_is_harmless(forked: Program, database: Path, command: str) -> None:
    words: list[str | Path] = [*command.split(), database, *(["1"] if command.startswith("diff") else [])]
    shown = _on_a_terminal(forked, *words)
    assert shown
    assert _is_harmless(shown), repr(shown)
    if command in ("export", "diff --json", "log --json"):
        assert json.loads(shown) == json.loads(cowfs_here(*words))


def test_what_is_done_and_refused_is_harmless(forked: Program, database: Path, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_text(json.dumps([{":db/id": f"temp{_EVIL}\x1b[2J", "a/b": 1}]))
    wrong = tmp_path / f"wrong{_EVIL}"
    wrong.write_text(json.dumps([{f"a{_EVIL}": 1}]))
    for arguments in (
        ("transact", database, data),
        ("transact", "--json", database, data),
        ("snapshot", "list", database),
        ("snapshot", "list", "--json", database),
        ("snapshot", "create", database, f"name{_EVIL}"),
        ("snapshot", "delete", database, f"name{_EVIL}\n"),
        ("transact", database, wrong),
        ("import", database, wrong),
        ("status", tmp_path / f"missing{_EVIL}\n"),
        (f"explode{_EVIL}",),
        ("export", database, "--at", f"x{_EVIL}"),
        ("export", f"--x{_EVIL}", database),
        ("retain", database, "--age", f"x{_EVIL}"),
        ("restore", database, tmp_path / f"new{_EVIL}\n"),
        ("umount", tmp_path / f"missing{_EVIL}\n"),
    ):
        shown = _on_a_terminal(forked, *arguments)
        assert len(shown) > 10
        assert _is_harmless(shown), repr(shown)


def test_a_line_stays_a_line(forked: Program, database: Path, tmp_path: Path) -> None:
    assert len(_on_a_terminal(forked, "check", database).splitlines()) == 1
    assert len(_on_a_terminal(forked, "status", tmp_path / "missing\nmissing").splitlines()) == 1
    assert forked.run("status", tmp_path / "missing\nmissing")[1].count("\n") == 1


def test_progress_is_drawn_and_its_label_is_harmless(forked: Program, database: Path, tmp_path: Path) -> None:
    lines = tmp_path / f"lines{_EVIL}"
    lines.write_text("".join(f'{{"a/b": {number}}}\n' for number in range(50)))
    shown = _drawn_on_a_terminal(forked, "import", database, lines)
    assert "100%" in shown
    drawn = shown.replace("\r", "").replace("\x1b[?25l", "").replace("\x1b[?25h", "").replace("\x1b[K", "")
    assert _is_harmless(drawn), repr(drawn)


def test_a_file_keeps_its_bytes(forked: Program, database: Path, tmp_path: Path) -> None:
    forked.run("export", database, stdout=tmp_path / "exported")
    text = (tmp_path / "exported").read_bytes().decode()
    for character in _EVIL:
        assert character in text
    forked.run("check", database, stdout=tmp_path / "checked")
    assert (tmp_path / "checked").read_bytes().startswith(os.fsencode(database) + b": ok")
