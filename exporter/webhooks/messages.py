"""JSON bodies of webhooks, one function for each kind of event."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any
from urllib.parse import quote, urlsplit

import msgspec

from exporter.contracts import timestamps
from exporter.core.events import DISABLED, STATES, TEST, Event
from exporter.core.exports import Export, State
from exporter.webhooks.endpoints import Endpoint

MAX_ERROR_CHARS = 2_000
"""Longest error text in a body, so that a body stays below the 20 kB that receivers accept."""


def export_body(event: Event, export: Export, public_url: str) -> bytes:
    """Returns the body of an event about an export.

    `state`, `progress` and row counts are those at the time of the event, even if the record has
    changed since. Values that are set only once (outcome, result, error) are read from the record.
    """
    state = STATES[event.type]
    result = export.result if state is State.FINISHED else None
    return _body(
        event.type,
        event.at,
        {
            "id": export.id,
            "name": export.spec.name,
            "metadata": export.spec.metadata,
            "state": state,
            "outcome": result.completeness.outcome if result else None,
            "sequence": event.sequence,
            "progress": event.progress,
            "record_count": result.record_count if result else event.rows,
            "result": {
                "record_count": result.record_count,
                "file_size": result.file_size,
                "expiry_time": timestamps.sortable(export.file_expires_at)
                if export.file_expires_at
                else None,
            }
            if result
            else None,
            "error": (export.error or "")[:MAX_ERROR_CHARS] if state is State.FAILED else None,
            "links": {"self": f"{public_url.rstrip('/')}/v1/exports/{quote(export.id, safe='')}"},
        },
    )


def endpoint_body(event: Event, endpoint: Endpoint) -> bytes:
    """Returns the body of an event about an endpoint, for the user's other endpoints."""
    url = urlsplit(endpoint.url)
    return _body(
        event.type,
        event.at,
        {
            "id": endpoint.id,
            "sequence": event.sequence,
            # Only the host: the path may be secret, and this body goes to another receiver.
            "host": url.hostname or "",
            "description": endpoint.description,
            "failing_since": timestamps.sortable(endpoint.failing_since)
            if endpoint.failing_since
            else None,
            "disabled_because": endpoint.disabled_reason if event.type == DISABLED else None,
        },
    )


def test_body(endpoint: Endpoint, at: datetime) -> bytes:
    """Returns the body of `webhook.test`."""
    return _body(TEST, at, {"id": endpoint.id})


def with_download_url(body: bytes, url: str | None) -> bytes:
    """Returns the body of `export.finished` with the field `download_url` added.

    The value is null if `url` is None, because the file was deleted.
    """
    message = msgspec.json.decode(body)
    message["data"]["download_url"] = url
    return msgspec.json.encode(message)


def _body(kind: str, at: datetime, data: Mapping[str, Any]) -> bytes:
    return msgspec.json.encode({"type": kind, "timestamp": timestamps.sortable(at), "data": data})
