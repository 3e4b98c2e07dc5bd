"""ASGI app of the board: four vendors' APIs with authentication and request ids."""

from __future__ import annotations

import hmac
import json
import logging
import uuid
from collections.abc import Collection
from pathlib import Path

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exporter.board import answers, bindbee, database, hirebase, qwestly, results, search
from exporter.board.coresignal import routes
from exporter.board.misbehavior import faults
from exporter.environment import hosts

PUBLIC_PATHS = ("/health", *hirebase.PUBLIC_PATHS)
"""Paths that need no API key."""
ERROR_RESPONSES = {vendor.PREFIX: vendor.error_response for vendor in (bindbee, routes, qwestly)}
"""Maps the path prefix of a contract to the function that makes its 401 and 500 responses.

Status 401 means that the request has no valid key, 500 that a handler crashed.
"""
_log = logging.getLogger(__name__)


def create_app(
    database_path: Path,
    api_keys: Collection[str],
    fault_spec: str | None = None,
    *,
    connector_tokens: Collection[str] | None = None,
    bindbee_rate: int = bindbee.MAX_REQUESTS_PER_MINUTE,
) -> FastAPI:
    """Returns an app that serves the board's postings to clients with one of the keys.

    The router of each contract documents its endpoints. `GET /health` needs no key. A key is sent
    as `x-api-key` or `apikey`, or as `Authorization: Bearer` or `Authorization: ApiKey`. Errors are
    `{"detail": text}`; an invalid field is reported as `{"detail": [{"loc", "msg", "type"}]}`.
    Every response has an `X-Request-Id`.

    The Bindbee endpoints also need one of the `connector_tokens`, by default the keys themselves.
    Each token may send `bindbee_rate` requests per minute.

    If `fault_spec` is given, even as an empty text, the board can inject faults: see faults.attach.

    The database file is created if it is missing. Raises ValueError if there is no key or an empty
    one, and for a spec that faults.parse rejects.
    """
    if not api_keys or not all(api_keys):
        raise ValueError("the board needs at least one API key, and no key may be empty")
    database.prepare(database_path)
    pages = results.Results(database_path)
    app = FastAPI(title="Job board", docs_url=None, redoc_url=None)
    if fault_spec is not None:
        faults.attach(app, database_path, fault_spec)
    app.add_middleware(_AuthMiddleware, api_keys=api_keys)
    tokens = api_keys if connector_tokens is None else connector_tokens
    app.add_middleware(bindbee.RateLimiter, connector_tokens=tokens, rate=bindbee_rate)

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> Response:
        # The rejected input is omitted: it may be NaN, which JSON cannot represent.
        return answers.validation_error(
            [(problem["loc"], problem["msg"], problem["type"]) for problem in error.errors()]
        )

    @app.exception_handler(search.UnsupportedFilter)
    def refused(_: Request, error: search.UnsupportedFilter) -> Response:
        return answers.validation_error([(("body", error.field), str(error), "value_error")])

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    app.include_router(hirebase.router(pages))
    app.include_router(bindbee.router(pages, tokens))
    app.include_router(qwestly.router(pages))
    app.include_router(routes.router(pages))
    return app


def serve(
    database_path: Path,
    host: str,
    port: int,
    api_keys: Collection[str],
    fault_spec: str | None = None,
) -> None:
    """Serves the board until SIGTERM or SIGINT; logs the host and port as one line of JSON.

    Raises ConfigurationError if the host is not one of this machine.
    """
    hosts.check_host(host)
    app = create_app(database_path, api_keys, fault_spec)
    started = {"action": "board_started", "host": host, "port": port, "data": str(database_path)}
    logging.getLogger("exporter.board").info(json.dumps(started))
    uvicorn.run(
        app,
        host=host,
        port=port,
        access_log=False,
        log_level="warning",
        http="auto" if fault_spec is None else faults.Protocol,
    )


def _error_response(status: int) -> Response:
    if status == 401:
        return answers.error(401, "Missing or invalid API key: send one as x-api-key")
    return answers.error(status, "Internal server error")


class _AuthMiddleware:
    """Checks API keys, adds an `X-Request-Id`, and turns a crash into a 500 response.

    After the response has started, a crash is raised again, because its status is already sent.
    """

    def __init__(self, app: ASGIApp, api_keys: Collection[str]) -> None:
        self._app = app
        self._keys = [key.encode() for key in api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = uuid.uuid4().hex
        started = False

        async def send_with_id(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        path = scope["path"]
        error_response = next(
            (ERROR_RESPONSES[prefix] for prefix in ERROR_RESPONSES if path.startswith(prefix)),
            _error_response,
        )
        if path not in PUBLIC_PATHS and not self._has_valid_key(Headers(scope=scope)):
            await error_response(401)(scope, receive, send_with_id)
            return
        try:
            await self._app(scope, receive, send_with_id)
        except Exception:
            _log.exception("request %s failed", request_id)
            if started:
                raise
            await error_response(500)(scope, receive, send_with_id)

    def _has_valid_key(self, headers: Headers) -> bool:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        sent = headers.get("x-api-key") or headers.get("apikey", "")
        if not sent and scheme.casefold() in ("bearer", "apikey"):
            sent = token.strip()
        known = False
        # Compares with every key, so that the time does not reveal the position of a valid key.
        for key in self._keys:
            known |= hmac.compare_digest(sent.encode(), key)
        return known
