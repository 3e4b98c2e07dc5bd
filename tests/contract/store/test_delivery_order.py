"""In which order an endpoint hears of one export, and what becomes of stale progress."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from exporter.core.events import PROGRESS
from tests.contract.store.given import (
    LEASE,
    checkpoint,
    claim,
    finish,
    spec,
)
from tests.contract.store.webhook_desk import TRY, Desk

HOUR = timedelta(hours=1)


def run_through(desk: Desk, *exports: str) -> None:
    """Let each export be queued, started and finished; six events for two of them."""
    for export_id in exports:
        desk.store.create(spec(export_id))
    for _ in exports:
        finish(desk.store, claim(desk.store))
    desk.spread()


def test_an_ordered_endpoint_hears_of_an_export_step_by_step(desk: Desk) -> None:
    # Given
    desk.endpoint(ordered=True)
    run_through(desk, "e", "f")
    # When
    heard = []
    while claims := desk.all_claims():
        heard.append(sorted(claimed.delivery.message_id for claimed in claims))
        for claimed in claims:
            desk.deliver(claimed)
    # Then: one of each export at once, the later after the earlier
    assert heard == [["msg_e_1", "msg_f_1"], ["msg_e_2", "msg_f_2"], ["msg_e_3", "msg_f_3"]]


def test_an_endpoint_without_order_hears_of_all_steps_at_once(desk: Desk) -> None:
    # Given
    desk.endpoint()
    # When
    run_through(desk, "e")
    # Then
    assert [claimed.delivery.sequence for claimed in desk.all_claims()] == [1, 2, 3]


def test_a_step_that_fails_holds_the_later_ones_back_until_it_is_given_up(desk: Desk) -> None:
    # Given
    desk.endpoint(ordered=True)
    run_through(desk, "e")
    desk.fail(desk.claim(), HOUR)
    assert desk.outbox.claim(lease=TRY) is None
    desk.hurry()
    # When
    again = desk.claim()
    desk.give_up(again)
    # Then
    assert again.delivery.sequence == 1
    assert [claimed.delivery.sequence for claimed in desk.all_claims()] == [2]


def test_a_step_whose_worker_died_stays_in_front(desk: Desk) -> None:
    # Given
    desk.endpoint(ordered=True)
    run_through(desk, "e")
    desk.claim()
    # When
    desk.lose()
    # Then
    assert [claimed.delivery.sequence for claimed in desk.all_claims()] == [1]


def test_what_is_recovered_comes_in_order_too(desk: Desk) -> None:
    # Given: the first two are given up, the third waits after a failure
    endpoint = desk.endpoint(ordered=True)
    run_through(desk, "e")
    desk.give_up(desk.claim())
    desk.give_up(desk.claim())
    desk.fail(desk.claim(), HOUR)
    # When
    assert desk.deliveries.recover(endpoint.id, datetime(2000, 1, 1, tzinfo=UTC)) == 3
    # Then
    heard = []
    while (claimed := desk.outbox.claim(lease=TRY)) is not None:
        assert desk.outbox.claim(lease=TRY) is None
        heard.append(claimed.delivery.sequence)
        desk.deliver(claimed)
    assert heard == [1, 2, 3]


def advance(desk: Desk, fence: str, page: int) -> None:
    """One event of progress of export `e`."""
    desk.client.hdel("{exporter}:export:e", "told_at")
    desk.store.commit("e", fence, checkpoint(page), lease=LEASE, progress=page / 100)
    desk.spread()


def test_of_progress_only_the_latest_waits(desk: Desk) -> None:
    # Given
    endpoint = desk.endpoint(events=[PROGRESS])
    desk.store.create(spec("e"))
    fence = claim(desk.store).fence
    # When
    for page in range(1, 6):
        advance(desk, fence, page)
    # Then
    assert [delivery.sequence for delivery in desk.to(endpoint)] == [5]
    assert [claimed.delivery.sequence for claimed in desk.all_claims()] == [5]


def test_progress_that_is_on_its_way_is_not_tried_again_once_there_is_more(desk: Desk) -> None:
    # Given
    endpoint = desk.endpoint(events=[PROGRESS], ordered=True)
    desk.store.create(spec("e"))
    fence = claim(desk.store).fence
    advance(desk, fence, 1)
    first = desk.claim()
    # When
    advance(desk, fence, 2)
    assert desk.fail(first) is not None
    # Then
    assert [delivery.sequence for delivery in desk.to(endpoint)] == [2]
    desk.deliver(desk.claim())
    assert desk.all_claims() == []


def test_progress_that_was_not_delivered_is_not_sent_after_the_end(desk: Desk) -> None:
    # Given
    desk.endpoint(events=[PROGRESS, "export.finished"])
    desk.store.create(spec("e"))
    claimed = claim(desk.store)
    advance(desk, claimed.fence, 1)
    # When
    finish(desk.store, claimed)
    desk.spread()
    # Then
    assert [one.delivery.type for one in desk.all_claims()] == ["export.finished"]
    assert desk.client.keys("{exporter}:progress:*") == []
