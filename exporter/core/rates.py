"""Rate limits of sources: a budget of requests that all workers of a source share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from exporter.clock import Clock

MAX_SLEEP_SECONDS = 2.0
"""Longest sleep of a worker before a request to an upstream.

For a longer wait the export is released and its phase becomes waiting.
"""


@dataclass(frozen=True)
class Rate:
    """At most `requests` requests in each period of `seconds`.

    Requests are spaced evenly, and unused requests are not saved: there is no burst after a pause,
    because an upstream whose time window begins at another moment would refuse a burst.
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
        """Returns the seconds until the next request may start.

        Up to MAX_SLEEP_SECONDS the request is reserved: sleep that long, then send the request.
        Above it nothing is reserved: send nothing, and reserve again after that time. Raises
        StoreUnavailable if the shared budget cannot be read; then no request may be sent.
        """

    def pause_for(self, seconds: float) -> None:
        """Prevents new requests of all workers for that many seconds; reserved requests remain.

        Raises StoreUnavailable if the pause could not be shared with the other workers.
        """


class Unlimited:
    """The budget of a source without a rate: every request may start at once."""

    def reserve(self) -> float:
        return 0.0

    def pause_for(self, seconds: float) -> None:
        """Does nothing: without a rate, each worker sees the upstream's refusals itself."""


UNLIMITED = Unlimited()
"""The budget without a limit; stateless, so one instance is enough."""

OpenBudget = Callable[[str, Rate], Budget]
"""Returns the budget of the source with that name; all budgets of one name share their state."""


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
