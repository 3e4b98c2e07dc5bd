"""Fixtures for the tests of the pipeline contract: a service over a table of jobs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import redis

from exporter.api.app import create_app
from exporter.clock import FakeClock
from exporter.config import Config
from exporter.local import sample
from exporter.local.redis import RedisServer
from exporter.service.exports import ExportService
from exporter.settings import Settings
from exporter.sources.sql.config import SqlConfig
from exporter.storage.memory import MemoryStorage
from exporter.store.memory.store import MemoryStore
from exporter.store.redis.api_keys import KeyRing
from tests.integration.api_server import KEYS_DATABASE, PUBLIC_URL, Server
from tests.integration.pipeline.desk import Make, Service


@pytest.fixture
def keys(redis_server: RedisServer) -> Iterator[KeyRing]:
    with redis.Redis.from_url(redis_server.url.replace("/0", f"/{KEYS_DATABASE}")) as client:
        client.flushdb()
        yield KeyRing(client)


@pytest.fixture
def make(server: Server, keys: KeyRing, tmp_path: Path) -> Iterator[Make]:
    """Yields a function that starts a service over the sample's table without rows."""
    made: list[Service] = []

    def service(rate: str = "10000/h", page_size: int = 100) -> Service:
        file = tmp_path / "jobs.sqlite"
        sample.create(file, "nobody")
        clock = FakeClock()
        config = SqlConfig(url=f"sqlite:///{file}", page_size=page_size)
        engine = ExportService(
            settings=Settings(public_url=PUBLIC_URL, pipeline_rate=rate),  # type: ignore[arg-type]
            config=Config(sources={"pipeline": config}),
            store=MemoryStore(clock),
            storage=MemoryStorage(clock),
            clock=clock,
        )
        ann = keys.create("ann")
        app = server.app = create_app(engine, keys)
        headers = {"Authorization": f"Bearer {ann}", "Accept-Encoding": "identity"}
        http_client = httpx.Client(base_url=server.url, headers=headers, timeout=30)
        made.append(Service(http_client, engine, keys, ann, file, app))
        made[-1].run("DELETE FROM jobs")
        return made[-1]

    yield service
    for one in made:
        one.http.close()
        one.engine.source("pipeline").close()


@pytest.fixture
def api(make: Make) -> Service:
    return make()
