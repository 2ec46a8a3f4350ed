"""The commands other than ``mount``, as a user types them: round trips, restores, and mistakes."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lmdb
import pytest

from tests.support.commands import (
    COWFS,
    cowfs,
    cowfs_here,
    in_private_mounts,
    one_line,
    refused,
    refused_here,
    run,
    run_here,
)
from tests.support.mounted import mounted
from tests.support.users import ordinary_user

_SCHEMA = {
    ":person/email": {":db/valueType": ":db.type/string", ":db/unique": ":db.unique/identity"},
    ":person/name": {":db/valueType": ":db.type/string"},
    ":person/tags": {":db/valueType": ":db.type/string", ":db/cardinality": ":db.cardinality/many"},
    ":person/friend": {":db/valueType": ":db.type/ref", ":db/cardinality": ":db.cardinality/many"},
    ":person/weight": {":db/valueType": ":db.type/double"},
    ":person/born": {":db/valueType": ":db.type/instant"},
}


def _person(number: int) -> dict[str, Any]:
    return {
        ":person/email": f"p{number}@x.org",
        ":person/name": f"Näme {number} 🐟",
        ":person/tags": ["a", f"tag {number}"],
        ":person/weight": number + 0.5,
        ":person/born": f"19{number % 100:02}-02-03T04:05:06Z",
    }


@pytest.fixture
def people(tmp_path: Path) -> Path:
    """A file with 25 people, one a line."""
    file = tmp_path / "people.jsonl"
    file.write_text("".join(json.dumps(_person(number)) + "\n" for number in range(25)))
    return file


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """An empty database with a schema."""
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(_SCHEMA))
    cowfs_here("init", tmp_path / "db", "--schema", schema)
    return tmp_path / "db"


@pytest.fixture
def filled(database: Path, people: Path) -> Path:
    cowfs_here("import", "--batch", "10", database, people)
    cowfs_here(
        "transact",
        database,
        stdin='[{":db/id": [":person/email", "p1@x.org"], ":person/friend": [[":person/email", "p2@x.org"]]}]',
    )
    return database


def _digests(directory: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in directory.iterdir() if path.is_file()}


# -- round trips ----------------------------------------------------------------------------------------------------------


def test_an_export_imported_into_a_new_database_is_exported_the_same(filled: Path, tmp_path: Path) -> None:
    exported = cowfs("export", filled)
    assert len(exported.splitlines()) == 25
    schema = tmp_path / "schema.json"
    cowfs_here("init", tmp_path / "again", "--schema", schema)
    result = run(*COWFS, "import", tmp_path / "again", "-", stdin=exported)
    assert "datoms imported, txid 2" in result.stdout
    assert cowfs_here("export", tmp_path / "again") == exported
    cowfs_here("check", tmp_path / "again")


def test_export_reads_older_commits_in_a_mount(filled: Path, tmp_path: Path) -> None:
    with mounted(filled, tmp_path / "mnt") as mount:
        before = cowfs_here("export", filled)
        txid = mount.txids()[-1]
        cowfs_here("transact", filled, stdin='[[":db/retractEntity", [":person/email", "p1@x.org"]]]')
        assert cowfs_here("export", mount.snapshot(txid)) == before
        assert cowfs_here("export", mount.latest) == cowfs_here("export", filled) != before
        assert cowfs_here("export", "--at", str(txid), mount.snapshot(txid)) == before
        assert f"not {txid}" in refused_here("export", "--at", str(txid), mount.latest, code=2)


def test_transact_prints_txid_and_tempids(database: Path) -> None:
    first, second = cowfs_here(
        "transact", database, stdin=json.dumps([{":db/id": "ann", ":person/name": "Ann"}])
    ).splitlines()
    assert first.startswith("txid 2  20")
    assert first.endswith("+1 -0 datoms")
    assert second == "ann -> 1"
    document = json.loads(cowfs_here("transact", "--json", database, stdin='[[":db/add", 1, ":person/name", "Bob"]]'))
    assert document["txid"] == 3
    assert document["tempids"] == {}


def test_a_dry_run_of_a_transaction_is_not_committed(database: Path) -> None:
    data = '[{":db/id": "ann", ":person/name": "Ann"}]'
    would = json.loads(cowfs_here("transact", "--dry-run", "--json", database, stdin=data))
    assert (would["txid"], would["dry_run"], would["tempids"]) == (2, True, {"ann": 1})
    first, second = cowfs_here("transact", "--dry-run", database, stdin=data).splitlines()
    assert first.startswith("txid 2  ")
    assert first.endswith("+1 -0 datoms  (dry run: nothing was done)")
    assert second == "ann -> 1"
    assert "form 0" in refused_here("transact", "--dry-run", database, stdin="[7]", code=1)
    assert cowfs_here("export", database) == ""
    done = json.loads(cowfs_here("transact", "--json", database, stdin=data))
    assert done["dry_run"] is False
    assert {key: done[key] for key in ("txid", "tempids", "asserted")} == {
        key: would[key] for key in ("txid", "tempids", "asserted")
    }
    cowfs_here("check", database)


def test_datoms_have_one_form_in_json(database: Path, tmp_path: Path) -> None:
    data = (
        '[{":db/id": "a", ":person/friend": [{":person/email": "b@x"}], ":person/born": "2026-01-02", ":person/weight": 1}]'
    )
    cowfs_here("transact", database, stdin=data)
    data = (
        '[[":db/add", 1, ":person/weight", 2.5], [":db/retract", 1, ":person/born"], {":db/id": "c", ":person/tags": ["t"]}]'
    )
    document = json.loads(cowfs_here("transact", "--json", database, stdin=data))
    assert document.pop("tempids") == {"c": 3}
    assert document.pop("dry_run") is False
    assert document["asserted"] == [[1, ":person/weight", 2.5], [3, ":person/tags", "t"]]
    assert document["retracted"] == [[1, ":person/weight", 1, 2], [1, ":person/born", "2026-01-02T00:00:00Z", 2]]
    with mounted(database, tmp_path / "mnt") as mount:
        assert json.loads((mount.live / "log/3.json").read_text()) == document
    (newest,) = json.loads(cowfs_here("log", "--json", "--datoms", "--limit", "1", database))
    assert (newest.pop("retained"), newest.pop("snapshots")) == (True, [])
    assert newest == document
    changes = json.loads(cowfs_here("diff", "--json", database, "2", "3"))
    for key in ("asserted", "retracted"):
        assert changes[key] == document[key]
    assert cowfs_here("log", "--datoms", "--limit", "1", database).splitlines()[1:] == [
        "  + 1 :person/weight 2.5",
        '  + 3 :person/tags "t"',
        "  - 1 :person/weight 1.0",
        '  - 1 :person/born "2026-01-02T00:00:00Z"',
    ]
    cowfs_here("check", database)


def test_a_commit_has_one_number_in_every_output(filled: Path, tmp_path: Path) -> None:
    (tmp_path / "compact").mkdir()
    with lmdb.open(str(filled), readonly=True) as env:
        env.copy(str(tmp_path / "compact"), compact=True)  # which begins LMDB's own count again
        txid = env.info()["last_txnid"]
    for database in (filled, tmp_path / "compact"):
        assert json.loads(cowfs_here("check", "--json", database))["txid"] == txid
        assert json.loads(cowfs_here("status", "--json", database))["txid"] == txid
        assert f"txid {txid}" in cowfs_here("check", database)
        assert f"txid {txid}," in cowfs_here("restore", database, tmp_path / f"restored-{database.name}")


def test_json_outputs_are_one_document_each(filled: Path, tmp_path: Path) -> None:
    status = json.loads(cowfs_here("status", "--json", filled))
    assert status["kind"] == "cowfs store"
    assert status["txid"] == 5
    assert status["size"]["pages"] * status["size"]["page_bytes"] <= status["size"]["file_bytes"] + 4096
    check = json.loads(cowfs_here("check", "--json", filled))
    assert (check["ok"], check["findings"]) == (True, [])
    with mounted(filled, tmp_path / "mnt") as mount:
        status = json.loads(cowfs_here("status", "--json", filled))
        assert status["mounts"] == [str(mount.point)]
        assert mount.daemon.pid in [reader["pid"] for reader in status["readers"]]
        assert str(mount.point) in cowfs_here("status", filled)


def test_status_and_check_work_in_a_mount_and_on_a_backup(filled: Path, tmp_path: Path) -> None:
    with mounted(filled, tmp_path / "mnt") as mount:
        run("cp", "-a", mount.latest, tmp_path / "backup")
        for directory in (mount.live, mount.latest, mount.snapshot(5), tmp_path / "backup"):
            assert json.loads(cowfs_here("status", "--json", directory))["txid"] == 5
            assert ": ok (" in cowfs_here("check", directory)
    assert sorted(os.listdir(tmp_path / "backup")) == ["data.mdb", "schema.json", "snapshot.json"]


def test_the_schema_of_a_mount_makes_a_database_like_it(filled: Path, tmp_path: Path) -> None:
    with mounted(filled, tmp_path / "mnt") as mount:
        cowfs_here("init", tmp_path / "like", "--schema", mount.live / "schema.json")
        with mounted(tmp_path / "like", tmp_path / "mnt2") as like:
            schemas = [json.loads((directory / "schema.json").read_text()) for directory in (like.live, mount.live)]
            assert schemas[0] == schemas[1] != {}


# -- import ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        ("{not json", "no valid JSON"),
        ('{":person/weight": NaN}', "NaN"),
        ('{":person/weight": "heavy"}', ":person/weight"),
        ('{":person/email": 7}', ":person/email"),
        ("7", ""),
        ("\udcff", "UTF-8"),
        ('[":db/explode", 1]', ":db/explode"),
        ("[" * 100_000, "nested too deeply"),
    ],
)
def test_import_stops_at_a_bad_line_keeps_whole_batches_and_goes_on(
    database: Path, people: Path, bad: str, reason: str
) -> None:
    good = people.read_text()
    lines = good.splitlines(keepends=True)
    people.write_bytes(os.fsencode("".join([*lines[:17], bad + "\n", *lines[18:]])))
    line = refused_here("import", "--batch", "5", database, people, code=1)
    assert f"{people}, line 18: " in line
    assert reason in line
    assert "--from-line 16" in line
    assert len(cowfs_here("export", database).splitlines()) == 15
    cowfs_here("check", database)
    people.write_text(good)
    cowfs_here("import", "--batch", "5", "--from-line", "16", database, people)
    exported = [json.loads(text) for text in cowfs_here("export", database).splitlines()]
    assert [entity[":person/email"] for entity in exported] == [f"p{number}@x.org" for number in range(25)]


def test_import_keeps_no_history_of_its_batches_unless_asked(tmp_path: Path) -> None:
    retained = []
    (tmp_path / "lines").write_text("".join(f'{{":note/number": {number}}}\n' for number in range(30)))
    for name, options in (("plain", ()), ("kept", ("--keep-history",))):
        cowfs_here("init", tmp_path / name)
        cowfs_here("import", "--batch", "5", *options, tmp_path / name, tmp_path / "lines")
        retained.append(json.loads(cowfs_here("retain", tmp_path / name, "--json"))["commits"])
        cowfs_here("check", tmp_path / name)
    assert retained == [1, 7]


def test_import_of_several_files_and_of_empty_lines(database: Path, people: Path, tmp_path: Path) -> None:
    (tmp_path / "more.jsonl").write_text("\n\n" + json.dumps(_person(99)) + "\n\n" + json.dumps(_person(98)))
    cowfs_here("import", "--no-sync", database, people, tmp_path / "more.jsonl")
    assert len(cowfs_here("export", database).splitlines()) == 27
    assert "No such file" in refused_here("import", database, people, tmp_path / "missing", code=1)


@pytest.fixture
def invoices(tmp_path: Path) -> Iterator[Path]:
    """A database with two entities of its own; it stays sound."""
    database = tmp_path / "invoices"
    cowfs_here("init", database)
    cowfs_here("transact", database, stdin='[{":db/id": 1, ":sum": 10}, {":db/id": 2, ":sum": 20, ":next": {":db/id": 1}}]')
    yield database
    assert ": ok (" in cowfs_here("check", database)


_EXPORT = """\
{":db/id": 1, ":name": "Ann", ":boss": {":db/id": 3}}

