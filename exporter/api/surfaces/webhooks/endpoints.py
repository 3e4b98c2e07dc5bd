"""Registers webhook endpoints, which receive events about exports, and manages their secrets."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal

import msgspec
import structlog
from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from exporter.api import auth, errors, headers, responses, webhook_fields
from exporter.api.bodies import TheBody, parse
from exporter.api.openapi import bounds
from exporter.api.refusal import Refusal
from exporter.api.state import endpoints_of, guard_of, service_of
from exporter.api.surface import Answer, Body, Operation
from exporter.contracts.timestamps import Rfc3339
from exporter.core import events as event_names
from exporter.core import limits
from exporter.errors import FieldProblem, problem, within
from exporter.webhooks.endpoint_store import DEFAULT_ROTATION_GRACE, MAX_ROTATION_GRACE
from exporter.webhooks.endpoints import DisableReason, Endpoint

log: structlog.stdlib.BoundLogger = structlog.get_logger()

MAX_DESCRIPTION_CHARS = 500
MIN_LISTENER_TTL, DEFAULT_LISTENER_TTL = 10, 60
"""Seconds without a take after which a listener is deleted."""
Kind = Literal["url", "listener"]
EventName = Annotated[
    str,
    Field(
        max_length=webhook_fields.MAX_EVENT_NAME_CHARS,
        json_schema_extra={"enum": list(event_names.EVENTS)},
    ),
]


class EndpointRequest(BaseModel):
    """A webhook endpoint to register. Unknown fields are rejected."""

    model_config = ConfigDict(extra="forbid", strict=True)

    kind: Kind = Field(
        "url",
        description="`url`: events are sent to `url`. `listener`: they are taken with `POST"
        " …/take`, for a machine that the service cannot reach.",
    )
    ttl: int | None = Field(
        None,
        ge=MIN_LISTENER_TTL,
        le=limits.LISTENER_TTL.default,
        description="Seconds without a take after which a listener is deleted with its"
        f" deliveries; default: {DEFAULT_LISTENER_TTL}.",
    )
    url: str | None = Field(
        None,
        description="`https://HOST/PATH` on a public host, with port 443 or 8443. Required unless"
        " the kind is `listener`.",
        json_schema_extra=bounds.WEBHOOK,
    )
    events: list[EventName] | None = Field(
        None,
        max_length=webhook_fields.MAX_EVENT_NAMES,
        description="Events of all your exports to send; default: all except"
        " `export.progress`, which is sent every 10 seconds at most.",
    )
    ordered: bool = Field(
        False,
        description="Send the events of each export in order: an event that cannot be delivered"
        " delays the later events of its export until it is given up.",
    )
    include_download_url: bool = Field(
        False,
        description="Add a download URL to `export.finished`, signed when the event is sent. Needs"
        " a key with the scope `read`, too.",
    )
    description: str = Field(
        "", max_length=MAX_DESCRIPTION_CHARS, description="A note for yourself."
    )


class RotateRequest(BaseModel):
    """Options for the replacement of a secret. Unknown fields are rejected."""

    model_config = ConfigDict(extra="forbid", strict=True)

    grace_seconds: int = Field(
        int(DEFAULT_ROTATION_GRACE.total_seconds()),
        ge=0,
        le=int(MAX_ROTATION_GRACE.total_seconds()),
        description="Seconds for which the old secret also signs; up to 7 days.",
    )


class WebhookEndpoint(msgspec.Struct):
    """A webhook endpoint. Its secret is returned on creation, on rotation and at `/secret`."""

    id: str
    kind: Annotated[
        Kind,
        msgspec.Meta(description="`listener`: the deliveries are taken, and `url` is empty."),
    ]
    ttl: Annotated[
        int | None,
        msgspec.Meta(
            description="Seconds without a take after which a listener is deleted; else null."
        ),
    ]
    url: str
    events: Annotated[
        list[str],
        msgspec.Meta(
            description="Events of all your exports that are sent to this endpoint. Empty if the"
            " endpoint is not `registered`: each export then selects its own events."
        ),
    ]
    registered: Annotated[
        bool,
        msgspec.Meta(
            description="True if you registered the endpoint. Otherwise it was created for the"
            " `webhook_url` of an export, and is deleted some time after the last such export."
        ),
    ]
    ordered: bool
    include_download_url: bool
    description: str
    enabled: bool
    disabled_at: Rfc3339 | None
    disabled_because: Annotated[
        DisableReason | None,
        msgspec.Meta(
            description="`owner`: you disabled the endpoint. `gone`: the endpoint answered 410."
            " `failing`: no delivery succeeded for five days."
        ),
    ]
    failing_since: Annotated[
        Rfc3339 | None,
        msgspec.Meta(description="Start of the current run of failures; null if there is none."),
    ]
    created_at: Rfc3339


class WebhookEndpoints(msgspec.Struct):
    """The webhook endpoints of the caller, oldest first."""

    endpoints: list[WebhookEndpoint]


class WebhookSecret(msgspec.Struct):
    """The secret that signs webhooks, in the form that Standard Webhooks libraries accept."""

    secret: str
    replaced_until: Annotated[
        list[Rfc3339],
        msgspec.Meta(
            description="End of the grace period of each replaced secret that still signs."
        ),
    ]


class WebhookEndpointMade(WebhookEndpoint):
    """A new webhook endpoint and its secret."""

    secret: Annotated[str, msgspec.Meta(description="The same secret that `/secret` returns.")]


def view(endpoint: Endpoint) -> WebhookEndpoint:
    """Returns the endpoint in the form that its owner sees, without its secrets."""
    return WebhookEndpoint(**_fields(endpoint))


def _fields(endpoint: Endpoint) -> dict[str, Any]:
    zulu = responses.zulu_or_none
    return {
        "id": endpoint.id,
        "kind": "listener" if endpoint.is_listener else "url",
        "ttl": endpoint.listener_ttl,
        "url": endpoint.url,
        "events": list(endpoint.events),
        "registered": endpoint.registered,
        "ordered": endpoint.ordered,
        "include_download_url": endpoint.include_download_url,
        "description": endpoint.description,
        "enabled": endpoint.enabled,
        "disabled_at": zulu(endpoint.disabled_at),
        "disabled_because": endpoint.disabled_reason,
        "failing_since": zulu(endpoint.failing_since),
        "created_at": zulu(endpoint.created_at),
    }


def _secret(endpoint: Endpoint) -> WebhookSecret:
    first, *replaced = endpoint.secrets
    return WebhookSecret(first.value, [responses.zulu(one.until) for one in replaced if one.until])


_ID = "we_1f0c2a5d6b7e"
_ENDPOINT = {
    "id": _ID,
    "kind": "url",
    "ttl": None,
    "url": "https://hooks.example.com/exports",
    "events": list(event_names.DEFAULT_EVENTS),
    "registered": True,
    "ordered": False,
    "include_download_url": False,
    "description": "warehouse loader",
    "enabled": True,
    "disabled_at": None,
    "disabled_because": None,
    "failing_since": None,
    "created_at": "2026-03-02T09:15:04.201933Z",
}
_KEY = "whsec_c2VjcmV0IGV4YW1wbGUgZm9yIHRoZSBkb2N1bWVudCE="
_ONE = "/v1/webhook-endpoints/{endpoint_id}"


def create(request: Request, body: TheBody) -> Response:
    """Registers an endpoint: a URL that receives events of all your exports from now on.

    To check the URL, send a test with `POST /v1/webhook-endpoints/{endpoint_id}/test`. A listener
    has no URL: its deliveries are taken, as `exporter listen` does, which forwards them to a server
    on its own machine.
    """
    caller = auth.writer(request)
    asked = parse(
        request, body, EndpointRequest, check=lambda fields: _find_problems(request, fields)
    )
    if asked.include_download_url:
        auth.reader(request)
    wrong = _find_problems(request, asked.model_dump())
    if wrong:
        raise errors.invalid(wrong)
    events = event_names.DEFAULT_EVENTS
    if asked.events is not None:
        events = event_names.check_events(asked.events)
    endpoint = endpoints_of(request).create(
        caller.user_id,
        asked.url or "",
        events=events,
        ordered=asked.ordered,
        include_download_url=asked.include_download_url,
        description=asked.description,
        listener_ttl=(asked.ttl or DEFAULT_LISTENER_TTL) if asked.kind == "listener" else None,
    )
    _log("endpoint.created", endpoint.id, caller.user_id)
    place = responses.address(service_of(request), f"/v1/webhook-endpoints/{endpoint.id}")
    made = WebhookEndpointMade(**_fields(endpoint), secret=endpoint.secrets[0].value)
    return responses.reply(made, 201, {"Location": place})


def _find_problems(request: Request, fields: Mapping[str, Any]) -> list[FieldProblem]:
    wrong = _find_misfits(fields)
    if fields.get("url") is not None:
        forbidden = webhook_fields.forbidden_reason(guard_of(request), fields["url"])
        if forbidden:
            wrong.append(problem(("url",), forbidden))
    if fields.get("events") is not None:
        try:
            event_names.check_events(fields["events"])
        except ValueError as error:
            wrong.append(problem(("events",), str(error)))
    return within("body", wrong)


def _find_misfits(fields: Mapping[str, Any]) -> list[FieldProblem]:
    """Returns the problems of fields that do not belong to the kind of endpoint."""
    kind, url = fields.get("kind"), fields.get("url", "")
    if kind == "url" and url is None:
        return [problem(("url",), "Field required", "missing")]
    if kind == "listener" and url:
        return [problem(("url",), "a listener has no URL: leave url out, or kind")]
    if kind == "url" and fields.get("ttl") is not None:
        return [problem(("ttl",), "only a listener has a ttl: leave it out")]
    return []


def index(request: Request) -> Response:
    """Lists the endpoints that you registered, and the latest ones created for a `webhook_url`.

    Each export with a `webhook_url` names its endpoint in its `webhook`.
    """
    caller = auth.reader(request)
    found = endpoints_of(request).list(caller.user_id)
    return responses.reply(WebhookEndpoints([view(endpoint) for endpoint in found]))


def show(request: Request, endpoint_id: str) -> Response:
    """Returns an endpoint without its secret."""
    caller = auth.reader(request)
    return responses.reply(view(owned(request, caller.user_id, endpoint_id)))


def secret(request: Request, endpoint_id: str) -> Response:
    """Returns the secret that verifies this endpoint's webhooks.

    The API key needs the scope `write`, because the secret allows its holder to forge webhooks.
    """
    caller = auth.writer(request)
    return responses.reply(_secret(owned(request, caller.user_id, endpoint_id)))


def rotate(request: Request, endpoint_id: str, body: TheBody) -> Response:
    """Replaces the secret; during the grace period, the old secret also signs.

    Receivers can verify with either secret during the grace period, so they do not have to change
    at the same moment.
    """
    caller = auth.writer(request)
    asked = parse(request, body or b"{}", RotateRequest)
    grace = timedelta(seconds=asked.grace_seconds)
    endpoint = endpoints_of(request).rotate(endpoint_id, caller.user_id, grace=grace)
    if endpoint is None:
        raise missing(endpoint_id)
    _log("endpoint.rotated", endpoint.id, caller.user_id)
    return responses.reply(_secret(endpoint))


def disable(request: Request, endpoint_id: str) -> Response:
    """Disables an endpoint: no more events are sent to it.

    Pending deliveries are given up and can be sent again later.
    """
    caller = auth.writer(request)
    return _switched(endpoints_of(request).disable(endpoint_id, caller.user_id), endpoint_id)


def enable(request: Request, endpoint_id: str) -> Response:
    """Enables an endpoint for all events from now on.

    `…/recover` sends its failed deliveries again.
    """
    caller = auth.writer(request)
    return _switched(endpoints_of(request).enable(endpoint_id, caller.user_id), endpoint_id)


def delete(request: Request, endpoint_id: str) -> Response:
    """Deletes an endpoint permanently; its pending deliveries are given up."""
    caller = auth.writer(request)
    if not endpoints_of(request).delete(endpoint_id, caller.user_id):
        raise missing(endpoint_id)
    _log("endpoint.deleted", endpoint_id, caller.user_id)
    return Response(status_code=204)


def owned(request: Request, user_id: str, endpoint_id: str) -> Endpoint:
    """Returns the user's endpoint with that id. Raises Refusal 404 if the user has none."""
    endpoint = endpoints_of(request).find(endpoint_id, user_id)
    if endpoint is None:
        raise missing(endpoint_id)
    return endpoint


