"""2,000 mutated files: no command ends by a signal or with a traceback. ``scripts/fuzz`` does more."""

from __future__ import annotations

import pytest

from tests.support.mutants import hunt, place

_MUTANTS = 2000
_PARTS = 16


@pytest.mark.parametrize("part", range(_PARTS))
def test_every_command_survives_a_damaged_file(part: int) -> None:
    with place() as directory:
        assert hunt(directory, range(part, _MUTANTS, _PARTS)) == []
