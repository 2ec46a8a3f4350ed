"""A limit of address space: readers do not notice it, a writer takes a map that it allows, and names it when it cannot."""

from __future__ import annotations

import resource
import sys
from pathlib import Path

import lmdb
import pytest

from cowfs import Store
from cowfs.engine import mapsize
from cowfs.engine.mapsize import FULL, map_size
from cowfs.engine.translate import domain_error
from cowfs.errors import DiskFull, EnvironmentFailure
from tests.support.commands import COWFS, LIMIT, Completed, run

GIB = 1 << 30
MIB = 1 << 20


def limit(monkeypatch: pytest.MonkeyPatch, limit: int, used: int = 50 * MIB) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _which: (limit, limit))
    monkeypatch.setattr(mapsize, "_address_space_used", lambda: used)


def test_without_a_limit_the_map_is_huge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit(monkeypatch, resource.RLIM_INFINITY)
    assert map_size(tmp_path, GIB, GIB) == FULL
    assert map_size(tmp_path, GIB, 2 * FULL) == 2 * FULL


def test_below_a_limit_the_map_is_half_of_what_there_is_and_the_file_at_least(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limit(monkeypatch, 4 * GIB)
    room = 4 * GIB - 114 * MIB
    assert map_size(tmp_path, 8192, FULL) == room // 2
    assert map_size(tmp_path, 3 * GIB, FULL) == 3 * GIB + 16 * MIB
    with pytest.raises(
        EnvironmentFailure, match=r"cannot map .*: the limit of address space \(`ulimit -v`\) is 4,194,304 KiB"
    ):
        map_size(tmp_path, room, FULL)
    limit(monkeypatch, 8 * FULL)
    assert map_size(tmp_path, GIB, GIB) == FULL


def test_what_fails_for_want_of_address_space_names_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    short: list[lmdb.Error | OSError] = [
        lmdb.MapFullError("x"),
        lmdb.MapResizedError("x"),
        lmdb.MemoryError("x"),
        OSError(12, "Cannot allocate memory"),
    ]
    for error in short:
        limit(monkeypatch, GIB)
        assert "`ulimit -v`" in str(domain_error(error, tmp_path))
        assert not isinstance(domain_error(error, tmp_path), DiskFull), "no history is given up for it"
        limit(monkeypatch, resource.RLIM_INFINITY)
        assert "`ulimit -v`" not in str(domain_error(error, tmp_path))


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("limits") / "db"
    with Store.create(path, durability="none") as store:
        store.transact([{":name": "Ann"}])
    return path


def limited(kibibytes: int, *command: str | Path, code: int = 0, stdin: str | None = None) -> Completed:
    script = f'ulimit -v {kibibytes}; exec "$@"'
    return run("bash", "-c", script, "bash", *COWFS, *command, code=code, stdin=stdin, limit=LIMIT)


@pytest.mark.parametrize("command", ["status", "export"])
def test_reading_needs_no_map(database: Path, command: str) -> None:
    assert limited(90_000, command, database).stdout != ""


def test_writing_takes_a_map_that_fits(database: Path) -> None:
    assert "txid" in limited(4_000_000, "transact", database, stdin='[{"name": "Bob"}]').stdout
    line = limited(90_000, "transact", database, stdin='[{"name": "Cid"}]', code=1).stderr
    assert line.count("\n") == 1
    assert "the limit of address space (`ulimit -v`) is 90,000 KiB" in line
    assert "ok (" in limited(90_000, "check", database).stdout


_GROWING = """
import sys
from cowfs import Store
from cowfs.errors import EnvironmentFailure
with Store.open(sys.argv[1], "none") as store:
    try:
        for number in range(1000):
            store.transact([{":text": "x" * 4_000_000}])
    except EnvironmentFailure as error:
        print(number, error)
    with store.db() as db:
        print(db.datom_count)
"""


def test_a_file_that_outgrows_its_map_says_why_and_is_whole(tmp_path: Path) -> None:
    with Store.create(tmp_path / "db", durability="none"):
        pass
    script = 'ulimit -v 200000; exec "$@"'
    output = run("bash", "-c", script, "bash", sys.executable, "-c", _GROWING, tmp_path / "db").stdout.splitlines()
    number, _, text = output[0].partition(" ")
    assert 3 < int(number) < 50
    assert text.endswith("no address space left: the limit of address space (`ulimit -v`) is 200,000 KiB; raise it")
    assert output[1] == number
    with Store.open(tmp_path / "db", "none") as store:
        assert store.transact([{":text": "more"}]).txid == int(number) + 2
    assert "ok (" in run(*COWFS, "check", tmp_path / "db").stdout
