"""Turns between users: the backlog of one user delays no other user's webhooks."""

from __future__ import annotations

from datetime import timedelta

import redis

from exporter.core.exports import Hook
from exporter.webhooks.outbox import Outbox
from tests.contract.store.given import spec
from tests.contract.store.webhook_desk import TRY, Desk

URLS = 60
"""Endpoints of one user, each with a due delivery."""


def flood(desk: Desk, user: str = "ann") -> None:
    """Let a user have a due delivery at each of many URLs."""
    for n in range(URLS):
        endpoint = desk.endpoints.get_or_create(user, f"https://example.com/{user}/{n}")
        export = spec(f"{user}-{n}", user, webhook=Hook(endpoint.id, ("export.queued",)))
        desk.store.create(export)
        (event,) = desk.outbox.peek()
        assert desk.outbox.fan_out(event, {endpoint.id: b"{}"})


def test_a_user_who_waits_is_served_before_the_backlog_of_another_user(desk: Desk) -> None:
    # Given: a backlog that is older than the delivery of the second user
    flood(desk)
    desk.endpoint("bob")
    desk.queue("b", user="bob")

    # When
    claims = [desk.claim() for _ in range(2)]

    # Then
    assert {claimed.delivery.user_id for claimed in claims} == {"ann", "bob"}


def test_users_with_backlogs_take_turns(desk: Desk) -> None:
    # Given
    for user in ("ann", "bob", "cleo"):
        flood(desk, user)

    # When
    served = []
    for _ in range(30):
        claimed = desk.claim()
        desk.deliver(claimed)
        served.append(claimed.delivery.user_id)

    # Then
    for begin in range(0, len(served), 3):
        assert set(served[begin : begin + 3]) == {"ann", "bob", "cleo"}


def test_the_attempts_of_one_user_at_once_are_bounded(desk: Desk) -> None:
    # Given
    flood(desk)
    limited = Outbox(desk.client, user_limit=3)

    # When
    claims = [limited.claim(lease=TRY) for _ in range(6)]

    # Then: an attempt that ends makes place for another
    assert [claimed is not None for claimed in claims] == [True] * 3 + [False] * 3
    assert claims[0] is not None
    desk.deliver(claims[0])
    assert [limited.claim(lease=TRY) is not None for _ in range(2)] == [True, False]


def test_attempts_of_lost_workers_do_not_count_for_ever(desk: Desk) -> None:
    # Given: a worker of an earlier version, which knows no attempts of users, swept the leases
    flood(desk)
    limited = Outbox(desk.client, user_limit=1)
    assert limited.claim(lease=timedelta(milliseconds=20)) is not None
    assert limited.claim(lease=TRY) is None

    # When
    desk.client.zremrangebyscore("{exporter}:delivery_leases", "-inf", "+inf")
    while desk.client.exists("{exporter}:attempts:ann"):
        pass

    # Then
    assert limited.claim(lease=TRY) is not None


def test_endpoints_that_an_earlier_version_scheduled_are_served(client: redis.Redis) -> None:
    # Given
    desk = Desk(client)
    endpoint = desk.endpoint()
    desk.queue("e")
    client.delete("{exporter}:turns:fast", "{exporter}:lane:fast:ann")
    client.zadd("{exporter}:lane:fast", {endpoint.id: 1})
    assert desk.outbox.sweep().ready == 1

    # When
    claimed = desk.claim()

    # Then
    assert claimed.delivery.export_id == "e"
    assert desk.keys("lane:*") == []
