"""Webhooks on a machine that the service cannot reach: they are taken instead of sent."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from exporter.client.calls import Service, call
from exporter.client.models import Delivery, Listener, TakenWebhook
from exporter.client.operations import read
from exporter.client.steps import Steps

MAX_EXCERPT_CHARS, MAX_ERROR_CHARS = 1_000, 500
"""Longest texts of a report that the service accepts; longer ones are cut."""


def create(
    service: Service, events: Sequence[str] | None, ttl: int, description: str
) -> Steps[Listener]:
    """Creates a listener; one that was created by a try without an answer ends by its TTL."""
    body = {"kind": "listener", "ttl": ttl, "description": description}
    if events is not None:
        body["events"] = list(events)
    request = service.request("POST", "/v1/webhook-endpoints", body=body)
    return read(Listener, (yield from call(service, request)))


def take(service: Service, listener_id: str, wait: int) -> Steps[TakenWebhook | None]:
    """Returns the due webhook of a listener, None after so many seconds without one."""
    path = f"{_path(listener_id)}/take"
    request = service.request("POST", path, query={"wait": wait})
    found = yield from call(service._replace(max_retries=0), request)
    return next((read(TakenWebhook, one) for one in found.get("deliveries", ())), None)


def acknowledge(
    service: Service,
    taken: TakenWebhook,
    status: int | None,
    ms: float,
    texts: tuple[str, str],
    retry_after: float | None,
) -> Steps[Delivery]:
    """Reports the outcome of an attempt; `texts` are the beginning of the answer and the error."""
    excerpt, error = texts
    body = {
        "lease": taken.lease,
        "status": status,
        "ms": ms,
        "excerpt": excerpt[:MAX_EXCERPT_CHARS],
        "error": error[:MAX_ERROR_CHARS],
        "retry_after": retry_after,
    }
    path = f"/v1/webhook-deliveries/{quote(taken.id, safe='')}/ack"
    return read(Delivery, (yield from call(service, service.request("POST", path, body=body))))


def delete(service: Service, listener_id: str) -> Steps[None]:
    """Deletes a listener with what waits for it."""
    yield from call(service, service.request("DELETE", _path(listener_id)))


def _path(listener_id: str) -> str:
    return f"/v1/webhook-endpoints/{quote(listener_id, safe='')}"
