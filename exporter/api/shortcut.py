"""Passes the most frequent requests to their handlers without the framework's routing.

The framework's layers took more time for a poll than the poll itself. This module only maps paths
to handlers. The handlers are the functions that the framework would call, errors become the same
answers, and every other request takes the usual way through the framework.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from exporter.api import bodies, edge, errors
from exporter.api.request_context import RequestContext
from exporter.api.surfaces.hirebase import tasks
from exporter.api.surfaces.native import exports

Endpoint = Callable[[Request], Awaitable[Response]]

_GET_BY_PREFIX: dict[str, Callable[[Request, str], Awaitable[Response]]] = {
    "/v1/exports/": exports.show,
    "/v2/tasks/": tasks.show,
}
"""Maps the part of a path before the id to the handler of GET requests."""
_POST_BY_PATH: dict[str, Callable[[Request, bytes], Awaitable[Response]]] = {
    "/v1/exports": exports.create,
    "/v2/jobs/export": tasks.create,
}


_ID_CHARS = 36
"""Length of the id of an export; other text in its place may be the name of an operation."""


class Shortcut:
    """ASGI app that answers the frequent requests (see `endpoint`) and passes others to `app`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._served = RequestContext(_serve)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._app if endpoint(scope) is None else self._served
        await app(scope, receive, send)


async def _serve(scope: Scope, receive: Receive, send: Send) -> None:
    found = endpoint(scope)
    assert found is not None
    request = Request(scope, receive)
    try:
        response = await found(request)
    except Exception as error:  # noqa: BLE001 - raised again if no answer is known
        response = await errors.handle(request, error)
    await response(scope, receive, send)


def endpoint(scope: Scope) -> Endpoint | None:
    """Returns the handler of a frequent request; None for any other request.

    Frequent requests get one export or task, or create an export, without anything that must be
    checked first: a query string, the body of a GET, or headers of other operations.
    """
    if scope["type"] != "http" or scope["query_string"] or scope.get("root_path"):
        return None
    path: str = scope["path"]
    if scope["method"] == "GET":
        before, slash, export_id = path.rpartition("/")
        show = _GET_BY_PREFIX.get(before + slash)
        if show is not None and len(export_id) == _ID_CHARS and edge.is_plain(scope):
            return lambda request: show(request, export_id.lower())
    elif scope["method"] == "POST":
        create = _POST_BY_PATH.get(path)
        if create is not None and edge.is_plain(scope):
            return lambda request: _created(request, create)
    return None


async def _created(
    request: Request, create: Callable[[Request, bytes], Awaitable[Response]]
) -> Response:
    return await create(request, await bodies.read(request))
