"""Request budgets of sources in Redis: one Redis key for each source with a rate."""

from __future__ import annotations

import math

import redis

from exporter.core.rates import (
    API_SHARE,
    MAX_SLEEP_SECONDS,
    WORKER_MEMORY_SECONDS,
    Budget,
    Rate,
)
from exporter.store.redis import script_loader
from exporter.store.redis.keys import DEFAULT, KeyNames


class RedisBudgets:
    """Budgets that all workers with the same Redis share; all times are those of Redis.

    If the client repeats a call because a reply was lost, at most one request of the budget remains
    unused. If Redis loses the key of a budget, one request may start too early.
    """

    def __init__(self, client: redis.Redis, names: KeyNames = DEFAULT) -> None:
        self.names = names
        self.reserve = script_loader.load_standalone(client, "reserve")
        self.pause_for = script_loader.load_standalone(client, "pause")

    def open(self, source: str, rate: Rate) -> Budget:
        """Returns the budget of a source for a worker; sends no request to Redis yet."""
        return _RedisBudget(self, source, rate)

    def open_for_api(self, source: str, rate: Rate) -> Budget:
        """Returns the same budget for the API, which leaves the workers their share of it."""
        return _RedisBudget(self, source, rate, is_worker=False)


class _RedisBudget:
    def __init__(
        self, shared: RedisBudgets, source: str, rate: Rate, *, is_worker: bool = True
    ) -> None:
        self._shared, self._rate = shared, rate
        kinds = ("budget", "budget_workers", "budget_api")
        self._keys = [shared.names(kind, source) for kind in kinds]
        self._api_interval = 0.0 if is_worker else rate.interval / API_SHARE

    def reserve(self) -> float:
        rate, api = self._rate.interval, self._api_interval
        times = (rate, MAX_SLEEP_SECONDS, api, WORKER_MEMORY_SECONDS)
        wait: int = self._shared.reserve(*map(_micros, times), keys=self._keys)
        return wait / 1_000_000

    def pause_for(self, seconds: float) -> None:
        self._shared.pause_for(_micros(seconds), keys=self._keys[:1])

    def record(self, seconds: float, status: int | None) -> None:
        """Does nothing: only `Metered` has statistics."""


def _micros(seconds: float) -> int:
    # Rounded up, so that rounding never lets a request start early.
    return math.ceil(seconds * 1_000_000)
