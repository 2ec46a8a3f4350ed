"""Processes that fight for one store while they are killed: ``tests.races`` says what must be true, here for a short time.

``scripts/torture --scene races`` does it for longer.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.races import Result, race


def _played(scene: str, directory: Path, seconds: float) -> Result:
    seed = random.SystemRandom().randrange(1_000_000)
    result = race(scene, directory, seed, seconds)
    print(f"{scene}, seed {seed}: {result}")
    assert not result.violation, f"{scene}, seed {seed}: {result.violation}"
    return result


@pytest.mark.timeout(150)
def test_nothing_is_lost_and_every_retained_root_is_whole_while_processes_are_killed(tmp_path: Path) -> None:
    counts = _played("cowfs", tmp_path, 20).counts
    assert counts["kills"] >= 100
    assert counts["all-dead"] >= 10
    assert counts["commits"] >= 200
    assert counts["checked"] >= 500
    assert counts["verified"] >= 3
    for kind in ("aborted", "named", "unnamed", "retained", "opened", "forked", "overtaken"):
        assert counts.get(kind, 0) > 0, f"nobody has {kind}"


@pytest.mark.timeout(120)
@pytest.mark.parametrize("scene", ["readers", "writers"])
def test_history_is_whole_or_said_to_be_lost_when_other_programs_take_part(tmp_path: Path, scene: str) -> None:
    counts = _played(scene, tmp_path, 10).counts
    assert counts["kills"] >= 20
    assert counts["commits"] >= 50
    assert counts["checked"] >= 100
    assert counts["verified"] >= 2
    assert counts.get("strange-abort" if scene == "writers" else "reader_check", 0) > 0


@pytest.mark.timeout(120)
@pytest.mark.parametrize("sabotage", ["claim", "pin", "hold"])
def test_the_race_finds_what_goes_wrong_without_protection(tmp_path: Path, sabotage: str) -> None:
    result = race("cowfs", tmp_path, 1, 20, sabotage)
    assert "Violation: " in result.violation, result.violation  # and not that the race itself could not be run
    assert result.counts["commits"] > 0
