"""How far the main thread has come with a write transaction."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cowfs.engine import env as env_module
from cowfs.engine import stage
from cowfs.engine.env import Env
from cowfs.engine.stage import Stage


@pytest.fixture
def env(tmp_path: Path) -> Iterator[Env]:
    stage.acknowledge()
    with Env.create(tmp_path / "db", durable=False) as env:
        yield env
    stage.acknowledge()


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> list[Stage]:
    entered: list[Stage] = []

    def enter(now: Stage) -> None:
        entered.append(now)
        stage.enter(now)

    monkeypatch.setattr(env_module, "enter", enter)
    return entered


def _write(env: Env) -> None:
    with env.write() as txn:
        assert stage.current() is Stage.FREE
        txn.create([b"a"])
        txn.put(b"a", b"key", b"value")


def test_a_commit_is_one_until_it_is_acknowledged(env: Env, stages: list[Stage]) -> None:
    _write(env)
    assert stages == [Stage.WAITING, Stage.FREE, Stage.COMMITTED]
    assert stage.current() is Stage.COMMITTED
    stage.acknowledge()
    assert stage.current() is Stage.FREE


def test_what_fails_is_no_commit(env: Env, stages: list[Stage]) -> None:
    with pytest.raises(ZeroDivisionError), env.write():
        raise ZeroDivisionError
    assert stages == [Stage.WAITING, Stage.FREE, Stage.FREE]
    assert stage.current() is Stage.FREE


def test_other_threads_are_not_the_main_one(env: Env) -> None:
    thread = threading.Thread(target=_write, args=(env,))
    thread.start()
    thread.join()
    assert stage.current() is Stage.FREE
    assert env.newest_txnid() == 1
