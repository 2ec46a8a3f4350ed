"""Mutated files through every command (tests/support/mutants.py says how), as many as you like.

    scripts/fuzz [--seed N] [--count N]

Seed N makes mutant N, N+1 and so on. What was violated is printed with its seed, which brings it back; the exit code is 1
then.
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.support.mutants import hunt, place


def main() -> None:
    """Examine the mutants."""
    parser = argparse.ArgumentParser(description="Mutated files through every command.")
    parser.add_argument("--seed", type=int, default=0, help="of the first mutant (default: %(default)s)")
    parser.add_argument("--count", type=int, default=10_000, help="how many (default: %(default)s)")
    arguments = parser.parse_args()
    began = time.monotonic()
    with place() as directory:
        found = hunt(directory, range(arguments.seed, arguments.seed + arguments.count))
    print(f"{arguments.count} mutants, {len(found)} violations, {time.monotonic() - began:.0f} s")
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
