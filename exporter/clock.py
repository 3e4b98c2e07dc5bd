"""Injected clocks; tests use a clock that never sleeps instead of the machine's clock."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Protocol


class Clock(Protocol):
    """Source of time and sleep for the engine."""

    def now(self) -> datetime:
        """Returns the wall clock time, in UTC and with a time zone."""

    def monotonic(self) -> float:
        """Returns seconds that never decrease, for deadlines within this process."""

    def sleep(self, seconds: float) -> None:
        """Sleeps for that many seconds."""


class SystemClock:
    """The machine's clocks."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)


class FakeClock:
    """A clock for tests: moves only by `advance` and `sleep`, and never waits."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = start
        self._elapsed = 0.0

    def now(self) -> datetime:
        return self._now

    def monotonic(self) -> float:
        return self._elapsed

    def sleep(self, seconds: float) -> None:
        self.advance(seconds)

    def advance(self, seconds: float) -> None:
        """Moves the wall clock and the monotonic clock forward."""
        self._now += timedelta(seconds=seconds)
        self._elapsed += seconds
