"""The API with webhooks behind it: endpoints and events in a real Redis, a sender to be called."""

from __future__ import annotations

import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from functools import cache
from ipaddress import ip_network
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import redis
from fastapi import FastAPI
from standardwebhooks.webhooks import Webhook

from exporter.api.app import create_app
from exporter.clock import FakeClock, SystemClock
from exporter.config import Config
from exporter.core.exports import Export
from exporter.local import sample
from exporter.service.exports import ExportService
from exporter.settings import Settings
from exporter.sources.coresignal import CoresignalConfig
from exporter.sources.hirebase import HirebaseConfig
from exporter.sources.sql.config import SqlConfig
from exporter.storage.memory import MemoryStorage
from exporter.store.redis.api_keys import KeyRing
from exporter.store.redis.store import RedisStore
from exporter.webhooks import private
from exporter.webhooks.delivering import Deliverer
from exporter.webhooks.delivery_store import Deliveries
from exporter.webhooks.endpoint_store import Endpoints
from exporter.webhooks.outbox import Outbox
from exporter.webhooks.sender import Sender
from tests.integration.api_server import PUBLIC_URL, UNBOUNDED_RATES, Server, Service
from tests.webhook_receiver import Received

ENDPOINTS = "/v1/webhook-endpoints"
URL = "https://hooks.example.com/exports"
OUTSIDE, INSIDE = "93.184.215.14", "10.0.0.7"


TLS = ssl.create_default_context()
"""Made once, because loading the certificates takes longer than a request."""


@dataclass
class Hooked:
    """One API with all behind it, and keys of two users."""

    http: httpx.Client
    """Sends ann's key, unless a request brings its own header."""
    app: FastAPI
    engine: ExportService
    keys: KeyRing
    client: redis.Redis
    ann: str
    bob: str
    asked: list[str] = field(default_factory=list)
    """Names whose addresses were looked up."""

    def __post_init__(self) -> None:
        self.endpoints = Endpoints(self.client)
        self.deliveries = Deliveries(self.client)
        self.outbox = Outbox(self.client)
        self.allow()

    def allow(self, *networks: str) -> None:
        """Let webhooks into these networks, too."""
        guard = private.guard([ip_network(one) for one in networks], allow_http=False)
        self.guard = replace(guard, resolver=self._look_up)
        self.app.state.guard = self.guard

    def _look_up(self, host: str, _port: int) -> Sequence[str]:
        self.asked.append(host)
        if host.startswith("nowhere."):
            raise OSError("name unknown")
        return [OUTSIDE, INSIDE] if host.startswith("inside.") else [OUTSIDE]

    def register(self, url: str = URL, **body: Any) -> dict[str, Any]:
        answer = self.http.post(ENDPOINTS, json={"url": url, **body})
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    def create(self, **body: Any) -> str:
        """The id of a new export on our own surface."""
        asked = {"source": "board", "query": {}, "format": "csv", **body}
        answer = self.http.post("/v1/exports", json=asked)
        assert answer.status_code == 202, answer.text
        export_id: str = answer.json()["id"]
        return export_id

    def finish(self, export_id: str, body: bytes = b"_id\r\n1\r\n") -> Export:
        """Do a worker's part."""
        storage = self.engine.storage
        assert isinstance(storage, MemoryStorage)
        desk = Service(self.http, self.engine, FakeClock(), storage, self.keys, self.ann, self.bob)
        return desk.finish(export_id, body)

    def deliver(self) -> None:
        """Do the part of the worker that sends, until nothing is due."""
        store = self.engine.store
        assert isinstance(store, RedisStore)

        def link(export: Export) -> str | None:
            found = self.engine.link(export)
            return found[0] if found else None

        clock = SystemClock()
        Deliverer(
            outbox=self.outbox,
            endpoints=self.endpoints,
            store=store,
            sender=Sender(self.guard, clock, timeout=5),
            clock=clock,
            link=link,
            public_url=PUBLIC_URL,
            concurrency=4,
            timeout=timedelta(seconds=5),
        ).run(budget=timedelta(seconds=20))


def verified(secret: str, received: Received) -> dict[str, Any]:
    """The payload, as a receiver that checks signatures gets it; raises if it is not ours."""
    payload: dict[str, Any] = Webhook(secret).verify(received.body, received.headers)
    return payload


@cache
def _jobs_table() -> bytes:
    with TemporaryDirectory() as folder:
        table = Path(folder) / "jobs.sqlite"
        sample.create(table, "ann")
        return table.read_bytes()


@contextmanager
def hooked(server: Server, client: redis.Redis, directory: Path) -> Iterator[Hooked]:
    """A fresh service on a running server, over an empty Redis. Its sources cannot be reached, but
    for a table of ann's jobs: creating needs none."""
    clock = SystemClock()
    table = directory / "jobs.sqlite"
    table.write_bytes(_jobs_table())
    upstream: dict[str, Any] = {"base_url": "http://127.0.0.1:9", "api_key": "unused"}
    engine = ExportService(
        settings=Settings(
            public_url=PUBLIC_URL,
            **UNBOUNDED_RATES,
        ),
        config=Config(
            sources={
                "board": HirebaseConfig(**upstream),
                "coresignal": CoresignalConfig(**upstream),
                "pipeline": SqlConfig(url=f"sqlite:///{table}"),
            }
        ),
        store=RedisStore(client),
        storage=MemoryStorage(clock),
        clock=clock,
    )
    keys = KeyRing(client)
    ann, bob = keys.create("ann"), keys.create("bob")
    app = server.app = create_app(engine, keys)
    headers = {"X-API-Key": ann}
    with httpx.Client(base_url=server.url, headers=headers, timeout=30, verify=TLS) as http:
        yield Hooked(http, app, engine, keys, client, ann, bob)
    engine.source("pipeline").close()
