"""The ASGI application: every surface over one engine."""

from __future__ import annotations

import re
import traceback
import uuid
from importlib import metadata

import anyio
import structlog
from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect, Request
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from exporter.api import (
    answers,
    coresignal,
    data_requests,
    docs,
    downloads,
    errors,
    health,
    hirebase,
    hirebase_jobs,
    metrics,
    native,
    native_estimate,
    openapi,
    pipeline,
    state,
    streams,
    usage,
    webhook_deliveries,
    webhook_resends,
    webhooks,
)
from exporter.engine import Engine
from exporter.store.keys import KeyRing

_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")

log: structlog.stdlib.BoundLogger = structlog.get_logger()


def create_app(engine: Engine, keys: KeyRing) -> FastAPI:
    """The API over an engine; whoever holds one of `keys` may call it.

    Errors are problem+json on our own paths and `{"detail": …}` elsewhere. /openapi.json documents
    it all, and /docs shows that.
    """
    app = FastAPI(
        title="exporter",
        summary="Turns a search over job postings into a file.",
        version=metadata.version("exporter"),
        docs_url=None,
        redoc_url=None,
        # A redirect would send a POST, and its key, to whatever host the request named.
        redirect_slashes=False,
    )
    state.bind(app, engine, keys)
    app.state.health = health.Health(engine)
    app.state.purgers = anyio.CapacityLimiter(answers.PURGERS)
    app.state.askers = anyio.CapacityLimiter(hirebase_jobs.ASKERS)
    app.state.downloads = anyio.CapacityLimiter(downloads.THREADS)
    app.state.listings = anyio.CapacityLimiter(data_requests.LISTINGS)
    app.state.lanes = streams.Lanes()
    routers = (
        hirebase.router,
        hirebase_jobs.router,
        usage.router,
        coresignal.router,
        native.router,
        native_estimate.router,
        pipeline.router,
        webhooks.router,
        webhook_deliveries.router,
        webhook_resends.router,
        health.router,
        metrics.router,
        docs.router,
    )
    errors.install(
        app, [route for router in routers for route in router.routes if isinstance(route, Route)]
    )
    for router in routers:
        app.include_router(router)
    app.add_middleware(Envelope)
    openapi.complete(app)
    return app


class Envelope:
    """Around every request: its id, in the answer and in each log line, and an answer whatever
    happens inside. What is put into `request.state.headers` stands in that answer, too.

    The caller's X-Request-Id is kept if it is a plain token; anything else could forge log lines.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request = Request(scope)
        given = request.headers.get("x-request-id", "")
        request_id = given if _SANE_ID.fullmatch(given) else uuid.uuid4().hex
        request.state.request_id = request_id
        request.state.headers = {}
        started = False

        async def stamped(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                headers = MutableHeaders(scope=message)
                headers.update(request.state.headers)
                headers["X-Request-Id"] = request_id
            await send(message)

        with structlog.contextvars.bound_contextvars(request_id=request_id):
            try:
                await self._app(scope, receive, stamped)
            except ClientDisconnect:
                log.info("api.client_left", method=request.method, path=request.url.path)
            except Exception as error:
                # Written out here, because pretty tracebacks print local variables: keys, too.
                log.error(  # noqa: TRY400
                    "api.unexpected",
                    request_id=request_id,
                    method=request.method,
                    path=request.url.path,
                    traceback="".join(traceback.format_exception(error)),
                )
                if started:
                    raise
                await errors.answer(request, errors.unexpected())(scope, receive, stamped)
