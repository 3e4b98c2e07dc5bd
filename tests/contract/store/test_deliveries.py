"""What is claimed next, and what becomes of a try."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest

from exporter.store.redis.store import RedisStore
from exporter.webhooks import outbox
from exporter.webhooks.deliveries import DeliveryState
from tests.contract.store.given import (
    spec,
)
from tests.contract.store.test_redis import Forgetful
from tests.contract.store.webhook_desk import TRY, Desk, attempt, exports_of

HOUR = timedelta(hours=1)


def test_an_event_becomes_one_delivery_for_each_endpoint_that_listens(desk: Desk) -> None:
    # Given
    both = [desk.endpoint(), desk.endpoint()]
    deaf = desk.endpoint(events=["export.failed"])
    stranger = desk.endpoint("bob")
    # When
    desk.queue("e")
    # Then
    assert [one.id for one in desk.deliveries.of_export("e", limit=9).deliveries] == [
        f"msg_e_1.{endpoint.id}" for endpoint in sorted(both, key=lambda one: one.id)[::-1]
    ]
    assert desk.to(deaf) == desk.to(stranger) == ()
    assert desk.outbox.peek() == ()


def test_only_the_oldest_event_is_taken_and_only_once(desk: Desk) -> None:
    # Given
    endpoint = desk.endpoint()
    for export_id in ("e", "f"):
        desk.store.create(spec(export_id))
    first, second = desk.outbox.peek()
    # When
    taken = [desk.outbox.fan_out(one, {endpoint.id: b"{}"}) for one in (second, first, first)]
    # Then
    assert taken == [False, True, False]
    assert desk.outbox.peek() == (second,)
    assert [delivery.export_id for delivery in desk.to(endpoint)] == ["e"]


def test_an_event_that_nobody_can_read_now_lets_the_others_pass(desk: Desk) -> None:
    # Given
    desk.endpoint()
    for export_id in ("e", "f", "g"):
        desk.store.create(spec(export_id))
    first, second, third = desk.outbox.peek()
    # When
    assert desk.outbox.set_aside(first, ValueError("unreadable"))
    assert not desk.outbox.set_aside(first, ValueError("unreadable"))
    # Then
    assert desk.outbox.peek() == (second, third)
    desk.end_event_waits()
    assert desk.outbox.peek() == (second, third, first)


def test_whoever_waits_is_rung_for_as_soon_as_something_happens(desk: Desk) -> None:
    # Given
    desk.endpoint()
    assert not desk.outbox.wait(timedelta(seconds=0.01))
    # When
    for export_id in ("e", "f"):
        desk.store.create(spec(export_id))
    # Then: once for all of it
    assert desk.outbox.wait(timedelta(seconds=1))
    assert not desk.outbox.wait(timedelta(seconds=0.01))
    assert desk.outbox.sweep().ready == 1


def test_an_endpoint_that_is_disabled_meanwhile_hears_nothing(desk: Desk) -> None:
    # Given
    endpoint = desk.endpoint()
    desk.store.create(spec("e"))
    (event,) = desk.outbox.peek()
    # When
    desk.endpoints.disable(endpoint.id, "ann")
    # Then
    assert desk.outbox.fan_out(event, {endpoint.id: b"{}", "we_unknown": b"{}"})
    assert desk.to(endpoint) == ()
    assert desk.outbox.sweep().ready == 0


def test_an_endpoint_is_tried_four_times_at_once_and_no_more(desk: Desk) -> None:
    # Given
    desk.endpoint()
    desk.queue(*"abcdef")
    # When
    claims = desk.all_claims()
    # Then
    assert exports_of(claims) == [*"abcd"]
    desk.deliver(claims[0])
    assert exports_of(desk.all_claims()) == ["e"]


def test_an_endpoint_that_fails_is_tried_once_at_a_time_until_it_answers(desk: Desk) -> None:
    # Given
    desk.endpoint()
    desk.queue(*"abcdef")
    desk.fail(desk.claim(), HOUR)
    # When / Then
    (one,) = desk.all_claims()
    assert desk.outbox.claim(lease=TRY) is None
    desk.deliver(one)
    assert len(desk.all_claims()) == 4


def test_a_backlog_of_one_endpoint_delays_no_other(desk: Desk) -> None:
    # Given: the first has much to hear, and has waited longest
    busy, quiet = desk.endpoint("ann"), desk.endpoint("bob")
    desk.queue(*(f"a{n}" for n in range(50)))
    served = [desk.claim() for _ in range(3)]
    desk.queue("b", user="bob")
    desk.deliver(served[0])
    # When
    after = [desk.claim(), desk.claim()]
    # Then: it has its turn after the one whose turn it was already
    assert {claimed.endpoint.id for claimed in served} == {busy.id}
    assert [claimed.endpoint.id for claimed in after] == [busy.id, quiet.id]


def test_endpoints_with_a_backlog_take_turns(desk: Desk) -> None:
    # Given
    for user in ("ann", "bob", "cleo"):
        desk.endpoint(user)
        desk.queue(*(f"{user}{n}" for n in range(20)), user=user)
    # When
    users = []
    for _ in range(30):
        claimed = desk.claim()
        users.append(claimed.endpoint.user_id)
        desk.deliver(claimed)
    # Then
    assert Counter(users) == {"ann": 10, "bob": 10, "cleo": 10}
    assert users[:3] == users[3:6]


def test_endpoints_that_failed_or_were_late_can_be_passed_over(desk: Desk) -> None:
    # Given
    failing, late, good = (desk.endpoint(user) for user in ("ann", "bob", "cleo"))
    for user in ("ann", "bob", "cleo"):
        desk.queue(f"{user}1", f"{user}2", user=user)
    first = {claimed.endpoint.id: claimed for claimed in (desk.claim() for _ in range(3))}
    desk.fail(first[failing.id], HOUR)
    desk.deliver(first[late.id], "slow")
    desk.deliver(first[good.id])
    # When
    passed_over = desk.claim(slow=False)
    # Then
    assert (passed_over.endpoint.id, passed_over.slow) == (good.id, False)
    assert desk.outbox.claim(lease=TRY, slow=False) is None
    others = [desk.claim(), desk.claim()]
    assert {claimed.endpoint.id for claimed in others} == {failing.id, late.id}
    assert all(claimed.slow for claimed in others)


def test_an_endpoint_that_answers_in_time_is_no_longer_passed_over(desk: Desk) -> None:
    # Given
    desk.endpoint()
    desk.queue("a", "b", "c")
    desk.fail(desk.claim(), HOUR)
    # When
    desk.deliver(desk.claim())
    # Then
    assert not desk.claim(slow=False).slow


def test_an_endpoint_that_has_too_much_to_do_is_left_alone(desk: Desk) -> None:
    # Given
    desk.endpoint()
    desk.queue("a", "b")
    # When
    desk.fail(desk.claim(), rest=timedelta(minutes=1))
    # Then: not even what was never tried is sent
    assert desk.outbox.claim(lease=TRY) is None
    assert desk.outbox.sweep().ready == 0
    desk.hurry()
    assert desk.outbox.sweep().ready == 1
    assert desk.outbox.claim(lease=TRY) is not None


def test_a_delivery_tells_all_its_tries(desk: Desk) -> None:
    # Given
    endpoint = desk.endpoint()
    desk.queue("e")
    (delivery,) = desk.to(endpoint)
    assert (delivery.state, delivery.tries, delivery.attempts) == (DeliveryState.PENDING, 0, ())
    # When
    desk.fail(desk.claim(), timedelta(minutes=5))
    waiting = desk.known(delivery.id)
    desk.hurry()
    claimed = desk.claim()
    on_its_way = desk.known(delivery.id)
    desk.deliver(claimed)
    # Then
    assert waiting.state is DeliveryState.PENDING
    assert waiting.next_at is not None
    assert timedelta(minutes=4) < waiting.next_at - waiting.created_at < timedelta(minutes=6)
    assert waiting.attempts == (attempt(500),)
    assert (on_its_way.state, on_its_way.next_at) == (DeliveryState.DELIVERING, None)
    done = desk.known(delivery.id)
    assert (done.state, done.tries, done.next_at) == (DeliveryState.DELIVERED, 2, None)
    assert done.attempts == (attempt(500), attempt(200))
    assert done.finished_at is not None
    assert desk.all_claims() == []


def test_the_log_of_a_delivery_is_bounded(desk: Desk) -> None:
    # Given
    desk.endpoint()
    desk.queue("e")
    # When
    for _ in range(30):
        claimed = desk.claim()
        desk.fail(claimed)
    # Then
    known = desk.known(claimed.delivery.id)
    assert (known.tries, len(known.attempts)) == (30, 20)


def test_what_is_given_up_is_listed_for_its_user_alone(desk: Desk) -> None:
    # Given
    for user in ("ann", "bob"):
        desk.endpoint(user)
        desk.queue(f"{user}1", f"{user}2", user=user)
    # When
    for claimed in desk.all_claims():
        desk.give_up(claimed) if claimed.endpoint.user_id == "ann" else desk.deliver(claimed)
    for claimed in desk.all_claims():
        desk.give_up(claimed)
    # Then
    dead = desk.deliveries.dead("ann", limit=10).deliveries
    assert {delivery.export_id for delivery in dead} == {"ann1", "ann2"}
    assert {delivery.gave_up for delivery in dead} == {"enough"}
    assert desk.deliveries.dead("bob", limit=10).deliveries == ()


def test_lists_are_read_page_by_page(desk: Desk) -> None:
    # Given
    endpoint = desk.endpoint()
    desk.queue(*(f"e{n}" for n in range(7)))
    # When
    found, cursor = [], None
    while True:
        page = desk.deliveries.of_endpoint(endpoint.id, limit=3, cursor=cursor)
        found += [delivery.export_id for delivery in page.deliveries]
        cursor = page.next_cursor
        if cursor is None:
            break
    # Then
    assert found == [f"e{n}" for n in range(6, -1, -1)]
    with pytest.raises(ValueError, match="not made here"):
        desk.deliveries.dead("ann", limit=3, cursor="nonsense")


def test_a_try_whose_worker_died_is_made_again_and_counts_once(desk: Desk) -> None:
    # Given
    desk.endpoint()
    desk.queue("e")
    dead = desk.claim()
    assert desk.outbox.claim(lease=TRY) is None
    # When
    desk.lose()
    again = desk.claim()
    # Then
    assert again.delivery.message_id == dead.delivery.message_id
    assert desk.deliver(dead) is None
    assert desk.known(again.delivery.id).state is DeliveryState.DELIVERING
    assert desk.deliver(again) is not None
    assert desk.known(again.delivery.id).tries == 1


def test_a_try_that_kills_every_worker_is_given_up(desk: Desk) -> None:
    # Given
    desk.endpoint()
    desk.queue("e")
    # When
    for _ in range(outbox.MAX_LOST_WORKERS):
        lost = desk.claim()
        desk.lose()
    # Then
    known = desk.known(lost.delivery.id)
    assert known.state is DeliveryState.DEAD
    assert known.gave_up == f"the worker was lost in {outbox.MAX_LOST_WORKERS} attempts in a row"
    assert desk.all_claims() == []


def test_a_try_that_is_settled_again_for_want_of_an_answer_counts_once(desk: Desk) -> None:
    # Given
    desk.endpoint()
    desk.queue("e")
    claimed = desk.claim()
    # When
    answers = [desk.fail(claimed, HOUR), desk.fail(claimed, HOUR), desk.deliver(claimed)]
    # Then
    assert all(answers)
    known = desk.known(claimed.delivery.id)
    assert (known.state, known.tries) == (DeliveryState.PENDING, 1)


def test_a_claim_asked_again_after_a_lost_answer_takes_no_second_delivery(
    desk: Desk, redis_server: object
) -> None:
    # Given
    desk.endpoint()
    desk.queue("a", "b")
    kwargs = desk.client.connection_pool.connection_kwargs
    lossy = RedisStore.connect(f"redis://127.0.0.1:{kwargs['port']}/{kwargs['db']}")
    lossy.client.connection_pool.connection_class = Forgetful
    with lossy.client:
        sender = Desk(lossy.client)
        sender.outbox.sweep()
        # When
        Forgetful.armed = True
        first = sender.claim()
        assert not Forgetful.armed
        second = sender.claim()
        # Then
        assert exports_of([first, second]) == ["a", "b"]
        assert sender.outbox.claim(lease=TRY) is None
        Forgetful.armed = True
        assert sender.fail(first, HOUR) is not None
        assert not Forgetful.armed
    assert desk.known(first.delivery.id).tries == 1
