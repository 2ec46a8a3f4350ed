"""The README holds: its transcript runs as printed, its Python too, and what it links to is there."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from tests.commands import CHECKOUT, COWFS, run
from tests.mounted import unmount

README = (CHECKOUT / "README.md").read_text()
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def block(language: str) -> str:
    found = re.search(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert found is not None, f"the README has no block of {language}"
    return found[1]


@pytest.fixture
def shell_path(tmp_path: Path) -> dict[str, str]:
    """An environment in which ``cowfs`` is a command."""
    commands = tmp_path / "bin"
    commands.mkdir()
    script = commands / "cowfs"
    script.write_text(f'#!/bin/sh\nexec {shlex.join(COWFS)} "$@"\n')
    script.chmod(0o755)
    return {"PATH": f"{commands}:{os.environ['PATH']}", "PYTHONPATH": str(CHECKOUT)}


def test_the_transcript_runs_as_printed(tmp_path: Path, shell_path: dict[str, str]) -> None:
    printed = ""
    try:
        for line in block("console").splitlines():
            if line.startswith("$ "):
                result = run("sh", "-c", line[2:], cwd=tmp_path, env=shell_path)
                assert result.stderr == ""
                printed += f"{line}\n{result.stdout}"
    finally:
        unmount(tmp_path / "mnt")
    assert _INSTANT.sub("INSTANT", printed) == _INSTANT.sub("INSTANT", block("console"))


def test_the_python_runs(tmp_path: Path, shell_path: dict[str, str]) -> None:
    result = run(sys.executable, "-c", block("python"), cwd=tmp_path, env=shell_path)
    assert "':person/email': 'ann@x.org'" in result.stdout
    run(*COWFS, "check", tmp_path / "people")


def test_the_schema_and_the_transaction_are_taken(tmp_path: Path) -> None:
    schema, data = re.findall(r"^```json\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    run(*COWFS, "init", "db", "--schema", "-", cwd=tmp_path, stdin=schema)
    people = '[{":db/id": 42, ":person/name": "Anne", ":person/age": 30}, {":db/id": 43, ":person/name": "Bea"}]'
    run(*COWFS, "transact", "db", cwd=tmp_path, stdin=people)
    run(*COWFS, "transact", "db", cwd=tmp_path, stdin=data)
    exported = run(*COWFS, "export", "db", cwd=tmp_path).stdout
    assert '{":db/id":42,":person/age":31}' in exported
    assert "Bea" not in exported
    run(*COWFS, "check", "db", cwd=tmp_path)


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)]+)\)", README)
    assert links
    assert [link for link in links if not (CHECKOUT / link).exists()] == []


def test_every_script_is_named() -> None:
    scripts = {path.name for path in (CHECKOUT / "scripts").iterdir() if path.is_file() and not path.suffix}
    assert [name for name in scripts if name not in README] == []
