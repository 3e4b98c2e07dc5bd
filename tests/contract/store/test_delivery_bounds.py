"""No delivery is lost on the way, and nothing is left of one that is past its retention."""

from __future__ import annotations

import random
import time
from collections import Counter
from datetime import timedelta

import pytest
import redis

from exporter.core.exports import State
from exporter.webhooks import outbox
from exporter.webhooks.deliveries import Delivery, DeliveryState
from exporter.webhooks.endpoints import Endpoint
from tests.contract.store.given import (
    KEEP,
    LEASE,
    checkpoint,
    claim,
    finish,
    spec,
)
from tests.contract.store.webhook_desk import TRY, Desk

HOUR = timedelta(hours=1)


def test_what_is_finished_expires_and_nothing_is_left_of_it(client: redis.Redis) -> None:
    # Given
    desk = Desk(client, keep=timedelta(milliseconds=100))
    delivered, dead, gone = (desk.endpoint(user) for user in ("ann", "bob", "cleo"))
    for user in ("ann", "bob", "cleo"):
        desk.queue(f"{user}1", f"{user}2", user=user)
    desk.endpoints.delete(gone.id, "cleo")
    while (claimed := desk.outbox.claim(lease=TRY)) is not None:
        desk.deliver(claimed) if claimed.endpoint.id == delivered.id else desk.give_up(claimed)
    # When
    for endpoint in (delivered, dead):
        desk.endpoints.delete(endpoint.id, endpoint.user_id)
    time.sleep(0.15)
    # Then: but for lists that expire later, and say nothing of what is gone
    kinds = {key.split(b":")[1] for key in desk.keys("*")}
    assert kinds & {b"delivery", b"endpoint", b"endpoints", b"registered", b"listeners"} == set()
    assert kinds & {b"due", b"order", b"lane", b"delivering", b"delivery_leases", b"dead"} == set()
    for key in [*desk.keys("deliveries:*"), *desk.keys("told:*")]:
        assert client.pttl(key) > 0
    assert desk.to(delivered) == ()


def test_what_is_not_finished_does_not_expire(client: redis.Redis) -> None:
    # Given
    desk = Desk(client, keep=timedelta(milliseconds=50))
    desk.endpoint()
    # When
    desk.queue("e")
    desk.fail(desk.claim(), HOUR)
    # Then
    (key,) = client.keys("{exporter}:delivery:*")
    assert client.pttl(key) == -1


def test_in_a_full_redis_webhooks_still_go_out(desk: Desk) -> None:
    # Given
    desk.endpoint(ordered=True)
    desk.store.create(spec("e"))
    claimed = claim(desk.store)
    desk.client.config_set("maxmemory", 1)
    try:
        # When
        finish(desk.store, claimed)
        desk.spread()
        heard = []
        while (one := desk.outbox.claim(lease=TRY)) is not None:
            heard.append(one.delivery.type)
            desk.deliver(one)
    finally:
        desk.client.config_set("maxmemory", 0)
    # Then
    assert heard == ["export.queued", "export.started", "export.finished"]


