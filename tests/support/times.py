"""``made_ago``: commits of another time, so that no test has to wait until they are old."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def made_ago(hours: float) -> Iterator[None]:
    """Date what this process commits in the block so many hours back."""
    now, back = time.time_ns, int(hours * 3_600_000_000_000)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time_ns", lambda: now() - back)
        yield
