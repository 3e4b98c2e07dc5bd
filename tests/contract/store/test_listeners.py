"""Listeners: endpoints whose owners take their deliveries, for as long as they ask."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
import redis

from exporter.core.events import EVENTS
from exporter.store.redis import calls
from exporter.webhooks.deliveries import DeliveryState
from exporter.webhooks.endpoint_store import MAX_REGISTERED_ENDPOINTS
from exporter.webhooks.endpoints import Endpoint
from exporter.webhooks.outbox import Claimed, NoListener
from tests.contract.store.given import spec
from tests.contract.store.webhook_desk import Desk

OLD_CLAIM_FIELDS = 4
"""Attempts in flight at which a sender of an earlier version leaves an endpoint alone."""


def taken(desk: Desk, listener: Endpoint) -> Claimed:
    found = desk.take(listener)
    assert found is not None
    return found


def test_a_listener_is_stored_with_its_time_and_a_secret_but_without_a_url(desk: Desk) -> None:
    # When
    listener = desk.listener()
    # Then
    assert desk.known_endpoint(listener) == listener
    assert (listener.listener_ttl, listener.url, len(listener.secrets)) == (60, "", 1)
    assert listener.is_listener
    assert not desk.endpoint().is_listener


def test_deliveries_are_taken_once_each_and_the_oldest_first(desk: Desk) -> None:
    # Given
    listener = desk.listener(events=["export.queued"])
    desk.queue("a")
    desk.queue("b")
    # When
    first, second, none = (desk.take(listener) for _ in range(3))
    # Then
    assert first is not None
    assert second is not None
    assert (first.delivery.export_id, second.delivery.export_id, none) == ("a", "b", None)
    assert first.endpoint == listener
    assert desk.known(first.delivery.id).state is DeliveryState.DELIVERING


def test_a_sender_never_claims_what_is_for_a_listener(desk: Desk) -> None:
    # Given: a listener beside an endpoint of the same user
    listener, other = desk.listener(), desk.endpoint()
    desk.queue("e")
    # When: also after failures, a test, a redelivery and lost leases
    (sent,) = desk.all_claims()
    claimed = taken(desk, listener)
    desk.fail(claimed)
    desk.deliveries.redeliver(claimed.delivery.id)
    desk.deliveries.send_test(listener)
    desk.hurry()
    taken(desk, listener)
    desk.lose()
    desk.endpoints.disable(listener.id, "ann")
    desk.endpoints.enable(listener.id, "ann")
    desk.deliver(sent)
    again = desk.all_claims()
    # Then
    assert sent.endpoint.id == other.id
    assert {one.endpoint.id for one in again} <= {other.id}
    assert len(desk.members(f"due:{listener.id}")) == 2
    assert listener.id not in desk.members("lane:fast:ann") | desk.members("lane:slow:ann")


def test_senders_of_earlier_versions_see_a_listener_as_fully_occupied(desk: Desk) -> None:
    # Given: they schedule an endpoint by this number alone, and take one off for a lost lease
    listener = desk.listener()
    desk.queue("e")
    taken(desk, listener)
    # When
    desk.lose()
    desk.lose()
    # Then
    in_flight = desk.client.hget("{exporter}:delivering", listener.id)
    assert isinstance(in_flight, bytes)
    assert int(in_flight) > 1_000 * OLD_CLAIM_FIELDS


def test_a_failed_attempt_is_repeated_after_its_delay_with_the_log_of_both(desk: Desk) -> None:
    # Given
    listener = desk.listener()
    desk.queue("e")
    # When
    desk.fail(taken(desk, listener), timedelta(seconds=5))
    waits = desk.take(listener)
    desk.hurry()
    claimed = taken(desk, listener)
    desk.deliver(claimed)
    # Then
    delivery = desk.known(claimed.delivery.id)
    assert waits is None
    assert [one.status for one in delivery.attempts] == [500, 200]
    assert (delivery.state, delivery.tries) == (DeliveryState.DELIVERED, 2)


def test_a_rest_of_the_receiver_holds_back_all_deliveries(desk: Desk) -> None:
    # Given
    listener = desk.listener(events=["export.queued"])
    desk.queue("a", "b")
    # When
    desk.fail(taken(desk, listener), rest=timedelta(minutes=1))
    # Then
    assert desk.take(listener) is None


def test_a_delivery_that_was_taken_and_not_reported_is_taken_again(desk: Desk) -> None:
    # Given: a listener that was killed in the middle
    listener = desk.listener()
    desk.queue("e")
    lost = taken(desk, listener)
    # When
    desk.lose()
    again = taken(desk, listener)
    # Then: the report of the first attempt comes too late
    assert again.delivery.id == lost.delivery.id
    assert desk.deliver(lost) is None
    assert desk.deliver(again) is not None


def test_a_repeated_take_returns_the_same_delivery(desk: Desk) -> None:
    # Given
    listener = desk.listener(events=["export.queued"])
    desk.queue("a", "b")
    call = desk.outbox.take_call(listener.id, "ann")
    # When
    first, second = calls.run(desk.client, call), calls.run(desk.client, call)
    # Then
    assert first is not None
    assert second is not None
    assert first.delivery == second.delivery


@pytest.mark.parametrize("who", ["bob", "nobody", "url"])
def test_only_its_owner_takes_from_a_listener(desk: Desk, who: str) -> None:
    # Given
    listener = desk.endpoint() if who == "url" else desk.listener()
    desk.queue("e")
    call = desk.outbox.take_call(listener.id, "ann" if who == "url" else who)
    # When / Then
    with pytest.raises(NoListener):
        calls.run(desk.client, call)
    (delivery,) = desk.to(listener)
    assert delivery.state is DeliveryState.PENDING


def test_a_take_starts_the_time_of_a_listener_again(desk: Desk) -> None:
    # Given
    listener = desk.listener()
    before = desk.client.zscore("{exporter}:listening", listener.id)
    desk.client.zincrby("{exporter}:listening", -50_000_000, listener.id)
    # When
    desk.take(listener)
    # Then: and a take soon after writes nothing
    renewed = desk.client.zscore("{exporter}:listening", listener.id)
    assert before is not None
    assert renewed is not None
    assert renewed >= before
    desk.take(listener)
    assert desk.client.zscore("{exporter}:listening", listener.id) == renewed


def test_a_listener_whose_time_is_over_goes_with_all_that_waits_for_it(desk: Desk) -> None:
    # Given: one delivered, one taken, one failed, one never taken
    listener, other = desk.listener(events=["export.queued"]), desk.endpoint()
    desk.queue("a", "b", "c", "d")
    delivered = taken(desk, listener)
    desk.deliver(delivered)
    under_way = taken(desk, listener)
    desk.fail(taken(desk, listener), timedelta(hours=1))
    # When
    desk.expire(listener)
    desk.outbox.sweep()
    # Then: dropped, not given up; what was delivered stays in the log of its export
    assert desk.endpoints.registered("ann") == (other,)
    assert desk.deliveries.dead("ann", limit=10).deliveries == ()
    assert desk.to(listener) == ()
    log = desk.deliveries.of_export("a", limit=10).deliveries
    assert delivered.delivery.id in {one.id for one in log}
    assert desk.deliver(under_way) is None
    assert {one.endpoint_id for one in desk.deliveries.of_export("d", limit=9).deliveries} == {
        other.id
    }
    assert not [key for key in desk.keys("*") if listener.id in key.decode().partition(".")[0]]
    for key in ("delivery_leases", "kept_deliveries:ann", "listening"):
        assert not [one for one in desk.members(key) if one != delivered.delivery.id
                    and listener.id in one]  # fmt: skip
    assert not desk.client.hexists("{exporter}:delivering", listener.id)
    # And the other endpoint gets all
    assert {one.endpoint.id for one in desk.all_claims()} == {other.id}


def test_events_are_emitted_for_nobody_when_the_last_listener_is_gone(desk: Desk) -> None:
    # Given
    listener = desk.listener()
    desk.expire(listener)
    desk.outbox.sweep()
    # When
    desk.store.create(spec("e", "ann"))
    # Then
    assert desk.outbox.peek() == ()


def test_a_take_after_the_time_finds_no_listener(desk: Desk) -> None:
    # Given
    listener = desk.listener()
    desk.expire(listener)
    # When / Then
    with pytest.raises(NoListener):
        desk.take(listener)
    assert desk.endpoints.find(listener.id, "ann") is None


def test_listeners_whose_time_is_over_take_no_place_of_new_endpoints(desk: Desk) -> None:
    # Given: no sender runs that would sweep
    listeners = [desk.listener() for _ in range(MAX_REGISTERED_ENDPOINTS)]
    desk.expire(listeners[0])
    # When / Then
    assert desk.listener().is_listener


def test_deleting_a_listener_drops_what_waits_for_it(desk: Desk) -> None:
    # Given
    listener = desk.listener(events=["export.queued"])
    desk.queue("a", "b")
    taken(desk, listener)
    # When
    assert desk.endpoints.delete(listener.id, "ann")
    # Then
    assert desk.deliveries.of_export("a", limit=10).deliveries == ()
    assert desk.members("delivery_leases") == desk.members("listening") == set()


def test_many_deliveries_are_dropped_in_steps(desk: Desk) -> None:
    # Given: more than one script drops
    listener = desk.listener(events=["export.queued"])
    desk.queue(*(f"e{n}" for n in range(250)))
    # When
    desk.endpoints.delete(listener.id, "ann")
    left = len(desk.to(listener))
    desk.outbox.sweep()
    # Then
    assert 0 < left < 100
    assert desk.keys("delivery:*") == []
    assert desk.members("listening") == set()


def test_a_process_of_an_earlier_version_deletes_a_listener_but_not_its_deliveries(
    desk: Desk,
) -> None:
    # Given: it knows nothing of listeners
    listener = desk.listener(events=["export.queued"])
    desk.queue("e")
    desk.client.delete(f"{{exporter}}:endpoint:{listener.id}")
    desk.client.srem("{exporter}:registered:ann", listener.id)
    # When
    desk.expire(listener)
    desk.outbox.sweep()
    # Then
    assert desk.keys("delivery:*") == []


@pytest.mark.parametrize("field", ["state", "endpoint", None])
def test_a_damaged_delivery_stops_neither_a_take_nor_the_end_of_a_listener(
    desk: Desk, client: redis.Redis, field: str | None
) -> None:
    # Given
    listener = desk.listener(events=["export.queued"])
    desk.queue("a", "b")
    damaged = desk.to(listener)[0]
    key = f"{{exporter}}:delivery:{damaged.id}"
    if field is None:
        client.delete(key)
        client.set(key, "x")
    else:
        client.hset(key, field, "lost")
    # When
    found = [desk.take(listener) for _ in range(3)]
    desk.expire(listener)
    desk.outbox.sweep()
    # Then
    assert "b" in {one.delivery.export_id for one in found if one}
    assert desk.endpoints.registered("ann") == ()
    assert desk.members("listening") == set()


def test_a_listener_lives_for_its_time(desk: Desk) -> None:
    # Given
    listener = desk.endpoints.create("ann", "", events=EVENTS, listener_ttl=1)
    desk.outbox.sweep()
    assert desk.endpoints.find(listener.id, "ann") is not None
    # When
    time.sleep(1.05)
    desk.outbox.sweep()
    # Then
    assert desk.endpoints.find(listener.id, "ann") is None
