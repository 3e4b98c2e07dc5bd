"""The endpoints that are called most, found without looking through all routes.

Of a poll the framework's own layers took more time than all that the poll is about. Nothing of an
endpoint is here but where it is: each is the function that the framework would call, errors become
the same answers, and whatever is not plainly one of these requests goes the usual way.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from inspect import iscoroutine
from typing import cast

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from exporter.api import bodies
from exporter.api.envelope import Envelope
from exporter.api.surfaces import hirebase, native

Endpoint = Callable[[Request], Awaitable[Response]]

_GET_BY_PREFIX: dict[str, Callable[[Request, str], Awaitable[Response]]] = {
    "/v1/exports/": native.show,
    "/v2/tasks/": hirebase.show,
}
"""By what stands before the id."""
_POST_BY_PATH: dict[str, Callable[[Request, bytes], Awaitable[Response]]] = {
    "/v1/exports": native.create,
    "/v2/jobs/export": hirebase.create,
}


class Shortcut:
    """Serves the requests of `endpoint` itself and leaves all others to an app."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._served = Envelope(_serve)

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
        response = await _answer(request, error)
    await response(scope, receive, send)


def endpoint(scope: Scope) -> Endpoint | None:
    """What serves this request, if it is one of those called most."""
    if scope["type"] != "http" or scope["query_string"] or scope.get("root_path"):
        return None
    path: str = scope["path"]
    if scope["method"] == "GET":
        before, slash, export_id = path.rpartition("/")
        show = _GET_BY_PREFIX.get(before + slash)
        if show is not None and export_id:
            return lambda request: show(request, export_id)
    elif scope["method"] == "POST":
        create = _POST_BY_PATH.get(path)
        if create is not None:
            return lambda request: _created(request, create)
    return None


async def _created(
    request: Request, create: Callable[[Request, bytes], Awaitable[Response]]
) -> Response:
    return await create(request, await bodies.read(request))


async def _answer(request: Request, error: Exception) -> Response:
    """The answer that the app has for an error. Raises the error if it has none."""
    handlers = cast("FastAPI", request.app).exception_handlers
    for kind in type(error).__mro__:
        handler = handlers.get(kind)
        if handler is not None:
            answer = handler(request, error)
            return cast("Response", await answer if iscoroutine(answer) else answer)
    raise error
