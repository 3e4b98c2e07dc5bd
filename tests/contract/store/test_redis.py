"""What only a real Redis can show: lost answers, outages, bounds, wrong settings."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from typing import Any, cast

import pytest
import redis

from exporter.core.exports import State
from exporter.core.plans import Balance
from exporter.errors import ConfigurationError, StoreUnavailable
from exporter.local import ports
from exporter.local.redis import RedisServer
from exporter.store.base import Idempotency, Verdict
from exporter.store.redis.api_keys import KeyRing
from exporter.store.redis.credit_accounts import Credits
from exporter.store.redis.store import RedisStore
from tests.contract.store.given import (
    DATABASE,
    KEEP,
    LEASE,
    checkpoint,
    claim,
    claim_ids,
    cut,
    drain,
    fill,
    finish,
    known,
    partitions_of,
    result,
    spec,
)


class Forgetful(redis.Connection):
    """A connection that is cut once after the request was sent, before the answer is read."""

    armed = False

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        answer = super().read_response(*args, **kwargs)
        if Forgetful.armed:
            Forgetful.armed = False
            self.disconnect()  # type: ignore[no-untyped-call]
            raise redis.ConnectionError("the answer was lost")
        return answer


@pytest.fixture
def forgetful(redis_server: RedisServer, client: redis.Redis) -> Iterator[RedisStore]:
    """A store whose connection drops an answer when armed; scripts are loaded."""
    store = RedisStore.connect(redis_server.url.replace("/0", f"/{DATABASE}"))
    store.client.connection_pool.connection_class = Forgetful
    store.create(spec("warm"))
    store.end("warm", claim(store, timedelta(0)).fence, State.FAILED, keep_record=timedelta(0))
    store.release("warm", "", clean=True)
    store.commit("warm", "", checkpoint(), lease=LEASE, progress=0)
    store.request_cancel("warm", keep_record=KEEP)
    drain(store)
    yield store
    Forgetful.armed = False
    store.client.close()


def test_a_call_asked_again_after_a_lost_answer_takes_effect_once(forgetful: RedisStore) -> None:
    # Given
    def lossy() -> RedisStore:
        Forgetful.armed = True
        return forgetful

    # When / Then
    assert lossy().create(spec("e")).state is State.QUEUED
    assert drain(forgetful) == [("e", 0)]
    marked = lossy().create(spec("marked"), Idempotency("k", "f"))
    assert marked.id == "marked"
    assert lossy().delete("marked", "ann") is State.CANCELED
    assert forgetful.counters()["exports_created"] == 3
    drain(forgetful)
    assert forgetful.sweep().ready == 1

    claimed = lossy().claim("worker-1", lease=LEASE, tenant_slots=1)
    assert claimed is not None
    assert (claimed.clean, claimed.fence[:2]) == (True, "1-")

    fence = claimed.fence
    verdict = lossy().commit("e", fence, checkpoint(), lease=LEASE, progress=0.5)
    assert verdict is Verdict.CONTINUE
    assert lossy().release("e", fence, clean=True, retry_in=timedelta(0), reason="429")
    assert known(forgetful, "e").stalls == 1

    fence = claim(forgetful, tenant_slots=1).fence
    assert lossy().end("e", fence, State.FINISHED, result=result(), keep_record=KEEP)
    assert known(forgetful, "e").state is State.FINISHED
    assert not Forgetful.armed


def test_a_claim_asked_again_does_not_take_a_second_export(forgetful: RedisStore) -> None:
    # Given
    fill(forgetful, 2)

    # When
    Forgetful.armed = True
    first = claim(forgetful)

    # Then
    assert not Forgetful.armed
    assert forgetful.renew(first.export.id, first.fence, lease=LEASE) is Verdict.CONTINUE
    assert claim(forgetful).export.id != first.export.id
    assert forgetful.claim("worker-1", lease=LEASE) is None


def test_a_waiting_caller_is_woken_by_a_create(client: redis.Redis) -> None:
    # Given
    store = RedisStore(client)
    timer = threading.Timer(0.2, lambda: store.create(spec("e", priority=2)))
    timer.start()
    began = time.monotonic()

    # When
    wake = store.next_wake(timeout=timedelta(seconds=20))

    # Then
    assert wake is not None
    assert (wake.export_id, wake.priority) == ("e", 2)
    assert time.monotonic() - began < 5
    timer.join()


def test_a_full_redis_refuses_new_exports_and_lets_the_others_end(client: redis.Redis) -> None:
    # Given
    store = RedisStore(client)
    fill(store, 4)
    running = claim(store)
    leaving = claim(store)
    claim(store, timedelta(0))
    drain(store)
    client.config_set("maxmemory", 1)
    try:
        # When / Then
        with pytest.raises(StoreUnavailable, match="Redis is full"):
            store.create(spec("one too many"))
        fence = running.fence
        assert store.renew(running.export.id, fence, lease=LEASE) is Verdict.CONTINUE
        verdict = store.commit(
            running.export.id, fence, checkpoint(), lease=LEASE, progress=0.5, closing=result()
        )
        assert verdict is Verdict.CONTINUE
        finish(store, running)
        assert store.release(leaving.export.id, leaving.fence, clean=True)
        assert store.sweep().expired == 1
        drain(store)
        assert store.sweep().ready == 3
        assert len(drain(store)) == 3
        canceled = store.request_cancel("ann-0-3", keep_record=KEEP)
        assert canceled is not None
        assert canceled.state is State.CANCELED
        assert store.sweep(ageing=timedelta(0)).risen == 2
        assert len(claim_ids(store, 1)) == 1
        assert store.delete("ann-0-1", "ann") or store.delete("ann-0-2", "ann")
    finally:
        client.config_set("maxmemory", 0)
    assert store.get("one too many") is None
    assert store.create(spec("now there is room")).state is State.QUEUED


def test_a_full_redis_cuts_no_export_and_lets_those_that_are_cut_end(client: redis.Redis) -> None:
    # Given
    store = RedisStore(client)
    cut(store, "canceled", 60, 40)
    cut(store, "cut", 60, 40, priority=1)
    ours = [claim(store), claim(store)]
    store.create(spec("e", priority=2))
    claimed = claim(store)
    drain(store)
    client.config_set("maxmemory", 1)
    try:
        # When / Then
        with pytest.raises(StoreUnavailable, match="Redis is full"):
            store.cut("e", claimed.fence, partitions_of(60, 40))
        assert store.renew("e", claimed.fence, lease=LEASE) is Verdict.CONTINUE
        assert (known(store, "e").partitions, store.partitions("e")) == (None, ())
        finish(store, claimed)
        for one in ours:
            at = one.export.id, one.fence, checkpoint()
            assert store.commit(*at, lease=LEASE, progress=0.5) is Verdict.CONTINUE
            finish(store, one)
        store.request_cancel("canceled", keep_record=KEEP)
        while (one := claim(store)).export.id != "cut":
            store.end(one.export.id, one.fence, State.CANCELED, keep_record=KEEP)
        assert store.rejoin("cut", one.fence) is Verdict.CONTINUE
        finish(store, one)
    finally:
        client.config_set("maxmemory", 0)
    assert client.exists("{exporter}:export:e/0", "{exporter}:export:cut/0") == 0


def test_a_cut_a_rejoin_and_the_end_of_a_partition_asked_again_take_effect_once(
    forgetful: RedisStore,
) -> None:
    # Given
    def lossy() -> RedisStore:
        Forgetful.armed = True
        return forgetful

    forgetful.create(spec("e"))
    fence = claim(forgetful).fence

    # When / Then
    assert lossy().cut("e", fence, partitions_of(60)) is Verdict.CONTINUE
    assert drain(forgetful) == [("e", 0), ("e/0", 0)]
    partition = lossy().claim("worker-1", lease=LEASE)
    assert partition is not None
    assert partition.export.spec == spec("e")
    finish(lossy(), partition)
    assert drain(forgetful) == [("e", 0)]
    assert lossy().rejoin("e", claim(forgetful).fence) is Verdict.CONTINUE
    assert not Forgetful.armed
    counters = forgetful.counters()
    assert (counters["exports_cut"], counters["exports_rejoined"]) == (1, 1)


@pytest.mark.external
def test_a_redis_that_does_not_answer_is_store_unavailable() -> None:
    # Given
    url = f"redis://127.0.0.1:{ports.find_free(1)[0]}/0"

    # When / Then
    store = RedisStore.connect(url)
    calls: list[Callable[[], object]] = [
        lambda: store.create(spec("e")),
        lambda: store.list("ann", limit=1),
        lambda: store.next_wake(timeout=timedelta(0)),
    ]
    for call in calls:
        with pytest.raises(StoreUnavailable, match="Redis did not answer"):
            call()
    with pytest.raises(StoreUnavailable, match="refuses connections: start Redis there"):
        store.check()


@pytest.mark.external
def test_one_that_is_not_patient_gives_up_a_redis_that_hangs_within_five_seconds() -> None:
    # Given a port that takes every connection and never says a word
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"redis://127.0.0.1:{listener.getsockname()[1]}/0"
        store = RedisStore.connect(url, patient=False)
        began = time.monotonic()

        # When
        with pytest.raises(StoreUnavailable, match="Redis did not answer"):
            store.create(spec("e"))

        # Then
        assert time.monotonic() - began < 5


def test_a_clock_set_back_changes_no_order(client: redis.Redis) -> None:
    # Given an export that lined up by a clock an hour ahead
    store = RedisStore(client)
    store.create(spec("first"))
    ahead = time.time() * 1e6 + 3.6e9
    client.zadd("{exporter}:ready:0:ann", {"first": ahead})
    client.zadd("{exporter}:user:ann", {"first": ahead})

    # When
    store.create(spec("second"))

    # Then
    assert [export.id for export in store.list("ann", limit=2).exports] == ["second", "first"]
    assert claim_ids(store, 2) == ["first", "second"]


def test_wake_ups_are_bounded_for_they_are_only_doorbells(client: redis.Redis) -> None:
    # Given more wake-ups than anyone will ever need
    store = RedisStore(client)
    client.lpush("{exporter}:wake", *["0 old"] * 10_000)

    # When
    store.create(spec("e"))

    # Then
    assert client.llen("{exporter}:wake") == 10_000
    assert client.lindex("{exporter}:wake", 0) == b"0 e"


def test_the_list_of_a_user_who_never_looks_stays_bounded(client: redis.Redis) -> None:
    # Given
    store = RedisStore(client)

    # When
    for n in range(50):
        store.create(spec(f"e{n}"))
        store.request_cancel(f"e{n}", keep_record=timedelta(0))

    # Then
    assert client.zcard("{exporter}:user:ann") <= 2


def test_lists_of_users_who_never_come_back_are_trimmed_a_few_at_a_time(
    client: redis.Redis,
) -> None:
    # Given three users with expired exports, one of whom has one left
    store = RedisStore(client)
    for user, n in itertools.product(("ann", "bob", "carl"), range(3)):
        store.create(spec(f"{user}-{n}", user))
        if (user, n) != ("carl", 0):
            store.request_cancel(f"{user}-{n}", keep_record=timedelta(0))

    # When
    looked_at = [store.trim_lists(users=2, again=LEASE) for _ in range(3)]

    # Then
    assert looked_at == [2, 1, 0]
    assert client.keys("{exporter}:user:*") == [b"{exporter}:user:carl"]
    assert client.zrange("{exporter}:user:carl", 0, -1) == [b"carl-0"]
    assert client.zrange("{exporter}:users", 0, -1) == [b"carl"]


def test_nothing_is_left_of_exports_whose_records_expired(client: redis.Redis) -> None:
    # Given
    store = RedisStore(client)
    for user, n in itertools.product(("ann", "bob"), range(5)):
        store.create(spec(f"{user}-{n}", user))
    while (claimed := store.claim("w", lease=LEASE)) is not None:
        store.end(
            claimed.export.id, claimed.fence, State.FAILED, error="x", keep_record=timedelta(0)
        )

    # When
    drain(store)
    store.list("ann", limit=10)
    store.list("bob", limit=10)

    # Then
    keys = cast("list[bytes]", client.keys("{exporter}:*"))
    left = {key for key in keys if not key.startswith(b"{exporter}:claim:")}
    counted = {b"{exporter}:counters", b"{exporter}:since", b"{exporter}:users"}
    counted.add(b"{exporter}:roomy")
    assert left <= {b"{exporter}:virtual", b"{exporter}:served:0", *counted}
    assert client.zcard("{exporter}:served:0") <= 2
    assert all(0 < client.ttl(key) <= 60 for key in client.keys("{exporter}:claim:*"))


def test_a_redis_set_up_as_shipped_passes_the_check(client: redis.Redis) -> None:
    assert without_holes(RedisStore(client).check()) == []


def without_holes(warnings: Sequence[str]) -> list[str]:
    """The warnings, except that of an old server that EXPORTER_TEST_REDIS_URL names."""
    return [one for one in warnings if "security holes" not in one]


@pytest.mark.parametrize(
    ("setting", "bad", "good"),
    [("maxmemory-policy", "allkeys-lru", "noeviction"), ("appendonly", "no", "yes")],
)
def test_a_redis_that_would_lose_exports_fails_the_check_with_the_command_that_mends_it(
    client: redis.Redis, setting: str, bad: str, good: str
) -> None:
    # Given
    client.config_set(setting, bad)
    try:
        # When / Then
        with pytest.raises(ConfigurationError, match=f"CONFIG SET {setting} {good}"):
            RedisStore(client).check()
    finally:
        client.config_set(setting, good)
        # A Redis that writes its first file does not end when it is told to.
        while client.info("persistence")["aof_rewrite_in_progress"]:
            time.sleep(0.01)


def test_a_redis_that_may_lose_a_second_is_a_warning(client: redis.Redis) -> None:
    client.config_set("appendfsync", "everysec")
    try:
        (warning,) = without_holes(RedisStore(client).check())
    finally:
        client.config_set("appendfsync", "always")
    assert "CONFIG SET appendfsync always" in warning


def test_what_a_managed_redis_does_not_tell_is_a_warning(
    redis_server: RedisServer, client: redis.Redis
) -> None:
    # Given a user who may not ask
    rules = ["on", ">pw", "~*", "&*", "+@all", "-info", "-config"]
    client.execute_command("ACL", "SETUSER", "tenant", *rules)  # type: ignore[no-untyped-call]
    try:
        with redis.Redis.from_url(redis_server.url, username="tenant", password="pw") as limited:
            # When
            warnings = RedisStore(limited).check()
    finally:
        client.execute_command("ACL", "DELUSER", "tenant")  # type: ignore[no-untyped-call]

    # Then
    assert len(warnings) == 2
    assert all("refused to report" in warning for warning in warnings)


def test_credits_move_once_however_often_a_call_is_sent(forgetful: RedisStore) -> None:
    # Given
    ring, accounts = KeyRing(forgetful.client), Credits(forgetful.client)
    key = ring.find(ring.create("ann", balance=10))
    assert key is not None
    accounts.charge(key.id, 1)
    accounts.add(key.id, 1)

    def lossy() -> str:
        Forgetful.armed = True
        return key.id

    # When
    accounts.charge(lossy(), 3)
    accounts.add(lossy(), 5)
    forgetful.create(spec("e", account=lossy(), reserved=4))
    fence = claim(forgetful).fence
    Forgetful.armed = True
    assert forgetful.end("e", fence, State.FINISHED, result=result(), keep_record=KEEP)

    # Then
    assert not Forgetful.armed
    assert accounts.balance(key.id) == Balance(left=10 - 3 + 5 - 1, used=1 + 3 + 1)


def test_in_a_full_redis_a_paid_export_still_ends_and_is_settled(client: redis.Redis) -> None:
    # Given
    store, ring, accounts = RedisStore(client), KeyRing(client), Credits(client)
    key = ring.find(ring.create("ann", balance=30))
    assert key is not None
    for export_id in ("finished", "canceled"):
        store.create(spec(export_id, account=key.id, reserved=10))
    claimed = claim(store)
    client.config_set("maxmemory", 1)
    try:
        # When
        with pytest.raises(StoreUnavailable, match="Redis is full"):
            store.create(spec("one too many", account=key.id, reserved=10))
        finish(store, claimed)
        store.request_cancel("canceled", keep_record=KEEP)
    finally:
        client.config_set("maxmemory", 0)

    # Then
    assert accounts.balance(key.id) == Balance(left=29, used=1)
