"""What all tests share: no test leaves a mount or a log in the home directory behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cowfs.mount import mountpoint
from tests.support.clocks import FakeClock
from tests.support.mounted import unmount


@pytest.fixture(scope="session", autouse=True)
def _state_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Logs go below the tests' own directory."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session", autouse=True)
def _nothing_stays_mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    yield
    base = tmp_path_factory.getbasetemp().resolve()
    left = [mount.point for mount in mountpoint.mounts() if base in mount.point.parents]
    for point in left:
        unmount(point)
    assert left == [], f"still mounted after all tests: {left}"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeClock:
    return FakeClock(monkeypatch)
