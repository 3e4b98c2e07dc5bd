"""What one user's webhooks may occupy in Redis."""

from __future__ import annotations

from dataclasses import replace

import pytest
import redis

from exporter.core import limits
from exporter.webhooks.deliveries import Attempt, DeliveryState
from exporter.webhooks.outbox import Outbox
from tests.contract.store.webhook_desk import Desk, attempt


def test_only_the_latest_deliveries_of_a_user_are_kept(client: redis.Redis) -> None:
    # Given: one delivery whose attempt runs, and one of another user
    desk = Desk(client)
    desk.outbox = Outbox(client, kept_deliveries=5)
    endpoint, other = desk.endpoint(), desk.endpoint("bob")
    desk.queue("b", user="bob")
    desk.queue("e0")
    running = next(one for one in (desk.claim(), desk.claim()) if one.delivery.export_id == "e0")

    # When
    for n in range(1, 12):
        desk.queue(f"e{n}")

    # Then
    kept = [one.export_id for one in desk.to(endpoint)]
    assert kept == ["e0", "e8", "e9", "e10", "e11"]
    assert len(desk.keys("delivery:*")) == 6
    assert desk.members(f"due:{endpoint.id}") == {
        one.id for one in desk.to(endpoint) if one.export_id != "e0"
    }
    assert len(desk.to(other)) == 1
    desk.deliver(running)
    assert desk.known(running.delivery.id).state is DeliveryState.DELIVERED


def test_the_attempts_of_a_delivery_are_bounded_by_their_bytes(desk: Desk) -> None:
    # Given: a receiver whose answers are as large as they may be
    desk.endpoint()
    desk.queue("e")
    large = replace_excerpt(attempt(500), "\x01" * 1_000)

    # When
    for _ in range(5):
        claimed = desk.claim()
        desk.outbox.settle(claimed, large, state=DeliveryState.PENDING, health="unknown")

    # Then: the latest attempt is always kept
    (key,) = desk.keys("delivery:*")
    assert desk.client.hstrlen(key.decode(), "attempts") <= 8_192
    delivery = desk.known(key.decode().removeprefix("{exporter}:delivery:"))
    assert (len(delivery.attempts), delivery.tries) == (1, 5)


def replace_excerpt(one: Attempt, excerpt: str) -> Attempt:
    return Attempt(at=one.at, duration=one.duration, status=one.status, excerpt=excerpt)


def test_the_urls_of_one_user_are_bounded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given
    monkeypatch.setattr(limits, "URL_ENDPOINTS", replace(limits.URL_ENDPOINTS, default=3))
    desk.endpoint()
    known = [desk.endpoints.get_or_create("ann", f"https://example.com/{n}") for n in range(3)]

    # When
    with pytest.raises(limits.LimitReached, match="limit of 3 webhook URLs"):
        desk.endpoints.get_or_create("ann", "https://example.com/other")

    # Then: known URLs, other users and registered endpoints are served
    assert desk.endpoints.get_or_create("ann", known[0].url).id == known[0].id
    desk.endpoints.get_or_create("bob", "https://example.com/other")
    desk.endpoint()
    # ... and an endpoint that has expired makes place
    desk.client.delete(f"{{exporter}}:endpoint:{known[1].id}")
    with pytest.raises(limits.LimitReached):
        desk.endpoints.get_or_create("ann", "https://example.com/other")
    desk.endpoints.get_or_create("ann", "https://example.com/other")