def test_what_somebody_deleted_by_hand_is_passed_over(desk: Desk) -> None:
    # Given
    desk.endpoint("ann")
    desk.endpoint("bob")
    desk.queue("gone")
    (key,) = desk.keys("delivery:*")
    desk.client.delete(key)
    desk.queue("kept")
    desk.queue("bob", user="bob")
    # When
    claims = desk.all_claims()
    # Then
    assert [claimed.delivery.export_id for claimed in claims] == ["kept", "bob"]
    # ... nor does the loss of a whole line stop the others
    desk.queue("lost")
    desk.client.delete(*desk.keys("due:*"))
    desk.queue("b2", user="bob")
    assert [claimed.delivery.export_id for claimed in desk.all_claims()] == ["b2"]


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_each_delivery_waits_somewhere_until_it_is_finished(
    desk: Desk, seed: int
) -> None:
    # Given
    chance = random.Random(seed)
    endpoints = [
        desk.endpoint(user, ordered=ordered) for user in ("ann", "bob") for ordered in (False, True)
    ]
    under_way: list[outbox.Claimed] = []
    numbers = iter(range(10_000))

    def create() -> None:
        desk.queue(f"e{next(numbers)}", user=chance.choice(["ann", "bob"]))

    def work() -> None:
        claimed = desk.store.claim("w", lease=LEASE)
        if claimed is not None:
            desk.store.commit(
                claimed.export.id, claimed.fence, checkpoint(1), lease=LEASE, progress=0.1
            )
            desk.spread()
            desk.store.end(claimed.export.id, claimed.fence, State.FAILED, keep_record=KEEP)
            desk.spread()

    def begin() -> None:
        claimed = desk.outbox.claim(lease=TRY, slow=chance.random() < 0.8)
        if claimed is not None:
            under_way.append(claimed)

    def settle() -> None:
        if under_way:
            claimed = under_way.pop(chance.randrange(len(under_way)))
            how = chance.choice([desk.deliver, desk.fail, desk.give_up])
            how(claimed)  # type: ignore[operator]

    def redo() -> None:
        dead = desk.deliveries.dead(chance.choice(["ann", "bob"]), limit=5).deliveries
        for delivery in dead:
            desk.deliveries.redeliver(delivery.id)

    def lose() -> None:
        desk.lose()
        under_way.clear()

    def switch() -> None:
        endpoint = chance.choice(endpoints)
        desk.endpoints.disable(endpoint.id, endpoint.user_id)
        desk.all_claims()
        desk.lose()
        under_way.clear()
        desk.endpoints.enable(endpoint.id, endpoint.user_id)

    steps = [create] * 3 + [work] * 2 + [begin] * 8 + [settle] * 7 + [redo, lose, switch]
    # When
    for _ in range(120):
        chance.choice(steps)()
        # Then
        check(desk, endpoints)
    # ... and in the end, all of it is delivered
    lose()
    for _ in range(3_000):
        claims = desk.all_claims()
        if not claims:
            break
        for claimed in claims:
            desk.deliver(claimed)
    states = Counter(delivery.state for one in endpoints for delivery in desk.to(one))
    assert states[DeliveryState.DELIVERED] > 0
    assert states.keys() <= {DeliveryState.DELIVERED, DeliveryState.DEAD}


def in_line(endpoint: Endpoint, delivery: Delivery) -> str:
    """Of those with the same answer, one is sent after the other."""
    return (delivery.export_id if endpoint.ordered else None) or delivery.id


def check(desk: Desk, endpoints: list[Endpoint]) -> None:
    """Each pending delivery is due or behind another of its export; counts and lanes are right."""
    leased = desk.members("delivery_leases")
    lanes: set[str] = set()
    for speed in ("fast", "slow"):
        found = {u: desk.members(f"lane:{speed}:{u}") for u in {one.user_id for one in endpoints}}
        assert desk.members(f"turns:{speed}") == {user for user, lane in found.items() if lane}
        lanes |= set().union(*found.values())
    for endpoint in endpoints:
        due = desk.members(f"due:{endpoint.id}")
        busy = 0
        first: dict[str | None, int] = {}
        for delivery in desk.to(endpoint):
            is_pending = delivery.state is DeliveryState.PENDING
            is_under_way = delivery.state is DeliveryState.DELIVERING
            busy += is_under_way
            assert (delivery.id in leased) == is_under_way
            if is_pending or is_under_way:
                key = in_line(endpoint, delivery)
                first[key] = min(first.get(key, delivery.sequence), delivery.sequence)
        for delivery in desk.to(endpoint):
            is_first = first.get(in_line(endpoint, delivery)) == delivery.sequence
            should_wait = delivery.state is DeliveryState.PENDING and is_first
            assert (delivery.id in due) == should_wait, delivery
        counted = int(desk.client.hget("{exporter}:delivering", endpoint.id) or 0)
        assert counted == busy
        fails = desk.known_endpoint(endpoint).failing_since is not None
        assert (endpoint.id in lanes) == (bool(due) and busy < (1 if fails else 4))
