"""Lists of deliveries: the work for one page is bounded, whatever the list contains."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from exporter.webhooks import delivery_store
from exporter.webhooks.deliveries import Delivery, DeliveryState
from exporter.webhooks.endpoints import Endpoint
from tests.contract.store.webhook_desk import Desk

OTHERS = 1_500


@pytest.fixture
def endpoint(desk: Desk) -> Endpoint:
    """An endpoint with one pending delivery behind many deliveries that are dead or expired."""
    endpoint = desk.endpoint()
    desk.queue("wanted")
    pipe = desk.client.pipeline()
    for n in range(OTHERS):
        pipe.zadd(f"{{exporter}}:deliveries:{endpoint.id}", {f"d{n}": 2**51 + n})
        if n % 2:
            pipe.hset("{exporter}:delivery:d" + str(n), mapping={"state": "dead"})
    pipe.execute()
    return endpoint


def commands(desk: Desk) -> int:
    """Number of commands that Redis has processed."""
    stats: Any = desk.client.info("commandstats")
    return int(stats["cmdstat_zrevrangebyscore"]["calls"])


def test_a_rare_state_is_found_with_few_reads(desk: Desk, endpoint: Endpoint) -> None:
    # Given
    desk.client.config_resetstat()
    cursor, pages = None, 0
    found: list[Delivery] = []

    # When
    while True:
        page = desk.deliveries.of_endpoint(
            endpoint.id, limit=1, cursor=cursor, state=DeliveryState.PENDING
        )
        pages += 1
        found += page.deliveries
        cursor = page.next_cursor
        if cursor is None:
            break

    # Then: the list is read in hundreds, and no page reads more than its bound
    assert [one.export_id for one in found] == ["wanted"]
    assert pages == 2
    assert commands(desk) == OTHERS // 100 + 1


def test_a_page_ends_behind_many_expired_deliveries(desk: Desk, endpoint: Endpoint) -> None:
    # Given
    for n in range(OTHERS):
        desk.client.delete(f"{{exporter}}:delivery:d{n}")

    # When
    first = desk.deliveries.of_endpoint(endpoint.id, limit=1)
    assert first.next_cursor is not None
    second = desk.deliveries.of_endpoint(endpoint.id, limit=1, cursor=first.next_cursor)

    # Then
    assert first.deliveries == ()
    assert [one.export_id for one in second.deliveries] == ["wanted"]
    assert second.next_cursor is None


def test_a_recovery_stops_exactly_at_its_bound(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    # Given: more failed deliveries than a recovery sends again
    monkeypatch.setattr(delivery_store, "MAX_RECOVERED", 5)
    endpoint = desk.endpoint()
    desk.queue(*(f"e{n}" for n in range(8)))
    for claimed in desk.all_claims():
        desk.give_up(claimed, "unknown")
    while claims := desk.all_claims():
        for claimed in claims:
            desk.give_up(claimed, "unknown")

    # When
    recovered = desk.deliveries.recover(endpoint.id, datetime(2020, 1, 1, tzinfo=UTC))

    # Then
    assert recovered == 5
    states = [one.state for one in desk.to(endpoint)]
    assert states == [DeliveryState.PENDING] * 5 + [DeliveryState.DEAD] * 3


def test_a_large_recovery_is_spread_over_time(desk: Desk) -> None:
    # Given
    endpoint = desk.endpoint()
    pipe = desk.client.pipeline()
    for n in range(300):
        fields: Any = {"state": "dead", "endpoint": endpoint.id, "user": "ann", "export": ""}
        pipe.hset(f"{{exporter}}:delivery:d{n}", mapping=fields)
        pipe.zadd(f"{{exporter}}:deliveries:{endpoint.id}", {f"d{n}": 2**51 + n})
    pipe.execute()

    # When
    assert desk.deliveries.recover(endpoint.id, datetime(2020, 1, 1, tzinfo=UTC)) == 300

    # Then: the first hundred at once, then twenty a second
    due: Any = desk.client.zrange(f"{{exporter}}:due:{endpoint.id}", 0, -1, withscores=True)
    first = due[0][1]
    assert sum(score - first < 1_000_000 for _, score in due) in range(100, 122)
    assert 9_000_000 < due[-1][1] - first < 12_000_000
