"""Gives handlers the export service, the API keys and the stores of their app.

These are plain functions instead of FastAPI dependencies: a dependency costs a poll as much time as
Redis does, and a dependency that is not a coroutine uses the thread pool a second time.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from datetime import datetime
from typing import TypeGuard, TypeVar, cast

from fastapi import FastAPI, Request

from exporter import wiring
from exporter.api.surface import Surfaces
from exporter.core.exports import Export
from exporter.service.exports import ExportService
from exporter.store.base import ExportStore, Live
from exporter.store.redis import calls
from exporter.store.redis.api_keys import KeyRing
from exporter.store.redis.async_connection import AsyncConnection
from exporter.store.redis.calls import Call
from exporter.store.redis.credit_accounts import Credits
from exporter.store.redis.keys import KeyNames
from exporter.store.redis.overview import Observer
from exporter.store.redis.rate_limits import RateLimits
from exporter.store.redis.source_statistics import SourceStatistics
from exporter.store.redis.store import RedisStore
from exporter.webhooks import private
from exporter.webhooks.addresses import Guard
from exporter.webhooks.delivery_store import Deliveries
from exporter.webhooks.endpoint_store import Endpoints
from exporter.webhooks.outbox import Outbox

T = TypeVar("T")


def bind(app: FastAPI, surfaces: Surfaces, service: ExportService, keys: KeyRing) -> None:
    """Attaches the surfaces, the export service, the API keys and the stores to an app."""
    settings = service.settings
    names = KeyNames(settings.redis_prefix)
    app.state.surfaces = surfaces
    app.state.service = service
    app.state.keys = keys
    app.state.credits = Credits(keys.client, names)
    app.state.limits = RateLimits(keys.client, names)
    app.state.statistics = SourceStatistics(keys.client, names)
    app.state.observer = Observer(keys.client, names)
    app.state.redis = AsyncConnection(keys.client)
    app.state.endpoints = wiring.endpoints(settings, keys.client)
    app.state.outbox = wiring.outbox(settings, keys.client)
    app.state.deliveries = wiring.deliveries(settings, keys.client)
    app.state.guard = private.guard(
        settings.webhook_allow_private, allow_http=settings.webhook_allow_http
    )


def surfaces_of(request: Request) -> Surfaces:
    """Returns the surfaces of the request's app."""
    return cast("Surfaces", request.app.state.surfaces)


def service_of(request: Request) -> ExportService:
    """Returns the export service of the request's app."""
    return cast("ExportService", request.app.state.service)


def keys_of(request: Request) -> KeyRing:
    """Returns the API keys of the request's app."""
    return cast("KeyRing", request.app.state.keys)


def run(request: Request, call: Call[T]) -> Awaitable[T]:
    """Sends a call to Redis and returns its result, without blocking the event loop.

    Raises StoreUnavailable, and what the call raises for its replies.
    """
    return cast("AsyncConnection", request.app.state.redis).run(call)


def run_blocking(request: Request, call: Call[T]) -> T:
    """Does the same as `run` from a thread, which waits for the replies."""
    return calls.run(keys_of(request).client, call)


def show_call(request: Request, export_id: str) -> Call[Export | None]:
    """Returns the call for `ExportStore.show`."""
    store = service_of(request).store
    if is_beside_keys(store, request):
        return store.show_call(export_id)
    return Call((), lambda _: store.show(export_id))


def shows_call(request: Request, export_ids: Sequence[str]) -> Call[Sequence[Export | None]]:
    """Returns the call for `ExportStore.show` of several exports."""
    store = service_of(request).store
    if is_beside_keys(store, request):
        return store.shows_call(export_ids)
    return Call((), lambda _: [store.show(one) for one in export_ids])


def live_call(request: Request, user_id: str | None, newest: int | None) -> Call[Live]:
    """Returns the call for `ExportStore.live`."""
    store = service_of(request).store
    if is_beside_keys(store, request):
        return store.live_call(user_id, newest)
    return Call((), lambda _: store.live(user_id, newest))


def changed_call(request: Request, export_ids: Sequence[str]) -> Call[Sequence[datetime | None]]:
    """Returns the call for `ExportStore.changed`."""
    store = service_of(request).store
    if is_beside_keys(store, request):
        return store.changed_call(export_ids)
    return Call((), lambda _: store.changed(export_ids))


def position_call(request: Request, export_id: str) -> Call[int | None]:
    """Returns the call for `ExportStore.queue_position`."""
    store = service_of(request).store
    if is_beside_keys(store, request):
        return store.queue_position_call(export_id)
    return Call((), lambda _: store.queue_position(export_id))


def is_beside_keys(store: ExportStore, request: Request) -> TypeGuard[RedisStore]:
    """True if the app's connection to Redis reaches the records.

    Only tests have another store: the one in memory, which answers at once.
    """
    return isinstance(store, RedisStore) and store.client is keys_of(request).client


def credits_of(request: Request) -> Credits:
    """Returns the credit accounts of the app's API keys."""
    return cast("Credits", request.app.state.credits)


def limits_of(request: Request) -> RateLimits:
    """Returns the rate limits of the app's API keys."""
    return cast("RateLimits", request.app.state.limits)


def statistics_of(request: Request) -> SourceStatistics:
    """Returns the statistics of the requests to sources."""
    return cast("SourceStatistics", request.app.state.statistics)


def observer_of(request: Request) -> Observer:
    """Returns the reader of the overview of the installation."""
    return cast("Observer", request.app.state.observer)


def endpoints_of(request: Request) -> Endpoints:
    """Returns the store of webhook endpoints."""
    return cast("Endpoints", request.app.state.endpoints)


def deliveries_of(request: Request) -> Deliveries:
    """Returns the store of webhook deliveries."""
    return cast("Deliveries", request.app.state.deliveries)


def outbox_of(request: Request) -> Outbox:
    """Returns the queue of webhook deliveries."""
    return cast("Outbox", request.app.state.outbox)


def guard_of(request: Request) -> Guard:
    """Returns the address guard, which decides to which URLs webhooks may be sent."""
    return cast("Guard", request.app.state.guard)
