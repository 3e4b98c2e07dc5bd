"""What may start now: the budget of requests that all workers of a source share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from exporter.clock import Clock

LONGEST_DELAY = 2.0
"""Seconds that a worker sleeps for an upstream; a longer wait is a state of the export."""


@dataclass(frozen=True)
class Rate:
    """At most `requests` within any `seconds`.

    They are spaced evenly and never saved up: after a pause there is no burst, because an upstream
    that counts by another window than ours would refuse it.
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
    """Says when the next request to a source may start, to all its workers in turn."""

    def reserve(self) -> float:
        """Seconds until the next request may start.

        It is reserved if that is at most LONGEST_DELAY: sleep that long, then send it. If it is
        longer nothing is reserved: send nothing and ask again after that time. Raises
        StoreUnavailable if nobody can tell; then, too, nothing may be sent.
        """

    def pause_for(self, seconds: float) -> None:
        """No request starts within these seconds, except those already reserved.

        Raises StoreUnavailable if the other workers could not be told.
        """


class Unlimited:
    """The budget of a source without a rate: every request may start at once."""

    def reserve(self) -> float:
        return 0.0

    def pause_for(self, seconds: float) -> None:
        """Nobody else is told: each worker learns from the upstream itself."""


UNLIMITED = Unlimited()

Open = Callable[[str, Rate], Budget]
"""Gives a source's budget by the source's name; all that are given for one name are one."""


class MemoryBudgets:
    """The budgets of one process alone, on the injected clock."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.lock = threading.Lock()
        self.starts: dict[str, float] = {}
        """By source, when the next request may start."""

    def open(self, source: str, rate: Rate) -> Budget:
        """The budget of that source."""
        return _MemoryBudget(self, source, rate)


class _MemoryBudget:
    def __init__(self, shared: MemoryBudgets, source: str, rate: Rate) -> None:
        self._shared, self._source, self._rate = shared, source, rate

    def reserve(self) -> float:
        with self._shared.lock:
            now = self._shared.clock.monotonic()
            start = max(self._shared.starts.get(self._source, now), now)
            if start - now <= LONGEST_DELAY:
                self._shared.starts[self._source] = start + self._rate.interval
            return start - now

    def pause_for(self, seconds: float) -> None:
        with self._shared.lock:
            until = self._shared.clock.monotonic() + seconds
            self._shared.starts[self._source] = max(
                self._shared.starts.get(self._source, until), until
            )
