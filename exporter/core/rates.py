"""Rate limits of sources: a budget of requests that all workers of a source share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from exporter.clock import Clock
from exporter.errors import SourceUnavailable, StoreUnavailable

MAX_SLEEP_SECONDS = 2.0
"""Longest time that a worker sleeps before a request to an upstream.

For a longer wait, the worker releases the export, whose phase becomes waiting.
"""
API_SHARE = 0.25
"""Share of a source's rate that the API may use for estimates and searches while workers need it.

The workers' share comes first, because a caller can repeat estimates without end. While no worker
asks for requests, the API may use the whole rate.
"""
WORKER_MEMORY_SECONDS = 30.0
"""Time after a worker's request during which the API is limited to its share.

Longer than a released export takes to be claimed again. The API may save up one request.
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

    def record(self, seconds: float, status: int | None) -> None:
        """Records a request that was sent, for the statistics of the source; never raises.

        `status` is that of the answer, 200 for a statement that a database ran, None without any.
        """


def acquire(budget: Budget, clock: Clock, after: Exception | None = None) -> None:
    """Sleeps until the budget allows the next request.

    Raises SourceUnavailable, without sleeping, if the wait would be longer than MAX_SLEEP_SECONDS,
    or if the budget cannot be read; then no request may be sent. `after` is the failure of the
    request before, if this one repeats it; its text is added to the error.
    """
    try:
        wait = budget.reserve()
    except StoreUnavailable as error:
        raise SourceUnavailable(
            f"no request was sent to the source: its rate budget could not be read: {error}"
        ) from None
    if wait > MAX_SLEEP_SECONDS:
        before = "" if after is None else f"; before that: {after}"
        raise SourceUnavailable(
            f"the next request to the source may start in {wait:.1f} s: its rate is used up, "
            f"or it asked for a pause{before}",
            retry_after=wait,
        )
    if wait > 0:
        clock.sleep(wait)


class Unlimited:
    """The budget of a source without a rate: every request may start at once."""

    def reserve(self) -> float:
        return 0.0

    def pause_for(self, seconds: float) -> None:
        """Does nothing: without a rate, each worker reacts to the upstream's refusals by itself."""

    def record(self, seconds: float, status: int | None) -> None:
        """Does nothing: only `Metered` has statistics."""


UNLIMITED = Unlimited()
"""The only instance of `Unlimited` that is needed, because it has no state."""

OpenBudget = Callable[[str, Rate], Budget]
"""A function that returns a source's budget; all budgets of one source share their state."""
Meter = Callable[[float, int | None], None]
"""A function that records a request for the statistics of one source; see `Budget.record`."""


class Metered:
    """A budget whose requests are recorded in the statistics of its source."""

    def __init__(self, budget: Budget, meter: Meter) -> None:
        self.reserve = budget.reserve
        self.pause_for = budget.pause_for
        self.record = meter


class MemoryBudgets:
    """Budgets that are shared within this process only; uses the injected clock."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.lock = threading.Lock()
        self.starts: dict[str, float] = {}
        """Monotonic time at which the next request may start, by source name."""
        self.api_starts: dict[str, float] = {}
        """Monotonic time at which the next request of the API may start while workers ask."""
        self.workers_until: dict[str, float] = {}
        """Monotonic time until which a worker's request limits the API, by source name."""

    def open(self, source: str, rate: Rate) -> Budget:
        """Returns the budget of that source for a worker."""
        return _MemoryBudget(self, source, rate, is_worker=True)

    def open_for_api(self, source: str, rate: Rate) -> Budget:
        """Returns the same budget for the API, which leaves the workers their share of it."""
        return _MemoryBudget(self, source, rate, is_worker=False)


class _MemoryBudget:
    def __init__(self, shared: MemoryBudgets, source: str, rate: Rate, *, is_worker: bool) -> None:
        self._shared, self._source, self._rate = shared, source, rate
        self._is_worker = is_worker

    def reserve(self) -> float:
        shared, source = self._shared, self._source
        with shared.lock:
            now = shared.clock.monotonic()
            api_start: float | None = None
            if self._is_worker:
                shared.workers_until[source] = now + WORKER_MEMORY_SECONDS
            elif now < shared.workers_until.get(source, now):
                earliest = now - self._rate.interval / API_SHARE
                api_start = max(shared.api_starts.get(source, earliest), earliest)
                if api_start > now:
                    return max(api_start - now, MAX_SLEEP_SECONDS + 0.001)
            start = max(shared.starts.get(source, now), now)
            if start - now <= MAX_SLEEP_SECONDS:
                shared.starts[source] = start + self._rate.interval
                if api_start is not None:
                    shared.api_starts[source] = api_start + self._rate.interval / API_SHARE
            return start - now

    def record(self, seconds: float, status: int | None) -> None:
        """Does nothing: only `Metered` has statistics."""

    def pause_for(self, seconds: float) -> None:
        with self._shared.lock:
            until = self._shared.clock.monotonic() + seconds
            self._shared.starts[self._source] = max(
                self._shared.starts.get(self._source, until), until
            )
