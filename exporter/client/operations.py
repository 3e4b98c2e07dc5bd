"""The operations on exports, as steps."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypedDict, TypeVar
from urllib.parse import quote

import msgspec

from exporter.client.calls import Service, call
from exporter.client.errors import ConnectionFailed, ServerFailed, WaitExpired
from exporter.client.models import Activity, Export, Model, Preview, Source
from exporter.client.steps import Emit, Sleep, Steps

LONG_POLL_SECONDS = 30
"""Time for which the service holds a poll; it answers sooner when the export ends."""
MAX_POLL_SECONDS = 2.0
"""Longest pause between two polls whose records are watched."""
MAX_SILENCE_SECONDS = 60.0
"""Time for which a service that does not answer is asked again while an export is waited for."""

Watch = Callable[[Export], None]
Found = TypeVar("Found", bound=Model)


class ExportOptions(TypedDict, total=False):
    """Further fields of a new export; see `POST /v1/exports` in the documentation of the API."""

    format: str
    """`csv` (default), `json` (JSON Lines) or another format of the service."""
    columns: Sequence[str]
    limit: int
    compression: str
    file_name: str
    priority: int
    csv_safe: bool
    bom: bool
    name: str
    metadata: Mapping[str, str]
    webhook_url: str
    webhook_events: Sequence[str]


def create(
    service: Service,
    source: str,
    query: Mapping[str, Any] | None,
    options: Mapping[str, Any],
    idempotency_key: str | None,
) -> Steps[Export]:
    """Creates an export; all tries have one idempotency key, so only one export is created."""
    body = {"source": source, "query": query or {}, "format": "csv", **options}
    headers = _with_key(idempotency_key)
    request = service.request("POST", "/v1/exports", body=body, headers=headers)
    return _export((yield from call(service, request)))


def get(service: Service, export_id: str, wait: int = 0) -> Steps[Export]:
    """Returns an export, with a download link that was signed now if it is finished."""
    request = service.request("GET", path_of(export_id), query={"wait": wait or None})
    return _export((yield from call(service, request)))


def act(
    service: Service, export_id: str, action: str, idempotency_key: str | None = None
) -> Steps[Export]:
    """Cancels or retries an export."""
    headers = _with_key(idempotency_key) if action == "retry" else None
    request = service.request("POST", f"{path_of(export_id)}/{action}", headers=headers)
    return _export((yield from call(service, request)))


def delete(service: Service, export_id: str) -> Steps[None]:
    """Deletes an export with its file."""
    yield from call(service, service.request("DELETE", path_of(export_id)))


def list_(service: Service, page_size: int, filters: Mapping[str, Any]) -> Steps[None]:
    """Emits the exports of the key's user, newest first, page by page."""
    cursor = None
    while True:
        query = {**filters, "limit": page_size, "cursor": cursor}
        page = yield from call(service, service.request("GET", "/v1/exports", query=query))
        for one in page.get("exports", ()):
            yield Emit(_export(one))
        cursor = page.get("next_cursor")
        if cursor is None:
            return


def activity(service: Service, export_id: str) -> Steps[list[Activity]]:
    """Returns what happened to an export, oldest first."""
    found = yield from call(service, service.request("GET", f"{path_of(export_id)}/activity"))
    return [read(Activity, one) for one in found.get("activity", ())]


def sources(service: Service) -> Steps[list[Source]]:
    """Returns the sources of the service, without filters and columns."""
    found = yield from call(service, service.request("GET", "/v1/sources"))
    return [read(Source, one) for one in found.get("sources", ())]


def source(service: Service, name: str) -> Steps[Source]:
    """Returns a source with its filters and columns."""
    path = f"/v1/sources/{quote(name, safe='')}"
    return read(Source, (yield from call(service, service.request("GET", path))))


def preview(service: Service, name: str, query: Mapping[str, Any] | None) -> Steps[Preview]:
    """Returns the first rows that an export of this query would have now."""
    path = f"/v1/sources/{quote(name, safe='')}/preview"
    request = service.request("POST", path, body={"query": query or {}})
    return read(Preview, (yield from call(service, request)))


def wait(
    service: Service, export_id: str, timeout: float | None, watch: Watch | None
) -> Steps[Export]:
    """Returns the export when it has ended; raises WaitExpired after `timeout` seconds.

    `watch` gets each record on the way. A service that does not answer, because it restarts for
    example, is asked again for MAX_SILENCE_SECONDS; `watch` then gets the last record as one that
    waits for the service.
    """
    began = time.monotonic()
    silent_since, last = None, None
    pause = 0.1
    while True:
        left = None if timeout is None else began + timeout - time.monotonic()
        longest = LONG_POLL_SECONDS if left is None else max(int(left), 0)
        hold = 0 if watch else min(LONG_POLL_SECONDS, longest)
        asked_at = time.monotonic()
        try:
            last = yield from get(service._replace(max_retries=0), export_id, hold)
        except (ConnectionFailed, ServerFailed) as error:
            silent_since = silent_since or asked_at
            if asked_at - silent_since > MAX_SILENCE_SECONDS:
                raise
            if watch and last is not None:
                watch(_silent(last, str(error)))
            yield Sleep(MAX_POLL_SECONDS)
            continue
        silent_since = None
        if watch:
            watch(last)
        if last.has_ended:
            return last
        if timeout is not None and time.monotonic() - began >= timeout:
            raise WaitExpired(last, timeout)
        if watch:
            yield Sleep(pause if left is None else max(min(pause, left), 0.0))
            pause = min(pause * 1.5, MAX_POLL_SECONDS)
        elif time.monotonic() - asked_at < 1.0:
            # The service holds only so many polls at a time, and answers the others at once.
            yield Sleep(MAX_POLL_SECONDS if left is None else max(min(MAX_POLL_SECONDS, left), 0.0))


def _silent(last: Export, reason: str) -> Export:
    return msgspec.structs.replace(
        last, state="processing", phase="waiting", waiting_for=reason, retry_in_seconds=None
    )


def _export(body: Mapping[str, Any]) -> Export:
    return read(Export, body)


def read(model: type[Found], body: Mapping[str, Any]) -> Found:
    """Returns the object of an answer; raises ServerFailed if it has another form."""
    try:
        return model.read(body)
    except ValueError as error:
        name = model.__name__.lower()
        raise ServerFailed(200, f"no_{name}", f"the answer is no {name}: {error}") from None


def path_of(export_id: str) -> str:
    """Returns the path of an export."""
    return f"/v1/exports/{quote(export_id, safe='')}"


def _with_key(given: str | None) -> dict[str, str]:
    return {"idempotency-key": given or str(uuid.uuid4())}
