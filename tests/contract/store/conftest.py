"""Export stores that the contract tests run against: in memory and in a real Redis."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Protocol

import pytest
import redis

from exporter.clock import FakeClock
from exporter.core.events import Event
from exporter.core.plans import Balance
from exporter.local.redis import RedisServer
from exporter.store.base import ExportStore
from exporter.store.memory.credit_accounts import MemoryAccounts
from exporter.store.memory.store import MemoryStore
from exporter.store.redis.api_keys import KeyRing
from exporter.store.redis.credit_accounts import Credits
from exporter.store.redis.store import RedisStore
from exporter.webhooks.endpoint_store import Endpoints
from exporter.webhooks.outbox import Outbox
from tests.contract.store.given import (
    DATABASE,
    Elapse,
    EmittedEvents,
    Listen,
)
from tests.contract.store.webhook_desk import Desk


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url.replace("/0", f"/{DATABASE}")) as client:
        client.flushdb()
        yield client


@pytest.fixture
def desk(client: redis.Redis) -> Desk:
    return Desk(client)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.external)])
def store(request: pytest.FixtureRequest, clock: FakeClock) -> ExportStore:
    if request.param == "memory":
        return MemoryStore(clock)
    return RedisStore(request.getfixturevalue("client"))


@pytest.fixture
def elapse(store: ExportStore, clock: FakeClock) -> Elapse:
    """Returns a function that lets a duration plus 10 ms pass for the store."""

    def pass_by(duration: timedelta) -> None:
        seconds = duration.total_seconds() + 0.01
        if isinstance(store, MemoryStore):
            clock.advance(seconds)
        else:
            time.sleep(seconds)

    return pass_by


@pytest.fixture
def emitted(store: ExportStore) -> EmittedEvents:
    """Returns a function that reads all events so far."""

    def events() -> list[Event]:
        if isinstance(store, MemoryStore):
            return list(store.outbox.events)
        assert isinstance(store, RedisStore)
        return list(Outbox(store.client).peek(1_000))

    return events


@pytest.fixture
def listen(store: ExportStore) -> Listen:
    """Returns a function that subscribes a user's endpoint to events of all their exports."""

    def register(user: str, events: Iterable[str]) -> None:
        if isinstance(store, MemoryStore):
            store.outbox.subscribe(user, events)
        else:
            assert isinstance(store, RedisStore)
            Endpoints(store.client).create(user, "https://example.com/", events=tuple(events))

    return register


class Accounts(Protocol):
    """Credit accounts of API keys, with one interface for the tests of both stores."""

    def open(self, left: int | None) -> str:
        """Creates a key with `left` credits (None: unlimited) and returns its id."""

    def close(self, key_id: str) -> None:
        """Revokes the key."""

    def balance(self, key_id: str) -> Balance: ...

    def set(self, key_id: str, amount: int | None) -> None: ...

    def charge(self, key_id: str, amount: int) -> None: ...


class RedisAccounts:
    def __init__(self, client: redis.Redis) -> None:
        self.ring = KeyRing(client)
        self.credits = Credits(client)
        self.balance, self.set = self.credits.balance, self.credits.set
        self.charge = self.credits.charge

    def open(self, left: int | None) -> str:
        key = self.ring.find(self.ring.create("ann", balance=left))
        assert key is not None
        return key.id

    def close(self, key_id: str) -> None:
        assert self.ring.revoke(key_id)


class InMemory:
    def __init__(self, accounts: MemoryAccounts) -> None:
        self.accounts = accounts
        self.ids = itertools.count()
        self.balance, self.set = accounts.balance, accounts.set
        self.close, self.charge = accounts.close, accounts.charge

    def open(self, left: int | None) -> str:
        key_id = f"key-{next(self.ids)}"
        self.accounts.open(key_id, left)
        return key_id


@pytest.fixture
def accounts(store: ExportStore) -> Accounts:
    if isinstance(store, MemoryStore):
        return InMemory(store.accounts)
    assert isinstance(store, RedisStore)
    return RedisAccounts(store.client)
