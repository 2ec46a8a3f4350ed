"""The data of a store as files, through a real mount, with the tools that people have."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import lmdb
import pytest

from cowfs import Store
from tests.support import churn
from tests.support.commands import cowfs, run
from tests.support.mounted import Mount, mounted

_SCHEMA = {
    ":person/email": {":db/valueType": ":db.type/string", ":db/unique": ":db.unique/identity"},
    ":person/name": {":db/valueType": ":db.type/string"},
    ":person/friend": {":db/valueType": ":db.type/ref", ":db/cardinality": ":db.cardinality/many"},
}
_PEOPLE = 1500


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    directory = tmp_path_factory.mktemp("browse")
    with Store.create(directory / "db", _SCHEMA, durability="none") as store:
        store.transact(
            [
                {
                    ":db/id": number + 1,
                    ":person/email": f"p{number}@x.org",
                    ":person/name": f"Person\t{number}",
                    ":person/friend": [number // 2 + 1],
                }
                for number in range(_PEOPLE)
            ]
        )
        store.transact([[":db/add", 7, ":person/name", "Seven"], [":db/retract", 8, ":person/name", "Person\t7"]])
        with mounted(directory / "db", directory / "mnt") as mount:
            yield mount
    churn.require_sound(directory / "db")


def _newest(mount: Mount) -> int:
    return int(json.loads((mount.live / "snapshot.json").read_text())["txid"])


def _shell(script: str, directory: Path) -> str:
    return run("bash", "-c", f"set -euo pipefail; {script}", cwd=directory).stdout.strip()


def test_a_shell_finds_its_way(mount: Mount) -> None:
    live = mount.live
    assert sorted(os.listdir(mount.point)) == ["browse", "live", "snapshots"]
    assert {"attributes", "entities", "history", "log", "unique"} <= set(os.listdir(live))
    assert _shell("ls entities", live).split() == ["0-999", "1000-1999"]
    assert _shell("find entities -type f | wc -l", live) == str(_PEOPLE)
    assert _shell("grep -rl 'p1234@x.org' entities", live) == "entities/1000-1999/1235.json"
    assert _shell("readlink -f unique/person/email/p41@x.org.json", live).endswith("/live/entities/0-999/42.json")
    assert json.loads(_shell("cat unique/person/email/p41@x.org.json", live))[":db/id"] == 42
    assert json.loads((live / "entities" / "42.json").read_text()) == json.loads(
        (live / "entities/0-999/42.json").read_text()
    )
    assert _shell("wc -l < attributes/person/email.tsv", live) == str(_PEOPLE)
    assert _shell("awk -F'\\t' 'NF != 3' attributes/person/name.tsv | wc -l", live) == "0"
    size = (live / "attributes" / "person" / "name.tsv").stat().st_size
    assert size == len((live / "attributes" / "person" / "name.tsv").read_bytes())
    columns = [f"<(sort -t$'\\t' -k2,2 attributes/person/{name}.tsv)" for name in ("email", "name")]
    joined = f"join -t$'\\t' -1 2 -2 2 {columns[0]} {columns[1]}"
    assert _shell(f"{joined} | wc -l", live) == str(_PEOPLE - 1)


def test_pieces_of_a_column_are_the_column(mount: Mount, tmp_path: Path) -> None:
    column = mount.point / "browse" / str(_newest(mount)) / "attributes" / "person" / "email.tsv"
    whole = column.read_bytes()
    assert run("tail", "-c", "1000", column).stdout.encode() == whole[-1000:]
    assert run("head", "-c", "777", column).stdout.encode() == whole[:777]
    _shell(f"split -b 4000 '{column}' piece-", tmp_path)
    assert b"".join(piece.read_bytes() for piece in sorted(tmp_path.glob("piece-*"))) == whole
    run("rsync", "-a", column, tmp_path / "copy")
    assert (tmp_path / "copy").read_bytes() == whole


def test_the_difference_of_two_commits_is_what_the_transaction_did(mount: Mount) -> None:
    new = _newest(mount)
    found = run(
        "diff",
        "--no-dereference",
        "-r",
        mount.point / "browse" / str(new - 1),
        mount.point / "browse" / str(new),
        code=1,
    )
    assert "Seven" in found.stdout
    changed = {line.split()[-1].rsplit("/browse/", 1)[1] for line in found.stdout.splitlines() if line.startswith("diff ")}
    assert changed == {
        f"{new}/entities/0-999/7.json",
        f"{new}/entities/0-999/8.json",
        f"{new}/attributes/person/name.tsv",
        f"{new}/snapshot.json",
    }
    assert f"Only in {mount.point}/browse/{new}/log/0-999: {new}.json" in found.stdout


def test_a_browse_tree_can_be_copied_and_nothing_changes_the_second_time(mount: Mount, tmp_path: Path) -> None:
    source = mount.point / "browse" / str(_newest(mount))
    run("rsync", "-a", f"{source}/", tmp_path / "copy")
    assert run("rsync", "-anciHAX", "--delete", f"{source}/", tmp_path / "copy").stdout == ""
    run("cp", "-a", source, tmp_path / "second")
    run("diff", "-r", tmp_path / "copy", tmp_path / "second")
    _shell(f"tar -C '{source}' -cf - . | tar -C '{tmp_path}' -xf - && true", tmp_path)
    run("diff", "-r", tmp_path / "copy" / "entities", tmp_path / "entities")


def test_live_is_fresh_and_an_open_file_keeps_its_version(tmp_path: Path) -> None:
    with Store.create(tmp_path / "db", _SCHEMA, durability="none") as store:
        store.transact([{":person/email": "a@x", ":person/name": "first " * 3000}])
        with mounted(tmp_path / "db", tmp_path / "mnt") as mount:
            entity, column = mount.live / "entities" / "1.json", mount.live / "attributes" / "person" / "name.tsv"
            for number in range(20):
                with entity.open("rb", buffering=0) as file, column.open("rb", buffering=0) as lines:
                    before, old = entity.read_bytes(), column.read_bytes()
                    head = file.read(10) + lines.read(10)
                    store.transact([[":db/add", 1, ":person/name", f"version {number} " * number]])
                    assert json.loads(entity.read_bytes())[":person/name"] == f"version {number} " * number
                    assert entity.stat().st_size == len(entity.read_bytes())
                    assert column.stat().st_size == len(column.read_bytes())
                    rest = b""
                    while piece := file.read(4096):
                        rest += piece
                    assert head[:10] + rest == before
                    rest = b""
                    while piece := lines.read(4096):
                        rest += piece
                    assert head[10:] + rest == old
    churn.require_sound(tmp_path / "db")


def test_an_entity_of_an_old_commit_can_be_transacted_back(tmp_path: Path) -> None:
    with Store.create(tmp_path / "db", _SCHEMA, durability="none") as store:
        first = store.transact([{":db/id": 1, ":person/email": "a@x", ":person/name": "Ann", ":person/friend": [1]}]).txid
        store.transact([[":db/add", 1, ":person/name", "Nobody"]])
        with mounted(tmp_path / "db", tmp_path / "mnt") as mount:
            old = mount.point / "browse" / str(first) / "entities" / "1.json"
            document = old.read_text()
            cowfs("transact", tmp_path / "db", "-", stdin=f"[{document}]")
            assert (mount.live / "entities" / "1.json").read_text() == document
            assert sorted(os.listdir(mount.live / "history" / "1")) == ["2.json", "3.json", "4.json"]
    churn.require_sound(tmp_path / "db")


def test_tail_follows_the_transactions(tmp_path: Path) -> None:
    with Store.create(tmp_path / "db", _SCHEMA, durability="none") as store:  # noqa: SIM117 - the mount opens what is there
        with mounted(tmp_path / "db", tmp_path / "mnt") as mount:
            command = ["tail", "-n", "+1", "-s", "0.1", "-f", str(mount.live / "log" / "current")]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as tail:
                try:
                    assert tail.stdout is not None
                    for number in range(5):
                        txid = store.transact([{":person/email": f"p{number}@x"}]).txid
                        assert json.loads(tail.stdout.readline())["txid"] == txid
                        time.sleep(0.15)
                finally:
                    tail.kill()
    churn.require_sound(tmp_path / "db")


def test_wrong_names_are_not_there_and_nothing_can_be_written(mount: Mount) -> None:
    for wrong in (
        "browse/99999", "browse/007", "browse/x", "browse/1/data.mdb", "live/entities/0.json", "live/entities/x.json",
        "live/entities/0-999/1042.json", "live/entities/5-10", "live/attributes/person/none.tsv", "live/attributes/none",
        "live/unique/person/name", "live/unique/person/email/nobody.json", "live/log/99999.json", "live/history/99999",
    ):  # fmt: skip
        assert not os.path.lexists(mount.point / wrong), wrong
    for path in (
        "live/entities/0-999/1.json",
        "browse/latest/attributes/person/name.tsv",
        "live/unique/person/email/p1@x.org.json",
    ):
        with pytest.raises(OSError, match="Read-only"):
            (mount.point / path).unlink()
    with pytest.raises(OSError, match="Read-only"):
        (mount.point / "browse" / "name").mkdir()


def test_a_file_manager_can_look(mount: Mount) -> None:
    for directory in (
        mount.live,
        mount.live / "entities" / "0-999",
        mount.point / "browse",
        mount.live / "unique" / "person",
    ):
        for entry in os.scandir(directory):
            status = entry.stat(follow_symlinks=False)
            assert entry.inode() == status.st_ino
            assert entry.is_dir(follow_symlinks=False) == (status.st_nlink == 2)
            assert os.listxattr(entry.path, follow_symlinks=False) == []


def test_a_foreign_environment_has_no_browse_tree_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    with lmdb.open(str(tmp_path / "db"), lib_version=0) as env, env.begin(write=True) as txn:
        txn.put(b"key", b"value")
    with mounted(tmp_path / "db", tmp_path / "mnt") as mount:
        assert sorted(os.listdir(mount.point)) == ["live", "snapshots"]
        assert "not a cowfs store" in (mount.live / "README").read_text()
        assert not (mount.live / "entities").exists()
        assert not (mount.point / "browse").exists()
