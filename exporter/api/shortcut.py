"""Passes the most frequent requests to their handlers without the framework's routing.

The framework's layers took more time for a poll than the poll itself. This module only maps paths
to the handlers of frequent operations. They are the functions that the framework would call, errors
become the same answers, and every other request takes the usual way through the framework.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from exporter.api import admission, errors
from exporter.api.request_context import RequestContext
from exporter.api.surface import Surface, special_headers

Endpoint = Callable[[Request], Awaitable[Response]]

_ID_CHARS = 36
"""Length of the id of an export; other text in its place may be the name of an operation."""


_OF_BODIES = frozenset({b"content-length", b"transfer-encoding"})


class _Frequent(NamedTuple):
    handler: Callable[..., Awaitable[Response]]
    checked: frozenset[bytes]
    """Names of the headers that must be checked: those of bodies and of other operations."""

    def serves(self, scope: Scope) -> bool:
        for name, _ in scope["headers"]:  # noqa: SIM110 - `any` takes three times as long
            if name in self.checked:
                return False
        return True


class Shortcut:
    """ASGI app that answers the frequent requests (see `endpoint`) and passes others to `app`."""

    def __init__(self, app: ASGIApp, surfaces: Iterable[Surface]) -> None:
        self._app = app
        self._served = RequestContext(_serve)
        self._shows: dict[str, _Frequent] = {}
        """Operations with GET by the part of the path before the id."""
        self._creates: dict[str, _Frequent] = {}
        """Operations with POST by path."""
        surfaces = tuple(surfaces)
        special = special_headers(surfaces)
        for surface in surfaces:
            for operation in surface.operations:
                checked = special - operation.headers
                if operation.is_frequent and operation.method == "GET":
                    place = operation.path.partition("{")[0]
                    self._shows[place] = _Frequent(operation.handler, checked | _OF_BODIES)
                elif operation.is_frequent:
                    self._creates[operation.path] = _Frequent(operation.handler, checked)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = self.endpoint(scope)
        if found is None:
            await self._app(scope, receive, send)
            return
        scope["endpoint"] = found  # as the framework's router does
        await self._served(scope, receive, send)

    def endpoint(self, scope: Scope) -> Endpoint | None:
        """Returns the handler of a frequent request; None for any other request.

        Frequent requests get one export or task, or create an export, without anything that must be
        checked first: a query string, the body of a GET, or headers of other operations.
        """
        if scope["type"] != "http" or scope["query_string"] or scope.get("root_path"):
            return None
        path: str = scope["path"]
        if scope["method"] == "GET":
            before, slash, export_id = path.rpartition("/")
            show = self._shows.get(before + slash)
            if show is not None and len(export_id) == _ID_CHARS and show.serves(scope):
                return lambda request: show.handler(request, export_id.lower())
        elif scope["method"] == "POST":
            create = self._creates.get(path)
            if create is not None and create.serves(scope):
                return lambda request: _created(request, create.handler)
        return None


async def _serve(scope: Scope, receive: Receive, send: Send) -> None:
    endpoint: Endpoint = scope["endpoint"]
    request = Request(scope, receive)
    try:
        response = await endpoint(request)
    except Exception as error:  # noqa: BLE001 - raised again if no answer is known
        response = await errors.handle(request, error)
    await response(scope, receive, send)


async def _created(
    request: Request, create: Callable[[Request, bytes], Awaitable[Response]]
) -> Response:
    return await create(request, await admission.read_body(request, create))
