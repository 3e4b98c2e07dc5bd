"""What webhooks say: the events, and the JSON body of each."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from exporter.core.events import DISABLED, STATES, TEST, Event
from exporter.core.exports import Export, State
from exporter.webhooks.endpoints import Endpoint

LONGEST_ERROR = 2_000
"""Characters; a body stays below the 20 kB that receivers expect at most."""


def export_body(event: Event, export: Export, public_url: str) -> bytes:
    """What is told of an export. State, progress and counts are those of the event, although the
    record may have gone on since; what is set once (outcome, result, error) is the record's."""
    state = STATES[event.type]
    result = export.result if state is State.FINISHED else None
    return _body(
        event.type,
        event.at,
        {
            "id": export.id,
            "state": state,
            "outcome": result.completeness.outcome if result else None,
            "sequence": event.sequence,
            "progress": event.progress,
            "record_count": result.record_count if result else event.rows,
            "result": {
                "record_count": result.record_count,
                "file_size": result.file_size,
                "expiry_time": _zulu(export.file_expires_at) if export.file_expires_at else None,
            }
            if result
            else None,
            "error": (export.error or "")[:LONGEST_ERROR] if state is State.FAILED else None,
            "links": {"self": f"{public_url.rstrip('/')}/v1/exports/{quote(export.id, safe='')}"},
        },
    )


def endpoint_body(event: Event, endpoint: Endpoint) -> bytes:
    """What is told of an endpoint to the user's other ones."""
    url = urlsplit(endpoint.url)
    return _body(
        event.type,
        event.at,
        {
            "id": endpoint.id,
            "sequence": event.sequence,
            # Its path may be secret, and this goes to another receiver.
            "host": url.hostname or "",
            "description": endpoint.description,
            "failing_since": _zulu(endpoint.failing_since) if endpoint.failing_since else None,
            "disabled_because": endpoint.disabled_reason if event.type == DISABLED else None,
        },
    )


def test_body(endpoint: Endpoint, at: datetime) -> bytes:
    """What is sent to try an endpoint."""
    return _body(TEST, at, {"id": endpoint.id})


def with_download_url(body: bytes, url: str | None) -> bytes:
    """The body of `export.finished` with a download URL; null if the file is gone."""
    message = msgspec.json.decode(body)
    message["data"]["download_url"] = url
    return msgspec.json.encode(message)


def _body(kind: str, at: datetime, data: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode({"type": kind, "timestamp": _zulu(at), "data": data})


def _zulu(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="microseconds") + "Z"
