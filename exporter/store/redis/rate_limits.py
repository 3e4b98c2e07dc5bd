"""How often a caller may ask: sliding windows in Redis, one key for each name."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import cast

import redis

from exporter.core.rates import Rate
from exporter.store.redis import errors, records, script_loader


@dataclass(frozen=True)
class Window:
    """Where a caller stands after a hit."""

    allowed: bool
    limit: int
    """Hits within any window."""
    remaining: int
    """Hits that would be allowed now."""
    resets_at: datetime
    """When `remaining` grows next: the oldest hit is as old as the window is long."""
    retry_after: float
    """Seconds until a hit is allowed; 0.0 if this one was."""


class RateLimits:
    """No window holds more hits than its rate, whoever counts them: shared by all processes on one
    Redis, by its clock.

    Any window: those that begin between two hits, too. A burst is fine as long as it fits. A hit
    that the client sends twice, because it lost the answer, may count twice.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._acquire = script_loader.load_alone(client, "acquire")

    def acquire(self, name: str, rate: Rate) -> Window:
        """Count one hit on that name, unless the window is full. Raises StoreUnavailable."""
        window = math.ceil(rate.seconds * 1_000_000)
        with errors.translate_errors():
            answer = cast(
                "tuple[int, int, bytes, bytes]", self._acquire(args=[name, rate.requests, window])
            )
        allowed, hits, now, leaves = answer
        return Window(
            allowed=bool(allowed),
            limit=rate.requests,
            remaining=rate.requests - hits,
            resets_at=records.moment(leaves),
            retry_after=0.0 if allowed else (int(leaves) - int(now)) / 1_000_000,
        )
