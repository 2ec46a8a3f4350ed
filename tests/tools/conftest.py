"""What the tests of commands share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.forked import Program, program


@pytest.fixture(scope="session")
def forked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    """The program, run with any standard streams."""
    with program(tmp_path_factory.mktemp("forked")) as running:
        yield running
