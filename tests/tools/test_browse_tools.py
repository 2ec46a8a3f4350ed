"""Real data, real tools: the demo's countries and cities through a mount, and the store itself for what is true."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from cowfs import Store
from cowfs.cli.demo import geonames
from cowfs.store.read.db import Db
from tests.support import churn
from tests.support.commands import LIMIT, run
from tests.support.mounted import mounted

_BATCH = 20_000
_MIXED = "entities/0-999"  # the countries, and cities after them
_CITIES = "entities/34000-34999"  # the last block, with 259 cities


@dataclass
class World:
    """A commit with the demo's data: its directory below ``browse/``, and the store's own answers."""

    tree: Path
    db: Db
    seconds: dict[int, int]  # when each transaction was made

    def shell(self, script: str) -> str:
        """Return what a script prints in the tree; it must end, with all that it starts, and not complain."""
        command = ["timeout", "--kill-after=1", str(LIMIT), "bash", "-euc", script]
        result = run(*command, cwd=self.tree, limit=LIMIT + 5, env={"LC_ALL": "C.UTF-8"})
        assert result.stderr == ""
        return result.stdout

    def lines(self, script: str) -> list[list[str]]:
        """Return the lines that a script prints, split at the tabs."""
        return [line.split("\t") for line in self.shell(script).splitlines()]

    def values(self, attribute: str) -> dict[int, Any]:
        """Return the value that each entity has of an attribute."""
        return {datom.e: datom.v for datom in self.db.datoms("ave", attribute)}

    def mtime(self, entity: int) -> int:
        """Return when an entity was last changed, in whole seconds."""
        return self.seconds[self.db.last_touched(entity) or 0]

    def documents(self, block: str) -> dict[str, Any]:
        """Return what the files of a block must contain, by name."""
        first, last = map(int, block.removeprefix("entities/").split("-"))
        numbers = self.db.entities(max(first, 1), last + 1)
        return {f"{number}.json": self.db.entity_json(number) for number in numbers}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory = tmp_path_factory.mktemp("world")
    _schema, data, _entities = geonames.write(directory)
    seconds = {}
    with Store.create(directory / "db", geonames.SCHEMA, durability="none") as store:
        with data.open() as file:
            while batch := [json.loads(line) for line in islice(file, _BATCH)]:
                report = store.transact(batch)
                seconds[report.txid] = int(report.instant.timestamp())
        with mounted(directory / "db", directory / "mnt") as mount, store.db() as db:
            yield World(mount.point / "browse" / str(db.txid), db, seconds)
    churn.require_sound(directory / "db")


def _require_documents(directory: Path, documents: dict[str, Any]) -> None:
    assert {path.name: json.loads(path.read_text()) for path in directory.iterdir()} == documents


def test_find_finds_every_entity_once(world: World) -> None:
    blocks = {number: f"{number // 1000 * 1000}-{number // 1000 * 1000 + 999}" for number in world.db.entities()}
    found = world.shell("find entities -type f").splitlines()
    assert len(found) == 34_258
    assert sorted(found) == sorted(f"entities/{block}/{number}.json" for number, block in blocks.items())


def test_ls_tells_sizes_and_times(world: World) -> None:
    lines = [line.split() for line in world.shell(f"ls -lR --time-style=+%s {_CITIES}").splitlines()]
    rows = [(words[6], words[0], int(words[4]), int(words[5])) for words in lines if len(words) == 7]
    assert sorted(rows) == sorted(
        (name, "-rw-r--r--", len((world.tree / _CITIES / name).read_bytes()), world.mtime(document[":db/id"]))
        for name, document in world.documents(_CITIES).items()
    )


def test_grep_finds_the_entities_with_a_value(world: World) -> None:
    for zone, block in (("Europe/Andorra", _MIXED), ("Africa/Harare", _CITIES)):
        wanted = {datom.e for datom in world.db.datoms("ave", ":city/timezone", zone)}
        documents = world.documents(block)
        expected = {f"{block}/{name}" for name in documents if int(name.removesuffix(".json")) in wanted}
        assert 0 < len(expected) < len(documents)
        assert set(world.shell(f"grep -rl '\"{zone}\"' {block}").splitlines()) == expected


def test_jq_reads_the_documents(world: World) -> None:
    printed = world.shell(f"jq -c . {_MIXED}/*.json").splitlines()
    documents = world.documents(_MIXED).values()
    assert {document[":db/id"]: document for document in map(json.loads, printed)} == {
        document[":db/id"]: document for document in documents
    }
    crowded = world.shell(f"""jq -r 'select(.[":country/neighbour"] | length > 7) | .[":country/iso"]' {_MIXED}/*.json""")
    neighbours = Counter(datom.e for datom in world.db.datoms("ave", ":country/neighbour"))
    codes = world.values(":country/iso")
    assert sorted(crowded.split()) == sorted(codes[country] for country, count in neighbours.items() if count > 7)


def test_awk_and_sort_count_a_column(world: World) -> None:
    population, zones = world.values(":city/population"), world.values(":city/timezone")
    largest = sorted(((count, city) for city, count in population.items()), reverse=True)[:10]
    column = "attributes/city/population.tsv"
    assert world.lines(f"sort -k1,1nr -k2,2nr {column} | head -n 10 | cut -f1,2") == [
        [str(count), str(city)] for count, city in largest
    ]
    assert world.shell(f"sort -c -k1,1n -k2,2n {column}; awk '{{ n += $1 }} END {{ printf \"%.0f\", n }}' {column}") == str(
        sum(population.values())
    )
    counted = world.lines("""cut -f1 attributes/city/timezone.tsv | sort | uniq -c | awk '{ print $2 "\\t" $1 }'""")
    assert {zone: int(count) for zone, count in counted} == Counter(zones.values())


def test_join_makes_a_table_of_columns(world: World, tmp_path: Path) -> None:
    by_entity = "sort -t$'\\t' -k2,2 attributes/city"
    world.shell(f"{by_entity}/name.tsv > {tmp_path}/names; {by_entity}/country.tsv > {tmp_path}/countries")
    rows = world.lines(
        f"{by_entity}/population.tsv | join -t$'\\t' -j 2 -o 0,1.1,2.1 - {tmp_path}/names"
        f" | join -t$'\\t' -2 2 -o 0,1.2,1.3,2.1 - {tmp_path}/countries"
    )
    columns = [world.values(f":city/{name}") for name in ("population", "name", "country")]
    cities = sorted(set.intersection(*(set(column) for column in columns)), key=str)
    assert len(cities) > 34_000 - 10
    assert rows == [[str(city), *(str(column[city]) for column in columns)] for city in cities]


def test_tar_packs_a_block(world: World, tmp_path: Path) -> None:
    world.shell(f"tar -cf {tmp_path}/block.tar {_CITIES} unique/country; tar -C {tmp_path} -xf {tmp_path}/block.tar")
    _require_documents(tmp_path / _CITIES, world.documents(_CITIES))
    assert world.shell(f"tar -df {tmp_path}/block.tar") == ""
    isos = tmp_path / "unique" / "country" / "iso"
    assert {path.name: str(path.readlink()) for path in isos.iterdir()} == {
        f"{code}.json": f"../../../{_MIXED}/{country}.json" for country, code in world.values(":country/iso").items()
    }


def test_rsync_copies_once(world: World, tmp_path: Path) -> None:
    parts = f"{_CITIES} attributes/country unique/country"
    first = world.shell(f"rsync -aiR {parts} {tmp_path}").splitlines()
    assert sum(line.startswith(">f+++++++++ entities/") for line in first) == len(world.documents(_CITIES))
    assert world.shell(f"rsync -aciRHAX --delete {parts} {tmp_path}") == ""
    _require_documents(tmp_path / _CITIES, world.documents(_CITIES))
    copied = [line.split("\t") for line in (tmp_path / "attributes/country/population.tsv").read_text().splitlines()]
    assert {int(entity): int(value) for value, entity, _tx in copied} == world.values(":country/population")


def test_a_copy_differs_where_it_is_changed(world: World, tmp_path: Path) -> None:
    world.shell(f"cp -a {_CITIES} attributes/country unique/country/iso {tmp_path}")
    block = tmp_path / Path(_CITIES).name
    _require_documents(block, world.documents(_CITIES))
    assert {path.stat().st_mtime for path in block.iterdir()} == {world.mtime(int(path.stem)) for path in block.iterdir()}
    assert world.shell(f"diff -r {_CITIES} {block}; diff -r attributes/country {tmp_path}/country") == ""
    assert world.shell(f"diff -r --no-dereference unique/country/iso {tmp_path}/iso") == ""
    changed = block / "34123.json"
    changed.chmod(0o644)
    changed.write_text("{}\n")
    assert world.shell(f"diff -rq {_CITIES} {block} || true") == f"Files {_CITIES}/34123.json and {changed} differ\n"


def test_a_file_manager_sees_what_is_there(world: World) -> None:
    """It lists a directory, asks for the status and the extended attributes of each name, and follows the links."""
    codes = {f"{code}.json": country for country, code in world.values(":country/iso").items()}
    inodes = {entry.name: entry.inode() for entry in os.scandir(world.tree / _MIXED)}
    for directory, names in ((_CITIES, world.documents(_CITIES).keys()), ("unique/country/iso", codes.keys())):
        entries = list(os.scandir(world.tree / directory))
        assert {entry.name for entry in entries} == names
        assert len({entry.inode() for entry in entries}) == len(entries)
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            assert (status.st_ino, stat.S_ISLNK(status.st_mode)) == (entry.inode(), entry.is_symlink())
            assert os.listxattr(entry.path, follow_symlinks=False) == []
            if entry.is_symlink():
                assert status.st_size == len(bytes(Path(entry.path).readlink()))
                assert entry.stat().st_ino == inodes[f"{codes[entry.name]}.json"]
    with pytest.raises(OSError, match=f"{os.strerror(errno.ENODATA)}|{os.strerror(errno.ENOTSUP)}"):
        os.getxattr(world.tree / _CITIES / "34123.json", "user.xdg.comment")
