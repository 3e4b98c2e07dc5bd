"""Rate limits of callers: sliding windows in Redis, one Redis key for each name."""

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
    """State of a sliding window after a request."""

    allowed: bool
    """True if the request was within the limit and was counted."""
    limit: int
    """Requests allowed within any window."""
    remaining: int
    """Further requests that would be allowed now."""
    resets_at: datetime
    """Time at which `remaining` grows next, because the oldest request leaves the window."""
    retry_after: float
    """Seconds until a request is allowed; 0.0 if this request was allowed."""


class RateLimits:
    """Sliding-window rate limits that all processes on one Redis share; time is that of Redis.

    No interval of the window's length contains more counted requests than the rate allows,
    wherever the interval begins. A burst within the limit is allowed. A request that the client
    sends twice, because a reply was lost, may count twice.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._acquire = script_loader.load_standalone(client, "acquire")

    def acquire(self, name: str, rate: Rate) -> Window:
        """Counts one request for a name, unless the window is full. Raises StoreUnavailable."""
        window = math.ceil(rate.seconds * 1_000_000)
        with errors.translate_errors():
            answer = cast(
                "tuple[int, int, bytes, bytes]", self._acquire(args=[name, rate.requests, window])
            )
        allowed, counted, now, leaves = answer
        return Window(
            allowed=bool(allowed),
            limit=rate.requests,
            remaining=rate.requests - counted,
            resets_at=records.moment(leaves),
            retry_after=0.0 if allowed else (int(leaves) - int(now)) / 1_000_000,
        )
