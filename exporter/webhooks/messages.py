"""JSON bodies of webhooks, one function for each kind of event."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from urllib.parse import quote, urlsplit

import msgspec

from exporter.contracts import timestamps
from exporter.contracts.timestamps import Rfc3339
from exporter.core.events import DISABLED, EXPORT_EVENTS, FAILING, STATES, TEST, Event
from exporter.core.exports import Export, Outcome, State
from exporter.webhooks.endpoints import DisableReason, Endpoint

MAX_ERROR_CHARS = 2_000
"""Longest error text in a body, so that a body stays below the 20 kB that receivers accept."""


class ExportEventResult(msgspec.Struct):
    """The file of a finished export."""

    record_count: int
    file_size: Annotated[int, msgspec.Meta(description="Bytes.")]
    expiry_time: Annotated[
        Rfc3339 | None,
        msgspec.Meta(description="When the file is deleted; in the past once it is."),
    ]


class ExportEventData(msgspec.Struct):
    """An export at the time of an event."""

    id: str
    name: str
    metadata: dict[str, str]
    state: State
    outcome: Annotated[Outcome | None, msgspec.Meta(description="null unless finished.")]
    sequence: Annotated[
        int, msgspec.Meta(description="Grows with each event of the export; may have gaps.")
    ]
    progress: float
    record_count: int
    result: Annotated[ExportEventResult | None, msgspec.Meta(description="null unless finished.")]
    error: Annotated[str | None, msgspec.Meta(description="null unless failed.")]
    links: Annotated[dict[str, str], msgspec.Meta(description="`self`: the URL of the export.")]
    download_url: Annotated[
        str | msgspec.UnsetType | None,
        msgspec.Meta(
            description="Only in `export.finished`, to endpoints with `include_download_url`."
            " null if the file was deleted."
        ),
    ] = msgspec.UNSET


class ExportEvent(msgspec.Struct):
    """The body of a webhook about an export."""

    type: Annotated[str, msgspec.Meta(extra_json_schema={"enum": list(EXPORT_EVENTS)})]
    timestamp: Annotated[Rfc3339, msgspec.Meta(description="Time of the event.")]
    data: ExportEventData


class EndpointEventData(msgspec.Struct):
    """A webhook endpoint at the time of an event."""

    id: str
    sequence: int
    host: Annotated[str, msgspec.Meta(description="Host of the endpoint's URL.")]
    description: str
    failing_since: Rfc3339 | None
    disabled_because: Annotated[
        DisableReason | None, msgspec.Meta(description="null unless disabled.")
    ]


class EndpointEvent(msgspec.Struct):
    """The body of a webhook about another of your endpoints."""

    type: Annotated[str, msgspec.Meta(extra_json_schema={"enum": [FAILING, DISABLED]})]
    timestamp: Annotated[Rfc3339, msgspec.Meta(description="Time of the event.")]
    data: EndpointEventData


class TestEventData(msgspec.Struct):
    """The endpoint that is tested."""

    id: str


class TestEvent(msgspec.Struct):
    """The body of a webhook that was sent as a test."""

    type: Annotated[str, msgspec.Meta(extra_json_schema={"enum": [TEST]})]
    timestamp: Annotated[Rfc3339, msgspec.Meta(description="Time of the request.")]
    data: TestEventData


def export_body(event: Event, export: Export, public_url: str) -> bytes:
    """Returns the body of an event about an export.

    `state`, `progress` and row counts are those at the time of the event, even if the record has
    changed since. Values that are set only once (outcome, result, error) are read from the record.
    """
    state = STATES[event.type]
    result = export.result if state is State.FINISHED else None
    data = ExportEventData(
        id=export.id,
        name=export.spec.name,
        metadata=export.spec.metadata,
        state=state,
        outcome=result.completeness.outcome if result else None,
        sequence=event.sequence,
        progress=event.progress,
        record_count=result.record_count if result else event.rows,
        result=ExportEventResult(
            record_count=result.record_count,
            file_size=result.file_size,
            expiry_time=_time_or_none(export.file_expires_at),
        )
        if result
        else None,
        error=(export.error or "")[:MAX_ERROR_CHARS] if state is State.FAILED else None,
        links={"self": f"{public_url.rstrip('/')}/v1/exports/{quote(export.id, safe='')}"},
    )
    return msgspec.json.encode(ExportEvent(event.type, timestamps.sortable(event.at), data))


def endpoint_body(event: Event, endpoint: Endpoint) -> bytes:
    """Returns the body of an event about an endpoint, for the user's other endpoints."""
    data = EndpointEventData(
        id=endpoint.id,
        sequence=event.sequence,
        # Only the host: the path may be secret, and this body goes to another receiver.
        host=urlsplit(endpoint.url).hostname or "",
        description=endpoint.description,
        failing_since=_time_or_none(endpoint.failing_since),
        disabled_because=endpoint.disabled_reason if event.type == DISABLED else None,
    )
    return msgspec.json.encode(EndpointEvent(event.type, timestamps.sortable(event.at), data))


def test_body(endpoint: Endpoint, at: datetime) -> bytes:
    """Returns the body of `webhook.test`."""
    data = TestEventData(endpoint.id)
    return msgspec.json.encode(TestEvent(TEST, timestamps.sortable(at), data))


def with_download_url(body: bytes, url: str | None) -> bytes:
    """Returns the body of `export.finished` with the field `download_url` added.

    The value is null if `url` is None, because the file was deleted.
    """
    message = msgspec.json.decode(body)
    message["data"]["download_url"] = url
    return msgspec.json.encode(message)


def _time_or_none(moment: datetime | None) -> str | None:
    return timestamps.sortable(moment) if moment else None