def missing(endpoint_id: str) -> Refusal:
    """Returns the 404 refusal of an endpoint that does not exist or belongs to another user."""
    return Refusal(
        404, "not_found", f"no webhook endpoint of yours has the id {endpoint_id[:100]!r}"
    )


def _switched(endpoint: Endpoint | None, endpoint_id: str) -> Response:
    if endpoint is None:
        raise missing(endpoint_id)
    _log(
        "endpoint.enabled" if endpoint.enabled else "endpoint.disabled",
        endpoint.id,
        endpoint.user_id,
    )
    return responses.reply(view(endpoint))


def _log(event: str, endpoint_id: str, user_id: str) -> None:
    log.info(event, endpoint_id=endpoint_id, user_id=user_id)


_ONE_ENDPOINT = Answer("The endpoint.", WebhookEndpoint, _ENDPOINT)
_NEW_SECRET = {"secret": _KEY, "replaced_until": ["2026-03-03T09:15:04.201933Z"]}
_DISABLED = {
    **_ENDPOINT,
    "enabled": False,
    "disabled_at": "2026-03-02T10:00:00.000000Z",
    "disabled_because": "owner",
}

OPERATIONS = (
    Operation(
        "POST /v1/webhook-endpoints",
        create,
        "createWebhookEndpoint",
        "Register a webhook endpoint",
        {
            201: Answer(
                "The endpoint, with its secret.",
                WebhookEndpointMade,
                {**_ENDPOINT, "secret": _KEY},
                (headers.LOCATION,),
            )
        },
        (400, 409, 413, 415, 422),
        Body(
            EndpointRequest,
            {"url": _ENDPOINT["url"], "events": ["export.finished", "export.failed"]},
        ),
        codes={409: "too_many_endpoints"},
    ),
    Operation(
        "GET /v1/webhook-endpoints",
        index,
        "listWebhookEndpoints",
        "List webhook endpoints",
        {200: Answer("The endpoints, oldest first.", WebhookEndpoints, {"endpoints": [_ENDPOINT]})},
    ),
    Operation(
        f"GET {_ONE}",
        show,
        "getWebhookEndpoint",
        "Get a webhook endpoint",
        {200: _ONE_ENDPOINT},
        (404,),
    ),
    Operation(
        f"GET {_ONE}/secret",
        secret,
        "getWebhookSecret",
        "Get a webhook endpoint's secret",
        {200: Answer("The current secret.", WebhookSecret, {"secret": _KEY, "replaced_until": []})},
        (404,),
    ),
    Operation(
        f"POST {_ONE}/rotate",
        rotate,
        "rotateWebhookSecret",
        "Rotate a webhook endpoint's secret",
        {200: Answer("The new secret.", WebhookSecret, _NEW_SECRET)},
        (400, 404, 409, 413, 415, 422),
        Body(RotateRequest, {"grace_seconds": 86400}, required=False),
        codes={409: "too_many_secrets"},
    ),
    Operation(
        f"POST {_ONE}/disable",
        disable,
        "disableWebhookEndpoint",
        "Disable a webhook endpoint",
        {200: _ONE_ENDPOINT._replace(example=_DISABLED)},
        (404,),
    ),
    Operation(
        f"POST {_ONE}/enable",
        enable,
        "enableWebhookEndpoint",
        "Enable a webhook endpoint",
        {200: _ONE_ENDPOINT},
        (404,),
    ),
    Operation(
        f"DELETE {_ONE}",
        delete,
        "deleteWebhookEndpoint",
        "Delete a webhook endpoint",
        {204: Answer("The endpoint is deleted.")},
        (404,),
    ),
)
