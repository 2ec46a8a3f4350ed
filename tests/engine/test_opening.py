from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from cowfs.engine.env import Env
from cowfs.engine.opening import reading
from cowfs.errors import AccessDenied
from tests.support.environments import stock


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with stock(tmp_path / "db") as env, env.begin(write=True, db=env.open_db(b"a")) as txn:
        txn.put(b"key", b"value")
    return tmp_path / "db"


def test_a_backup_is_read_as_it_lies(path: Path) -> None:
    (path / "lock.mdb").unlink()
    for place in (path, path / "data.mdb"):
        with reading(place) as reader:
            assert reader.get(b"a", b"key") == b"value"
        assert os.listdir(path) == ["data.mdb"]


def test_where_somebody_may_write_the_root_is_held(path: Path) -> None:
    with reading(path) as reader, Env.open(path, readonly=True) as env:
        assert reader.get(b"a", b"key") == b"value"
        assert env.readers() == [(os.getpid(), reader.root.txnid)]
    with Env.open(path) as env:
        assert env.readers() == []


def test_what_cannot_be_held_is_read_with_a_warning(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def denied(*_args: object, **_options: object) -> Env:
        raise AccessDenied("lock.mdb")

    monkeypatch.setattr(Env, "open", denied)
    with caplog.at_level(logging.WARNING), reading(path) as reader:
        assert reader.get(b"a", b"key") == b"value"
    assert "only while nobody writes it" in caplog.text
