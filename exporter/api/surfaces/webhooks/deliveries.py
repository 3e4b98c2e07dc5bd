"""Lists webhook deliveries with their state and their attempts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any, Literal

import msgspec
from fastapi import Query, Request
from starlette.responses import Response

from exporter.api import auth, errors, headers, responses
from exporter.api.refusal import Refusal
from exporter.api.state import deliveries_of, service_of
from exporter.api.surface import Answer, Operation
from exporter.api.surfaces.webhooks import endpoints
from exporter.contracts.timestamps import Rfc3339
from exporter.webhooks.deliveries import Delivery, DeliveryPage, DeliveryState


class WebhookAttempt(msgspec.Struct):
    """An attempt to deliver a webhook."""

    at: Rfc3339
    duration: Annotated[float, msgspec.Meta(description="Seconds.")]
    status: Annotated[int | None, msgspec.Meta(description="HTTP status; null if no answer came.")]
    error: Annotated[
        str | None, msgspec.Meta(description="Why the attempt failed; null if it succeeded.")
    ]
    excerpt: Annotated[str, msgspec.Meta(description="Beginning of the answer's body.")]


class WebhookDeliverySummary(msgspec.Struct):
    """The delivery of one event to one endpoint."""

    id: str
    message_id: Annotated[
        str, msgspec.Meta(description="The header `webhook-id`, the same at each attempt.")
    ]
    endpoint_id: str
    export_id: Annotated[
        str | None, msgspec.Meta(description="null if the event is not about an export.")
    ]
    type: str
    sequence: Annotated[int, msgspec.Meta(description="Position among the events of its export.")]
    state: DeliveryState
    tries: Annotated[
        int,
        msgspec.Meta(description="Attempts since the delivery was created or sent again by hand."),
    ]
    last_status: Annotated[
        int | None, msgspec.Meta(description="HTTP status of the latest attempt.")
    ]
    last_error: str | None
    created_at: Rfc3339
    next_at: Annotated[Rfc3339 | None, msgspec.Meta(description="Time of the next attempt.")]
    finished_at: Annotated[
        Rfc3339 | None,
        msgspec.Meta(description="Time at which the delivery succeeded or was given up."),
    ]
    gave_up: Annotated[str | None, msgspec.Meta(description="Why the delivery was given up.")]


class WebhookDelivery(WebhookDeliverySummary):
    """The delivery of one event to one endpoint, with its payload and latest attempts."""

    payload: Annotated[
        Any,
        msgspec.Meta(description="The body without a download URL, which each attempt signs anew."),
    ]
    attempts: Annotated[
        list[WebhookAttempt], msgspec.Meta(description="The latest attempts, oldest first.")
    ]


class WebhookDeliveries(msgspec.Struct):
    """A page of deliveries, newest first.

    More deliveries follow while `next_cursor` is set, even if a page has few entries or none.
    """

    deliveries: list[WebhookDeliverySummary]
    next_cursor: str | None


def _fields(delivery: Delivery) -> dict[str, Any]:
    zulu = responses.zulu_or_none
    last = delivery.attempts[-1] if delivery.attempts else None
    return {
        "id": delivery.id,
        "message_id": delivery.message_id,
        "endpoint_id": delivery.endpoint_id,
        "export_id": delivery.export_id,
        "type": delivery.type,
        "sequence": delivery.sequence,
        "state": delivery.state,
        "tries": delivery.tries,
        "last_status": last.status if last else None,
        "last_error": last.error if last else None,
        "created_at": zulu(delivery.created_at),
        "next_at": zulu(delivery.next_at),
        "finished_at": zulu(delivery.finished_at),
        "gave_up": delivery.gave_up,
    }


def summary(delivery: Delivery) -> WebhookDeliverySummary:
    """Returns the delivery in the form of lists."""
    return WebhookDeliverySummary(**_fields(delivery))


def full_view(delivery: Delivery) -> WebhookDelivery:
    """Returns the delivery in the form that its owner sees, with its payload and attempts."""
    return WebhookDelivery(
        **_fields(delivery),
        payload=msgspec.Raw(delivery.body),
        attempts=[
            WebhookAttempt(responses.zulu(one.at), one.duration, one.status, one.error, one.excerpt)
            for one in delivery.attempts
        ],
    )


_ID = "msg_0b8c2c4e-6a57-4a2b-9a50-0e6a3a2f6b11_4.we_1f0c2a5d6b7e"
SUMMARY_EXAMPLE = {
    "id": _ID,
    "message_id": "msg_0b8c2c4e-6a57-4a2b-9a50-0e6a3a2f6b11_4",
    "endpoint_id": "we_1f0c2a5d6b7e",
    "export_id": "0b8c2c4e-6a57-4a2b-9a50-0e6a3a2f6b11",
    "type": "export.finished",
    "sequence": 4,
    "state": "pending",
    "tries": 1,
    "last_status": 503,
    "last_error": "https://hooks.example.com answered 503, and only 2xx is a delivery",
    "created_at": "2026-03-02T09:15:09.618020Z",
    "next_at": "2026-03-02T09:15:15.101200Z",
    "finished_at": None,
    "gave_up": None,
}
FULL_EXAMPLE = {
    **SUMMARY_EXAMPLE,
    "payload": {
        "type": "export.finished",
        "timestamp": "2026-03-02T09:15:09.618020Z",
        "data": {"id": SUMMARY_EXAMPLE["export_id"], "state": "finished", "sequence": 4},
    },
    "attempts": [
        {
            "at": "2026-03-02T09:15:09.640118Z",
            "duration": 0.084,
            "status": 503,
            "error": SUMMARY_EXAMPLE["last_error"],
            "excerpt": "busy",
        }
    ],
}
_PAGE = {"deliveries": [SUMMARY_EXAMPLE], "next_cursor": None}
_DEAD = {
    **SUMMARY_EXAMPLE,
    "state": "dead",
    "tries": 10,
    "next_at": None,
    "finished_at": "2026-03-05T12:50:10.002113Z",
    "gave_up": "no try of 10 was a delivery",
}

State = Annotated[
    DeliveryState | None, Query(description="Only deliveries in this state; default: all.")
]


def of_endpoint(
    request: Request,
    endpoint_id: str,
    state: State = None,
    limit: responses.Limit = 20,
    cursor: responses.Cursor = None,
) -> Response:
    """Lists the deliveries to one endpoint in any state, newest first."""
    caller, deliveries = auth.reader(request), deliveries_of(request)
    endpoint = endpoints.owned(request, caller.user_id, endpoint_id)
    read = partial(deliveries.of_endpoint, endpoint.id, cursor=cursor, state=state)
    path = f"/v1/webhook-endpoints/{endpoint.id}/deliveries"
    return _page(request, path, read, limit, state)


def of_export(
    request: Request,
    export_id: str,
    state: State = None,
    limit: responses.Limit = 20,
    cursor: responses.Cursor = None,
) -> Response:
    """Lists the deliveries about one export to all your endpoints, newest first."""
    caller, deliveries = auth.reader(request), deliveries_of(request)
    if service_of(request).find(caller.user_id, export_id) is None:
        raise errors.missing(export_id)
    read = partial(deliveries.of_export, export_id, cursor=cursor, state=state)
    return _page(request, f"/v1/exports/{export_id}/deliveries", read, limit, state)


def dead(
    request: Request,
    state: Annotated[Literal["dead"], Query(description="`dead`: given up.")] = "dead",
    limit: responses.Limit = 20,
    cursor: responses.Cursor = None,
) -> Response:
    """Lists the dead deliveries to all your endpoints, deleted endpoints included, latest first."""
    caller, deliveries = auth.reader(request), deliveries_of(request)
    read = partial(deliveries.dead, caller.user_id, cursor=cursor)
    return _page(request, "/v1/webhook-deliveries", read, limit, DeliveryState(state))


def show(request: Request, delivery_id: str) -> Response:
    """Returns a delivery with its payload and the result of each attempt."""
    caller = auth.reader(request)
    return responses.reply(full_view(owned(request, caller.user_id, delivery_id)))


def owned(request: Request, user_id: str, delivery_id: str) -> Delivery:
    """Returns the user's delivery with that id. Raises Refusal 404 if the user has none."""
    delivery = deliveries_of(request).find(delivery_id)
    if delivery is None or delivery.user_id != user_id:
        raise missing(delivery_id)
    return delivery


