"""Rate limits of callers: sliding windows in Redis, one Redis key for each limited name."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import NamedTuple

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


class Count(NamedTuple):
    """A request to be counted for a name."""

    name: str
    rate: Rate
    check: Callable[[Window], None]
    """Gets the state of the window; raises an exception if the request must be refused."""


def window_micros(rate: Rate) -> int:
    """Returns the length of the window of a rate in microseconds."""
    return math.ceil(rate.seconds * 1_000_000)


def read(rate: Rate, answer: tuple[int, int, bytes, bytes]) -> Window:
    """Returns the state of a window from the answer of the script."""
    allowed, counted, now, leaves = answer
    return Window(
        allowed=bool(allowed),
        limit=rate.requests,
        remaining=rate.requests - counted,
        resets_at=records.moment(leaves),
        retry_after=0.0 if allowed else (int(leaves) - int(now)) / 1_000_000,
    )


class RateLimits:
    """Sliding-window rate limits that all processes with the same Redis share.

    All times are those of Redis. No interval of the window's length contains more counted requests
    than the rate allows, wherever the interval begins. A burst within the limit is allowed. A
    request that the client sends twice, because a reply was lost, may count twice.
    """

    def __init__(self, client: redis.Redis, names: KeyNames = DEFAULT) -> None:
        self._client, self._names = client, names
        self._acquire = script_loader.load_standalone(client, "window", "acquire")

    def acquire(self, name: str, rate: Rate) -> Window:
        """Counts one request for a name, unless the window is full; returns the window's state."""
        return calls.run(self._client, self.acquire_call(name, rate))

    def acquire_call(self, name: str, rate: Rate) -> Call[Window]:
        """Returns the call that `acquire` makes."""
        key = self._names("rate", name)
        call = self._acquire.call(rate.requests, window_micros(rate), keys=[key])
        return call.then(partial(read, rate))
