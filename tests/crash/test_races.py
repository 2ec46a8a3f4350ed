"""Processes that fight for one store while they are killed: ``support.races`` says what must be true, here for some rounds.

``scripts/torture --scene races`` goes on for longer.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.races import race


def _play(scene: str, directory: Path, wanted: Mapping[str, int]) -> None:
    seed = random.SystemRandom().randrange(1_000_000)
    result = race(scene, directory, seed, wanted)
    print(f"{scene}, seed {seed}: {result}")
    assert not result.violation, f"{scene}, seed {seed}: {result.violation}"


def test_nothing_is_lost_and_every_retained_root_is_whole_while_processes_are_killed(tmp_path: Path) -> None:
    kinds = ("aborted", "named", "unnamed", "retained", "opened", "forked", "overtaken")
    counts = {"kills": 250, "all-dead": 15, "commits": 250, "checked": 600, "verified": 5}
    _play("cowfs", tmp_path, {**counts, **dict.fromkeys(kinds, 1)})


@pytest.mark.parametrize(("scene", "strange"), [("readers", "reader_check"), ("writers", "strange-abort")])
def test_history_is_whole_or_said_to_be_lost_when_other_programs_take_part(tmp_path: Path, scene: str, strange: str) -> None:
    _play(scene, tmp_path, {"kills": 100, "commits": 100, "checked": 200, "verified": 4, strange: 1})


@pytest.mark.parametrize("sabotage", ["claim", "pin", "hold"])
def test_the_race_finds_what_goes_wrong_without_protection(tmp_path: Path, sabotage: str) -> None:
    result = race("cowfs", tmp_path, 1, {"rounds": 100}, sabotage)
    assert "Violation: " in result.violation, result.violation  # and not that the race itself could not be run
    assert result.counts["commits"] > 0
