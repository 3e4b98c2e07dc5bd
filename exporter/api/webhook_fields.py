"""The `webhook_url` of an export, on whichever surface: what may stand there, whom it names."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Annotated, TypedDict

from fastapi import Request
from pydantic import BaseModel, Field

from exporter.api.state import endpoints_of, guard_of
from exporter.core import events as event_names
from exporter.core.exports import Hook
from exporter.errors import FieldProblem
from exporter.webhooks.addresses import ForbiddenAddress, Guard, NameUnresolved

LOOKUP_SECONDS = 2.0
"""That a caller waits for the name server. What it did not tell by then is asked at delivery."""
MAX_LOOKUP_THREADS = 8
"""Threads that one process lets wait for name servers. Beyond, nobody waits: who asks for exports
and polls them needs threads, too, and anyone can own a name server that says nothing."""
MAX_EVENT_NAMES = 50
MAX_EVENT_NAME_CHARS = 100

WEBHOOK_URL_DESCRIPTION = (
    "Where events of this export are sent, as Standard Webhooks says; what they are signed with"
    " stands under the tag `webhooks`."
)

EventName = Annotated[str, Field(max_length=MAX_EVENT_NAME_CHARS)]

_lookups = threading.BoundedSemaphore(MAX_LOOKUP_THREADS)


class WebhookFields(BaseModel):
    """The two fields by which a request names whom to tell of its export."""

    webhook_url: str | None = Field(None, description=WEBHOOK_URL_DESCRIPTION)
    webhook_events: list[EventName] | None = Field(
        None,
        max_length=MAX_EVENT_NAMES,
        description="Which of them; default: all but `export.progress`.",
    )


class RequestedWebhook(TypedDict):
    """What the engine has to know of it, as arguments of its `create`."""

    webhook: Callable[[], Hook] | None
    wrong: Sequence[FieldProblem]


def read_webhook(request: Request, user_id: str, asked: WebhookFields) -> RequestedWebhook:
    """What the two fields ask for, and what is wrong with them. Nothing is recorded before the
    engine calls `webhook`."""
    url, events = asked.webhook_url, asked.webhook_events
    found: list[FieldProblem] = []
    hears = event_names.DEFAULT_EXPORT_EVENTS
    if events is not None:
        try:
            hears = event_names.check_events(events, event_names.EXPORT_EVENTS)
        except ValueError as error:
            found.append(problem("webhook_events", str(error)))
        if url is None:
            found.append(problem("webhook_events", "give webhook_url, too: they are sent there"))
    if url is None:
        return RequestedWebhook(webhook=None, wrong=found)
    forbidden = forbidden_reason(guard_of(request), url)
    if forbidden:
        found.append(problem("webhook_url", forbidden))
    endpoints = endpoints_of(request)

    def name() -> Hook:
        return Hook(endpoints.named(user_id, url).id, hears)

    return RequestedWebhook(webhook=name, wrong=found)


def forbidden_reason(guard: Guard, url: str) -> str | None:
    """Why webhooks are not sent to that URL; None if they may be, as far as can be told now.

    A name that has no address yet is let pass: who sets a receiver up may do it in any order, and
    each delivery looks again.
    """
    try:
        target = guard.check(url)
        if _lookups.acquire(blocking=False):
            try:
                guard.resolve(target, within=LOOKUP_SECONDS)
            finally:
                _lookups.release()
    except ForbiddenAddress as error:
        return str(error)
    except NameUnresolved:
        pass
    return None


def problem(field: str, text: str) -> FieldProblem:
    return {"loc": (field,), "msg": text, "type": "value_error"}
