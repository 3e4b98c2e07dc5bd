"""What the tests of the API share: one server a module, one fresh service a test."""

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
    """An HTTP server on a free port, whose app each test exchanges for its own."""
    with Server().running() as running:
        yield running


@pytest.fixture
def api(server: Server, redis_server: RedisServer) -> Iterator[Service]:
    """A service of the test's own, and keys of two users."""
    with redis.Redis.from_url(redis_server.url.replace("/0", f"/{KEYS_DATABASE}")) as client:
        client.flushdb()
        with service(server, client) as running:
            yield running


@pytest.fixture
def desk(server: Server, redis_server: RedisServer, tmp_path: Path) -> Iterator[Hooked]:
    """A service of the test's own with webhooks behind it, and keys of two users."""
    with redis.Redis.from_url(redis_server.url.replace("/0", f"/{KEYS_DATABASE}")) as client:
        client.flushdb()
        with hooked(server, client, tmp_path) as running:
            yield running