{":db/id": 3, ":name": "Eve", ":boss": {":db/id": 1}}
"""


def test_an_import_does_not_change_entities_that_have_its_numbers_by_chance(invoices: Path, tmp_path: Path) -> None:
    file = tmp_path / "export.jsonl"
    file.write_text('{":name": "Zoe"}\n' + _EXPORT)
    before = cowfs_here("export", invoices)
    for batch in ("1000", "1"):
        line = refused_here("import", "--batch", batch, invoices, file, code=1)
        assert f"{file}, line 2: entity 1 has data that this import did not make: --renumber" in line
        assert "--keep-ids" in line
        assert f"--from-line {2 if batch == '1' else 1})" in line
        assert cowfs_here("export", invoices).startswith(before)
    assert "entity 1 has data" in refused_here("import", "--dry-run", invoices, file, code=1)
    assert "5 datoms imported" in cowfs_here("import", "--renumber", "--batch", "1", invoices, file)
    documents = [json.loads(line) for line in cowfs_here("export", invoices).splitlines()]
    assert documents[:2] == [json.loads(line) for line in before.splitlines()]
    assert [document[":name"] for document in documents[2:]] == ["Zoe", "Zoe", "Ann", "Eve"]
    assert [document[":boss"] for document in documents[4:]] == [{":db/id": 6}, {":db/id": 5}]
    cowfs_here("import", "--keep-ids", invoices, file)
    assert json.loads(cowfs_here("export", invoices).splitlines()[0])[":name"] == "Ann"


def test_an_import_with_ids_goes_on_where_it_was_interrupted(database: Path, tmp_path: Path) -> None:
    file, bad = tmp_path / "export.jsonl", '{":db/id": 7, ":person/weight": "heavy"}\n'
    lines = [json.dumps({":db/id": number % 4 + 1, **_person(number % 4)}) + "\n" for number in range(8)]
    file.write_text("".join([*lines[:5], bad, *lines[6:]]))
    line = refused_here("import", "--batch", "2", database, file, code=1)
    assert "line 6" in line
    assert "--from-line 5" in line
    file.write_text("".join(lines))
    cowfs_here("import", "--batch", "2", "--from-line", "5", database, file)
    assert len(cowfs_here("export", database).splitlines()) == 4
    cowfs_here("check", database)


def test_two_files_of_an_import_do_not_share_entities_by_chance(database: Path, tmp_path: Path) -> None:
    ann, bob = tmp_path / "ann.jsonl", tmp_path / "bob.jsonl"
    ann.write_text('{":db/id": 7, ":name": "Ann"}\n{":db/id": 8, ":boss": {":db/id": 7}}\n{":db/id": 7, ":city": "Rome"}\n')
    bob.write_text('{":db/id": 9, ":boss": {":db/id": 8}}\n{":db/id": 7, ":name": "Bob"}\n')
    line = refused_here("import", database, ann, bob, code=1)
    assert f"{bob}, line 2: entity 7 has data from an earlier file: --keep-ids" in line
    assert f"{ann} is committed, and nothing of {bob}" in line
    names = [json.loads(line).get(":name") for line in cowfs_here("export", database).splitlines()]
    assert names == ["Ann", None]
    cowfs_here("import", "--keep-ids", database, ann, bob)
    assert json.loads(cowfs_here("export", database).splitlines()[0]) == {":db/id": 7, ":city": "Rome", ":name": "Bob"}
    assert ": ok (" in cowfs_here("check", database)


def test_an_import_that_lacks_lines_is_said(invoices: Path) -> None:
    before = cowfs_here("export", invoices)
    first, last = _EXPORT.split("\n\n")
    for options, outcome in ((["--dry-run"], "dry run: nothing was done"), ([], "`cowfs revert")):
        line = refused_here("import", "--renumber", *options, invoices, "-", stdin=first, code=1)
        assert "entity 3 of the data is referred to, and no line defines it" in line
        assert outcome in line
        cowfs_here("revert", invoices, "2")
        assert cowfs_here("export", invoices) == before
    line = refused_here("import", "--renumber", "--batch", "1", invoices, "-", stdin=f"{first}\n{last}7", code=1)
    assert "standard input, line 3: " in line
    assert f"(lines 1 to 2 are committed; `cowfs revert {invoices} " in line
    for wrong in (["--renumber", "--keep-ids"], ["--renumber", "--from-line", "2"]):
        assert "--renumber" in refused_here("import", *wrong, invoices, "-", stdin=first, code=2)


def test_a_dry_run_of_an_import(database: Path, people: Path) -> None:
    assert "dry run: nothing was done" in cowfs_here("import", "--dry-run", "--batch", "10", database, people)
    lines = people.read_text().splitlines(keepends=True)
    people.write_text("".join([*lines, *lines[:3], '{":person/email": 7}\n']))
    line = refused_here("import", "--dry-run", "--batch", "10", database, people, code=1)
    assert f"{people}, line 29: " in line
    assert line.endswith("(dry run: nothing was done)")
    assert cowfs_here("export", database) == ""
    people.write_text("".join(lines))
    would = cowfs_here("import", "--dry-run", database, people)
    done = cowfs_here("import", database, people)
    assert would.partition(" would")[0] == done.partition(" imported")[0]
    assert done.endswith(", txid 2\n")
    cowfs_here("check", database)


# -- mistakes -------------------------------------------------------------------------------------------------------------


def test_export_into_a_pipe_that_closes_is_quiet(database: Path, tmp_path: Path) -> None:
    file = tmp_path / "many.jsonl"
    file.write_text("".join(json.dumps(_person(number)) + "\n" for number in range(3000)))
    cowfs_here("import", "--no-sync", database, file)
    result = run("bash", "-c", '"$@" | head -1', "bash", *COWFS, "export", database)
    assert len(result.stdout.splitlines()) == 1
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("", 1),
        ("{", 1),
        ("[NaN]", 1),
        ('[{":person/weight": Infinity}]', 1),
        ('[{":person/weight": 1e-400}]', 1),
        ('[{":db/id": "datomic.tx", ":person/weight": 1}]', 1),
        ('[{":db/id": ":db/current-tx", ":person/weight": 1}]', 1),
        ('[{":db/id": "\\ud800", ":person/weight": 1}]', 1),
        ('[{":db/id": 9007199254740991, ":person/weight": 1}]', 1),
        ('[{":db/id": -1}]', 1),
        ('[{":person/weight": -0.001e-400}]', 1),
        ("{}", 1),
        ("null", 1),
        ("[7]", 1),
        ("[" * 100_000, 1),
    ],
)
def test_wrong_transaction_data_is_one_line(database: Path, text: str, code: int) -> None:
    refused_here("transact", database, stdin=text, code=code)
    assert json.loads(cowfs_here("status", "--json", database))["txid"] == 0 or cowfs_here("export", database) == ""


def test_files_that_cannot_be_read_are_one_line(database: Path, tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b'["\xff"]')
    for command in ("transact", "import"):
        refused_here(command, database, tmp_path / "missing", code=1)
        refused_here(command, database, tmp_path, code=1)
        assert "UTF-8" in refused_here(command, database, tmp_path / "latin", code=1)
    refused_here("init", tmp_path / "new", "--schema", tmp_path / "missing", code=1)
    refused_here("init", tmp_path / "new", "--schema", tmp_path / "latin", code=1)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("schema", ["[]", "7", '{":a/b": 7}', '{":a/b": {":db/valueType": ":db.type/nonsense"}}', "{"])
def test_a_wrong_schema_is_one_line_and_makes_no_database(tmp_path: Path, schema: str) -> None:
    (tmp_path / "schema").write_text(schema)
    refused_here("init", tmp_path / "new", "--schema", tmp_path / "schema", code=1)
    assert not (tmp_path / "new").exists()


def test_init_refuses_what_is_there(database: Path, tmp_path: Path) -> None:
    before = _digests(database)
    refused_here("init", database, code=2)
    refused_here("init", tmp_path / "schema.json", code=2)
    refused_here("init", tmp_path / "schema.json/db", code=2)
    assert _digests(database) == before
    (tmp_path / "empty").mkdir()
    cowfs_here("init", tmp_path / "empty")


@pytest.mark.parametrize("command", ["transact", "export", "status", "check", "import", "restore", "log", "retain"])
def test_what_is_no_database_is_one_line(tmp_path: Path, command: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text/data.mdb").write_text("hello, this is no database\n" * 1000)
    (tmp_path / "nothing").mkdir()
    (tmp_path / "nothing/data.mdb").touch()
    (tmp_path / "directory/data.mdb").mkdir(parents=True)
    (tmp_path / "input").write_text("[]")
    rest = {"transact": [tmp_path / "input"], "import": [tmp_path / "input"], "restore": [tmp_path / "new"]}.get(command, [])
    for name in ("missing", "missing/deeper", "empty", "text", "nothing", "directory", "input", "input/deeper", "/dev/null"):
        line = refused_here(command, tmp_path / name, *rest, code=1)
        assert name in line
    assert sorted(os.listdir(tmp_path)) == ["directory", "empty", "input", "nothing", "text"]
    assert os.listdir(tmp_path / "empty") == []
    assert os.listdir(tmp_path / "text") == ["data.mdb"]


def test_names_that_are_no_utf_8(tmp_path: Path) -> None:
    database = os.fsencode(tmp_path) + b"/d\xff\xfeb"
    cowfs("init", database)
    for command in ("status", "check", "export"):
        cowfs(command, database)
    cowfs("restore", database, os.fsencode(tmp_path) + b"/new\xff")
    refused("check", database + b"x", code=1)


def test_a_command_that_does_not_exist() -> None:
    assert "No such command" in run(*COWFS, "explode", code=2).stderr
    assert "Usage" in run(*COWFS, "check", code=2).stderr


# -- restore --------------------------------------------------------------------------------------------------------------


def test_a_backup_is_restored_and_not_touched(filled: Path, tmp_path: Path) -> None:
    with mounted(filled, tmp_path / "mnt") as mount:
        run("rsync", "-a", f"{mount.latest}/", tmp_path / "backup")
    before, exported = _digests(tmp_path / "backup"), cowfs_here("export", filled)
    cowfs_here("transact", filled, stdin='[[":db/retractEntity", 1]]')
    assert "txid 5, checked" in cowfs_here("restore", tmp_path / "backup", tmp_path / "new")
    assert _digests(tmp_path / "backup") == before
    assert cowfs_here("export", tmp_path / "new") == exported
    assert "txid 6" in cowfs_here("transact", tmp_path / "new", stdin='[{":person/name": "after"}]')
    cowfs_here("check", tmp_path / "new")
    assert "not checked" in cowfs_here("restore", "--no-check", tmp_path / "backup/data.mdb", tmp_path / "new2")
    assert cowfs_here("export", tmp_path / "new2") == exported


def test_a_directory_of_a_mount_is_restored_directly(filled: Path, tmp_path: Path) -> None:
    with mounted(filled, tmp_path / "mnt") as mount:
        txid = mount.txids()[-1]
        cowfs_here("transact", filled, stdin='[[":db/retractEntity", 1]]')
        cowfs_here("restore", mount.snapshot(txid), tmp_path / "old")
        cowfs_here("restore", mount.live, tmp_path / "now")
        assert cowfs_here("export", tmp_path / "old") == cowfs_here("export", mount.snapshot(txid))
        assert cowfs_here("export", tmp_path / "now") == cowfs_here("export", filled)


def test_restore_refuses_a_target_that_is_there(filled: Path, tmp_path: Path) -> None:
    (tmp_path / "full/x").mkdir(parents=True)
    (tmp_path / "file").touch()
    before = _digests(filled)
    for target in ("full", "file", "db", "missing/new", "file/new"):
        refused_here("restore", filled, tmp_path / target, code=2)
    assert _digests(filled) == before
    assert not [name for name in os.listdir(tmp_path) if "restore" in name]
    (tmp_path / "empty").mkdir()
    cowfs_here("restore", filled, tmp_path / "empty")


def test_restore_of_a_damaged_backup_leaves_nothing_behind(filled: Path, tmp_path: Path) -> None:
    backup = tmp_path / "backup"
    cowfs_here("restore", filled, backup)
    content = bytearray((backup / "data.mdb").read_bytes())
    one, two = [at for at in range(2 * 4096, len(content), 4096) if any(content[at : at + 4096])][-2:]  # free ones are zeros
    content[one + 100 : one + 900] = bytes(800)
    content[two : two + 16] = b"\xff" * 16
    (backup / "data.mdb").write_bytes(content)
    before = _digests(backup)
    result = run_here("restore", backup, tmp_path / "new", code=1)
    assert "damaged" in result.stderr or "page" in result.stderr
    assert not (tmp_path / "new").exists()
    assert not [name for name in os.listdir(tmp_path) if "restore" in name]
    assert _digests(backup) == before
    assert cowfs_here("check", backup, code=1)
    assert json.loads(cowfs_here("check", "--json", backup, code=1))["ok"] is False


@pytest.mark.parametrize("command", ["check", "export", "restore", "status", "transact", "mount"])
def test_a_truncated_database_is_one_line(filled: Path, tmp_path: Path, command: str) -> None:
    (tmp_path / "mnt").mkdir()
    size = (filled / "data.mdb").stat().st_size
    for length in (size // 2 // 4096 * 4096, size // 2 + 17, 8192, 4096, 4000, 100):
        os.truncate(filled / "data.mdb", length)
        rest = {"restore": [tmp_path / "new"], "mount": [tmp_path / "mnt"]}.get(command, [])
        refused_here(command, filled, *rest, code=1, stdin="[]")
    assert not (tmp_path / "new").exists()


def test_a_terminal_gets_no_progress_into_its_output(filled: Path, tmp_path: Path) -> None:
    result = run("script", "-qec", f"{' '.join(COWFS)} check {filled}", "/dev/null", code=0)
    assert ": ok (" in result.stdout
    assert one_line(run(*COWFS, "check", tmp_path / "missing", code=1))


# The demo with the countries and every tenth city, for a test.
_SMALL_DEMO = """
from cowfs.cli.demo import geonames
from cowfs.cli import main
entities = enumerate(geonames._entities())
some = [entity for number, entity in entities if ":country/iso" in entity or number % 10 == 0]
geonames._entities = lambda: iter(some)
print(f"{len(some):,} entities")
main.commands(["demo"])
"""


def test_an_ordinary_user_runs_the_demo(tmp_path: Path) -> None:
    with ordinary_user(tmp_path / "home") as user:
        shown = user.python(_SMALL_DEMO)
        assert shown.count(shown.partition("\n")[0]) == 2
        assert "$ cowfs restore backup/latest restored" in shown
        assert shown.count("none of the") == 2
        assert list(user.home.glob("cowfs-demo-*")) == []


def test_the_demos_data_are_written_once(tmp_path: Path) -> None:
    there = tmp_path / "new" / "it's here"
    shown = cowfs_here("demo", "--data", there)
    assert shown.startswith(f"{there}: 34,258 entities; next: cowfs init geo --schema ")
    commands = [shlex.split(command) for command in shown.partition("next: ")[2].split(" && ")]
    assert commands == [
        ["cowfs", "init", "geo", "--schema", f"{there}/schema.json"],
        ["cowfs", "import", "geo", f"{there}/geonames.jsonl"],
    ]
    assert len((there / "geonames.jsonl").read_text().splitlines()) == 34_258
    before = {path.name: path.read_bytes() for path in there.iterdir()}
    assert "schema.json: exists already" in refused_here("demo", "--data", there, code=2)
    assert {path.name: path.read_bytes() for path in there.iterdir()} == before
    (there / "geonames.jsonl").write_text("mine")
    (there / "schema.json").unlink()
    assert "geonames.jsonl: exists already" in refused_here("demo", "--data", there, code=2)
    assert {path.name: path.read_text() for path in there.iterdir()} == {"geonames.jsonl": "mine"}


def test_the_demos_data_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert "File exists" in refused_here("demo", "--data", tmp_path / "file", code=2)
    assert "Not a directory" in refused_here("demo", "--data", tmp_path / "file" / "below", code=2)
    assert "--keep" in refused_here("demo", "--data", tmp_path / "x", "--keep", code=2)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    (tmp_path / "full").mkdir()
    script = 'mount -t tmpfs -o size=64k none "$1"; "${@:2}" demo --data "$1/data" || ls -A "$1/data"'
    full = in_private_mounts(script, tmp_path / "full", *COWFS)
    assert (full.stdout, full.stderr) == (
        "",
        f"cowfs: {tmp_path}/full/data/geonames.jsonl: cannot be written: No space left on device\n",
    )


def test_one_map_is_a_transaction(database: Path) -> None:
    assert "+1 -0 datoms" in cowfs_here("transact", database, stdin='{":db/id": 1, ":person/name": "Ann"}')
    assert "a list of forms, not a string" in refused_here("transact", database, stdin='"Ann"', code=1)
    assert cowfs_here("export", database).splitlines() == ['{":db/id":1,":person/name":"Ann"}']


def test_import_begins_where_standard_input_stands(database: Path, people: Path) -> None:
    script = 'exec <"$1"; read -r; "${@:2}"'  # of a file, bash reads no more than the line
    run("bash", "-c", script, "bash", people, *COWFS, "import", database, "-")
    assert len(cowfs_here("export", database).splitlines()) == 24
    cowfs_here("check", database)
