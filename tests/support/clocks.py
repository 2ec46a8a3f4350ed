"""A clock that tests set, for everything that cowfs does in the process of the test."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from cowfs.store.model import clock
from cowfs.store.model.encoding import instant_of, micros_of

START = datetime(2026, 11, 22, 10, 0, tzinfo=UTC)


class FakeClock:
    """It stands still, unless it is moved."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, start: datetime = START) -> None:
        self.micros = micros_of(start)
        monkeypatch.setattr(clock, "now_micros", lambda: self.micros)

    @property
    def now(self) -> datetime:
        return instant_of(self.micros)

    def set(self, instant: datetime) -> None:
        self.micros = micros_of(instant)

    def advance(self, **span: float) -> None:
        """Move it by what ``timedelta`` takes."""
        self.set(self.now + timedelta(**span))
