"""When an endpoint is disabled, and how what it missed is sent again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from exporter.core.events import DISABLED, FAILING
from exporter.webhooks import outbox
from exporter.webhooks.deliveries import DeliveryState
from exporter.webhooks.endpoints import DisableReason, EndpointDisabled
from tests.contract.store.webhook_desk import Desk, exports_of

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


def test_a_receiver_that_is_gone_is_disabled_and_the_others_are_told(desk: Desk) -> None:
    # Given
    gone, other = desk.endpoint(), desk.endpoint(events=["export.failed", DISABLED])
    desk.queue("e", "f")
    # When
    claimed = desk.claim()
    settled = desk.give_up(claimed, "gone")
    desk.spread()
    # Then
    assert settled is not None
    assert settled.disabled is DisableReason.GONE
    known = desk.known_endpoint(gone)
    assert (known.enabled, known.disabled_reason) == (False, DisableReason.GONE)
    assert [delivery.type for delivery in desk.to(other)] == [DISABLED]
    # ... what it had not heard is given up without a try, and it hears nothing new
    assert [one.endpoint.id for one in desk.all_claims()] == [other.id]
    assert desk.to(gone)[1].gave_up == "the endpoint is disabled"
    desk.queue("g")
    assert len(desk.to(gone)) == 2


def test_an_endpoint_that_fails_for_five_days_is_disabled_after_a_warning(desk: Desk) -> None:
    # Given
    endpoint, other = desk.endpoint(), desk.endpoint(events=[FAILING, DISABLED])
    desk.queue("e")
    told = []
    # When: a failure every twelve hours
    for _ in range(12):
        settled = desk.fail(desk.claim())
        assert settled is not None
        told.append((settled.warned, settled.disabled))
        if settled.disabled is not None:
            break
        desk.age_failure(endpoint, timedelta(hours=12), timedelta(hours=12))
    # Then
    assert [at for at, (warned, _) in enumerate(told) if warned] == [2]
    assert [at for at, (_, because) in enumerate(told) if because is DisableReason.FAILING] == [10]
    desk.spread()
    assert [(one.type, one.export_id) for one in desk.to(other)] == [
        (FAILING, None),
        (DISABLED, None),
    ]
    assert desk.known_endpoint(endpoint).disabled_reason is DisableReason.FAILING


def test_one_success_forgives_all_failures(desk: Desk) -> None:
    # Given
    endpoint = desk.endpoint()
    desk.queue("e", "f")
    desk.fail(desk.claim(), HOUR)
    desk.age_failure(endpoint, 4 * DAY, HOUR)
    desk.deliver(desk.claim())
    # When
    desk.hurry()
    settled = desk.fail(desk.claim())
    # Then
    assert settled == outbox.Settled()
    since = desk.known_endpoint(endpoint).failing_since
    assert since is not None
    assert datetime.now(UTC) - since < HOUR


def test_a_failure_long_after_the_last_one_is_a_first_one(desk: Desk) -> None:
    # Given: it was not asked to do anything meanwhile
    endpoint = desk.endpoint()
    desk.queue("e")
    desk.fail(desk.claim())
    desk.age_failure(endpoint, 30 * DAY, 3 * DAY)
    # When
    settled = desk.fail(desk.claim())
    # Then
    assert settled == outbox.Settled()
    assert desk.known_endpoint(endpoint).enabled


def test_an_endpoint_that_is_enabled_again_starts_afresh(desk: Desk) -> None:
    # Given
    endpoint = desk.endpoint()
    desk.queue("e")
    desk.fail(desk.claim())
    desk.age_failure(endpoint, 6 * DAY, HOUR)
    desk.fail(desk.claim(), HOUR)
    # When
    enabled = desk.endpoints.enable(endpoint.id, "ann")
    # Then: what was not given up meanwhile goes on, and one failure is no reason
    assert enabled is not None
    assert (enabled.enabled, enabled.failing_since) == (True, None)
    desk.hurry()
    assert desk.fail(desk.claim()) == outbox.Settled()


def test_a_test_is_sent_to_a_disabled_endpoint_too_and_says_nothing_of_its_health(
    desk: Desk,
) -> None:
    # Given
    endpoint = desk.endpoint()
    desk.endpoints.disable(endpoint.id, "ann")
    # When
    delivery = desk.deliveries.send_test(endpoint)
    claimed = desk.claim()
    desk.give_up(claimed, "unknown")
    # Then
    assert claimed.delivery.id == delivery.id
    assert (delivery.type, delivery.export_id) == ("webhook.test", None)
    known = desk.known_endpoint(endpoint)
    assert (known.disabled_reason, known.failing_since) == (DisableReason.OWNER, None)


def test_a_delivery_is_made_again_under_the_same_id(desk: Desk) -> None:
    # Given
    endpoint = desk.endpoint()
    desk.queue("e")
    first = desk.claim()
    left_alone = desk.deliveries.redeliver(first.delivery.id)
    desk.deliver(first)
    # When
    again = desk.deliveries.redeliver(first.delivery.id)
    # Then
    assert left_alone is not None
    assert left_alone.state is DeliveryState.DELIVERING
    assert again is not None
    assert (again.state, again.tries, len(again.attempts)) == (DeliveryState.PENDING, 0, 1)
    second = desk.claim()
    assert second.delivery.message_id == first.delivery.message_id
    desk.deliver(second)
    assert desk.client.pttl(f"{{exporter}}:delivery:{again.id}") > 0
    assert desk.deliveries.redeliver("msg_unknown_1.we_1") is None
    desk.endpoints.disable(endpoint.id, "ann")
    with pytest.raises(EndpointDisabled):
        desk.deliveries.redeliver(again.id)


def test_all_that_failed_since_a_time_is_recovered_and_nothing_else(desk: Desk) -> None:
    # Given: one from before, one given up, one that waits, one delivered, one never tried
    endpoint = desk.endpoint()
    desk.queue("before", "dead", "waits", "fine", "new")
    claims = {one.delivery.export_id: one for one in desk.all_claims()}
    desk.give_up(claims["before"])
    desk.give_up(claims["dead"])
    desk.fail(claims["waits"], HOUR)
    desk.deliver(claims["fine"])
    new = desk.claim()
    desk.client.zincrby(
        f"{{exporter}}:deliveries:{endpoint.id}", -3.6e9, claims["before"].delivery.id
    )
    # When
    recovered = desk.deliveries.recover(endpoint.id, new.delivery.created_at - timedelta(minutes=5))
    # Then
    assert recovered == 2
    dead = desk.deliveries.dead("ann", limit=9).deliveries
    assert [delivery.export_id for delivery in dead] == ["before"]
    assert sorted(map(str, exports_of(desk.all_claims()))) == ["dead", "waits"]
