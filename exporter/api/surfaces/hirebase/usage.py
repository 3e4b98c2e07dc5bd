"""Rate limits and credits of the callers of the Hirebase contract.

Requests are counted per key, whatever they cost. Polls of a task are not counted: the official
client polls every two seconds and gives up at a 429, which four concurrent exports would cause.

Records are paid from a single balance, whichever endpoint returns them, so each of the vendor's
meters shows the whole balance. A key without a balance is not metered, and its responses have no
usage headers; the official client then shows no usage. Credits do not expire, so the vendor's
billing period is here the life of the key and ends on the last day that a date can express.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple, TypeVar

import msgspec
import structlog
from fastapi import Request
from starlette.responses import Response

from exporter.api import admission, auth, deeds, headers, responses
from exporter.api.refusal import Refusal
from exporter.api.state import credits_of, limits_of, run_blocking, service_of
from exporter.api.surface import Answer, Header, Operation
from exporter.core import plans
from exporter.core.limits import CREATE_RATE, HIREBASE_RATE, Limit
from exporter.core.plans import Balance
from exporter.core.rates import Rate
from exporter.errors import StoreUnavailable
from exporter.store.redis.api_keys import ApiKey
from exporter.store.redis.rate_limits import Count, Window

log: structlog.stdlib.BoundLogger = structlog.get_logger()
Found = TypeVar("Found")

PERIOD_END = "9999-12-31T23:59:59Z"
"""End of the billing period of every key."""


RATE = (headers.RATE_LIMIT, headers.RATE_REMAINING)
USAGE = tuple(
    Header(f"Hirebase-Usage-{name}", f"Metered keys only: {text}.", schema)
    for name, text, schema in (
        ("Feature", "the feature that was used", headers.TEXT),
        ("Meter", "the name of the meter", headers.TEXT),
        ("Unit", "the unit that is counted", headers.TEXT),
        ("Overage-Mode", "`block`", headers.TEXT),
        ("Period-Start", "start of the period", headers.TEXT),
        ("Period-End", "end of the period", headers.TEXT),
        ("Included-Limit", "units included in the period", headers.NUMBER),
        ("Included-Used", "included units that are used", headers.NUMBER),
        ("Included-Remaining", "included units that are left", headers.NUMBER),
        ("Overage-Used", "always 0", headers.NUMBER),
        ("Total-Used", "all units used", headers.NUMBER),
    )
)
"""Headers about the usage of a key, in the order of the OpenAPI document."""


class Meter(NamedTuple):
    """The vendor's names for one kind of usage, such as searches or exports."""

    feature: str
    event_name: str
    display_name: str


JOBS = Meter("jobs_api", "m_jobs_api_calls", "Jobs API")
EXPORTS = Meter("exports", "m_exports", "Exports")


def reader(request: Request, deed: Limit[Rate] | None = None) -> ApiKey:
    """Returns the caller's API key, which has the scope `read`, and counts the request.

    The request counts for this contract and, if `deed` is given, for that rate of all contracts.
    Adds the rate-limit headers to the response. Raises Refusal 401 or 403 like `auth.reader`,
    Refusal 429 over the rate limit of the contract, and LimitReached over that of `deed`.
    """
    caller = auth.reader(request)
    _count(request, caller)
    if deed is not None:
        deeds.count(request, caller, deed)
    return caller


def writer(request: Request, deed: Limit[Rate]) -> ApiKey:
    """Returns the caller's API key, which has the scope `write`, and counts the request.

    The headers and errors are those of `reader`.
    """
    caller = auth.writer(request)
    _count(request, caller)
    deeds.count(request, caller, deed)
    return caller


def create_writer(request: Request) -> ApiKey:
    """Does for a request that creates an export what `writer` does; counting is postponed.

    Only for handlers that `admission.admitted` wraps.
    """
    caller = auth.writer(request)
    admission.count(request, _count_of(request, caller))
    admission.count(request, deeds.count_of(request, caller, CREATE_RATE))
    return caller


def _count(request: Request, caller: ApiKey) -> None:
    """Counts the request for this contract."""
    counted = _count_of(request, caller)
    call = limits_of(request).acquire_call(counted.name, counted.rate)
    run_blocking(request, call.then(counted.check))


