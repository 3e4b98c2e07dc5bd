"""Fixtures for the tests of the Coresignal contract: a service whose source is a list."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
import redis

from exporter.api.app import create_app
from exporter.clock import FakeClock
from exporter.local.redis import RedisServer
from exporter.sources.coresignal import CoresignalConfig
from exporter.storage.memory import MemoryStorage
from exporter.store.memory.store import MemoryStore
from exporter.store.redis.api_keys import KeyRing
from tests.integration.api_server import KEYS_DATABASE, Server, Service, make_engine
from tests.integration.coresignal.desk import holding


@pytest.fixture
def api(server: Server, redis_server: RedisServer) -> Iterator[Service]:
    """Starts an API whose Coresignal source is a list, see `holding`."""
    with redis.Redis.from_url(redis_server.url.replace("/0", f"/{KEYS_DATABASE}")) as client:
        client.flushdb()
        clock = FakeClock()
        storage = MemoryStorage(clock)
        source = CoresignalConfig(base_url="http://127.0.0.1:9", api_key="unused")
        engine = make_engine(clock, MemoryStore(clock), storage, coresignal=source)
        keys = KeyRing(client)
        ann, bob = keys.create("ann"), keys.create("bob")
        server.app = create_app(engine, keys)
        with httpx.Client(base_url=server.url, headers={"apikey": ann}) as http:
            service = Service(http, engine, clock, storage, keys, ann, bob)
            holding(service, 3)
            yield service
