"""Calls operations of the API in this process, with the key of a session.

So a page can do exactly what its key could do over the wire, with the same answers, rates and log.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple
from urllib.parse import urlencode

import msgspec
from anyio import to_thread
from fastapi import Request
from starlette.responses import Response

from exporter.api import errors
from exporter.store.redis.api_keys import ApiKey

_JSON = ("application/json", "application/problem+json")
_HEADERS = ((b"content-type", b"application/json"),)


class Result(NamedTuple):
    """The answer of an operation."""

    status: int
    body: Any
    """The JSON of the answer, or the bytes of another content; None without a body."""
    headers: Mapping[str, str]

    @property
    def is_success(self) -> bool:
        return self.status < 400

    @property
    def detail(self) -> str:
        """The reason of the refusal in one text; empty after a success."""
        return "" if self.is_success else str((self.body or {}).get("detail", ""))

    @property
    def problems(self) -> Mapping[str, str]:
        """The problems of a refused body, by field, such as `limit` or `query.days_ago`."""
        found = () if self.is_success else (self.body or {}).get("errors", ())
        return {one.get("pointer", "").strip("/").replace("/", "."): one["detail"] for one in found}


async def call(
    request: Request,
    key: ApiKey,
    handler: Callable[..., Any],
    *arguments: Any,
    path: str = "/v1",
    body: Mapping[str, Any] | None = None,
    headers: Mapping[str, str] | None = None,
    query: Mapping[str, str] | None = None,
    **options: Any,
) -> Result:
    """Runs the handler of an operation as if `key` had asked for it, and returns its answer.

    `path` is that of the operation, which decides the form of its errors; `query` has parameters
    that the handler reads from the request itself. Errors that no surface knows are raised.
    """
    given = ((name.lower().encode(), value.encode()) for name, value in (headers or {}).items())
    scope = {
        **request.scope,
        "path": path,
        "query_string": urlencode(query or {}).encode(),
        "headers": [*_HEADERS, *given],
        "state": {**request.scope["state"], "api_key": key},
    }
    asked = Request(scope, request.receive)
    passed = (asked, *arguments, *(() if body is None else (msgspec.json.encode(body),)))
    run = partial(handler, *passed, **options)
    try:
        if inspect.iscoroutinefunction(handler):
            answer: Response = await run()
        else:
            answer = await to_thread.run_sync(run)
    except Exception as error:  # noqa: BLE001 - raised again if no answer is known
        answer = await errors.handle(asked, error)
    if answer.background is not None:
        await answer.background()
    content = bytes(answer.body)
    is_json = answer.headers.get("Content-Type", "").startswith(_JSON)
    shown = msgspec.json.decode(content) if content and is_json else content or None
    return Result(answer.status_code, shown, answer.headers)
