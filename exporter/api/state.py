"""How a handler comes by the engine and the keys that its app was made with.

Plain functions and no dependencies of FastAPI: each of those costs a poll as much as Redis does,
and one that is no coroutine costs a second trip through the thread pool.
"""

from __future__ import annotations

from typing import cast

from fastapi import FastAPI, Request

from exporter.service.exports import ExportService
from exporter.store.redis import async_runner
from exporter.store.redis.api_keys import KeyRing
from exporter.store.redis.async_runner import AsyncRunner
from exporter.store.redis.credit_accounts import Credits
from exporter.store.redis.rate_limits import RateLimits
from exporter.webhooks import private
from exporter.webhooks.addresses import Guard
from exporter.webhooks.delivery_store import Deliveries
from exporter.webhooks.endpoint_store import Endpoints


def bind(app: FastAPI, service: ExportService, keys: KeyRing) -> None:
    """Give an app its engine and its keys."""
    app.state.service = service
    app.state.keys = keys
    app.state.credits = Credits(keys.client)
    app.state.limits = limits = RateLimits(keys.client)
    app.state.runner = async_runner.open_runner(keys, limits, lambda: service.store)
    settings = service.settings
    app.state.endpoints = Endpoints(keys.client, named_for=settings.webhook_url_retention)
    app.state.deliveries = Deliveries(keys.client, keep=settings.record_retention)
    app.state.guard = private.guard(
        settings.webhook_allow_private, allow_http=settings.webhook_allow_http
    )


def service_of(request: Request) -> ExportService:
    """The engine that the request's app was made with."""
    return cast("ExportService", request.app.state.service)


def keys_of(request: Request) -> KeyRing:
    """The keys that the request's app was made with."""
    return cast("KeyRing", request.app.state.keys)


def runner_of(request: Request) -> AsyncRunner:
    """How a coroutine comes by what Redis holds."""
    return cast("AsyncRunner", request.app.state.runner)


def credits_of(request: Request) -> Credits:
    """What the app's keys have left to spend."""
    return cast("Credits", request.app.state.credits)


def limits_of(request: Request) -> RateLimits:
    """How often the app's keys have asked."""
    return cast("RateLimits", request.app.state.limits)


def endpoints_of(request: Request) -> Endpoints:
    """Whom webhooks of the app's exports are sent to."""
    return cast("Endpoints", request.app.state.endpoints)


def deliveries_of(request: Request) -> Deliveries:
    """What was sent to them."""
    return cast("Deliveries", request.app.state.deliveries)


def guard_of(request: Request) -> Guard:
    """Where webhooks may be sent to."""
    return cast("Guard", request.app.state.guard)