def _count_of(request: Request, caller: ApiKey) -> Count:
    """Returns what `_count` counts."""
    rate = service_of(request).bound(HIREBASE_RATE, caller.plan)

    def check(window: Window) -> None:
        request.state.headers |= {
            "X-RateLimit-Limit": str(window.limit),
            "X-RateLimit-Remaining": str(window.remaining),
        }
        if not window.allowed:
            wait = max(1, math.ceil(window.retry_after))
            raise Refusal(
                429, "rate_limited", "Rate limit exceeded", headers={"Retry-After": str(wait)}
            )

    return Count(f"hirebase:{caller.id}", rate, check)


def check_balance(request: Request, caller: ApiKey, records: int) -> None:
    """Raises Refusal 429 if the caller's key is metered and has fewer credits than `records`."""
    if caller.plan.metered:
        balance = credits_of(request).balance(caller.id)
        if balance.left is not None and balance.left < records:
            raise quota_spent(request, caller, JOBS, records)


def ask_and_charge(
    request: Request,
    caller: ApiKey,
    most: int,
    ask: Callable[[], Found],
    count: Callable[[Found], int],
) -> Found:
    """Returns what `ask` returns, and takes one credit for each of its records.

    A metered key pays for `most` records before the source is asked, and gets back what the source
    did not return: parallel requests cannot read more than their key can pay. Adds the usage
    headers for such a key. Raises Refusal 429, without asking, if too few credits are left.
    """
    accounts = credits_of(request)
    if not caller.plan.metered:
        found = ask()
        accounts.charge(caller.id, count(found))
        return found
    try:
        accounts.charge(caller.id, most, refundable=True)
    except plans.CreditsSpent as error:
        raise quota_spent(request, caller, JOBS, error.needed) from None
    records = 0
    try:
        found = ask()
        records = min(count(found), most)
    finally:
        try:
            accounts.refund(caller.id, most - records, records)
        except StoreUnavailable as error:
            log.warning("credits.not_refunded", credits=most - records, reason=str(error))
    add_usage_headers(request, caller, JOBS)
    return found


def add_usage_headers(request: Request, caller: ApiKey, meter: Meter) -> None:
    """Adds the usage headers to the response if the key is metered."""
    if caller.plan.metered:
        _set_usage_headers(request, caller, meter, credits_of(request).balance(caller.id))


def quota_spent(request: Request, caller: ApiKey, meter: Meter, needed: int) -> Refusal:
    """Returns the 429 refusal of a request for which the caller has too few credits.

    The vendor documents two answers to this: 429 with a billing code, and 402. The official client
    reports the 429 as a used-up quota, after which a caller can ask for fewer records, but the 402
    as an account without a plan, so the 429 is used. There is no Retry-After header, because
    waiting does not help.
    """
    balance = credits_of(request).balance(caller.id)
    _set_usage_headers(request, caller, meter, balance)
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


def _set_usage_headers(request: Request, caller: ApiKey, meter: Meter, balance: Balance) -> None:
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
        "Period-Start": responses.zulu_seconds(caller.created_at),
        "Period-End": PERIOD_END,
    }
    request.state.headers |= {
        f"Hirebase-Usage-{name}": str(value) for name, value in (words | numbers).items()
    }


class MeterUsage(msgspec.Struct):
    """Records counted by a meter; `included` and `remaining` are null if the key is not metered."""

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
    """The usage of a key. All meters share a single balance, so each shows the whole balance."""

    billing_source: str
    stripe_customer_id: str | None
    plan_lookup_keys: list[str]
    subscription_status: str | None
    period_start: str
    period_end: str
    meters: list[MeterUsage]


def summary(request: Request) -> Response:
    """Returns what the key has used and may still use. `plan_lookup_keys` are its features."""
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
            period_start=responses.zulu_seconds(caller.created_at),
            period_end=PERIOD_END,
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


OPERATIONS = (
    Operation(
        "GET /v2/billing/usage/summary",
        summary,
        "getUsage",
        "Get the usage of the key",
        {
            200: Answer(
                "The usage by meter.",
                UsageSummary,
                {
                    "billing_source": "exporter",
                    "stripe_customer_id": None,
                    "plan_lookup_keys": ["export", "search"],
                    "subscription_status": "active",
                    "period_start": "2026-03-01T08:00:00Z",
                    "period_end": PERIOD_END,
                    "meters": [
                        msgspec.to_builtins(MeterUsage(event_name, display_name, 120, 500, 380))
                        for _, event_name, display_name in (JOBS, EXPORTS)
                    ],
                },
            )
        },
        (429,),
        limit_headers=RATE,
    ),
)
