"""The board's HTTP side: search and single postings, in the vendor's shapes."""

from __future__ import annotations

import hmac
import json
import logging
import uuid
from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import HTTPException, RequestValidationError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exporter import queries
from exporter.board import database, faults, results, search

MAX_LIMIT = 100
_log = logging.getLogger(__name__)


def create_app(
    database_path: Path, api_keys: Collection[str], fault_spec: str | None = None
) -> FastAPI:
    """An app that serves the board's postings to whoever holds one of the keys.

    `POST /v2/jobs/search` (body: JobSearch; `page` from 1, `limit` 1 to 100, by default 10),
    `GET /v2/jobs/{id}`, and without a key `GET /health`. A key is sent as `x-api-key` or as
    `Authorization: Bearer` or `ApiKey`. Errors are `{"detail": text}`, of a search
    `{"detail": [{"loc", "msg", "type"}]}`; every response has an `X-Request-Id`.

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

    @app.exception_handler(RequestValidationError)
    def invalid(_: Request, error: RequestValidationError) -> Response:
        # The rejected input is left out: it may be NaN, which JSON cannot say.
        return _refusal(
            [(problem["loc"], problem["msg"], problem["type"]) for problem in error.errors()]
        )

    @app.exception_handler(search.Refused)
    def refused(_: Request, error: search.Refused) -> Response:
        return _refusal([(("body", error.field), str(error), "value_error")])

    @app.post("/v2/jobs/search")
    async def search_jobs(wanted: queries.JobSearch) -> Response:
        page, limit = wanted.page or 1, wanted.limit or 10
        if limit > MAX_LIMIT:
            message = f"Limit cannot be greater than {MAX_LIMIT}"
            return _refusal([(("body", "limit"), message, "value_error")])
        now = datetime.now(UTC)
        if pages.remembers(wanted, now):
            # Handing so short a read to a thread and back takes longer than the read.
            found = pages.page(wanted, page, limit, now)
        else:
            found = await run_in_threadpool(pages.page, wanted, page, limit, now)
        totals = {
            "total_count": found.total,
            "company_count": found.companies,
            "page": page,
            "limit": limit,
            "total_pages": -(-found.total // limit),
        }
        return _json(
            b'{"jobs":[' + b",".join(found.documents) + b"]," + json.dumps(totals)[1:].encode()
        )

    @app.get("/v2/jobs/{identity:path}")
    def one_job(identity: str) -> Response:
        document = pages.one(identity)
        if document is None:
            raise HTTPException(404, f"There is no job with the id {identity!r}")
        return _json(document)

    @app.get("/health")
    def health() -> dict[str, str]:
        return {"status": "ok"}

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


def _json(body: bytes, status: int = 200) -> Response:
    return Response(body, status, media_type="application/json")


def _detail(status: int, detail: object) -> Response:
    return _json(json.dumps({"detail": detail}).encode(), status)


def _refusal(problems: Sequence[tuple[Sequence[Any], str, str]]) -> Response:
    detail = [{"loc": list(loc), "msg": msg, "type": kind} for loc, msg, kind in problems]
    return _detail(422, detail)


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

        if scope["path"] != "/health" and not self._knows(Headers(scope=scope)):
            detail = "Missing or invalid API key: send one as x-api-key"
            await _detail(401, detail)(scope, receive, named)
            return
        try:
            await self._app(scope, receive, named)
        except Exception:
            _log.exception("request %s failed", request_id)
            if begun:
                raise
            await _detail(500, "Internal server error")(scope, receive, named)

    def _knows(self, headers: Headers) -> bool:
        scheme, _, token = headers.get("authorization", "").partition(" ")
        sent = headers.get("x-api-key", "")
        if not sent and scheme.casefold() in ("bearer", "apikey"):
            sent = token.strip()
        known = False
        for key in self._keys:  # all of them: a key's place in the list should not show in the time
            known |= hmac.compare_digest(sent.encode(), key)
        return known
