"""Middleware for every request: adds a request id, and answers unexpected errors with 500."""

from __future__ import annotations

import re
import secrets
import traceback
from collections.abc import Sequence

import structlog
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exporter.api import errors

_PLAIN_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")

log: structlog.stdlib.BoundLogger = structlog.get_logger()


_TEMPORARY = frozenset({408, 500, 502, 503, 504})
"""Statuses of errors that may pass by waiting, whatever their headers are."""
RawHeaders = Sequence[tuple[bytes, bytes]]


def retry_headers(status: int, given: RawHeaders) -> RawHeaders:
    """Returns `x-should-retry` of an error and, if it has Retry-After, `retry-after-ms`.

    A 429 without Retry-After is that of a used-up quota or balance: waiting does not help.
    """
    wait = next((value for name, value in given if name.lower() == b"retry-after"), b"")
    if status in _TEMPORARY or (status == 429 and wait):
        found = [(b"x-should-retry", b"true")]
    else:
        found = [(b"x-should-retry", b"false")]
    return [*found, (b"retry-after-ms", wait + b"000")] if wait.isdigit() else found


class RequestContext:
    """Middleware that gives every request an id and answers an unexpected error with 500.

    The id is in the answer's X-Request-Id and in each log line. The caller's own X-Request-Id is
    kept if it is a plain token; any other text could forge log lines, so it is replaced by a random
    id. Every error says in `x-should-retry` whether the same request may succeed later, and repeats
    its Retry-After in milliseconds, as the clients of several vendors read them. Headers that
    handlers put into `request.state.headers` are added to the answer. An error after the start of
    the answer is raised again, because the status was already sent.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = next((value for name, value in scope["headers"] if name == b"x-request-id"), b"")
        is_plain = _PLAIN_ID.fullmatch(given)
        stamp = b"x-request-id", given if is_plain else secrets.token_hex(16).encode()
        request_id = stamp[1].decode()
        state = scope.setdefault("state", {})
        state.update(request_id=request_id, headers={})
        started = False

        async def stamped(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                if state["headers"]:
                    MutableHeaders(scope=message).update(state["headers"])
                message["headers"] = [*message["headers"], stamp]
                if message["status"] >= 400:
                    message["headers"] += retry_headers(message["status"], message["headers"])
            await send(message)

        # Not unbound at the end: the server runs each request in a context of its own.
        structlog.contextvars.bind_contextvars(request_id=request_id)
        try:
            await self._app(scope, receive, stamped)
        except ClientDisconnect:
            log.info("api.client_left", method=scope["method"], path=scope["path"])
        except Exception as error:
            # Formatted here: structlog's pretty tracebacks print local variables, including keys.
            log.error(  # noqa: TRY400
                "api.unexpected",
                request_id=request_id,
                method=scope["method"],
                path=scope["path"],
                traceback="".join(traceback.format_exception(error)),
            )
            if started:
                raise
            answer = errors.answer(Request(scope), errors.unexpected())
            await answer(scope, receive, stamped)
