"""The export stores under test: the one in memory, and one in a real Redis."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import timedelta

import pytest
import redis

from exporter.clock import FakeClock
from exporter.local.redis import RedisServer
from exporter.store.base import ExportStore
from exporter.store.memory import MemoryStore
from exporter.store.redis import RedisStore
from tests.contract.store.given import (
    DATABASE,
    Elapse,
)


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url.replace("/0", f"/{DATABASE}")) as client:
        client.flushdb()
        yield client


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["memory", "redis"])
def store(request: pytest.FixtureRequest, clock: FakeClock) -> ExportStore:
    if request.param == "memory":
        return MemoryStore(clock)
    return RedisStore(request.getfixturevalue("client"))


@pytest.fixture
def elapse(store: ExportStore, clock: FakeClock) -> Elapse:
    """Lets that much time pass for the store, and a little more."""

    def pass_by(duration: timedelta) -> None:
        seconds = duration.total_seconds() + 0.01
        if isinstance(store, MemoryStore):
            clock.advance(seconds)
        else:
            time.sleep(seconds)

    return pass_by
