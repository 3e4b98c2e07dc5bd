"""Lets the owner of a listener take its deliveries, and report how they went."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Annotated

import anyio
import msgspec
from anyio import to_thread
from fastapi import Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from exporter.api import auth, responses, turns
from exporter.api.bodies import TheBody, parse
from exporter.api.refusal import Refusal
from exporter.api.state import deliveries_of, endpoints_of, outbox_of, run, service_of
from exporter.api.surface import Answer, Body, Operation
from exporter.api.surfaces.webhooks import deliveries
from exporter.api.waiting import until
from exporter.core import limits
from exporter.webhooks import attempts
from exporter.webhooks.outbox import LISTENER_LEASE, Claimed, NoListener
from exporter.webhooks.sender import MAX_RETRY_AFTER_SECONDS, Outcome

MAX_WAIT_SECONDS = 30
"""Longest wait of a take; most proxies close a connection that is silent for a minute."""
POLL_SECONDS = 0.5
"""Time between two looks for a due delivery while a take waits."""
MAX_ERROR_CHARS = 500
MAX_MILLISECONDS = 3_600_000


class AckRequest(BaseModel):
    """The outcome of an attempt at a taken delivery. Unknown fields are rejected."""

    model_config = ConfigDict(extra="forbid", strict=True)

    lease: str = Field(max_length=100, description="`lease` of the taken delivery.")
    status: int | None = Field(
        None, ge=100, le=599, description="HTTP status of the receiver; null if no answer came."
    )
    ms: float = Field(0, ge=0, le=MAX_MILLISECONDS, description="Duration in milliseconds.")
    excerpt: str = Field(
        "",
        max_length=attempts.MAX_EXCERPT_CHARS,
        description="Beginning of the body that the receiver answered.",
    )
    error: str = Field(
        "", max_length=MAX_ERROR_CHARS, description="Why the attempt failed; for the log."
    )
    retry_after: float | None = Field(
        None,
        ge=0,
        le=MAX_RETRY_AFTER_SECONDS,
        description="Seconds that the receiver named in Retry-After.",
    )


class TakenWebhook(msgspec.Struct):
    """A delivery that was taken: send it, and report the outcome before the lease ends."""

    id: str
    lease: Annotated[
        str,
        msgspec.Meta(
            description="Names this attempt in the report. Without a report in"
            f" {LISTENER_LEASE.seconds} seconds the delivery is due again."
        ),
    ]
    type: str
    export_id: Annotated[
        str | None, msgspec.Meta(description="null if the event is not about an export.")
    ]
    tries: Annotated[int, msgspec.Meta(description="Attempts before this one.")]
    headers: Annotated[
        dict[str, str], msgspec.Meta(description="`webhook-id`, its time and its signature.")
    ]
    body: Annotated[str, msgspec.Meta(description="Send it unchanged: the signature covers it.")]


class TakenWebhooks(msgspec.Struct):
    """The deliveries that were taken: none or one."""

    deliveries: list[TakenWebhook]


Wait = Annotated[
    int,
    Query(
        ge=0,
        description="Seconds to wait for a due delivery; values over"
        f" {MAX_WAIT_SECONDS} count as {MAX_WAIT_SECONDS}.",
    ),
]


async def take(request: Request, endpoint_id: str, wait: Wait = 0) -> Response:
    """Takes the due delivery of a listener, to be sent from your own machine.

    The headers and the body are those that the service would send. Report the outcome with `POST
    /v1/webhook-deliveries/{delivery_id}/ack`: a delivery that failed is due again later, as with
    other endpoints. The time of the listener starts again. The key needs the scopes `write` and
    `read`, because the body may have a download URL.
    """
    await auth.identify(request)
    caller = auth.writer(request)
    auth.reader(request)
    call = outbox_of(request).take_call
    taken: Claimed | None = None

    async def look() -> None:
        nonlocal taken
        # An answer that is lost would hold the delivery back until the end of its lease.
        with anyio.CancelScope(shield=True):
            taken = await run(request, call(endpoint_id, caller.user_id))

    async def look_again() -> None:
        while taken is None:
            await anyio.sleep(POLL_SECONDS)
            await look()

    try:
        await look()
        if wait and taken is None:
            with turns.turns_of(request).hold(request, limits.WAITING_POLLS) as may_wait:
                if may_wait:
                    await until(request, look_again, min(wait, MAX_WAIT_SECONDS))
    except NoListener:
        raise _missing(endpoint_id) from None
    found = [await to_thread.run_sync(_view, request, taken)] if taken else []
    return responses.reply(TakenWebhooks(found))


def _view(request: Request, taken: Claimed) -> TakenWebhook:
    service, delivery = service_of(request), taken.delivery

    def link(export_id: str) -> str | None:
        export = service.store.get(export_id)
        found = service.link(export) if export else None
        return found[0] if found else None

    signed = attempts.sign(taken, service.clock.now(), link)
    return TakenWebhook(
        id=delivery.id,
        lease=taken.nonce,
        type=delivery.type,
        export_id=delivery.export_id,
        tries=delivery.tries,
        headers=dict(signed.headers),
        body=signed.body.decode(),
    )


def ack(request: Request, delivery_id: str, body: TheBody) -> Response:
    """Reports the outcome of an attempt at a taken delivery.

    A status of 2xx means that it is delivered. Otherwise the attempt failed, and the delivery is
    due again at `next_at`, or given up.
    """
    caller = auth.writer(request)
    asked = parse(request, body, AckRequest)
    delivery = deliveries.owned(request, caller.user_id, delivery_id)
    endpoint = endpoints_of(request).find(delivery.endpoint_id, caller.user_id)
    if endpoint is None or not endpoint.is_listener:
        raise _missing(delivery.endpoint_id)
    is_settled = attempts.settle(
        outbox_of(request),
        Claimed(delivery, endpoint, asked.lease, slow=False),
        service_of(request).clock.now() - timedelta(milliseconds=asked.ms),
        _outcome(asked),
        health="unknown",
        random_fraction=random.random,
    )
    if not is_settled:
        raise Refusal(
            409,
            "lease_lost",
            f"delivery {delivery.id} is not taken with this lease: its report came over"
            f" {LISTENER_LEASE.seconds} s after it was taken, and it is sent again",
        )
    return responses.reply(deliveries.summary(deliveries_of(request).find(delivery.id) or delivery))


def _outcome(asked: AckRequest) -> Outcome:
    error: str | None = asked.error
    if asked.status is not None and 200 <= asked.status < 300:
        error = None
    elif not error and asked.status is None:
        error = "the receiver did not answer"
    elif not error:
        error = f"the receiver answered {asked.status}, but only 2xx counts as delivered"
    return Outcome(asked.status, asked.ms / 1000, asked.excerpt.encode(), asked.retry_after, error)


def _missing(endpoint_id: str) -> Refusal:
    return Refusal(
        404,
        "not_found",
        f"no listener of yours has the id {endpoint_id[:100]!r}: it is deleted when nothing is"
        " taken for the time of its `ttl`; create another",
    )


_LEASE = "9f86d081884c7d65"
_TAKEN = {
    "deliveries": [
        {
            "id": deliveries.SUMMARY_EXAMPLE["id"],
            "lease": _LEASE,
            "type": "export.finished",
            "export_id": deliveries.SUMMARY_EXAMPLE["export_id"],
            "tries": 0,
            "headers": {
                "webhook-id": deliveries.SUMMARY_EXAMPLE["message_id"],
                "webhook-timestamp": "1772442909",
                "webhook-signature": "v1,zkcmEWB+zWHYzVJq9RrRX7zqXjYr1qhJ8bWXkJ1m3qA=",
            },
            "body": '{"type":"export.finished","data":{"state":"finished"}}',
        }
    ]
}

OPERATIONS = (
    Operation(
        "POST /v1/webhook-endpoints/{endpoint_id}/take",
        take,
        "takeWebhook",
        "Take a delivery of a listener",
        {200: Answer("The delivery, signed now; none if none is due.", TakenWebhooks, _TAKEN)},
        (404, 422),
    ),
    Operation(
        "POST /v1/webhook-deliveries/{delivery_id}/ack",
        ack,
        "ackWebhook",
        "Report the outcome of a taken delivery",
        {
            200: Answer(
                "The delivery after the attempt.",
                deliveries.WebhookDeliverySummary,
                deliveries.SUMMARY_EXAMPLE,
            )
        },
        (400, 404, 409, 413, 415, 422),
        Body(AckRequest, {"lease": _LEASE, "status": 503, "ms": 84, "excerpt": "busy"}),
        codes={409: "lease_lost"},
    ),
)
