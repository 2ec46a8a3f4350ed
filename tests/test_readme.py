"""The README holds: its transcripts run as printed, its Python too, and what it links to is there."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from cowfs.mount import mountpoint
from tests.support.commands import CHECKOUT, COWFS, run
from tests.support.mounted import unmount

README = (CHECKOUT / "README.md").read_text()
_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z")


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert found, f"the README has no block of {language}"
    return found


@pytest.fixture
def shell_path(tmp_path: Path) -> dict[str, str]:
    """An environment in which ``cowfs`` is a command."""
    commands = tmp_path / "bin"
    commands.mkdir()
    script = commands / "cowfs"
    script.write_text(f'#!/bin/sh\nexec {shlex.join(COWFS)} "$@"\n')
    script.chmod(0o755)
    return {"PATH": f"{commands}:{os.environ['PATH']}", "PYTHONPATH": str(CHECKOUT)}


@pytest.mark.parametrize("transcript", blocks("console"), ids=["first steps", "tour"])
def test_a_transcript_runs_as_printed(tmp_path: Path, shell_path: dict[str, str], transcript: str) -> None:
    home = tmp_path / "home"
    home.mkdir()
    printed = ""
    try:
        for line in transcript.splitlines():
            if line.startswith("$ "):
                differs = line.startswith("$ diff ")
                result = run("bash", "-c", line[2:], cwd=home, env=shell_path, code=1 if differs else 0)
                assert result.stderr == ""
                printed += f"{line}\n{result.stdout}"
    finally:
        for mount in mountpoint.mounts():
            if home in mount.point.parents:
                unmount(mount.point)
    assert _INSTANT.sub("INSTANT", printed) == _INSTANT.sub("INSTANT", transcript)
    databases = [data.parent for data in home.rglob("data.mdb")]
    assert databases
    for database in databases:
        run(*COWFS, "check", database)


def test_the_python_runs(tmp_path: Path, shell_path: dict[str, str]) -> None:
    (program,) = blocks("python")
    result = run(sys.executable, "-c", program, cwd=tmp_path, env=shell_path)
    assert "':person/email': 'ann@x.org'" in result.stdout
    run(*COWFS, "check", tmp_path / "people")


def test_the_schema_and_the_transaction_are_taken(tmp_path: Path) -> None:
    schema, data = blocks("json")
    run(*COWFS, "init", "db", "--schema", "-", cwd=tmp_path, stdin=schema)
    people = '[{":db/id": 42, ":person/name": "Anne", ":person/age": 30}, {":db/id": 43, ":person/name": "Bea"}]'
    run(*COWFS, "transact", "db", cwd=tmp_path, stdin=people)
    run(*COWFS, "transact", "db", cwd=tmp_path, stdin=data)
    exported = run(*COWFS, "export", "db", cwd=tmp_path).stdout
    assert '{":db/id":42,":person/age":31}' in exported
    assert "Bea" not in exported
    run(*COWFS, "check", "db", cwd=tmp_path)


DOCUMENTS = [*CHECKOUT.glob("*.md"), *CHECKOUT.glob("docs/**/*.md")]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(CHECKOUT)))
def test_every_link_leads_somewhere(document: Path) -> None:
    links = re.findall(r"\]\(([^)]+)\)", document.read_text())
    assert links or document.name not in ("README.md", "overview.md")
    assert [link for link in links if not (document.parent / link).exists()] == []


def test_every_file_that_the_overview_names_is_there() -> None:
    text = (CHECKOUT / "docs/design/overview.md").read_text()
    named = re.findall(r"`([a-z]+/[a-z_/]+\.py)`", text)
    assert named
    assert [name for name in named if not (CHECKOUT / "cowfs" / name).exists()] == []


def test_every_script_is_named() -> None:
    scripts = {path.name for path in (CHECKOUT / "scripts").iterdir() if path.is_file() and not path.suffix}
    assert [name for name in scripts if name not in README] == []
