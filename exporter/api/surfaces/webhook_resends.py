"""Sending webhooks by hand: a test, a delivery again, all that an endpoint missed."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any

import msgspec
import structlog
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from exporter.api import auth, errors, responses
from exporter.api.bodies import TheBody, parse
from exporter.api.errors import Problem
from exporter.api.refusal import Refusal
from exporter.api.state import deliveries_of, service_of
from exporter.api.surfaces import webhook_deliveries, webhooks
from exporter.contracts import timestamps
from exporter.webhooks.deliveries import Delivery
from exporter.webhooks.delivery_store import MOST_RECOVERED
from exporter.webhooks.endpoints import EndpointDisabled

log: structlog.stdlib.BoundLogger = structlog.get_logger()
router = APIRouter(prefix="/v1", tags=["webhooks"])

MAX_RECOVER_AGE = timedelta(days=14)


class RecoverRequest(BaseModel):
    """Since when. An unknown field is refused, not ignored."""

    model_config = ConfigDict(extra="forbid", strict=True)

    since: timestamps.Moment = Field(
        description="A day, or a moment of ISO 8601, at most 14 days ago."
    )


class Recovery(msgspec.Struct):
    """What is sent again."""

    recovered: Annotated[
        int,
        msgspec.Meta(
            description=f"Deliveries that are tried anew, {MOST_RECOVERED:,} at most, oldest first."
        ),
    ]


_AGAIN = {**webhook_deliveries.FULL_EXAMPLE, "tries": 0}
_TEST_ID = "msg_test_5f1e2d3c4b5a69788796a5b4.we_1f0c2a5d6b7e"
_TEST = {
    **webhook_deliveries.FULL_EXAMPLE,
    "id": _TEST_ID,
    "message_id": _TEST_ID.partition(".")[0],
    "export_id": None,
    "type": "webhook.test",
    "sequence": 1,
    "tries": 0,
    "last_status": None,
    "last_error": None,
    "payload": {
        "type": "webhook.test",
        "timestamp": "2026-03-02T09:15:09.618020Z",
        "data": {"id": webhook_deliveries.FULL_EXAMPLE["endpoint_id"]},
    },
    "attempts": [],
}
EXAMPLES: Mapping[tuple[str, str, str], Any] = {
    ("/v1/webhook-endpoints/{endpoint_id}/test", "post", "202"): _TEST,
    ("/v1/webhook-endpoints/{endpoint_id}/recover", "post", "202"): {"recovered": 12},
    ("/v1/webhook-deliveries/{delivery_id}/redeliver", "post", "202"): _AGAIN,
}
"""What is answered, by path, method and status."""


@router.post(
    "/webhook-endpoints/{endpoint_id}/test",
    summary="Test a webhook endpoint",
    status_code=202,
    response_model=None,
    responses={
        202: responses.shows("The delivery. Location says where it is seen.", "WebhookDelivery"),
        **errors.documented(Problem, 404, 409),
    },
)
def test(request: Request, endpoint_id: str) -> Response:
    """Send it `webhook.test` now, whatever it wants to hear and even if it is disabled."""
    caller = auth.writer(request)
    endpoint = webhooks.owned(request, caller.user_id, endpoint_id)
    try:
        delivery = deliveries_of(request).test(endpoint)
    except EndpointDisabled as error:
        raise _disabled(error) from None
    log.info("endpoint.tested", endpoint_id=endpoint.id, user_id=caller.user_id)
    return _accepted(request, delivery)


@router.post(
    "/webhook-endpoints/{endpoint_id}/recover",
    summary="Send again what an endpoint missed",
    status_code=202,
    response_model=None,
    openapi_extra=webhooks.json_request_body(RecoverRequest, {"since": "2026-03-01T00:00:00Z"}),
    responses={
        202: responses.shows("How many are sent again.", "Recovery"),
        **errors.documented(Problem, 400, 404, 409, 413, 415, 422),
    },
)
def recover(request: Request, endpoint_id: str, body: TheBody) -> Response:
    """Send again all that failed of what was first to be sent since then: what was given up, and
    what waits for its next try."""
    caller = auth.writer(request)
    asked = parse(request, body, RecoverRequest)
    since, earliest = (
        timestamps.parse(asked.since),
        service_of(request).clock.now() - MAX_RECOVER_AGE,
    )
    if since < earliest:
        text = f"that is over {MAX_RECOVER_AGE.days} days ago: give {earliest:%Y-%m-%dT%H:%M:%SZ}"
        raise errors.invalid(
            [{"loc": ("body", "since"), "msg": f"{text} or later", "type": "value_error"}]
        )
    endpoint = webhooks.owned(request, caller.user_id, endpoint_id)
    try:
        recovered = deliveries_of(request).recover(endpoint.id, since)
    except EndpointDisabled as error:
        raise _disabled(error) from None
    log.info(
        "endpoint.recovered", endpoint_id=endpoint.id, user_id=caller.user_id, deliveries=recovered
    )
    return responses.reply(Recovery(recovered), 202)


@router.post(
    "/webhook-deliveries/{delivery_id}/redeliver",
    summary="Send a delivery again",
    status_code=202,
    response_model=None,
    responses={
        202: responses.shows("The delivery, pending.", "WebhookDelivery"),
        **errors.documented(Problem, 404, 409),
    },
)
def redeliver(request: Request, delivery_id: str) -> Response:
    """Send it again now, whatever became of it, under the same `webhook-id`. One that is under way
    is left alone."""
    caller = auth.writer(request)
    delivery = webhook_deliveries.owned(request, caller.user_id, delivery_id)
    try:
        again = deliveries_of(request).redeliver(delivery.id)
    except EndpointDisabled as error:
        raise _disabled(error) from None
    if again is None:
        raise webhook_deliveries.missing(delivery_id)
    log.info(
        "delivery.asked_again",
        delivery_id=delivery.id,
        endpoint_id=delivery.endpoint_id,
        export_id=delivery.export_id,
        user_id=caller.user_id,
    )
    return _accepted(request, again)


def _disabled(error: EndpointDisabled) -> Refusal:
    return Refusal(409, "endpoint_disabled", str(error))


def _accepted(request: Request, delivery: Delivery) -> Response:
    path = f"/v1/webhook-deliveries/{delivery.id}"
    headers = {"Location": responses.address(service_of(request), path)}
    return responses.reply(webhook_deliveries.full_view(delivery), 202, headers)
