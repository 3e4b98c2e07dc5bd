"""Validates `webhook_url` and `webhook_events`, the webhook fields of every export request."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, NamedTuple

from fastapi import Request
from pydantic import BaseModel, Field

from exporter.api.openapi import bounds
from exporter.api.state import endpoints_of, guard_of
from exporter.core import events as event_names
from exporter.core.exports import Hook
from exporter.errors import FieldProblem, problem
from exporter.webhooks.addresses import ForbiddenAddress, Guard, NameUnresolved

LOOKUP_SECONDS = 2.0
"""Seconds for which a request waits for the name server. Each delivery looks the name up again."""
MAX_LOOKUP_THREADS = 8
"""Most threads of one process that wait for name servers; further look-ups are skipped.

Requests that create and poll exports need threads, too, and an attacker can run a name server that
never answers.
"""
MAX_EVENT_NAMES = 50
MAX_EVENT_NAME_CHARS = 100

WEBHOOK_URL_DESCRIPTION = (
    "URL to which the events of this export are sent, as Standard Webhooks defines. The endpoints"
    " under the tag `webhooks` return the signing secret."
)

EventName = Annotated[
    str,
    Field(
        max_length=MAX_EVENT_NAME_CHARS,
        json_schema_extra={"enum": list(event_names.EXPORT_EVENTS)},
    ),
]

URL: Any = Field(None, description=WEBHOOK_URL_DESCRIPTION, json_schema_extra=bounds.WEBHOOK)
"""The field `webhook_url` of requests whose bounds are documented."""

_lookups = threading.BoundedSemaphore(MAX_LOOKUP_THREADS)


class WebhookFields(BaseModel):
    """The fields of a request that ask for webhooks about its export."""

    webhook_url: str | None = Field(None, description=WEBHOOK_URL_DESCRIPTION)
    webhook_events: list[EventName] | None = Field(
        None,
        max_length=MAX_EVENT_NAMES,
        description="Events to send; default: all except `export.progress`.",
    )


class RequestedWebhook(NamedTuple):
    """The webhook that a request asks for."""

    record: Callable[[], Hook] | None
    """Stores the endpoint and returns its id with the events; None: no webhook is asked for."""
    wrong: Sequence[FieldProblem]
    """The problems of the webhook fields."""


_NO_WEBHOOK = RequestedWebhook(None, ())


def read_webhook(request: Request, user_id: str, asked: WebhookFields) -> RequestedWebhook:
    """Validates the webhook fields of a request.

    Wrong fields are returned, not raised. No endpoint is stored until `record` is called.
    """
    url, events = asked.webhook_url, asked.webhook_events
    if url is None and events is None:
        return _NO_WEBHOOK
    found: list[FieldProblem] = []
    subscribed = event_names.DEFAULT_EXPORT_EVENTS
    if events is not None:
        try:
            subscribed = event_names.check_events(events, event_names.EXPORT_EVENTS)
        except ValueError as error:
            found.append(problem(("webhook_events",), str(error)))
        if url is None:
            found.append(
                problem(
                    ("webhook_events",), "give webhook_url, too: the events are sent to that URL"
                )
            )
    if url is None:
        return RequestedWebhook(None, found)
    forbidden = forbidden_reason(guard_of(request), url)
    if forbidden:
        found.append(problem(("webhook_url",), forbidden))
    endpoints = endpoints_of(request)

    def record() -> Hook:
        return Hook(endpoints.get_or_create(user_id, url).id, subscribed)

    return RequestedWebhook(record, found)


def find_problems(
    request: Request, user_id: str, fields: Mapping[str, Any]
) -> Sequence[FieldProblem]:
    """Returns the problems of the webhook fields, if these have the right types."""
    if not {"webhook_url", "webhook_events"} <= fields.keys():
        return ()
    asked = WebhookFields.model_construct(
        webhook_url=fields["webhook_url"], webhook_events=fields["webhook_events"]
    )
    return read_webhook(request, user_id, asked).wrong


def forbidden_reason(guard: Guard, url: str) -> str | None:
    """Returns the reason for which webhooks must not be sent to the URL; None if it is permitted.

    A host name that has no address yet is permitted, because users may set up a receiver in any
    order. The name is not looked up while MAX_LOOKUP_THREADS threads wait for name servers. Each
    delivery checks the addresses again.
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
