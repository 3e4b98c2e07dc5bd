"""Streams that tell an open page to read itself again."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager

from starlette.responses import Response

from exporter.api import auth
from exporter.api.events.feeds import Changes, Follower, feeds_of
from exporter.api.events.streams import HEADERS, EventStream, event
from exporter.console import export_page
from exporter.console.visits import Visit, route


async def index(visit: Visit) -> Response:
    """Streams an event at each change of an export that the list may show."""
    owner = auth.owner(visit.key)
    return _stream(visit, feeds_of(visit.request).user(visit.request, owner))


async def show(visit: Visit) -> Response:
    """Streams an event at each change of one export, until its end."""
    export_id = str(visit.request.path_params["export_id"])
    if await export_page.find(visit, export_id) is None:
        return export_page.missing(visit)
    return _stream(visit, feeds_of(visit.request).export(visit.request, export_id))


def _stream(visit: Visit, follow: AbstractAsyncContextManager[Follower]) -> Response:
    if visit.request.method == "HEAD":
        return Response(headers=HEADERS)
    return EventStream(visit.key, follow, _render)


def _render(changes: Changes) -> bytes:
    return event("changed", "0", b"{}") if changes else b""


ROUTES = (
    route("/live", index),
    route("/exports/{export_id:uuid}/live", show),
)
