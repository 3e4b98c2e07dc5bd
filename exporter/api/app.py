"""Builds the ASGI application, which serves all contracts with one export service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib import metadata
from importlib.util import find_spec

import anyio
from fastapi import FastAPI
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from exporter.api import (
    edge,
    error_shapes,
    errors,
    health,
    metrics,
    responses,
    routes,
    state,
    turns,
)
from exporter.api.events import feeds
from exporter.api.events import streams as events
from exporter.api.files import streams
from exporter.api.openapi import docs, document
from exporter.api.request_context import RequestContext
from exporter.api.shortcut import Shortcut
from exporter.api.surface import Surface, Surfaces
from exporter.api.surfaces import registry
from exporter.api.surfaces.coresignal import data_requests
from exporter.service.exports import ExportService
from exporter.store.redis.api_keys import KeyRing

_HAS_SDK = bool(find_spec("opentelemetry") and find_spec("opentelemetry.sdk"))
"""True if OpenTelemetry can record what FastAPI reports."""


def create_app(
    service: ExportService,
    keys: KeyRing,
    contracts: Sequence[Surface] = registry.SURFACES,
    pages: Sequence[BaseRoute] = (),
) -> FastAPI:
    """Returns the ASGI app that serves all contracts with the given export service.

    A request is authenticated by one of the API keys in `keys`. Public operations, metrics and the
    documentation need no key. Errors have the shape of the surface that owns the path, and
    `{"detail": …}` on all other paths. /openapi.json documents every operation, /docs shows that
    document. `pages` are further routes, which are no part of the document.
    """
    surfaces = Surfaces(contracts, error_shapes.DETAIL)
    app = _App(
        title="exporter",
        summary="Turns a search over job postings into a file.",
        version=metadata.version("allrows"),
        docs_url=None,
        redoc_url=None,
        # A redirect would send a POST, with its API key, to the host that the request named.
        redirect_slashes=False,
        # Without the SDK nobody can record any; FastAPI would look for it at each request.
        telemetry={"tracing": _HAS_SDK, "metrics": _HAS_SDK, "logs": _HAS_SDK},
        lifespan=_lifespan,
    )
    state.bind(app, surfaces, service, keys)
    app.state.health = health.Health(service)
    app.state.purgers = anyio.CapacityLimiter(responses.MAX_PURGE_THREADS)
    app.state.askers = anyio.CapacityLimiter(turns.MAX_CONCURRENT_SOURCE_REQUESTS)
    app.state.downloads = streams.download_limits()
    app.state.listings = anyio.CapacityLimiter(data_requests.MAX_CONCURRENT_ID_LISTS)
    app.state.lanes = streams.stream_limits()
    app.state.turns = turns.Turns()
    app.state.feeds = feeds.Feeds()
    app.state.event_streams = events.Streams()
    errors.install(app)
    made = (*map(routes.router, surfaces), metrics.router, docs.router)
    for router in made:
        app.include_router(router)
    app.router.routes.extend(pages)
    checked = [one for router in made for one in router.routes if isinstance(one, Route)]
    app.add_middleware(edge.Edge, routes=checked, surfaces=surfaces)
    app.add_middleware(turns.InTurn)
    app.add_middleware(RequestContext)
    document.complete(app, surfaces, service.settings.public_url)
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    yield
    app.state.redis.close()


class _App(FastAPI):
    """FastAPI app that answers its most frequent requests without FastAPI's routing."""

    def build_middleware_stack(self) -> ASGIApp:
        return Shortcut(super().build_middleware_stack(), self.state.surfaces)
