"""The API on a real socket, for the tests that speak to it over the wire.

Starlette's own test client warns that it is on its way out for httpx, and warnings are errors here.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, NamedTuple

import httpx
import redis
import structlog
from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send
from structlog.testing import capture_logs

from exporter.api import connections
from exporter.api.app import create_app
from exporter.clock import FakeClock
from exporter.config import Config
from exporter.core.checkpoints import RowCounts
from exporter.core.exports import Completeness, EndReason, Export, Outcome, Result, State
from exporter.core.rates import Rate
from exporter.service.exports import ExportService
from exporter.settings import Settings
from exporter.sources.config import SourceConfig
from exporter.sources.hirebase import HirebaseConfig
from exporter.storage.base import FileHeaders
from exporter.storage.memory import MemoryStorage
from exporter.store.base import ExportStore
from exporter.store.memory.store import MemoryStore
from exporter.store.redis.api_keys import KeyRing

KEYS_DATABASE = 5
"""Of the test run's Redis; flushed by each test that uses it."""
PUBLIC_URL = "https://exports.test"
LEASE = timedelta(seconds=30)
UNBOUNDED_RATES: Mapping[str, Any] = {
    f"{name}_rate": Rate(1_000_000, 60)
    for name in ("hirebase", "pipeline", "create", "change", "list", "estimate", "preview")
}
"""Settings with which no test reaches a rate limit."""

CREATED = {
    "hirebase": ("/v2/jobs/export", {"search": {"job_titles": ["Welder"]}, "format": "csv"}),
    "native": (
        "/v1/exports",
        {"source": "board", "query": {"job_titles": ["Welder"]}, "format": "csv"},
    ),
}
"""For each surface the path and a body that create an export."""
POLLED = {"hirebase": "/v2/tasks", "native": "/v1/exports"}


class Server:
    """An HTTP server on a free port; what it serves can be exchanged."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.url = ""
        self.settings = settings or Settings()
        self._app: ASGIApp | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    @property
    def app(self) -> ASGIApp | None:
        """What is served; one of our own that is exchanged lets its connections go."""
        return self._app

    @app.setter
    def app(self, app: ASGIApp | None) -> None:
        before, self._app = self._app, app
        if self._loop is not None and isinstance(before, FastAPI):
            connection = getattr(before.state, "redis", None)
            if connection is not None:
                self._loop.call_soon_threadsafe(connection.close)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self._app is not None, "give the server an app before calling it"
        self._loop = asyncio.get_running_loop()
        await self._app(scope, receive, send)

    @contextmanager
    def running(self) -> Iterator[Server]:
        """Serve until the block ends."""
        # asyncio turns Nagle's algorithm off only for sockets that name their protocol; with it
        # on, each answer waits 40 ms for an acknowledgement.
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
            listener.bind(("127.0.0.1", 0))
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            bounds = connections.bounds(self.settings)
            server = connections.server(self, bounds, lifespan="off", log_level="critical")
            thread = threading.Thread(target=server.run, args=([listener],), daemon=True)
            thread.start()
            while not server.started:
                time.sleep(0.005)
            try:
                yield self
            finally:
                self.app = None
                server.should_exit = True
                thread.join()


class Service(NamedTuple):
    """One API with all behind it, and keys of two users."""

    http: httpx.Client
    """Sends the first user's key, unless a request brings its own header."""
    engine: ExportService
    clock: FakeClock
    storage: MemoryStorage
    keys: KeyRing
    ann: str
    bob: str

    def finish(self, export_id: str, body: bytes = b"_id\r\n1\r\n") -> Export:
        """Do a worker's part: claim this export, store a file, publish it."""
        claim = self.engine.store.claim("worker-test-1", lease=LEASE)
        assert claim is not None
        assert claim.export.id == export_id
        key = f"{export_id}.csv"
        self.storage.put_small(key, body, FileHeaders("text/csv", claim.export.spec.file_name))
        whole = Completeness(
            outcome=Outcome.COMPLETE,
            end_reason=EndReason.TOTAL_REACHED,
            exported=1,
            expected=1,
            duplicates_removed=3,
            skipped=0,
            total_at_start=1,
            total_at_end=1,
        )
        result = Result(
            key=key,
            file_size=len(body),
            record_count=1,
            completeness=whole,
            row_counts=RowCounts(guarded_cells=2, unmapped_fields={"extra": 1}, nulled_numbers=4),
            pages=1,
        )
        settings = self.engine.settings
        assert self.engine.store.end(
            export_id,
            claim.fence,
            State.FINISHED,
            result=result,
            keep_file=settings.retention,
            keep_record=settings.record_retention,
        )
        export = self.engine.store.get(export_id)
        assert export is not None
        return export


def make_engine(
    clock: FakeClock, store: ExportStore, storage: MemoryStorage, **sources: SourceConfig
) -> ExportService:
    """An engine with one source, `board`, that cannot be reached: creating needs no upstream."""
    board = HirebaseConfig(base_url="http://127.0.0.1:9", api_key="unused")
    return ExportService(
        settings=Settings(public_url=PUBLIC_URL),
        config=Config(sources={"board": board, **sources}),
        store=store,
        storage=storage,
        clock=clock,
    )


@contextmanager
def captured_logs() -> Iterator[list[MutableMapping[str, Any]]]:
    """What is logged within the block, from INFO up, with the request's id."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.INFO))
    with capture_logs(processors=[structlog.contextvars.merge_contextvars]) as lines:
        yield lines


@contextmanager
def service(server: Server, client: redis.Redis) -> Iterator[Service]:
    """A fresh service on a running server, its keys in the given Redis."""
    clock = FakeClock()
    storage = MemoryStorage(clock)
    engine = make_engine(clock, MemoryStore(clock), storage)
    keys = KeyRing(client)
    ann, bob = keys.create("ann"), keys.create("bob")
    server.app = create_app(engine, keys)
    with httpx.Client(base_url=server.url, headers={"X-API-Key": ann}) as http:
        yield Service(http, engine, clock, storage, keys, ann, bob)
