"""Whatever a test has written is sound when it has ended, unless it lies in a directory named ``damaged``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.environments import findings, write_all_kinds


@pytest.fixture(autouse=True)
def _sound(tmp_path: Path) -> Iterator[None]:
    yield
    for data in sorted(tmp_path.rglob("data.mdb")):
        if "damaged" not in data.parts:
            assert findings(data) == [], data


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """A directory for files that are not sound."""
    (tmp_path / "damaged").mkdir()
    return tmp_path / "damaged"


@pytest.fixture(scope="session")
def all_kinds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with every kind of tree, page and node, to be read only."""
    path = tmp_path_factory.mktemp("kinds") / "env"
    write_all_kinds(path)
    assert findings(path) == []
    return path
