"""The top-level `webhooks` of the OpenAPI document: each event with its schema and an example."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

from exporter.api.openapi import schemas
from exporter.core import events
from exporter.core.events import STATES
from exporter.webhooks import messages

BODIES: tuple[type[msgspec.Struct], ...] = (
    messages.ExportEvent,
    messages.EndpointEvent,
    messages.TestEvent,
)
"""Bodies of all webhooks."""
_ID = "0b8c2c4e-6a57-4a2b-9a50-0e6a3a2f6b11"
_AT = "2026-03-02T09:15:09.618020Z"
_EXPORT = {
    "id": _ID,
    "name": "data engineers, weekly",
    "metadata": {"team": "growth"},
    "state": "processing",
    "outcome": None,
    "sequence": 2,
    "progress": 0.0,
    "record_count": 0,
    "result": None,
    "error": None,
    "links": {"self": f"https://exports.example.com/v1/exports/{_ID}"},
}
_FINISHED = {
    **_EXPORT,
    "state": "finished",
    "outcome": "complete",
    "sequence": 4,
    "progress": 1.0,
    "record_count": 1204,
    "result": {
        "record_count": 1204,
        "file_size": 3120441,
        "expiry_time": "2026-03-09T09:15:09.618020Z",
    },
}
_ENDPOINT = {
    "id": "we_1f0c2a5d6b7e",
    "sequence": 1,
    "host": "hooks.example.com",
    "description": "warehouse loader",
    "failing_since": "2026-03-02T08:40:01.118204Z",
    "disabled_because": None,
}


class _Event(NamedTuple):
    summary: str
    data: Mapping[str, Any]


_EVENTS: Mapping[str, _Event] = {
    "export.queued": _Event("An export was created", {**_EXPORT, "state": "queued", "sequence": 1}),
    "export.started": _Event("A worker has started an export", _EXPORT),
    events.PROGRESS: _Event(
        "An export has gone on; only if selected, and every 10 s at most",
        {**_EXPORT, "sequence": 3, "progress": 0.41, "record_count": 492},
    ),
    events.FINISHED: _Event("The file of an export is published", _FINISHED),
    "export.failed": _Event(
        "An export has failed",
        {**_EXPORT, "state": "failed", "sequence": 4, "error": "the source answered 401"},
    ),
    "export.canceled": _Event("An export was canceled", {**_EXPORT, "state": "canceled"}),
    "export.expired": _Event(
        "The file of an export was deleted at the end of its retention",
        {**_FINISHED, "sequence": 5},
    ),
    events.FAILING: _Event("Deliveries to another of your endpoints fail", _ENDPOINT),
    events.DISABLED: _Event(
        "Another of your endpoints was disabled",
        {**_ENDPOINT, "sequence": 2, "disabled_because": "failing"},
    ),
    events.TEST: _Event("A test, sent on request", {"id": "we_1f0c2a5d6b7e"}),
}
_HEADERS = [
    {
        "name": name,
        "in": "header",
        "required": True,
        "description": description,
        "schema": {"type": "string"},
    }
    for name, description in (
        ("webhook-id", "Id of the event, the same at each attempt and at each endpoint."),
        ("webhook-timestamp", "Time of this attempt, in Unix seconds."),
        ("webhook-signature", "`v1,` and a signature, for each secret that signs."),
    )
]
_RESPONSES = {
    "2XX": {"description": "The webhook is delivered. After any other status it is sent again."},
    "410": {"description": "The endpoint is disabled."},
}


def entries(tag: str) -> dict[str, Any]:
    """Returns the webhooks by the names of their events."""
    return {name: {"post": _operation(name, event, tag)} for name, event in _EVENTS.items()}


def _operation(name: str, event: _Event, tag: str) -> dict[str, Any]:
    subject, happened = name.split(".")
    shape: type[msgspec.Struct] = messages.ExportEvent
    if name not in STATES:
        shape = messages.TestEvent if name == events.TEST else messages.EndpointEvent
    return {
        "operationId": f"{subject}{happened.capitalize()}",
        "summary": event.summary,
        "tags": [tag],
        "parameters": _HEADERS,
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {
                    "schema": {"$ref": schemas.REFERENCE.format(shape.__name__)},
                    "example": {"type": name, "timestamp": _AT, "data": event.data},
                }
            },
        },
        "responses": _RESPONSES,
        "security": [],
    }
