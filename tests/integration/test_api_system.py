"""The overview says what runs, waits and is due, and only to operators."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest

from exporter.store.redis import keys
from exporter.store.redis.overview import OLDEST, Observer, Overview
from exporter.store.redis.store import RedisStore
from tests.contract.store.given import LEASE, claim, finish, spec
from tests.integration.webhook_service import Hooked
from workers.presence import Presence


@pytest.fixture
def store(desk: Hooked) -> RedisStore:
    assert isinstance(desk.engine.store, RedisStore)
    return desk.engine.store


def read(store: RedisStore) -> Overview:
    return Observer(store.client, store.names).read()


def test_an_idle_installation_has_nothing_to_show(store: RedisStore) -> None:
    found = read(store)
    assert (found.levels, found.running, found.waiting) == ((), 0, 0)
    assert (found.waits, found.oldest) == ((), ())
    assert (found.webhooks.events, found.webhooks.due, found.webhooks.due_since) == (0, 0, None)
    assert found.redis.used_bytes
    assert found.redis.version


def test_each_level_has_its_ready_exports_and_the_age_of_the_oldest(store: RedisStore) -> None:
    """Given ready exports of two users at two levels, when the overview is read, then the more
    urgent level is first and each has the time since when its oldest export is ready.
    """
    created = [store.create(spec(f"ann-{n}", "ann", 5)).created_at for n in range(2)]
    created += [store.create(spec("bob-0", "bob", 5)).created_at]
    last = store.create(spec("cy-0", "cy", 0)).created_at
    high, low = read(store).levels
    assert (high.level, high.ready, high.oldest_at) == (5, 3, created[0])
    assert (low.level, low.ready, low.oldest_at) == (0, 1, last)


def test_waits_are_counted_by_source_and_reason(store: RedisStore) -> None:
    for n, reason in enumerate(["the source answered 503", "the source answered 503", "S3"]):
        store.create(spec(f"ann-{n}"))
        claimed = claim(store)
        store.release(
            claimed.export.id,
            claimed.fence,
            clean=True,
            retry_in=timedelta(minutes=n + 1),
            reason=reason,
        )
    store.create(spec("ann-3"))
    claim(store)
    found = read(store)
    assert (found.running, found.waiting) == (1, 3)
    assert [(one.source, one.reason, one.exports) for one in found.waits] == [
        ("board", "the source answered 503", 2),
        ("board", "S3", 1),
    ]
    assert found.waits[0].next_at < found.waits[1].next_at


def test_the_oldest_unfinished_are_named_whatever_they_do(store: RedisStore) -> None:
    """Given a finished, a waiting and a running export and many ready ones, when the overview is
    read, then the oldest ten that have not ended are named in order.
    """
    for n in range(15):
        store.create(spec(f"ann-{n:02}"))
    finish(store, claim(store))
    waiting = claim(store)
    store.release(
        waiting.export.id, waiting.fence, clean=True, retry_in=LEASE, reason="the source is slow"
    )
    claim(store)
    oldest = read(store).oldest
    assert [one.id for one in oldest] == [f"ann-{n:02}" for n in range(1, 1 + OLDEST)]
    assert (oldest[0].phase, oldest[0].error) == ("waiting", "the source is slow")
    assert (oldest[1].state, oldest[2].state) == ("processing", "queued")
    assert (oldest[0].user_id, oldest[0].source) == ("ann", "board")


def test_webhooks_are_counted_while_they_are_due(desk: Hooked, store: RedisStore) -> None:
    """Given an endpoint, when an export is queued, its event is first to be copied; when it was
    delivered in vain, its next attempt is not due yet.
    """
    desk.register("https://nowhere.example.com/hook")
    desk.create()
    assert read(store).webhooks.events == 1
    desk.deliver()
    found = read(store).webhooks
    assert (found.events, found.due, found.in_flight) == (0, 0, 0)
    endpoint = desk.endpoints.list("ann")[0]
    desk.deliveries.send_test(endpoint)
    found = read(store).webhooks
    assert found.due == 1
    assert found.due_since is not None


def test_processes_are_listed_while_they_show_themselves(store: RedisStore) -> None:
    Presence(store).show()
    Presence(store, keys.BEATS).show()
    found = read(store).processes
    assert len(found["workers"]) == len(found["beats"]) == 1
    assert found["senders"] == []
    (process,) = found["workers"]
    gone = time.time() - 1
    store.client.zadd(store.names("alive"), {f"workers:{process}": gone})
    assert read(store).processes["workers"] == []


def test_only_an_operator_sees_it(desk: Hooked) -> None:
    refused = desk.http.get("/v1/system")
    assert refused.status_code == 403
    assert refused.json()["code"] == "scope_missing"
    operator = {"X-API-Key": desk.keys.create("root", ("read", "operator"))}
    answer = desk.http.get("/v1/system", headers=operator)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["health"] == {"redis": "ok", "s3": "ok"}
    assert body["redis"]["used_bytes"] > 0


def test_a_key_is_no_operator_unless_it_was_made_one(desk: Hooked) -> None:
    found = desk.keys.find(desk.ann)
    assert found is not None
    assert found.scopes == ("read", "write")
