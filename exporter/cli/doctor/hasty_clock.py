"""A clock for checks, by which a client gives up after one repetition."""

from __future__ import annotations

from exporter.clock import SystemClock

_HOUR_SECONDS = 3600.0


class HastyClock(SystemClock):
    """The machine's clock, but a pause takes no time and counts as more than an hour.

    So a request that fails is repeated once, and its cause is known before the check's deadline.
    """

    def __init__(self) -> None:
        self._paused = 0.0

    def monotonic(self) -> float:
        return super().monotonic() + self._paused

    def sleep(self, seconds: float) -> None:
        self._paused += _HOUR_SECONDS + seconds
