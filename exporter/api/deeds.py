"""Counts requests by what they do, so that no path avoids the rate limit of another path."""

from __future__ import annotations

from fastapi import Request

from exporter.api import auth
from exporter.api.state import limits_of, run_blocking, service_of
from exporter.core.limits import Limit, LimitReached
from exporter.core.rates import Rate
from exporter.store.redis.api_keys import ApiKey
from exporter.store.redis.calls import Call
from exporter.store.redis.rate_limits import Count, Window


def reader(request: Request, deed: Limit[Rate]) -> ApiKey:
    """Returns the caller's API key, which has the scope `read`, and counts the request.

    Raises Refusal like `auth.reader`, and LimitReached over the rate of the key for `deed`.
    """
    caller = auth.reader(request)
    count(request, caller, deed)
    return caller


def writer(request: Request, deed: Limit[Rate]) -> ApiKey:
    """Returns the caller's API key, which has the scope `write`, and counts the request.

    The errors are those of `reader`.
    """
    caller = auth.writer(request)
    count(request, caller, deed)
    return caller


def count(request: Request, caller: ApiKey, deed: Limit[Rate]) -> None:
    """Counts one request of a key for `deed`. Raises LimitReached, with the time to wait."""
    run_blocking(request, count_call(request, caller, deed))


def count_call(request: Request, caller: ApiKey, deed: Limit[Rate]) -> Call[None]:
    """Returns the call by which a coroutine does what `count` does."""
    counted = count_of(request, caller, deed)
    return limits_of(request).acquire_call(counted.name, counted.rate).then(counted.check)


def count_of(request: Request, caller: ApiKey, deed: Limit[Rate]) -> Count:
    """Returns what `count` counts, for callers that postpone it."""
    rate = service_of(request).bound(deed, caller.plan)

    def check(window: Window) -> None:
        if not window.allowed:
            raise LimitReached(
                deed,
                f"the rate limit is {rate} for this key ({deed.name}: {deed.bounds}): repeat the"
                " request after the seconds in Retry-After",
                retry_after=window.retry_after,
            )

    return Count(f"{deed.name}:{caller.id}", rate, check)
