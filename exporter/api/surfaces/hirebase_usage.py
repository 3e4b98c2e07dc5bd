"""What a caller of the Hirebase contract may still do: requests in a window, records in a balance.

Requests are counted for each key, whatever they cost. Polls of one task are not: the official
client polls every two seconds and gives up at a 429, so that four exports at once would end in one.

Records are paid from one balance, whichever endpoint gives them, so that each of the vendor's
meters shows all of it. A key without a balance is not metered, and its answers say nothing of
usage: the official client then shows none. Credits do not lapse, so the vendor's billing period is
here the life of the key and ends on the last day that can be written.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import msgspec
from fastapi import APIRouter, Request
from starlette.responses import Response

from exporter.api import auth, errors, responses
from exporter.api.errors import Detail
from exporter.api.refusal import Refusal
from exporter.api.state import credits_of, limits_of, service_of
from exporter.core import plans
from exporter.core.plans import Balance
from exporter.store.redis.api_keys import ApiKey
from exporter.store.redis.async_runner import AsyncRunner
from exporter.store.redis.rate_limits import RateLimits

router = APIRouter(prefix="/v2", tags=["hirebase"])

NEVER = "9999-12-31T23:59:59Z"


class Meter(NamedTuple):
    """What the vendor calls a kind of usage."""

    feature: str
    event_name: str
    display_name: str


JOBS = Meter("jobs_api", "m_jobs_api_calls", "Jobs API")
EXPORTS = Meter("exports", "m_exports", "Exports")


def reader(request: Request) -> ApiKey:
    """The caller, who may read and has not asked too often. Raises Refusal 401, 403 or 429."""
    return _counted(request, auth.reader(request))


def writer(request: Request, turn: AsyncRunner | None = None) -> ApiKey:
    """The caller, who may write and has not asked too often. Raises Refusal 401, 403 or 429.

    A coroutine gives its turn; without one the caller's thread waits for Redis.
    """
    if turn is None:
        return _counted(request, auth.writer(request))
    return _counted(request, auth.writer(request, turn.keys), turn.limits)


def _counted(request: Request, caller: ApiKey, limits: RateLimits | None = None) -> ApiKey:
    rate = service_of(request).settings.hirebase_rate
    window = (limits or limits_of(request)).acquire(f"hirebase:{caller.id}", rate)
    request.state.headers |= {
        "X-RateLimit-Limit": str(window.limit),
        "X-RateLimit-Remaining": str(window.remaining),
    }
    if not window.allowed:
        wait = max(1, math.ceil(window.retry_after))
        raise Refusal(
            429, "rate_limited", "Rate limit exceeded", headers={"Retry-After": str(wait)}
        )
    return caller


def afford(request: Request, caller: ApiKey, meter: Meter, records: int) -> None:
    """Return if the caller could pay for that many records. Raises Refusal 429."""
    if caller.plan.metered:
        balance = credits_of(request).balance(caller.id)
        if balance.left is not None and balance.left < records:
            raise spent(request, caller, meter, records)


def charge(request: Request, caller: ApiKey, meter: Meter, records: int) -> None:
    """Take the price of records that are about to be given, and tell what is left. Raises Refusal
    429 if another request was faster to spend it."""
    try:
        credits_of(request).charge(caller.id, records)
    except plans.CreditsSpent as error:
        raise spent(request, caller, meter, error.needed) from None
    add_usage_headers(request, caller, meter)


def add_usage_headers(request: Request, caller: ApiKey, meter: Meter) -> None:
    """Put where the caller stands into the headers of the answer, if the key is metered."""
    if caller.plan.metered:
        _put(request, caller, meter, credits_of(request).balance(caller.id))


def spent(request: Request, caller: ApiKey, meter: Meter, needed: int) -> Refusal:
    """The refusal of what the caller cannot pay for.

    429 with a billing code and not 402: of the two that the vendor has for money, the official
    client reads only this as a quota, whose remedy is to ask for less; 402 it takes for an account
    without a plan. Without Retry-After, because waiting helps nobody.
    """
    balance = credits_of(request).balance(caller.id)
    _put(request, caller, meter, balance)
    included, left = _included(balance), balance.left or 0
    detail = f"You've reached your plan's included usage of {included} for this period."
    if left:
        detail = (
            f"This needs {needed} of your plan's included usage of {included}, of which {left}"
            " are left: ask for fewer records."
        )
    return Refusal(429, "quota_spent", detail, headers={"X-Billing-Code": "limit_exceeded"})


def _included(balance: Balance) -> int:
    return (balance.left or 0) + _used(balance)


def _used(balance: Balance) -> int:
    return balance.used + balance.reserved


def _put(request: Request, caller: ApiKey, meter: Meter, balance: Balance) -> None:
    numbers = {
        "Included-Limit": _included(balance),
        "Included-Used": _used(balance),
        "Included-Remaining": balance.left or 0,
        "Overage-Used": 0,
        "Total-Used": _used(balance),
    }
    words = {
        "Feature": meter.feature,
        "Meter": meter.event_name,
        "Unit": "jobs",
        "Overage-Mode": "block",
        "Period-Start": _start(caller),
        "Period-End": NEVER,
    }
    request.state.headers |= {
        f"Hirebase-Usage-{name}": str(value) for name, value in (words | numbers).items()
    }


def _start(caller: ApiKey) -> str:
    return responses.naive(caller.created_at)[:19] + "Z"


class MeterUsage(msgspec.Struct):
    """Records given, of those that may be; null: any number."""

    event_name: str
    display_name: str
    used: int
    included: int | None
    remaining: int | None
    overage_used: int = 0
    period: str | None = None
    overage_mode: str | None = "block"
    overage_unit: int | None = None
    overage_cents_per_unit: int | None = None
    estimated_overage_cents: int = 0
    overage_currency: str = "usd"


class UsageSummary(msgspec.Struct):
    """Where a key stands. There is one balance, so each meter shows all of it."""

    billing_source: str
    stripe_customer_id: str | None
    plan_lookup_keys: list[str]
    subscription_status: str | None
    period_start: str
    period_end: str
    meters: list[MeterUsage]


EXAMPLES = {
    ("/v2/billing/usage/summary", "get", "200"): {
        "billing_source": "exporter",
        "stripe_customer_id": None,
        "plan_lookup_keys": ["export", "search"],
        "subscription_status": "active",
        "period_start": "2026-03-01T08:00:00Z",
        "period_end": NEVER,
        "meters": [
            msgspec.to_builtins(MeterUsage(event_name, display_name, 120, 500, 380))
            for _, event_name, display_name in (JOBS, EXPORTS)
        ],
    },
}
"""What is answered, by path, method and status."""


@router.get(
    "/billing/usage/summary",
    summary="Show what was used",
    response_model=None,
    responses={
        200: responses.shows("Each meter.", "UsageSummary"),
        **errors.documented(Detail, 429),
    },
)
def summary(request: Request) -> Response:
    """What the key has used and may still use. `plan_lookup_keys` are the features it has."""
    caller = reader(request)
    balance = credits_of(request).balance(caller.id)
    bounded = balance.left is not None
    features = plans.FEATURES if caller.plan.features is None else caller.plan.features
    return responses.reply(
        UsageSummary(
            billing_source="exporter",
            stripe_customer_id=None,
            plan_lookup_keys=sorted(features),
            subscription_status="active",
            period_start=_start(caller),
            period_end=NEVER,
            meters=[
                MeterUsage(
                    meter.event_name,
                    meter.display_name,
                    used=_used(balance),
                    included=_included(balance) if bounded else None,
                    remaining=balance.left,
                )
                for meter in (JOBS, EXPORTS)
            ],
        )
    )
