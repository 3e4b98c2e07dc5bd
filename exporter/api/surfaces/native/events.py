"""Live events of the native contract, as server-sent events, and the tickets of browsers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

import msgspec
from fastapi import Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from exporter.api import auth, deeds, edge, errors, headers, responses
from exporter.api.bodies import TheBody, parse
from exporter.api.events.feeds import Changes, feeds_of
from exporter.api.events.streams import HEADERS, EventStream, event
from exporter.api.state import run, service_of, show_call
from exporter.api.surface import Answer, Body, Operation
from exporter.api.surfaces.native import lists, views
from exporter.core import limits
from exporter.core.exports import Export
from exporter.service.exports import ExportService
from exporter.store.filters import Filters
from exporter.store.redis.api_keys import ApiKey

SLACK_MICROS = 5_000_000
"""Age of changes that a client gets again: changes may have been seen out of order."""
MAX_MISSED = 100
"""Newest exports among which those are sought that ended while a client was away."""

Ticket = Annotated[
    str | None,
    Query(max_length=200, description="A ticket of `POST /v1/tickets`, instead of a key."),
]
LAST_EVENT_ID = {
    "name": "Last-Event-ID",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "The id of the last event that the client has got; browsers send it.",
}


async def export_events(request: Request, export_id: str, ticket: Ticket = None) -> Response:
    """Streams an export as server-sent events: the whole export at each change, until its end.

    `export.updated` has the export as `GET /v1/exports/{export_id}` shows it; `export.deleted` has
    its id. The stream begins with the present state, unless `Last-Event-ID` says that the client
    has it, ends with the export, and after 10 minutes at most: then the client connects again. 204:
    the export has ended, and the client knows it.
    """
    caller = await auth.reader_or_ticket(request, ticket)
    export = await run(request, show_call(request, export_id))
    if export is None or auth.owner(caller) not in (None, export.user_id):
        raise errors.missing(export_id)
    known = request.headers.get("last-event-id", "")
    if export.terminal and known == views.revision(export):
        return Response(status_code=204, headers={"Cache-Control": "no-store"})
    if edge.is_head(request):
        return _head()
    render = _Renderer(service_of(request), caller, known=known)
    return EventStream(caller, feeds_of(request).export(request, export_id), render)


async def user_events(  # noqa: PLR0913 - one for each query parameter
    request: Request,
    ticket: Ticket = None,
    state: lists.States = None,
    source: lists.Source = None,
    format: lists.Format = None,  # noqa: A002
    outcome: lists.OutcomeName = None,
    created_from: lists.Moment = None,
    created_to: lists.Moment = None,
    name: lists.Name = None,
    user: lists.User = None,
) -> Response:
    """Streams the caller's exports that meet the filters, each whole at each of its changes.

    The filters are those of `GET /v1/exports`; an event is sent if the export meets them then. The
    stream begins with the exports that have not ended. A client that sends `Last-Event-ID` gets
    what has changed since, also exports that have ended since, if they are among the newest 100.
    """
    caller = await auth.reader_or_ticket(request, ticket)
    filters = lists.filters_of(
        request, state, source, format, outcome, created_from, created_to, name
    )
    if edge.is_head(request):
        return _head()
    return stream_user(request, caller, filters, user)


def stream_user(
    request: Request, caller: ApiKey, filters: Filters, user_id: str | None = None
) -> Response:
    """Returns the stream of the caller's exports; of `user_id` or of all users for an operator.

    Raises Refusal 403 if the caller may not see the exports of `user_id`.
    """
    owner, service = auth.owner(caller, user_id), service_of(request)
    text = request.headers.get("last-event-id", "")
    since = int(text) if text.isascii() and text.isdigit() and len(text) < 18 else None
    render = _Renderer(service, caller, filters=filters, since=since)

    def missed() -> Changes:
        page = service.store.list(owner, limit=MAX_MISSED, filters=filters)
        return {one.id: one for one in page.exports if one.terminal}

    return EventStream(
        caller,
        feeds_of(request).user(request, owner),
        render,
        missed=None if since is None else missed,
    )


def _head() -> Response:
    answer = Response(headers=HEADERS)
    del answer.headers["Content-Length"]
    return answer


class _Renderer:
    """Turns changes into events for one caller, without those that the caller knows."""

    def __init__(
        self,
        service: ExportService,
        caller: ApiKey,
        *,
        known: str | None = None,
        filters: Filters | None = None,
        since: int | None = None,
    ) -> None:
        self._service, self._caller = service, caller
        self._known = known
        """Id of the last event, of the stream of one export; None in that of a user."""
        self._filters, self._since = filters, since

    def __call__(self, changes: Changes) -> bytes:
        found = []
        for export_id, export in changes.items():
            if export is None:
                found.append((0, event("export.deleted", "0", _json({"id": export_id}))))
            elif self._filters is None or self._filters.match(export):
                found.append((_micros(export), self._updated(export)))
        return b"".join(text for _, text in sorted(found))

    def _updated(self, export: Export) -> bytes:
        if self._known is None:
            event_id = str(_micros(export))
            if self._since is not None and _micros(export) <= self._since - SLACK_MICROS:
                return b""
        else:
            event_id = views.revision(export)
            if event_id == self._known:
                return b""
            self._known = event_id
        caller = self._caller
        with_link = caller.may_read and export.user_id == caller.user_id
        shown = views.view(self._service, export, with_link=with_link)
        return event("export.updated", event_id, _json(shown))


_json: Callable[[Any], bytes] = msgspec.json.encode


def _micros(export: Export) -> int:
    return int(export.updated_at.timestamp() * 1_000_000)


class TicketRequest(BaseModel):
    """What a ticket is for. Unknown fields are rejected."""

    model_config = ConfigDict(extra="forbid", strict=True)

    purpose: Literal["events"] = Field(alias="for", description="`events`: one event stream.")


class TicketCreated(msgspec.Struct):
    """A ticket, which replaces the key of one request."""

    ticket: Annotated[str, msgspec.Meta(description="Send it as `?ticket=`, once.")]
    expires_at: str


def create_ticket(request: Request, body: TheBody) -> Response:
    """Creates a ticket for one event stream of a browser, which cannot send a key.

    It is valid for 60 seconds and for one request, with what its key may do then.
    """
    caller = deeds.reader(request, limits.LIST_RATE)
    parse(request, body, TicketRequest)
    tickets = auth.tickets_of(request)
    made = tickets.create(caller.id)
    expires = service_of(request).clock.now() + tickets.ttl
    return responses.reply(TicketCreated(made, responses.zulu(expires)))


_STREAM = {
    "text/event-stream": {
        "schema": {
            "type": "object",
            "description": "One event.",
            "properties": {
                "event": {"type": "string", "enum": ["export.updated", "export.deleted"]},
                "id": {"type": "string"},
                "data": {"type": "string", "description": "The export, or its id, as JSON."},
            },
        },
        "example": {
            "event": "export.updated",
            "id": "hXk2b1dOa3pU",
            "data": msgspec.json.encode(views.EXAMPLE).decode(),
        },
    }
}
_HEADERS = (headers.ACCEL_BUFFERING,)

OPERATIONS = (
    Operation(
        "GET /v1/exports/{export_id}/events",
        export_events,
        "streamExport",
        "Stream an export",
        {
            200: Answer("Events until the export ends.", headers=_HEADERS, content=_STREAM),
            204: Answer("The export has ended, and the client knows it: do not connect again."),
        },
        (404, 422, 429),
        parameters=(LAST_EVENT_ID,),
    ),
    Operation(
        "GET /v1/events",
        user_events,
        "streamExports",
        "Stream all exports",
        {200: Answer("Events until the client leaves.", headers=_HEADERS, content=_STREAM)},
        (422, 429),
        parameters=(LAST_EVENT_ID, lists.METADATA_PARAMETER),
    ),
    Operation(
        "POST /v1/tickets",
        create_ticket,
        "createTicket",
        "Create a ticket",
        {
            200: Answer(
                "The ticket.",
                TicketCreated,
                {"ticket": "v5JkQ…", "expires_at": "2026-03-02T09:16:04.201933Z"},
            )
        },
        (400, 413, 415, 422, 429),
        Body(TicketRequest, {"for": "events"}),
    ),
)
