"""Webhooks are sent by the real sender to real receivers, over a real Redis."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from ipaddress import ip_network

import pytest
import redis
from standardwebhooks.webhooks import Webhook

from exporter.clock import SystemClock
from exporter.core.exports import Hook
from exporter.errors import StoreUnavailable
from exporter.local.redis import RedisServer
from exporter.store.redis.store import RedisStore
from exporter.webhooks import delivering, private
from exporter.webhooks.deliveries import DeliveryState
from exporter.webhooks.delivering import Deliverer
from exporter.webhooks.endpoints import DisableReason, Endpoint
from exporter.webhooks.schedule import MAX_ATTEMPTS, RETRY_DELAY_SECONDS
from exporter.webhooks.sender import Sender
from tests.contract.store.given import claim, finish, spec
from tests.contract.store.webhook_desk import Desk
from tests.webhook_receiver import (
    Received,
    Receiver,
    hang,
    receiving,
    redirect,
    reset,
    status,
)

DATABASE = 11
TIMEOUT = timedelta(seconds=1)
LINK = "https://s3.example.com/file?signature=1"


@pytest.fixture
def desk(redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Desk]:
    monkeypatch.setattr(delivering, "IDLE_EXIT", timedelta(milliseconds=20))
    with redis.Redis.from_url(redis_server.url.replace("/0", f"/{DATABASE}")) as client:
        client.flushdb()
        yield Desk(client)


def deliverer(
    desk: Desk, *, allow: str = "127.0.0.0/8", concurrency: int = 4, timeout: timedelta = TIMEOUT
) -> Deliverer:
    guard = private.guard([ip_network(allow)], allow_http=False)
    clock = SystemClock()
    return Deliverer(
        outbox=desk.outbox,
        endpoints=desk.endpoints,
        store=desk.store,
        sender=Sender(guard, clock, timeout=timeout.total_seconds()),
        clock=clock,
        link=lambda export: LINK if export.id == "e" else None,
        public_url="https://exports.example.com",
        concurrency=concurrency,
        timeout=timeout,
        random_fraction=lambda: 0.5,
    )


def run(desk: Desk) -> None:
    """Send until nothing is due."""
    deliverer(desk).run(budget=timedelta(seconds=30))


def verified(received: Received, *endpoints: Endpoint) -> dict[str, object]:
    """The message, if each secret of each endpoint finds that it is genuine."""
    for endpoint in endpoints:
        for secret in endpoint.secrets:
            Webhook(secret.value).verify(received.body, received.headers)
    message: dict[str, object] = json.loads(received.body)
    return message


def register(desk: Desk, receiver: Receiver, user: str = "ann", **options: bool) -> Endpoint:
    return desk.endpoints.create(user, receiver.url, **options)  # type: ignore[arg-type]


def through(desk: Desk, export_id: str = "e") -> None:
    """Let an export be queued, started and finished."""
    desk.store.create(spec(export_id))
    finish(desk.store, claim(desk.store), rows=42)


def test_every_event_arrives_signed_so_that_the_reference_library_accepts_it(desk: Desk) -> None:
    # Given
    with receiving() as receiver:
        endpoint = register(desk, receiver)
        rotated = desk.endpoints.rotate(endpoint.id, "ann")
        assert rotated is not None
        # When
        through(desk)
        run(desk)
        # Then: with the old secret and the new one
        messages = [verified(received, endpoint, rotated) for received in receiver.received]
        assert sorted(str(message["type"]) for message in messages) == [
            "export.finished",
            "export.queued",
            "export.started",
        ]
        ids = {received.headers["webhook-id"] for received in receiver.received}
        assert ids == {"msg_e_1", "msg_e_2", "msg_e_3"}
        assert all("." not in one for one in ids)
    assert {delivery.state for delivery in desk.to(endpoint)} == {DeliveryState.DELIVERED}
    assert desk.outbox.sweep().ready == 0


def test_an_endpoint_that_asks_for_it_gets_a_download_url_that_is_never_stored(desk: Desk) -> None:
    # Given
    with receiving() as receiver:
        endpoint = register(desk, receiver, include_download_url=True, ordered=True)
        # When
        through(desk)
        run(desk)
        # Then
        data = [verified(received, endpoint)["data"] for received in receiver.received]
    assert [one.get("download_url") for one in data if isinstance(one, dict)] == [None, None, LINK]
    stored = b"".join(desk.client.dump(key) or b"" for key in desk.keys("*"))
    assert b"s3.example.com" not in stored
    assert all(b"download_url" not in delivery.body for delivery in desk.to(endpoint))


def test_failures_are_tried_again_on_the_schedule_under_one_id_until_it_is_delivered(
    desk: Desk,
) -> None:
    # Given: all that may go wrong, and then it works
    moods = [
        status(500, "<h1>naïve</h1>"),
        hang,
        reset,
        redirect(301, "https://elsewhere.example.com/"),
        status(404),
        status(429, retry_after="1"),
        status(503, retry_after="100000000"),
        status(204),
    ]
    with receiving(*moods) as receiver:
        endpoint = register(desk, receiver)
        desk.store.create(spec("e"))
        waits = []
        # When
        for tries in range(1, len(moods)):
            run(desk)
            (delivery,) = desk.to(endpoint)
            assert (delivery.state, delivery.tries) == (DeliveryState.PENDING, tries)
            assert delivery.next_at is not None
            last = delivery.attempts[-1]
            waits.append((delivery.next_at - last.at).total_seconds() - last.duration)
            desk.hurry()
        run(desk)
        # Then: 429 asks for 1 s and rests as the schedule says at least, 503 for at most twice that
        expected = [
            *RETRY_DELAY_SECONDS[:5],
            RETRY_DELAY_SECONDS[5] * 1.1,
            RETRY_DELAY_SECONDS[6] * 2,
        ]
        assert waits == pytest.approx(expected, abs=1.5)
        (delivery,) = desk.to(endpoint)
        assert delivery.state is DeliveryState.DELIVERED
        assert [one.status for one in delivery.attempts] == [
            *(500, None, None, 301, 404, 429, 503, 204),
        ]
        assert delivery.attempts[0].excerpt == "<h1>naïve</h1>"
        assert "redirects are not followed" in str(delivery.attempts[3].error)
        assert {received.headers["webhook-id"] for received in receiver.received} == {"msg_e_1"}
        for received in receiver.received:
            verified(received, endpoint)
        assert len(receiver.received) == len(moods)


def test_a_webhook_that_nobody_takes_is_given_up_after_ten_tries_and_can_be_recovered(
    desk: Desk,
) -> None:
    # Given
    with receiving(status(500)) as receiver:
        endpoint = register(desk, receiver)
        desk.store.create(spec("e"))
        # When
        for _ in range(MAX_ATTEMPTS + 3):
            run(desk)
            desk.hurry()
        # Then
        assert len(receiver.received) == MAX_ATTEMPTS
        (dead,) = desk.deliveries.dead("ann", limit=9).deliveries
        assert (dead.state, dead.gave_up) == (DeliveryState.DEAD, "attempt 10 was the last")
        # ... and when the receiver is well again
        receiver.behaviours = [status(200)]
        assert desk.deliveries.recover(endpoint.id, dead.created_at) == 1
        run(desk)
        assert receiver.received[-1].headers["webhook-id"] == "msg_e_1"
    assert desk.known(dead.id).state is DeliveryState.DELIVERED


def test_a_receiver_that_is_gone_is_left_alone_and_the_others_are_told(desk: Desk) -> None:
    # Given
    with receiving(status(410)) as gone, receiving() as other:
        lost = register(desk, gone, ordered=True)
        kept = register(desk, other, ordered=True)
        # When
        through(desk)
        run(desk)
        # Then
        assert len(gone.received) == 1
        assert desk.known_endpoint(lost).disabled_reason is DisableReason.GONE
        types = [verified(received, kept)["type"] for received in other.received]
        assert sorted(map(str, types)) == [
            "endpoint.disabled",
            "export.finished",
            "export.queued",
            "export.started",
        ]


def test_a_receiver_with_too_much_to_do_is_sent_one_at_a_time_with_a_rest_between(
    desk: Desk,
) -> None:
    # Given
    with receiving(status(429)) as receiver:
        register(desk, receiver)
        for export_id in "abcdef":
            desk.store.create(spec(export_id))
        # When: four are tried at once, before any answer is known
        run(desk)
        # Then
        assert len(receiver.received) <= 4
        before = len(receiver.received)
        run(desk)
        assert len(receiver.received) == before


def test_a_name_that_leads_inside_is_refused_at_delivery_and_no_connection_is_made(
    desk: Desk,
) -> None:
    # Given: it was allowed when it was registered
    with receiving() as receiver:
        endpoint = register(desk, receiver)
        desk.store.create(spec("e"))
        # When
        deliverer(desk, allow="10.9.8.0/24").run(budget=timedelta(seconds=30))
        # Then
        assert receiver.connections == 0
    (delivery,) = desk.to(endpoint)
    assert delivery.state is DeliveryState.PENDING
    assert "loopback" in str(delivery.attempts[0].error)


def test_a_test_is_tried_once_and_does_not_disable(desk: Desk) -> None:
    # Given
    with receiving(status(410)) as receiver:
        endpoint = register(desk, receiver)
        # When
        delivery = desk.deliveries.send_test(endpoint)
        run(desk)
        # Then
        assert verified(receiver.received[0], endpoint)["type"] == "webhook.test"
    assert desk.known(delivery.id).state is DeliveryState.DEAD
    assert desk.known_endpoint(endpoint).enabled


def test_receivers_that_hang_delay_no_other_receiver(desk: Desk) -> None:
    # Given: more that hang than there are threads, and each of them has a backlog
    clear = "export.queued"
    with ExitStack() as stack:
        hanging = [stack.enter_context(receiving(hang)) for _ in range(6)]
        for n, receiver in enumerate(hanging):
            desk.endpoints.create(f"h{n}", receiver.url, events=[clear])
            for k in range(8):
                desk.store.create(spec(f"h{n}-{k}", f"h{n}"))
        quick = stack.enter_context(receiving())
        desk.endpoints.create("quick", quick.url, events=[clear])
        sender = deliverer(desk, concurrency=8, timeout=timedelta(seconds=8))
        stopped = threading.Event()
        thread = threading.Thread(
            target=lambda: sender.run(budget=timedelta(seconds=60), is_draining=stopped.is_set)
        )
        thread.start()
        try:
            # When: nobody knows yet that they hang, and somebody else is to be told
            hanging[0].wait_for(1)
            waits = []
            for k in range(10):
                began = time.monotonic()
                desk.store.create(spec(f"quick-{k}", "quick"))
                quick.wait_for(k + 1)
                waits.append(time.monotonic() - began)
                time.sleep(0.3)
        finally:
            stopped.set()
            thread.join()
    # Then
    assert max(waits) < delivering.MAX_INLINE_SECONDS + 1.5, waits
    # ... and once all that hang are under way, nobody waits
    assert max(waits[4:]) < 1, waits
    assert sum(len(receiver.received) for receiver in hanging) >= 6


def test_a_download_url_that_a_receiver_echoes_is_not_stored(desk: Desk) -> None:
    # Given
    echo = "got https://s3.example.com/f?X-Amz-Credential=a&X-Amz-Signature=1234 thanks"
    with receiving(status(500, echo)) as receiver:
        endpoint = register(desk, receiver)
        desk.store.create(spec("e"))

        # When
        run(desk)

    # Then
    (delivery,) = desk.to(endpoint)
    assert delivery.attempts[0].excerpt == "got (a presigned URL) thanks"


def test_the_hanging_urls_of_one_user_delay_no_other_user(desk: Desk) -> None:
    with receiving(hang) as hanging, receiving() as quick:
        # Given: one user with more hanging endpoints than there are threads
        for n in range(80):
            endpoint = desk.endpoints.get_or_create("ann", f"{hanging.url}?{n}")
            hook = Hook(endpoint.id, ("export.queued",))
            desk.store.create(spec(f"hang-{n}", webhook=hook))
        desk.endpoints.create("bob", quick.url, events=["export.queued"])
        sender = deliverer(desk, concurrency=4, timeout=timedelta(seconds=4))
        stopped = threading.Event()
        thread = threading.Thread(
            target=lambda: sender.run(budget=timedelta(seconds=60), is_draining=stopped.is_set)
        )
        thread.start()
        try:
            # When
            hanging.wait_for(4)
            began = time.monotonic()
            desk.store.create(spec("quick", "bob"))
            quick.wait_for(1)
            waited = time.monotonic() - began
        finally:
            stopped.set()
            thread.join()
    # Then: bob waits at most until the attempts in the slots count as slow
    assert waited < delivering.MAX_INLINE_SECONDS + 1, waited


def test_what_is_under_way_ends_before_the_loop_does_and_its_successor_is_rung_for_first(
    desk: Desk,
) -> None:
    # Given
    order: list[str] = []

    def slowly(connection: object) -> None:
        time.sleep(0.5)
        order.append("answered")
        status(204)(connection)  # type: ignore[arg-type]

    with receiving(slowly) as receiver:
        endpoint = register(desk, receiver)
        desk.store.create(spec("e"))
        # When
        deliverer(desk).run(
            budget=timedelta(seconds=60),
            is_draining=lambda: bool(receiver.received),
            hand_over=lambda: order.append("handed over"),
        )
        # Then
        assert order == ["handed over", "answered"]
    assert desk.to(endpoint)[0].state is DeliveryState.DELIVERED


def test_a_store_that_is_gone_ends_the_loop_and_loses_nothing(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given: Redis does not answer when the try is to be settled
    def silent(*_: object, **__: object) -> None:
        raise StoreUnavailable("Redis did not answer")

    with receiving() as receiver:
        endpoint = register(desk, receiver)
        desk.store.create(spec("e"))
        with monkeypatch.context() as patch:
            patch.setattr(desk.outbox, "settle", silent)
            run(desk)
        assert desk.to(endpoint)[0].state is DeliveryState.DELIVERING
        # When: its lease runs out
        desk.lose()
        run(desk)
        # Then: it came twice, under one id
        assert [one.headers["webhook-id"] for one in receiver.received] == ["msg_e_1"] * 2
    assert desk.to(endpoint)[0].state is DeliveryState.DELIVERED
    with monkeypatch.context() as patch:
        patch.setattr(desk.outbox, "peek", silent)
        with pytest.raises(StoreUnavailable):
            run(desk)


def test_a_record_that_this_version_cannot_read_holds_nobody_up(desk: Desk) -> None:
    # Given
    with receiving() as receiver:
        endpoint = register(desk, receiver)
        for export_id in ("strange", "plain"):
            desk.store.create(spec(export_id))
        desk.client.hset("{exporter}:export:strange", "state", "hovering")
        sender = deliverer(desk)
        # When
        sender.run(budget=timedelta(seconds=0.5))
        # Then: its event is kept for a while, for a sender of another version
        assert [delivery.export_id for delivery in desk.to(endpoint)] == ["plain"]
        assert desk.outbox.peek() == ()
        assert len(desk.members("outbox_aside")) == 1
        # ... and not for ever
        for _ in range(9):
            desk.end_event_waits()
            assert sender.fan_out() == 1
    assert desk.members("outbox_aside") == set()
    assert desk.keys("outbox*") == []
    counted = desk.store.counters()
    assert (counted["events_set_aside"], counted["events_dropped"]) == (9, 1)


def test_many_events_that_nobody_can_read_delay_no_webhook_of_another_user(desk: Desk) -> None:
    # Given: 400 deep records of ann, as 0.1.0 stored them, entries of nonsense, then bob's event
    deep = b'{"a":' * 970 + b"{}" + b"}" * 970
    with receiving() as receiver:
        register(desk, receiver)
        mine = register(desk, receiver, "bob")
        for number in range(400):
            desk.store.create(spec(f"deep-{number}"))
            desk.client.hset(f"{{exporter}}:export:deep-{number}", "spec", deep)
        desk.client.rpush(
            "{exporter}:outbox", b"", b"\xff", b"export.flown 1 1 0 0 e", b"a b c d e f"
        )
        desk.store.create(spec("plain", "bob"))
        # When
        begun = time.monotonic()
        run(desk)
        # Then: it takes a second, and on a loaded machine several
        assert time.monotonic() - begun < 20
    assert [one.state for one in desk.to(mine)] == [DeliveryState.DELIVERED]
    assert desk.store.counters()["events_set_aside"] == 404


def test_several_senders_share_the_work_and_send_nothing_twice(desk: Desk) -> None:
    # Given
    with receiving() as receiver:
        register(desk, receiver, ordered=True)
        register(desk, receiver, "bob")
        for n in range(40):
            desk.store.create(spec(f"{n}", "ann" if n % 2 else "bob"))
        senders = [threading.Thread(target=lambda: run(desk), name=f"sender-{n}") for n in range(3)]
        # When
        for thread in senders:
            thread.start()
        for thread in senders:
            thread.join()
        # Then
        ids = [received.headers["webhook-id"] for received in receiver.received]
        assert sorted(ids) == sorted(f"msg_{n}_1" for n in range(40))


def test_who_asks_at_once_sees_the_state_that_was_told_or_a_later_one(desk: Desk) -> None:
    # Given: a receiver that looks the export up before it answers
    seen: list[tuple[str, str]] = []
    rank = {"queued": 0, "processing": 1, "finished": 2}

    with receiving() as receiver:

        def poll(connection: object) -> None:
            data = json.loads(receiver.received[-1].body)["data"]
            seen.append((data["state"], known_state(desk.store, data["id"])))
            status(204)(connection)  # type: ignore[arg-type]

        receiver.behaviours = [poll]
        register(desk, receiver, ordered=True)
        stopped = threading.Event()
        thread = threading.Thread(
            target=lambda: deliverer(desk, concurrency=1).run(
                budget=timedelta(seconds=60), is_draining=stopped.is_set
            )
        )
        # When
        thread.start()
        for n in range(20):
            through(desk, f"e{n}")
        receiver.wait_for(60)
        stopped.set()
        thread.join()
    # Then
    assert len(seen) == 60
    assert [pair for pair in seen if rank[pair[1]] < rank[pair[0]]] == []


def known_state(store: RedisStore, export_id: str) -> str:
    export = store.get(export_id)
    assert export is not None
    return export.state
