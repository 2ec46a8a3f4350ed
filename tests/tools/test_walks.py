"""What a process sees while another one commits: one commit in a walk of ``latest``, the newest in ``live``."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from cowfs import Store
from tests.support import churn, walker
from tests.support.commands import LIMIT, run
from tests.support.mounted import Mount, mounted

_ROUNDS = {"sleeps": 2, "sleeps-and-lists-again": 1, "reads-slowly": 2}


@dataclass
class _Scene:
    mount: Mount
    writer: churn.Writer
    seed: int


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[_Scene]:
    """A store that is mounted and written."""
    directory = tmp_path_factory.mktemp("walks")
    churn.create("store-none", directory / "db")
    with (
        mounted(directory / "db", directory / "mnt") as mount,
        churn.writing("store-none", directory / "db", directory / "journal", seed=9, pause=0.01) as writer,
    ):
        writer.wait_for(20)
        yield _Scene(mount, writer, 9)


def test_no_walk_of_latest_mixes_two_commits(scene: _Scene) -> None:
    """All ways at once, each by a process of its own."""
    walkers = {way: walker.start(way, scene.mount.latest, _ROUNDS.get(way, 15)) for way in walker.WAYS}
    for way, process in walkers.items():
        with process:
            output, errors = process.communicate(timeout=LIMIT)
        assert process.returncode == 0, f"{way}: {errors}"
        looks = walker.looks(output)
        assert looks, way
        digests: dict[int, str] = {}
        for look in looks:
            assert look.metas == (look.summary, look.summary), f"{way}: {look}"
            assert digests.setdefault(look.summary, look.digest) == look.digest, f"{way}: {look}"
        txids = [look.summary for look in looks]
        assert txids == sorted(txids), f"{way}: went back in {txids}"
    scene.writer.require_running()


def test_listing_latest_again_after_a_pause_shows_the_newest_commit(scene: _Scene) -> None:
    def look() -> int:
        os.listdir(scene.mount.latest)
        return int(json.loads((scene.mount.latest / "snapshot.json").read_text())["txid"])

    first = look()
    scene.writer.wait_for(1)
    time.sleep(walker.PAUSE)
    acknowledged = max(scene.writer.acknowledged())
    assert look() >= acknowledged > first


def test_a_process_that_has_listed_nothing_sees_the_newest_commit(scene: _Scene) -> None:
    acknowledged = max(scene.writer.acknowledged())
    for _ in range(20):
        shown = run("cat", scene.mount.latest / "snapshot.json").stdout
        assert json.loads(shown)["txid"] >= acknowledged
        scene.writer.wait_for(1)
        acknowledged = max(scene.writer.acknowledged())


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with closing(Store.create(tmp_path / "db", {":note/text": {}}, durability="none")) as store:
        store.transact([{":note/text": "the first"}])
        yield store


def test_live_is_fresh_as_soon_as_transact_has_returned(store: Store, tmp_path: Path) -> None:
    with mounted(tmp_path / "db", tmp_path / "mnt") as mount:
        inode = mount.live.stat().st_ino
        for number in range(150):
            report = store.transact([{":note/text": f"note {number} " * 40}])
            look = number % 3
            if look == 0:
                assert (mount.live / "data.mdb").stat().st_size % 4096 == report.txid % 4096
            elif look == 1:
                assert json.loads((mount.live / "snapshot.json").read_text())["txid"] == report.txid
            else:
                assert report.txid in mount.txids()
            assert mount.live.stat().st_mtime == int(report.instant.timestamp())
            assert json.loads((mount.latest / "snapshot.json").read_text())["txid"] == report.txid
        assert mount.live.stat().st_ino == inode


def test_an_open_file_keeps_its_commit(store: Store, tmp_path: Path) -> None:
    with mounted(tmp_path / "db", tmp_path / "mnt") as mount:
        for directory in (mount.live, mount.latest):
            with store.db() as db:
                txid = db.txid
            frozen = (mount.snapshot(txid) / "data.mdb").read_bytes()
            with (
                (directory / "data.mdb").open("rb", buffering=0) as image,
                (directory / "snapshot.json").open("rb") as summary,
            ):
                for number in range(100):
                    store.transact([{":note/text": f"later {number} " * 100}])
                assert (directory / "data.mdb").stat().st_size > len(frozen)
                assert os.lseek(image.fileno(), 0, os.SEEK_END) == len(frozen)
                os.lseek(image.fileno(), 0, os.SEEK_SET)
                assert image.read() == frozen
                assert os.pread(image.fileno(), 100, 4096) == frozen[4096:4196]
                assert json.loads(summary.read())["txid"] == txid
