"""Checks each request against the API's operations, before the framework routes it.

Nothing that a caller sends is ignored in silence. By default, an unknown or repeated query
parameter is an error, and so is a body of an operation without one. The clients of some contracts
may send more than is documented (see `Surface.extras`): there the response names what was ignored,
in the header `X-Ignored-Parameters`. On every contract, that header also names the headers of other
operations, such as an Idempotency-Key of an operation that does not create an export.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from fastapi import Request
from fastapi.dependencies.utils import request_params_to_args
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from exporter.api import bodies, error_shapes, errors, headers
from exporter.api.surface import Surfaces, special_headers
from exporter.errors import problem

MAX_NAMED = 20
"""Most names in the header; a caller can send thousands."""
MAX_NAME_CHARS = 100
MAX_SUGGESTED_NAMES = 3
"""Unknown names of one request for which a similar known name is searched."""

_ID_END = "_id"
"""End of the names of those parts of paths that are ids. An id of this service is in lower case."""
_FOREIGN_IDS = ("job_id",)
"""Ids of a source, whose case matters."""
_WORD = re.compile(r"[A-Za-z][A-Za-z_-]*")
"""Text without a digit. Every id has one, so this is a part of a path that does not exist."""
_NO_BODIES = (b"", b"{}", b"null")
"""Bodies that some clients send if there is nothing to send."""


class Operation:
    """An operation of the API: how its requests are recognized, and what they may contain."""

    def __init__(self, route: Route, extras: str) -> None:
        documented = getattr(route, "openapi_extra", None) or {}
        parameters: Sequence[Mapping[str, Any]] = documented.get("parameters", ())
        self.path = route.path
        self.extras = extras
        """`Surface.extras` of the surface that owns the path."""
        self.methods = route.methods or set()
        self.pattern = route.path_regex
        self.fields = route.dependant.query_params if isinstance(route, APIRoute) else []
        self.query = [
            *(field.alias for field in self.fields),
            *(one["name"] for one in parameters if one["in"] == "query"),
        ]
        self.objects = [one["name"] for one in parameters if one.get("style") == "deepObject"]
        """Query parameters that are written as name[key]=value."""
        self.headers = [one["name"].lower().encode() for one in parameters if one["in"] == "header"]
        self.has_body = "requestBody" in documented

    def has_parameter(self, name: str) -> bool:
        """True if the operation documents a query parameter of that name."""
        begin, bracket, key = name.partition("[")
        if bracket and begin in self.objects:
            return key.endswith("]") and len(key) > 1
        return name in self.query and name not in self.objects

    def is_word(self, path: str) -> bool:
        """True if the path ends with a word where this operation has an id."""
        return self.path.endswith(_ID_END + "}") and bool(_WORD.fullmatch(path.rpartition("/")[2]))


class Operations:
    """All operations of the API, by path."""

    def __init__(self, routes: Iterable[Route], surfaces: Surfaces) -> None:
        self._literal: dict[str, list[Operation]] = {}
        self._patterns: list[Operation] = []
        for route in routes:
            owner = surfaces.owner(route.path)
            operation = Operation(route, owner.extras if owner else "name")
            if "{" in operation.path:
                self._patterns.append(operation)
            else:
                self._literal.setdefault(operation.path, []).append(operation)

    def find(self, method: str, path: str) -> Operation | None:
        """Returns the operation of a request; None if the framework knows more about the path.

        A path without parameters hides paths that have a parameter in its place. Raises Refusal 405
        for a wrong method, and 404 if the path would only match as an id that is none.
        """
        found = self._literal.get(path) or [
            one for one in self._patterns if one.pattern.match(path)
        ]
        for one in found:
            if method in one.methods or (method == "HEAD" and "GET" in one.methods):
                return one
        if not found:
            return None
        if all(one.is_word(path) for one in found):
            raise errors.no_path(path)
        allowed = {method for one in found for method in one.methods}
        raise errors.wrong_method(method, path, allowed | ({"HEAD"} if "GET" in allowed else set()))


class Edge:
    """ASGI middleware that checks requests, and passes a HEAD on as a GET without its body."""

    def __init__(self, app: ASGIApp, routes: Sequence[Route], surfaces: Surfaces) -> None:
        self._app = app
        self._operations = Operations(routes, surfaces)
        self._special = special_headers(surfaces)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope, receive)
        try:
            operation = self._operations.find(scope["method"], scope["path"])
            if operation is not None:
                scope = {**scope, "path": _with_lower_ids(operation, scope["path"])}
                await _check(request, operation, self._special)
        except Exception as error:  # noqa: BLE001 - raised again if no answer is known
            answer = await errors.handle(request, error)
            await answer(scope, receive, send)
            return
        if scope["method"] == "HEAD" and operation is not None:
            # The server drops the body: it sees the method that the client sent.
            scope["method"] = "GET"
            scope["state"]["is_head"] = True
        await self._app(scope, receive, send)


def is_head(request: Request) -> bool:
    """True if the client asked for the head of the response only."""
    return getattr(request.state, "is_head", False)


def _with_lower_ids(operation: Operation, path: str) -> str:
    match = operation.pattern.match(path)
    for name, value in (match.groupdict() if match else {}).items():
        if match and name.endswith(_ID_END) and name not in _FOREIGN_IDS:
            path = path[: match.start(name)] + value.lower() + path[match.end(name) :]
    return path


async def _check(request: Request, operation: Operation, special: frozenset[bytes]) -> None:
    """Adds the header that names what is ignored. Raises an error if the surface refuses it."""
    ignored = [
        name.decode().title()
        for name, _ in request.headers.raw
        if name in special and name not in operation.headers
    ]
    wrong = dict(_wrong_parameters(request, operation))
    has_body = not operation.has_body and _has_body(request)
    if operation.extras == "refuse":
        if wrong:
            raise _invalid(request, operation, wrong)
        if has_body and (await bodies.read(request)).strip() not in _NO_BODIES:
            message = "this operation takes no body: send none"
            raise errors.invalid([problem(("body",), message, "extra_forbidden")])
    elif operation.extras == "name":
        ignored += wrong
        ignored += ["body"] if has_body else []
    if ignored:
        names = [quote(name[:MAX_NAME_CHARS], safe="") for name in ignored[:MAX_NAMED]]
        request.state.headers[headers.IGNORED.name] = ", ".join(names)


def _has_body(request: Request) -> bool:
    return (
        request.headers.get("content-length", "0").strip() != "0"
        or "transfer-encoding" in request.headers
    )


def _wrong_parameters(request: Request, operation: Operation) -> Iterator[tuple[str, str]]:
    """Yields the name of each unknown or repeated query parameter, with the message about it."""
    if not request.scope["query_string"]:
        return
    known, suggested = ", ".join(operation.query), 0
    for name in request.query_params:
        if operation.has_parameter(name):
            if len(request.query_params.getlist(name)) > 1:
                yield name, "the parameter is given more than once: give it once"
            continue
        hint = ""
        if suggested < MAX_SUGGESTED_NAMES:
            suggested += 1
            near = difflib.get_close_matches(name[:MAX_NAME_CHARS], operation.query, n=1)
            hint = f"did you mean {near[0]}? " if near else ""
        yield (
            name,
            f"unknown parameter; {hint}{f'known: {known}' if known else 'this path has none'}",
        )


def _invalid(
    request: Request, operation: Operation, wrong: Mapping[str, str]
) -> RequestValidationError:
    """Returns the error that names the wrong parameters, and those with a wrong value."""
    _, found = request_params_to_args(operation.fields, request.query_params)
    named = [
        problem(("query", name[:MAX_NAME_CHARS]), message, "extra_forbidden")
        for name, message in list(wrong.items())[: error_shapes.MAX_PROBLEMS]
    ]
    return RequestValidationError([*named, *found])
