"""Records that crash whoever reads them, written by 0.1.0, end without harm to other users."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import NamedTuple, cast

import httpx
import pytest
import redis

from exporter.api.app import create_app
from exporter.clock import SystemClock
from exporter.config import Config
from exporter.core.exports import State
from exporter.local.redis import RedisServer
from exporter.service.exports import ExportService
from exporter.settings import Settings
from exporter.sources.hirebase import HirebaseConfig
from exporter.storage.memory import MemoryStorage
from exporter.store.redis.api_keys import KeyRing
from exporter.store.redis.store import MAX_UNREADABLE_CLAIMS, RedisStore
from tests.contract.store.given import LEASE, claim, finish, spec
from tests.integration.api_server import KEYS_DATABASE, PUBLIC_URL, Server

DEPTH = 970
"""Levels of a search that 0.1.0 stored and could not read again."""
MANY = 400


class Attacked(NamedTuple):
    http: httpx.Client
    """Sends the key of ann, who owns the records that crash."""
    store: RedisStore
    client: redis.Redis

    def store_deep(self, export_id: str, user: str = "ann") -> None:
        """Stores an export with a deeply nested search, as 0.1.0 did."""
        self.store.create(spec(export_id, user))
        text = self.client.hget(f"{{exporter}}:export:{export_id}", "spec")
        assert isinstance(text, bytes)
        head, rest = text.split(b'"query":', 1)
        _, tail = rest.split(b',"query_sha256"', 1)
        deep = b'{"a":' * DEPTH + b"{}" + b"}" * DEPTH
        whole = head + b'"query":{"es_dsl":' + deep + b'},"query_sha256"' + tail
        self.client.hset(f"{{exporter}}:export:{export_id}", "spec", whole)

    def end_waits(self) -> None:
        for export_id in cast("list[bytes]", self.client.zrange("{exporter}:waiting", 0, -1)):
            self.client.zadd("{exporter}:waiting", {export_id.decode(): 0})


@pytest.fixture
def attacked(server: Server, redis_server: RedisServer) -> Iterator[Attacked]:
    """Starts an API over a real Redis."""
    with redis.Redis.from_url(redis_server.url.replace("/0", f"/{KEYS_DATABASE}")) as client:
        client.flushdb()
        store, keys, clock = RedisStore(client), KeyRing(client), SystemClock()
        board = HirebaseConfig(base_url="http://127.0.0.1:9", api_key="unused")
        engine = ExportService(
            settings=Settings(public_url=PUBLIC_URL),
            config=Config(sources={"board": board}),
            store=store,
            storage=MemoryStorage(clock),
            clock=clock,
        )
        server.app = create_app(engine, keys)
        with httpx.Client(base_url=server.url, headers={"X-API-Key": keys.create("ann")}) as http:
            yield Attacked(http, store, client)


def test_deep_records_fail_after_a_fixed_number_of_claims_and_others_run_on(
    attacked: Attacked,
) -> None:
    # Given: ann's records are first in line
    for number in range(MANY):
        attacked.store_deep(f"deep-{number}")
    attacked.store.create(spec("sound", "bob"))

    # When
    begun = time.monotonic()
    claimed = claim(attacked.store)

    # Then: bob's export is served in the first breath
    assert claimed.export.id == "sound"
    assert time.monotonic() - begun < 2
    finish(attacked.store, claimed)
    for _ in range(MAX_UNREADABLE_CLAIMS):
        attacked.end_waits()
        assert attacked.store.claim("worker-1", lease=LEASE) is None
    states = {attacked.client.hget(f"{{exporter}}:export:deep-{n}", "state") for n in range(MANY)}
    assert states == {b"failed"}
    # And it is counted
    counted = attacked.store.counters()
    assert counted["records_set_aside"] == MANY * MAX_UNREADABLE_CLAIMS
    assert counted["exports_failed"] == MANY
    metrics = attacked.http.get("/metrics").text
    assert f"exporter_records_set_aside_total {MANY * MAX_UNREADABLE_CLAIMS}" in metrics


@pytest.mark.parametrize("claims", [0, 1], ids=["unclaimed", "claimed once"])
def test_the_owner_of_a_deep_record_sees_cancels_and_deletes_it_at_once(
    attacked: Attacked, claims: int
) -> None:
    # Given
    for export_id in ("seen", "canceled", "deleted"):
        attacked.store_deep(export_id)
    for _ in range(claims):
        assert attacked.store.claim("worker-1", lease=LEASE) is None

    # When
    seen = attacked.http.get("/v1/exports/seen")
    listed = attacked.http.get("/v1/exports")
    canceled = attacked.http.post("/v1/exports/canceled/cancel")
    deleted = attacked.http.delete("/v1/exports/deleted")
    retried = attacked.http.post("/v1/exports/canceled/retry")
    task = attacked.http.get("/v2/tasks/seen")

    # Then
    assert (seen.status_code, seen.json()["state"]) == (200, "processing" if claims else "queued")
    assert {one["id"] for one in listed.json()["exports"]} == {"seen", "canceled", "deleted"}
    assert (canceled.status_code, canceled.json()["state"]) == (200, "canceled")
    assert (deleted.status_code, deleted.json()["state"]) == (202, "canceled")
    assert retried.status_code == 409, retried.text
    assert task.status_code in (200, 404)
    assert attacked.http.get("/v1/exports/deleted").status_code == 404
    left = attacked.store.queue_counts()
    assert (sum(left.ready), left.waiting, left.running) == ((0, 1, 0) if claims else (1, 0, 0))


def test_a_deep_record_is_canceled_although_a_dead_worker_has_its_lease(
    attacked: Attacked,
) -> None:
    # Given: a worker of 0.1.0 claimed it and crashed
    attacked.store.create(spec("deep"))
    claim(attacked.store)
    attacked.store_deep("deep")

    # When
    answer = attacked.http.post("/v1/exports/deep/cancel")
    attacked.client.zadd("{exporter}:leases", {"deep": 0})
    attacked.store.sweep()

    # Then: the next claim ends it
    assert answer.status_code == 202
    assert attacked.store.claim("worker-1", lease=LEASE) is None
    state = attacked.client.hget("{exporter}:export:deep", "state")
    assert state == State.CANCELED.encode()
    assert attacked.store.queue_counts().waiting == 0


@pytest.mark.parametrize("field", ["spec", "result", "state", "phase", "created_at", "checkpoint"])
def test_no_surface_fails_at_a_damaged_record(attacked: Attacked, field: str) -> None:
    # Given: an export that has ended, and whose record is damaged then
    attacked.store.create(spec("e"))
    finish(attacked.store, claim(attacked.store))
    attacked.client.hset("{exporter}:export:e", field, b"\xff")

    # When
    answers = [
        attacked.http.request(method, path)
        for method, path in (
            ("GET", "/v1/exports/e"),
            ("GET", "/v1/exports/e?wait=1"),
            ("GET", "/v1/exports"),
            ("GET", "/v1/exports/e/deliveries"),
            ("GET", "/v2/tasks/e"),
            ("GET", "/v2/tasks"),
            ("GET", "/v2/data_requests/e/files"),
            ("GET", "/v2/data_requests/e/files/1"),
            ("GET", "/v1/bulk_collect/e/files"),
            ("POST", "/v1/exports/e/retry"),
            ("POST", "/v1/exports/e/cancel"),
            ("DELETE", "/v1/exports/e"),
        )
    ]

    # Then
    failed = [(str(one.url), one.text) for one in answers if one.status_code >= 500]
    assert failed == []
