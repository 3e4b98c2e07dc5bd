"""Rate budgets of one process, in memory."""

from __future__ import annotations

import threading

from exporter.clock import Clock
from exporter.core.rates import LONGEST_DELAY, Budget, Rate


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

    def take(self) -> float:
        with self._shared.lock:
            now = self._shared.clock.monotonic()
            start = max(self._shared.starts.get(self._source, now), now)
            if start - now <= LONGEST_DELAY:
                self._shared.starts[self._source] = start + self._rate.interval
            return start - now

    def hold(self, seconds: float) -> None:
        with self._shared.lock:
            until = self._shared.clock.monotonic() + seconds
            self._shared.starts[self._source] = max(
                self._shared.starts.get(self._source, until), until
            )
