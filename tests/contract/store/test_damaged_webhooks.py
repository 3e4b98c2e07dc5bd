"""Any bytes in a webhook delivery, endpoint or event cost that record alone."""

from __future__ import annotations

from typing import Any

import redis
from hypothesis import example, given
from hypothesis import strategies as st

from exporter.core.events import EVENTS
from exporter.webhooks.deliveries import DeliveryState
from tests.contract.store.given import spec
from tests.contract.store.test_damaged_records import NASTY, bounded, damage
from tests.contract.store.webhook_desk import URL, Desk

ROUNDS = 12
DELIVERY_FIELDS = (
    *("endpoint", "user", "export", "type", "message", "sequence", "body", "state", "tries"),
    *("created_at", "next_at", "finished_at", "gave_up", "attempts", "lost", "fence", "superseded"),
)
ENDPOINT_FIELDS = (
    *("user", "url", "events", "secrets", "own", "created_at", "description", "ordered"),
    *("download", "disabled_at", "disabled_because", "failing_since", "failed_at", "warned"),
    *("sequence", "served_at", "rest_until", "slow"),
)
VALUES = st.sampled_from(NASTY) | st.binary(max_size=30) | st.none()


def send_all(desk: Desk, failing: str | None) -> None:
    """Makes all due attempts; those at the endpoint `failing` fail."""
    for _ in range(30):
        claimed = desk.outbox.claim(lease=desk.keep)
        if claimed is None:
            return
        if claimed.endpoint.id == failing:
            desk.fail(claimed)
        else:
            desk.deliver(claimed)


def serve(desk: Desk, failing: str | None = None) -> None:
    client: Any = desk.client
    for _ in range(ROUNDS):
        for pattern in ("outbox_aside", "delivery_leases", "due:*", "lane:*", "turns:*"):
            for key in desk.keys(pattern):
                for member in client.zrange(key, 0, -1):
                    client.zadd(key, {member: 1})
        desk.outbox.sweep()
        desk.spread()
        send_all(desk, failing)
        if not pending(desk) and not desk.keys("outbox*"):
            return


def pending(desk: Desk) -> list[bytes]:
    """Returns the ids of deliveries that are in a queue or have a lease."""
    client: Any = desk.client
    keys = [*desk.keys("due:*"), *desk.keys("delivery_leases")]
    return [member for key in keys for member in client.zrange(key, 0, -1)]


@bounded(25)
@given(
    field=st.sampled_from(DELIVERY_FIELDS),
    value=VALUES,
    leased=st.booleans(),
    ordered=st.booleans(),
)
@example(field="state", value=b"x", leased=False, ordered=True)
@example(field="endpoint", value=b"x", leased=True, ordered=False)
@example(field="attempts", value=b"x", leased=True, ordered=False)
def test_any_bytes_in_a_delivery_leave_all_others_being_delivered(
    client: redis.Redis, field: str, value: bytes | None, leased: bool, ordered: bool
) -> None:
    # Given: the first delivery of ann is damaged, perhaps during its attempt
    client.flushdb()
    desk = Desk(client)
    ours, theirs = desk.endpoint(ordered=ordered), desk.endpoint("bob")
    desk.queue("e", "f", "g")
    desk.queue("h", user="bob")
    damaged = f"msg_e_1.{ours.id}"
    if leased:
        assert desk.claim().delivery.id == damaged
    damage(client, f"{{exporter}}:delivery:{damaged}", field, value)

    # When
    serve(desk)

    # Then
    for delivery_id in (f"msg_f_1.{ours.id}", f"msg_g_1.{ours.id}", f"msg_h_1.{theirs.id}"):
        assert desk.known(delivery_id).state is DeliveryState.DELIVERED
    assert pending(desk) == []
    assert client.hgetall("{exporter}:delivering") == {}
    listed = {one.id for one in desk.to(ours)}
    assert listed >= {f"msg_f_1.{ours.id}", f"msg_g_1.{ours.id}"}


@bounded(25)
@given(field=st.sampled_from(ENDPOINT_FIELDS), value=VALUES, failing=st.booleans())
@example(field="secrets", value=b"x", failing=False)
@example(field="failed_at", value=b"x", failing=True)
def test_any_bytes_in_an_endpoint_leave_all_others_being_served(
    client: redis.Redis, field: str, value: bytes | None, failing: bool
) -> None:
    # Given: ann has two endpoints, of which the first is damaged
    client.flushdb()
    desk = Desk(client)
    damaged, sound, theirs = desk.endpoint(), desk.endpoint(), desk.endpoint("bob")
    desk.queue("e")
    if failing:
        desk.hurry()
        send_all(desk, damaged.id)
    damage(client, f"{{exporter}}:endpoint:{damaged.id}", field, value)
    desk.queue("f")
    desk.queue("h", user="bob")

    # When
    serve(desk, damaged.id if failing else None)

    # Then
    for delivery_id in (f"msg_f_1.{sound.id}", f"msg_h_1.{theirs.id}"):
        assert desk.known(delivery_id).state is DeliveryState.DELIVERED
    assert sound.id in {one.id for one in desk.endpoints.list("ann")}
    assert desk.endpoints.create("ann", URL, events=EVENTS).enabled
    if field != "user":
        assert desk.endpoints.delete(damaged.id, "ann")


@bounded(25)
@given(entry=st.sampled_from(NASTY) | st.binary(max_size=60), first=st.booleans())
@example(entry=b"export.queued x 1 0 0 e", first=True)
@example(entry=b"export.queued 1 1 0 0 \xff", first=True)
def test_any_bytes_in_the_outbox_leave_all_events_being_reported(
    client: redis.Redis, entry: bytes, first: bool
) -> None:
    # Given
    client.flushdb()
    desk = Desk(client)
    ours = desk.endpoint()
    desk.store.create(spec("e"))
    if first:
        client.lpush("{exporter}:outbox", entry)
    else:
        client.rpush("{exporter}:outbox", entry)
    desk.store.create(spec("f"))

    # When
    serve(desk)

    # Then
    for delivery_id in (f"msg_e_1.{ours.id}", f"msg_f_1.{ours.id}"):
        assert desk.known(delivery_id).state is DeliveryState.DELIVERED
    assert desk.keys("outbox*") == []
    assert desk.store.counters()["events_dropped"] == 1