def missing(delivery_id: str) -> Refusal:
    """Returns the 404 refusal of a delivery that does not exist or belongs to another user."""
    return Refusal(
        404,
        "not_found",
        f"no webhook delivery of yours has the id {delivery_id[:200]!r}; it may be expired",
    )


def _page(
    request: Request,
    path: str,
    read: Callable[..., DeliveryPage],
    limit: int,
    state: DeliveryState | None,
) -> Response:
    """Returns the response with the page that `read` returns for a limit.

    Raises Refusal 422 for an invalid cursor.
    """
    try:
        page = read(limit=min(limit, responses.MAX_PAGE_SIZE))
    except ValueError:
        raise responses.wrong_cursor() from None
    given = {"state": state} if state else {}
    entries = [summary(one) for one in page.deliveries]
    return responses.reply(
        WebhookDeliveries(entries, page.next_cursor),
        headers=responses.next_link(service_of(request), path, limit, page.next_cursor, given),
    )


_LISTED = Answer(
    "A page, newest first; Link has the next page.", WebhookDeliveries, _PAGE, (headers.LINK,)
)

OPERATIONS = (
    Operation(
        "GET /v1/webhook-endpoints/{endpoint_id}/deliveries",
        of_endpoint,
        "listWebhookDeliveriesOfEndpoint",
        "List deliveries to an endpoint",
        {200: _LISTED},
        (404, 422),
    ),
    Operation(
        "GET /v1/exports/{export_id}/deliveries",
        of_export,
        "listWebhookDeliveriesOfExport",
        "List deliveries of an export",
        {200: _LISTED},
        (404, 422),
    ),
    Operation(
        "GET /v1/webhook-deliveries",
        dead,
        "listDeadWebhookDeliveries",
        "List dead deliveries",
        {200: _LISTED._replace(example={"deliveries": [_DEAD], "next_cursor": None})},
        (404, 422),
    ),
    Operation(
        "GET /v1/webhook-deliveries/{delivery_id}",
        show,
        "getWebhookDelivery",
        "Get a delivery",
        {200: Answer("The delivery with its attempts.", WebhookDelivery, FULL_EXAMPLE)},
        (404,),
    ),
)
