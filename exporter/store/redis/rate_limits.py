"""Rate limits of callers: sliding windows in Redis, one Redis key for each limited name."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime

import redis

from exporter.core.rates import Rate
from exporter.store.redis import calls, records, script_loader
from exporter.store.redis.calls import Call
from exporter.store.redis.keys import DEFAULT, KeyNames


@dataclass(frozen=True)
class Window:
    """The state of a sliding window after a request."""

    allowed: bool
    """Whether the request was within the limit; only then it is counted."""
    limit: int
    """Number of requests allowed within any window."""
    remaining: int
    """Number of further requests that would be allowed now."""
    resets_at: datetime
    """Time at which `remaining` next grows.

    At that time the oldest counted request leaves the window.
    """
    retry_after: float
    """Seconds until a request is allowed; 0.0 if this request was allowed."""


class RateLimits:
    """Sliding-window rate limits that all processes with the same Redis share.

    All times are those of Redis. No interval of the window's length contains more counted requests
    than the rate allows, wherever the interval begins. A burst within the limit is allowed. A
    request that the client sends twice, because a reply was lost, may count twice.
    """

    def __init__(self, client: redis.Redis, names: KeyNames = DEFAULT) -> None:
        self._client, self._names = client, names
        self._acquire = script_loader.load_standalone(client, "acquire")

    def acquire(self, name: str, rate: Rate) -> Window:
        """Counts one request for a name, unless the window is full; returns the window's state."""
        return calls.run(self._client, self.acquire_call(name, rate))

    def acquire_call(self, name: str, rate: Rate) -> Call[Window]:
        """Returns the call that `acquire` makes."""

        def read(answer: tuple[int, int, bytes, bytes]) -> Window:
            allowed, counted, now, leaves = answer
            return Window(
                allowed=bool(allowed),
                limit=rate.requests,
                remaining=rate.requests - counted,
                resets_at=records.moment(leaves),
                retry_after=0.0 if allowed else (int(leaves) - int(now)) / 1_000_000,
            )

        window = math.ceil(rate.seconds * 1_000_000)
        key = self._names("rate", name)
        return self._acquire.call(rate.requests, window, keys=[key]).then(read)
