"""Gives handlers the export service, the API keys and the stores of their app.

These are plain functions instead of FastAPI dependencies: a dependency costs a poll as much time as
Redis does, and a dependency that is not a coroutine uses the thread pool a second time.
"""

from __future__ import annotations

from typing import cast

from fastapi import FastAPI, Request

from exporter import wiring
from exporter.service.exports import ExportService
from exporter.store.redis import async_runner
from exporter.store.redis.api_keys import KeyRing
from exporter.store.redis.async_runner import AsyncRunner
from exporter.store.redis.credit_accounts import Credits
from exporter.store.redis.keys import KeyNames
from exporter.store.redis.rate_limits import RateLimits
from exporter.webhooks import private
from exporter.webhooks.addresses import Guard
from exporter.webhooks.delivery_store import Deliveries
from exporter.webhooks.endpoint_store import Endpoints


def bind(app: FastAPI, service: ExportService, keys: KeyRing) -> None:
    """Attaches the export service, the API keys and the stores to an app."""
    settings = service.settings
    names = KeyNames(settings.redis_prefix)
    app.state.service = service
    app.state.keys = keys
    app.state.credits = Credits(keys.client, names)
    app.state.limits = limits = RateLimits(keys.client, names)
    app.state.runner = async_runner.open_runner(keys, limits, lambda: service.store)
    app.state.endpoints = wiring.endpoints(settings, keys.client)
    app.state.deliveries = wiring.deliveries(settings, keys.client)
    app.state.guard = private.guard(
        settings.webhook_allow_private, allow_http=settings.webhook_allow_http
    )


def service_of(request: Request) -> ExportService:
    """Returns the export service of the request's app."""
    return cast("ExportService", request.app.state.service)


def keys_of(request: Request) -> KeyRing:
    """Returns the API keys of the request's app."""
    return cast("KeyRing", request.app.state.keys)


def runner_of(request: Request) -> AsyncRunner:
    """Returns the runner by which coroutines use Redis without blocking the event loop."""
    return cast("AsyncRunner", request.app.state.runner)


def credits_of(request: Request) -> Credits:
    """Returns the credit accounts of the app's API keys."""
    return cast("Credits", request.app.state.credits)


def limits_of(request: Request) -> RateLimits:
    """Returns the rate limits of the app's API keys."""
    return cast("RateLimits", request.app.state.limits)


def endpoints_of(request: Request) -> Endpoints:
    """Returns the store of webhook endpoints."""
    return cast("Endpoints", request.app.state.endpoints)


def deliveries_of(request: Request) -> Deliveries:
    """Returns the store of webhook deliveries."""
    return cast("Deliveries", request.app.state.deliveries)


def guard_of(request: Request) -> Guard:
    """Returns the address guard, which decides to which URLs webhooks may be sent."""
    return cast("Guard", request.app.state.guard)
