"""What webhooks say: the events, and the JSON body of each."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import quote, urlsplit

import msgspec

from exporter.exports import Export, State
from exporter.webhooks.endpoints import Endpoint

PROGRESS, FINISHED = "export.progress", "export.finished"
STATES: Mapping[str, State] = {
    "export.queued": State.QUEUED,
    "export.started": State.PROCESSING,
    PROGRESS: State.PROCESSING,
    FINISHED: State.FINISHED,
    "export.failed": State.FAILED,
    "export.canceled": State.CANCELED,
    "export.expired": State.FINISHED,
}
"""The state that an export was in when the event happened. `expired`: its file was deleted."""
OVER = frozenset({FINISHED, "export.failed", "export.canceled"})
FAILING, DISABLED = "endpoint.failing", "endpoint.disabled"
EXPORT_EVENTS = tuple(STATES)
EVENTS = (*EXPORT_EVENTS, FAILING, DISABLED)
"""What a registered endpoint can hear; those of endpoints tell of the user's other ones."""
TEST = "webhook.test"
"""Sent when somebody asks for it, whatever the endpoint wants to hear."""
DEFAULT_EVENTS = tuple(name for name in EVENTS if name != PROGRESS)
DEFAULT_EXPORT_EVENTS = tuple(name for name in EXPORT_EVENTS if name != PROGRESS)

LONGEST_ERROR = 2_000
"""Characters; a body stays below the 20 kB that receivers expect at most."""


class Event(NamedTuple):
    """Something that happened to an export or an endpoint, as it was when it happened."""

    type: str
    at: datetime
    sequence: int
    """Grows by one with each event of one export, or endpoint."""
    progress: float
    rows: int
    subject_id: str
    """Of the export or the endpoint."""

    @property
    def message_id(self) -> str:
        """What `webhook-id` says, at each try and to each endpoint."""
        return f"msg_{self.subject_id}_{self.sequence}"

    @property
    def of_export(self) -> bool:
        return self.type in STATES


def check_events(names: Iterable[str], known: tuple[str, ...] = EVENTS) -> tuple[str, ...]:
    """The names in the order of `known`, each once. Raises ValueError for none and for others."""
    wanted = set(names)
    unknown = sorted(wanted.difference(known))
    if unknown or not wanted:
        raise ValueError(
            f"event {', '.join(unknown) or 'missing'}: give some of {', '.join(known)}"
        )
    return tuple(name for name in known if name in wanted)


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
            "disabled_because": endpoint.disabled_because if event.type == DISABLED else None,
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
