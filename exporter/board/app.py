"""The board's HTTP side: search and single postings, in the vendor's shapes."""

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

OPEN = ("/health", *hirebase.OPEN)
"""Paths that need no key."""
REFUSALS = {each.PREFIX: each.refusal for each in (bindbee, routes, qwestly)}
"""By how a path begins, what its contract answers without a key and after a crash."""
_log = logging.getLogger(__name__)


def create_app(
    database_path: Path,
    api_keys: Collection[str],
    fault_spec: str | None = None,
    *,
    connector_tokens: Collection[str] | None = None,
    bindbee_rate: int = bindbee.RATE,
) -> FastAPI:
    """An app that serves the board's postings to whoever holds one of the keys.

    What it serves is told by the routers of each contract; `GET /health` needs no key. A key is
    sent as `x-api-key` or as `Authorization: Bearer` or `ApiKey`. Errors are `{"detail": text}`, of
    a search `{"detail": [{"loc", "msg", "type"}]}`; every response has an `X-Request-Id`.

    Who asks as Bindbee's customers do needs one of the `connector_tokens` besides, by default the
    keys themselves, and has `bindbee_rate` requests a minute with it.

    With a `fault_spec`, be it empty, the board misbehaves on order: see faults.attach.

    The database file is made if it is missing. Raises ValueError if there is no key, because then
    nobody could ask anything, and for a spec that faults.parse refuses.
    """
    if not api_keys or not all(api_keys):
        raise ValueError("the board needs at least one API key, and none of them empty")
    database.prepare(database_path)
    pages = results.Results(database_path)
    app = FastAPI(title="Job board", docs_url=None, redoc_url=None)
    if fault_spec is not None:
        faults.attach(app, database_path, fault_spec)
    app.add_middleware(_Door, api_keys=api_keys)
    tokens = api_keys if connector_tokens is None else connector_tokens
    app.add_middleware(bindbee.Meter, connector_tokens=tokens, rate=bindbee_rate)

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> Response:
        # The rejected input is left out: it may be NaN, which JSON cannot say.
        return answers.refusal(
            [(problem["loc"], problem["msg"], problem["type"]) for problem in error.errors()]
        )

    @app.exception_handler(search.Refused)
    def refused(_: Request, error: search.Refused) -> Response:
        return answers.refusal([(("body", error.field), str(error), "value_error")])

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

    app.include_router(hirebase.router(pages))
    app.include_router(bindbee.router(pages, tokens))
    app.include_router(qwestly.router(pages))
    app.include_router(routes.router(database_path))
    return app


def serve(
    database_path: Path,
    host: str,
    port: int,
    api_keys: Collection[str],
    fault_spec: str | None = None,
) -> None:
    """Serves the board until SIGTERM or SIGINT; one line of JSON in the log says where."""
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


def _refusal(status: int) -> Response:
    if status == 401:
        return answers.detail(401, "Missing or invalid API key: send one as x-api-key")
    return answers.detail(status, "Internal server error")


class _Door:
    """Lets in who has a key, names every request, and turns a crash into an error response."""

    def __init__(self, app: ASGIApp, api_keys: Collection[str]) -> None:
        self._app = app
        self._keys = [key.encode() for key in api_keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = uuid.uuid4().hex
        begun = False

        async def named(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
            await send(message)

        path = scope["path"]
        refuse = next((REFUSALS[start] for start in REFUSALS if path.startswith(start)), _refusal)
        if path not in OPEN and not self._knows(Headers(scope=scope)):
            await refuse(401)(scope, receive, named)
            return
        try:
            await self._app(scope, receive, named)
        except Exception:
            _log.exception("request %s failed", request_id)
            if begun:
                raise
            await refuse(500)(scope, receive, named)

    def _knows(self, headers: Headers) -> bool:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        sent = headers.get("x-api-key") or headers.get("apikey", "")
        if not sent and scheme.casefold() in ("bearer", "apikey"):
            sent = token.strip()
        known = False
        for key in self._keys:  # all of them: a key's place in the list should not show in the time
            known |= hmac.compare_digest(sent.encode(), key)
        return known
