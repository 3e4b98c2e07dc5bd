"""Rate limits of sources: a budget of requests that all workers of a source share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from exporter.clock import Clock

MAX_SLEEP_SECONDS = 2.0
"""Longest time that a worker sleeps before a request to an upstream.

For a longer wait, the worker releases the export, whose phase becomes waiting.
"""


@dataclass(frozen=True)
class Rate:
    """A rate limit: at most `requests` requests in each period of `seconds`.

    Requests are spaced evenly, and unused requests are not saved for later. There is thus no burst
    after a pause: an upstream that counts in periods with another beginning could refuse a burst.
    """

    requests: int
    seconds: float

    @property
    def interval(self) -> float:
        """Seconds between the starts of two requests."""
        return self.seconds / self.requests

    def __str__(self) -> str:
        return f"{self.requests}/{self.seconds:g}s"


class Budget(Protocol):
    """Schedules the requests to one source over all its workers."""

    def reserve(self) -> float:
        """Reserves the next request and returns the seconds until it may start.

        If the result is at most MAX_SLEEP_SECONDS, the caller must sleep that long and then send
        the request. If it is longer, no request is reserved: the caller must send nothing, and call
        `reserve` again after that time. Raises StoreUnavailable if the shared budget cannot be
        read; then no request may be sent.
        """

    def pause_for(self, seconds: float) -> None:
        """Prevents all workers from reserving a request that starts within the next `seconds`.

        Requests that are already reserved may still be sent. Raises StoreUnavailable if the pause
        could not be shared with the other workers.
        """


class Unlimited:
    """The budget of a source without a rate: every request may start at once."""

    def reserve(self) -> float:
        return 0.0

    def pause_for(self, seconds: float) -> None:
        """Does nothing: without a rate, each worker reacts to the upstream's refusals by itself."""


UNLIMITED = Unlimited()
"""The only instance of `Unlimited` that is needed, because it has no state."""

OpenBudget = Callable[[str, Rate], Budget]
"""A function that returns a source's budget; all budgets of one source share their state."""


class MemoryBudgets:
    """Budgets that are shared within this process only; uses the injected clock."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.lock = threading.Lock()
        self.starts: dict[str, float] = {}
        """Monotonic time at which the next request may start, by source name."""

    def open(self, source: str, rate: Rate) -> Budget:
        """Returns the budget of that source."""
        return _MemoryBudget(self, source, rate)


class _MemoryBudget:
    def __init__(self, shared: MemoryBudgets, source: str, rate: Rate) -> None:
        self._shared, self._source, self._rate = shared, source, rate

    def reserve(self) -> float:
        with self._shared.lock:
            now = self._shared.clock.monotonic()
            start = max(self._shared.starts.get(self._source, now), now)
            if start - now <= MAX_SLEEP_SECONDS:
                self._shared.starts[self._source] = start + self._rate.interval
            return start - now

    def pause_for(self, seconds: float) -> None:
        with self._shared.lock:
            until = self._shared.clock.monotonic() + seconds
            self._shared.starts[self._source] = max(
                self._shared.starts.get(self._source, until), until
            )
