"""Fixtures for the tests of the API: one server per module, one fresh service per test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from exporter.local.redis import RedisServer
from tests.integration.api_server import KEYS_DATABASE, Server, Service, service
from tests.integration.webhook_service import Hooked, hooked


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Starts an HTTP server on a free port; each test replaces its app."""
    with Server().running() as running:
        yield running


@pytest.fixture
def api(server: Server, redis_server: RedisServer) -> Iterator[Service]:
    """Starts a service for one test, with keys of two users."""
    with redis.Redis.from_url(redis_server.url.replace("/0", f"/{KEYS_DATABASE}")) as client:
        client.flushdb()
        with service(server, client) as running:
            yield running


@pytest.fixture
def desk(server: Server, redis_server: RedisServer, tmp_path: Path) -> Iterator[Hooked]:
    """Starts a service with webhooks for one test, with keys of two users."""
    with redis.Redis.from_url(redis_server.url.replace("/0", f"/{KEYS_DATABASE}")) as client:
        client.flushdb()
        with hooked(server, client, tmp_path) as running:
            yield running
