"""Sends webhooks on request: a test, one delivery again, or all failed deliveries."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any
from urllib.parse import urlsplit

import msgspec
import structlog
from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from exporter.api import auth, errors, headers, responses
from exporter.api.bodies import TheBody, parse
from exporter.api.openapi import bounds
from exporter.api.state import deliveries_of, endpoints_of, limits_of, service_of
from exporter.api.surface import Answer, Body, Operation
from exporter.api.surfaces.webhooks import deliveries, endpoints
from exporter.contracts import timestamps
from exporter.core import limits
from exporter.core.limits import LimitReached
from exporter.errors import FieldProblem, problem
from exporter.store.redis.api_keys import ApiKey
from exporter.webhooks.deliveries import Delivery
from exporter.webhooks.delivery_store import MAX_RECOVERED
from exporter.webhooks.endpoints import Endpoint

log: structlog.stdlib.BoundLogger = structlog.get_logger()

MAX_RECOVER_AGE = timedelta(days=14)
"""Greatest age of the deliveries that `recover` sends again."""


class RecoverRequest(BaseModel):
    """Start of the period whose failed deliveries are sent again. Unknown fields are rejected."""

    model_config = ConfigDict(extra="forbid", strict=True)

    since: timestamps.Moment = Field(
        description="A date or an ISO 8601 timestamp, at most 14 days ago.",
        json_schema_extra=bounds.DAY_OR_MOMENT,
    )


class Recovery(msgspec.Struct):
    """The result of a recovery."""

    recovered: Annotated[
        int,
        msgspec.Meta(
            description=f"Deliveries that are sent again, at most {MAX_RECOVERED:,}, oldest first."
        ),
    ]


_AGAIN = {**deliveries.FULL_EXAMPLE, "tries": 0}
_TEST_ID = "msg_test_5f1e2d3c4b5a69788796a5b4.we_1f0c2a5d6b7e"
_TEST = {
    **deliveries.FULL_EXAMPLE,
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
        "data": {"id": deliveries.FULL_EXAMPLE["endpoint_id"]},
    },
    "attempts": [],
}


def test(request: Request, endpoint_id: str) -> Response:
    """Sends `webhook.test` to the endpoint now, even if the endpoint is disabled.

    The `events` of the endpoint do not have to contain `webhook.test`.
    """
    caller = auth.writer(request)
    endpoint = endpoints.owned(request, caller.user_id, endpoint_id)
    _count_request(request, caller, endpoint)
    delivery = deliveries_of(request).send_test(endpoint)
    log.info("endpoint.tested", endpoint_id=endpoint.id, user_id=caller.user_id)
    return _accepted(request, delivery)


def recover(request: Request, endpoint_id: str, body: TheBody) -> Response:
    """Sends again the failed deliveries that were created since the time `since` of the request.

    A delivery has failed if it was given up, or if it waits for another attempt after a failed one.
    """
    caller = auth.writer(request)

    def find_problems(fields: Mapping[str, Any]) -> list[FieldProblem]:
        earliest = service_of(request).clock.now() - MAX_RECOVER_AGE
        if "since" not in fields or timestamps.parse(fields["since"]) >= earliest:
            return []
        text = f"this is over {MAX_RECOVER_AGE.days} days ago: give {earliest:%Y-%m-%dT%H:%M:%SZ}"
        return [problem(("body", "since"), f"{text} or later")]

    asked = parse(request, body, RecoverRequest, check=find_problems)
    if wrong := find_problems({"since": asked.since}):
        raise errors.invalid(wrong)
    since = timestamps.parse(asked.since)
    endpoint = endpoints.owned(request, caller.user_id, endpoint_id)
    _count_request(request, caller, endpoint)
    recovered = deliveries_of(request).recover(endpoint.id, since)
    log.info(
        "endpoint.recovered", endpoint_id=endpoint.id, user_id=caller.user_id, deliveries=recovered
    )
    return responses.reply(Recovery(recovered), 202)


def redeliver(request: Request, delivery_id: str) -> Response:
    """Sends a delivery again now, in any state, with the same `webhook-id`.

    A delivery with an attempt in progress is left unchanged.
    """
    caller = auth.writer(request)
    delivery = deliveries.owned(request, caller.user_id, delivery_id)
    endpoint = endpoints_of(request).find(delivery.endpoint_id, caller.user_id)
    _count_request(request, caller, endpoint)
    again = deliveries_of(request).redeliver(delivery.id)
    if again is None:
        raise deliveries.missing(delivery_id)
    log.info(
        "delivery.redelivered",
        delivery_id=delivery.id,
        endpoint_id=delivery.endpoint_id,
        export_id=delivery.export_id,
        user_id=caller.user_id,
    )
    return _accepted(request, again)


def _count_request(request: Request, caller: ApiKey, endpoint: Endpoint | None) -> None:
    """Counts a request to send something again. Raises LimitReached.

    Without limits, these requests would let a user send any number of POSTs to any host. The limit
    of a host is far above that of a user, so that one user does not use it up for others.
    """
    of_user, of_host = limits.WEBHOOK_RESENDS, limits.WEBHOOK_RESENDS_TO_HOST
    rate = service_of(request).bound(of_user, caller.plan)
    bounds = [(caller.user_id, of_user, rate, "you")]
    if endpoint is not None and endpoint.url:
        host = urlsplit(endpoint.url).hostname or ""
        bounds.append((host, of_host, of_host.default, f"all users to {host}"))
    for name, limit, rate, whose in bounds:
        window = limits_of(request).acquire(f"{limit.name}:{name}", rate)
        if not window.allowed:
            raise LimitReached(
                limit,
                f"tests, redeliveries and recoveries of {whose} are limited to {rate}: try again in"
                f" {math.ceil(window.retry_after)} s",
                retry_after=window.retry_after,
            )


def _accepted(request: Request, delivery: Delivery) -> Response:
    path = f"/v1/webhook-deliveries/{delivery.id}"
    headers = {"Location": responses.address(service_of(request), path)}
    return responses.reply(deliveries.full_view(delivery), 202, headers)


OPERATIONS = (
    Operation(
        "POST /v1/webhook-endpoints/{endpoint_id}/test",
        test,
        "testWebhookEndpoint",
        "Test a webhook endpoint",
        {
            202: Answer(
                "The delivery. Location is its URL.",
                deliveries.WebhookDelivery,
                _TEST,
                (headers.LOCATION,),
            )
        },
        (404, 409, 429),
        codes={409: "endpoint_disabled"},
    ),
    Operation(
        "POST /v1/webhook-endpoints/{endpoint_id}/recover",
        recover,
        "recoverWebhooks",
        "Send failed deliveries again",
        {202: Answer("The number of deliveries that are sent again.", Recovery, {"recovered": 12})},
        (400, 404, 409, 413, 415, 422, 429),
        Body(RecoverRequest, {"since": "2026-03-01T00:00:00Z"}),
        codes={409: "endpoint_disabled"},
    ),
    Operation(
        "POST /v1/webhook-deliveries/{delivery_id}/redeliver",
        redeliver,
        "redeliverWebhook",
        "Send a delivery again",
        {
            202: Answer(
                "The delivery, pending.", deliveries.WebhookDelivery, _AGAIN, (headers.LOCATION,)
            )
        },
        (404, 409, 429),
        codes={409: "endpoint_disabled"},
    ),
)
