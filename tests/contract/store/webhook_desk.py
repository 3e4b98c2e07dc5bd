"""Webhooks over a real Redis as the tests of their store handle them, without anything sent."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import cast

import redis

from exporter.core.events import EVENTS
from exporter.store.redis import calls
from exporter.store.redis.store import RedisStore
from exporter.webhooks.deliveries import Attempt, Delivery, DeliveryState
from exporter.webhooks.delivery_store import Deliveries
from exporter.webhooks.endpoint_store import Endpoints
from exporter.webhooks.endpoints import Endpoint
from exporter.webhooks.outbox import Claimed, Outbox, Settled
from tests.contract.store.given import spec

TRY = timedelta(seconds=30)
"""The lease of a try."""
URL = "https://example.com/hooks"


@dataclass
class Desk:
    client: redis.Redis
    keep: timedelta = timedelta(hours=1)
    store: RedisStore = field(init=False)
    endpoints: Endpoints = field(init=False)
    deliveries: Deliveries = field(init=False)
    outbox: Outbox = field(init=False)

    def __post_init__(self) -> None:
        self.store = RedisStore(self.client)
        self.endpoints = Endpoints(self.client)
        self.deliveries = Deliveries(self.client, keep=self.keep)
        self.outbox = Outbox(self.client, keep=self.keep)

    def endpoint(
        self, user: str = "ann", events: Iterable[str] = EVENTS, *, ordered: bool = False
    ) -> Endpoint:
        return self.endpoints.create(user, URL, events=tuple(events), ordered=ordered)

    def listener(self, user: str = "ann", events: Iterable[str] = EVENTS) -> Endpoint:
        return self.endpoints.create(user, "", events=tuple(events), listener_ttl=60)

    def take(self, endpoint: Endpoint) -> Claimed | None:
        return calls.run(self.client, self.outbox.take_call(endpoint.id, endpoint.user_id))

    def expire(self, endpoint: Endpoint) -> None:
        """Let the time of a listener be over."""
        assert self.client.zadd("{exporter}:listening", {endpoint.id: 1}, xx=True, ch=True) == 1

    def queue(self, *exports: str, user: str = "ann") -> None:
        """Let an event `export.queued` of each of these become deliveries."""
        for export_id in exports:
            self.store.create(spec(export_id, user))
        self.spread()

    def spread(self) -> None:
        """Turn all events into deliveries to whoever listens."""
        while events := self.outbox.peek():
            for event in events:
                if event.of_export:
                    found = self.client.hget(f"{{exporter}}:export:{event.subject_id}", "user")
                else:
                    found = self.client.hget(f"{{exporter}}:endpoint:{event.subject_id}", "user")
                assert isinstance(found, bytes)
                whom = [
                    one.id
                    for one in self.endpoints.registered(found.decode())
                    if event.type in one.events and one.id != event.subject_id
                ]
                assert self.outbox.fan_out(event, dict.fromkeys(whom, b"{}"))

    def claim(self, *, lease: timedelta = TRY, slow: bool = True) -> Claimed:
        claimed = self.outbox.claim(lease=lease, slow=slow)
        assert claimed is not None
        return claimed

    def all_claims(self) -> list[Claimed]:
        found = []
        while (claimed := self.outbox.claim(lease=TRY)) is not None:
            found.append(claimed)
        return found

    def deliver(self, claimed: Claimed, health: str = "well") -> Settled | None:
        return self.outbox.settle(
            claimed, attempt(200), state=DeliveryState.DELIVERED, health=health
        )

    def fail(
        self,
        claimed: Claimed,
        delay: timedelta = timedelta(0),
        *,
        rest: timedelta = timedelta(0),
    ) -> Settled | None:
        return self.outbox.settle(
            claimed,
            attempt(500),
            state=DeliveryState.PENDING,
            health="failed",
            delay=delay,
            rest=rest,
        )

    def give_up(self, claimed: Claimed, health: str = "failed") -> Settled | None:
        return self.outbox.settle(
            claimed, attempt(500), state=DeliveryState.DEAD, health=health, gave_up="enough"
        )

    def known(self, delivery_id: str) -> Delivery:
        delivery = self.deliveries.find(delivery_id)
        assert delivery is not None
        return delivery

    def known_endpoint(self, endpoint: Endpoint) -> Endpoint:
        found = self.endpoints.find(endpoint.id, endpoint.user_id)
        assert found is not None
        return found

    def to(self, endpoint: Endpoint) -> tuple[Delivery, ...]:
        """All that was or is to be sent to an endpoint, oldest first."""
        page = self.deliveries.of_endpoint(endpoint.id, limit=1_000)
        return page.deliveries[::-1]

    def keys(self, pattern: str) -> list[bytes]:
        return cast("list[bytes]", self.client.keys(f"{{exporter}}:{pattern}"))

    def members(self, key: str) -> set[str]:
        """What is in a sorted set."""
        found = cast("list[bytes]", self.client.zrange(f"{{exporter}}:{key}", 0, -1))
        return {one.decode() for one in found}

    def hurry(self) -> None:
        """Let every time come for which a delivery or an endpoint waits."""
        for key in [*self.keys("due:*"), *self.keys("lane:*"), *self.keys("turns:*")]:
            for member in self.members(key.decode().removeprefix("{exporter}:")):
                self.client.zadd(key.decode(), {member: 1})

    def end_event_waits(self) -> None:
        """Let the time come for which events that could not be read wait, and sweep."""
        for member in self.members("outbox_aside"):
            self.client.zadd("{exporter}:outbox_aside", {member: 1})
        self.outbox.sweep(limit=1_000)

    def lose(self) -> None:
        """Let all leases of tries run out, and sweep."""
        for member in self.members("delivery_leases"):
            self.client.zadd("{exporter}:delivery_leases", {member: 1})
        self.outbox.sweep(limit=1_000)

    def age_failure(self, endpoint: Endpoint, first: timedelta, latest: timedelta) -> None:
        """Let an endpoint have failed first and latest that long ago."""
        key = f"{{exporter}}:endpoint:{endpoint.id}"
        for name, ago in (("failing_since", first), ("failed_at", latest)):
            assert self.client.hexists(key, name)
            self.client.hincrby(key, name, -(ago // timedelta(microseconds=1)))


def attempt(status: int | None) -> Attempt:
    ok = status is not None and 200 <= status < 300
    return Attempt(
        at=datetime(2026, 1, 2, tzinfo=UTC),
        duration=0.25,
        status=status,
        error=None if ok else "no",
        excerpt="naïve\n🦊",
    )


def exports_of(claims: Iterable[Claimed]) -> list[str | None]:
    return [claimed.delivery.export_id for claimed in claims]
