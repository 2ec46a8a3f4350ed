"""The commands that compare commits, and go back to one, as a user types them."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cowfs import Store
from tests.support.commands import COWFS, LIMIT, cowfs_here, refused_here, run
from tests.support.times import made_ago

SCHEMA = {
    ":person/email": {":db/valueType": ":db.type/string", ":db/unique": ":db.unique/identity"},
    ":person/friend": {":db/valueType": ":db.type/ref", ":db/cardinality": ":db.cardinality/many"},
    ":person/name": {":db/valueType": ":db.type/string"},
}
# A program that swaps unique values, and makes and retracts entities, until its standard input ends, or 4,000 commits.
_WRITE = """
import select, sys
from cowfs import Store
with Store.open(sys.argv[1], "none") as store:
    print("ready", flush=True)
    for _ in range(2000):
        if select.select([sys.stdin], [], [], 0)[0]:
            break
        store.transact([[":db/add", 1, ":person/email", "bob@x.org"], [":db/add", 2, ":person/email", "ann@x.org"]])
        store.transact([[":db/retractEntity", 1], [":db/retractEntity", 2], {":person/name": "x" * 3000}])
"""
CHANGED = """\
- schema :person/name {":db/valueType": ":db.type/string"}
+ schema :person/name {":db/doc": "in full", ":db/valueType": ":db.type/string"}
+ schema :person/note {}
- 1 :person/email "ann@x.org"
+ 1 :person/email "ann@y.org"
- 1 :person/friend {":db/id": 2}
- 2 :person/email "bob@x.org"
- 2 :person/name "Bob\\nü"
+ 3 :person/note 1.5
"""


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Path]:
    """A database of 5 commits, of which the last three change something: a schema, two entities. It stays sound."""
    with made_ago(hours=1), Store.create(tmp_path / "db", SCHEMA, durability="none") as store:
        store.transact(
            [
                {":db/id": 1, ":person/email": "ann@x.org", ":person/friend": [2]},
                {":db/id": 2, ":person/email": "bob@x.org", ":person/name": "Bob\nü"},
            ]
        )
        store.update_schema({":person/name": {":db/valueType": ":db.type/string", ":db/doc": "in full"}})
        store.transact([[":db/add", 1, ":person/email", "ann@y.org"], {":db/id": 3, ":person/note": 1.5}])
        store.transact([[":db/retractEntity", 2]])
    yield tmp_path / "db"
    assert ": ok (" in cowfs_here("check", tmp_path / "db")


def _json(*arguments: str | Path) -> Any:
    return json.loads(cowfs_here(*arguments, "--json"))


def test_diff(database: Path) -> None:
    assert cowfs_here("diff", database, "2", "5") == CHANGED
    assert cowfs_here("diff", database, "2", "latest") == cowfs_here("diff", database, "2") == CHANGED
    back = cowfs_here("diff", database, "5", "2")
    assert sorted(back.translate(str.maketrans("+-", "-+")).splitlines()) == sorted(CHANGED.splitlines())
    for same in ("2", "5", "latest"):
        assert cowfs_here("diff", database, same, same) == ""


def test_diff_as_json(database: Path) -> None:
    assert _json("diff", database, "2", "5") == {
        "from": 2,
        "to": 5,
        "asserted": [[1, ":person/email", "ann@y.org"], [3, ":person/note", 1.5]],
        "retracted": [
            [1, ":person/email", "ann@x.org", 2],
            [1, ":person/friend", {":db/id": 2}, 2],
            [2, ":person/email", "bob@x.org", 2],
            [2, ":person/name", "Bob\nü", 2],
        ],
        "schema": {
            ":person/name": {
                "from": {":db/valueType": ":db.type/string"},
                "to": {":db/doc": "in full", ":db/valueType": ":db.type/string"},
            },
            ":person/note": {"from": None, "to": {}},
        },
    }
    assert _json("diff", database, "latest", "5") == {"from": 5, "to": 5, "asserted": [], "retracted": [], "schema": {}}


def test_commits_by_name_and_by_time(database: Path) -> None:
    cowfs_here("snapshot", "create", database, "before", "--txid", "2")
    cowfs_here("transact", database, stdin='[[":db/add", 1, ":person/name", "Ann"]]')
    assert cowfs_here("diff", database, "before", "5") == CHANGED
    assert cowfs_here("diff", database, "1m", "0s") == '+ 1 :person/name "Ann"\n'
    cowfs_here("revert", database, "before")
    assert cowfs_here("diff", database, "before", "latest").count("schema") == 3


def test_diff_refuses(database: Path) -> None:
    refused = refused_here("diff", database, "nonsense", "5", code=2)
    assert refused.startswith("cowfs: Invalid value for A: 'nonsense' is no snapshot")
    assert "for B: " in refused_here("diff", database, "5", "nonsense", code=2)
    for wrong in ("0", "6", "2001-01-02"):
        refused_here("diff", database, wrong, "5", code=2)
        refused_here("diff", database, "5", wrong, code=2)
    cowfs_here("retain", database, "--commits", "0")
    assert "not retained" in refused_here("diff", database, "2", code=2)


def test_diff_of_a_copy(database: Path, tmp_path: Path) -> None:
    (tmp_path / "copy").mkdir()
    shutil.copy(database / "data.mdb", tmp_path / "copy")
    assert cowfs_here("diff", tmp_path / "copy", "5", "latest") == ""
    assert "no older commits" in refused_here("diff", tmp_path / "copy", "2", "5", code=2)
    assert not (tmp_path / "copy" / "lock.mdb").exists()


def test_revert(database: Path) -> None:
    printed = cowfs_here("revert", database, "2")
    assert re.fullmatch(r"txid 6  \d{4}-\d\d-\d\dT\S+Z  \+4 -2 datoms\n", printed)
    assert [line for line in cowfs_here("diff", database, "2", "6").splitlines() if "schema" not in line] == []
    assert cowfs_here("revert", database, "2") == "nothing to revert\n"
    assert cowfs_here("diff", database, "2", "5") == CHANGED  # the history is as it was
    unchanged = {"txid": None, "instant": None, "asserted": 0, "retracted": 0, "missing_references": 0, "dry_run": False}
    assert _json("revert", database, "6") == {"reverted_to": 6, **unchanged}
    document = _json("revert", database, "5")
    assert document.pop("instant") > "2026"
    del unchanged["instant"]
    assert document == {**unchanged, "reverted_to": 5, "txid": 7, "asserted": 2, "retracted": 4}
    assert cowfs_here("diff", database, "5", "7") == ""


def test_revert_one_entity(database: Path) -> None:
    missing = "1 reference to entity 2 is missing: --with-references restores it\n"
    would = cowfs_here("revert", database, "2", "--entity", "2", "--dry-run")
    assert re.fullmatch(rf"txid 6  \S+  \+2 -0 datoms  \(dry run: nothing was done\)\n{missing}", would)
    done = cowfs_here("revert", database, "2", "--entity", "2")
    assert re.fullmatch(rf"txid 6  \S+  \+2 -0 datoms\n{missing}", done)
    assert cowfs_here("diff", database, "5") == '+ 2 :person/email "bob@x.org"\n+ 2 :person/name "Bob\\nü"\n'
    assert cowfs_here("revert", database, "2", "--entity", "2") == f"nothing to revert\n{missing}"
    assert _json("revert", database, "2", "--entity", "2")["missing_references"] == 1
    assert "+1 -0 datoms" in cowfs_here("revert", database, "2", "--entity", "2", "--with-references")
    assert cowfs_here("revert", database, "2", "--entity", "2") == "nothing to revert\n"
    cowfs_here("transact", database, stdin='[[":db/retractEntity", 1]]')
    document = _json("revert", database, "2", "--entity", "2", "--with-references", "--dry-run")
    assert (document["txid"], document["missing_references"], document["dry_run"]) == (None, 1, True)
    shown = cowfs_here("revert", database, "2", "--entity", "2", "--with-references")
    assert shown.endswith("1 reference to entity 2 is missing: the entity that had it has no datoms any more\n")
    assert "--entity" in refused_here("revert", database, "2", "--with-references", code=2)


def test_revert_refuses(database: Path) -> None:
    assert "for TXID: " in refused_here("revert", database, "nonsense", code=2)
    for wrong in ("0", "6", "2001-01-02"):
        refused_here("revert", database, wrong, code=2)
    for wrong in ("0", "-1", "x", str(2**53)):
        refused_here("revert", database, "2", "--entity", wrong, code=2)
    cowfs_here("transact", database, stdin='[[":db/add", 3, ":person/email", "bob@x.org"]]')
    assert "is unique" in refused_here("revert", database, "2", "--entity", "2", code=1)
    with Store.open(database) as store:
        store.update_schema({":person/note": {":db/cardinality": ":db.cardinality/many"}})
        store.transact([{":db/id": 3, ":person/note": [1, 2]}])
        store.transact([[":db/retract", 3, ":person/note"]])
        store.update_schema({":person/note": {}})
    refused = refused_here("revert", database, "8", code=1)
    assert refused.startswith("cowfs: :person/note: values of commit 8 cannot be restored, its :db/cardinality has changed")


def test_in_processes_of_their_own(database: Path) -> None:
    assert run(*COWFS, "diff", database, "2", "5").stdout == CHANGED
    run(*COWFS, "revert", database, "2")
    assert run(*COWFS, "revert", database, "2").stdout == "nothing to revert\n"


def test_beside_a_writer_in_another_process(database: Path) -> None:
    command = [sys.executable, "-c", _WRITE, str(database)]
    txids: list[int | None] = []
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as writer:
        assert writer.stdin is not None
        assert writer.stdout is not None
        try:
            assert writer.stdout.readline() == "ready\n"
            while len(txids) < 20 or len(set(txids)) < 3:  # as often as it takes for somebody to have written
                txids.append(_json("revert", database, "2")["txid"])
            assert _json("diff", database, "2", "latest")["from"] == 2
        finally:
            writer.stdin.close()
            assert writer.wait(LIMIT) == 0
    made = [str(txid) for txid in txids if txid is not None]
    for txid in made:
        document = _json("diff", database, "2", txid)
        assert document["asserted"] == document["retracted"] == []
