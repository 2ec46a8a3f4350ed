"""The long version of tests/tools/test_copies.py, tests/crash/test_killed.py, test_races.py and test_power_cut.py.

A round is one scene with one seed: copies of a mount beside a writer, writers killed without and with a mount, a mount
killed under rsync, processes that fight for one store while they are killed, the power cut under writers. One line is
printed for each. The first violation ends it with exit code 1; what lay on the disk then stays there.

    scripts/torture [--seed N] [--seconds N] [--scene NAME]
"""

from __future__ import annotations

import argparse
import itertools
import random
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.support import churn, disk, kills, powercut, races
from tests.support.copies import copy_and_check
from tests.support.mounted import mounted

_COPIES = 12
_KILLS = 8
_CUTS = 120
_ROUNDS = 40  # of a race: about a minute

Scene = Callable[[Path, int], str]


def main() -> None:
    """Run the scenes in turn until the time is over."""
    parser = argparse.ArgumentParser(description="Copies and kills, for as long as you like.")
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000), help="of the first round")
    parser.add_argument("--seconds", type=float, default=600, help="how long to go on (default: %(default)s)")
    parser.add_argument("--scene", choices=sorted(SCENES), help="only this one")
    arguments = parser.parse_args()
    until = time.monotonic() + arguments.seconds
    for seed in itertools.count(arguments.seed):
        name = arguments.scene or list(SCENES)[seed % len(SCENES)]
        if not _round(name, seed):
            sys.exit(1)
        if time.monotonic() > until:
            return


def _round(name: str, seed: int) -> bool:
    """Run one scene; return whether all was as it must be."""
    directory, begin = Path(tempfile.mkdtemp(prefix="cowfs-torture-")), time.monotonic()
    try:
        result = SCENES[name](directory, seed)
    except Exception:
        traceback.print_exc()
        print(f"VIOLATION in {directory}; again with: scripts/torture --scene {name} --seed {seed} --seconds 0", flush=True)
        return False
    print(f"seed {seed}  {name:<24} {result}  ({time.monotonic() - begin:.1f} s)", flush=True)
    shutil.rmtree(directory)
    return True


def _copies(kind: str, directory: Path, seed: int) -> str:
    churn.create(kind, directory / "db")
    with (
        mounted(directory / "db", directory / "mnt") as mount,
        churn.writing(kind, directory / "db", directory / "journal", seed, pause=0.003) as writer,
    ):
        writer.wait_for(20)
        commits = copy_and_check(mount, directory, writer, seed, _COPIES)
    return f"{_COPIES} copies of {commits} commits"


def _kills(kind: str, directory: Path, seed: int) -> str:
    churn.create(kind, directory / "db")
    return f"{_KILLS} kills, {kills.kill_writers(kind, directory, seed, _KILLS)} commits acknowledged"


def _kills_under_mount(kind: str, directory: Path, seed: int) -> str:
    churn.create(kind, directory / "db")
    with mounted(directory / "db", directory / "mnt") as mount:
        commits = kills.kill_writers(kind, directory, seed, _KILLS, mount)
    return f"{_KILLS} kills under a mount, {commits} commits acknowledged"


def _mount_kill(directory: Path, seed: int) -> str:
    kills.kill_mount_under_rsync(directory, seed)
    return "the mount killed under rsync"


def _race(scene: str, directory: Path, seed: int) -> str:
    result = races.race(scene, directory, seed, {"rounds": _ROUNDS})
    if result.violation:
        raise races.Violation(result.violation)
    return str(result)


def _power_cuts(scene: powercut.Scene, directory: Path, seed: int) -> str:
    events, model = scene.record(directory, seed)
    for number, cut in enumerate(disk.cuts(events, seed, _CUTS)):
        place = directory / str(number)
        (directory / "cut").write_text(f"{number}: {cut.describe()}\n")
        cut.restore(place)
        scene.verify(place, cut, model)
        shutil.rmtree(place)
    return f"{_CUTS} cuts of {len(model)} commits"


SCENES: dict[str, Scene] = {
    **{f"copies-{kind}": partial(_copies, kind) for kind in churn.KINDS},
    **{f"kills-{kind}": partial(_kills, kind) for kind in churn.KINDS},
    **{f"mounted-kills-{kind}": partial(_kills_under_mount, kind) for kind in churn.KINDS},
    "mount-kill": _mount_kill,
    **{f"power-{scene.name}": partial(_power_cuts, scene) for scene in powercut.SCENES},
    "races": partial(_race, "cowfs"),
    "races-readers": partial(_race, "readers"),
    "races-writers": partial(_race, "writers"),
}

if __name__ == "__main__":
    main()
