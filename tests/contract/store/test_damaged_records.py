"""Any bytes in any field of any record cost that record alone: all others are served."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from datetime import timedelta
from typing import Any, cast

import redis
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from exporter.clock import FakeClock
from exporter.core.events import EVENTS
from exporter.core.exports import State
from exporter.errors import StoreUnavailable
from exporter.maintenance import cleaning
from exporter.storage.memory import MemoryStorage
from exporter.store.base import Claim
from exporter.store.redis.store import MAX_UNREADABLE_CLAIMS, RedisStore
from exporter.webhooks.endpoint_store import Endpoints
from exporter.webhooks.outbox import Outbox
from tests.contract.store.given import KEEP, LEASE, checkpoint, claim, cut, finish, result, spec

ROUNDS = 2 * MAX_UNREADABLE_CLAIMS + 4
"""Rounds of repair and work after which every export must have ended."""
MAX_ATTEMPTS = 3
"""Lost workers after which the next one fails the export."""
ENDED = {b"finished", b"failed", b"canceled", None}
FIELDS = (
    *("spec", "user", "level", "state", "phase", "created_at", "updated_at", "progress"),
    *("started_at", "completed_at", "worker_id", "error", "attempts", "stalls", "stalled_since"),
    *("retry_at", "cancel", "checkpoint", "closing", "result", "file_expires_at", "rows", "fence"),
    *("fences", "clean", "pages", "parts", "asked", "deleted", "concurrency", "payer", "reserved"),
    *("unread", "stored_bytes", "hook_events", "sequence", "told", "told_at", "partitions"),
    *("cut_by", "partition", "whole", "weight", "wrong_answers"),
)
"""All fields of a record; see `common.lua`."""
NASTY = (
    *(b"", b"0", b"-1", b"9", b"10", b"1e999", b"-inf", b"nan", b"x", b"\xff", b"{}", b"null"),
    *(b"finished", b"queued", b"processing", b"9" * 400, b'{"a":' * 900 + b"1" + b"}" * 900),
)
VALUES = st.sampled_from(NASTY) | st.binary(max_size=30)
MISSING = st.just(None)


def bounded(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        suppress_health_check=[HealthCheck.function_scoped_fixture],
        derandomize=True,
    )


def damage(client: redis.Redis, key: str, field: str, value: bytes | None) -> None:
    if value is None:
        client.hdel(key, field)
    else:
        client.hset(key, field, value)


def queued(store: RedisStore) -> str:
    store.create(spec("e", concurrency=3))
    return "e"


def leased(store: RedisStore) -> str:
    claimed = _claimed(store)
    store.commit("e", claimed.fence, checkpoint(), lease=LEASE, progress=0.5)
    return "e"


def waiting(store: RedisStore) -> str:
    claimed = _claimed(store)
    store.release("e", claimed.fence, clean=True, retry_in=LEASE, reason="slow")
    return "e"


def finished(store: RedisStore) -> str:
    finish(store, _claimed(store), keep_file=timedelta(0))
    return "e"


def partition(store: RedisStore) -> str:
    cut(store, "e", 60, 40)
    return "e/0"


def leased_partition(store: RedisStore) -> str:
    cut(store, "e", 60, 40)
    return claim(store).export.id


def whole(store: RedisStore) -> str:
    partition(store)
    return "e"


def _claimed(store: RedisStore) -> Claim:
    queued(store)
    return claim(store)


STAGES = (queued, leased, waiting, finished, partition, leased_partition, whole)


def repair(client: redis.Redis, store: RedisStore) -> None:
    """Lets all leases, waits and checks be over, and sweeps."""
    for name in ("leases", "waiting", "cut", "ageing"):
        key = f"{{exporter}}:{name}"
        for member in cast("list[bytes]", client.zrange(key, 0, -1)):
            client.zadd(key, {member.decode(): 1})
    store.sweep()


def work(store: RedisStore, ended: set[str]) -> None:
    """Claims and finishes what is ready, or fails it after a few lost workers."""
    for _ in range(30):
        claimed = store.claim("worker-1", lease=LEASE, tenant_slots=4)
        if claimed is None:
            return
        export = claimed.export
        if export.cancel_requested or export.attempts >= MAX_ATTEMPTS:
            state = State.CANCELED if export.cancel_requested else State.FAILED
            store.end(export.id, claimed.fence, state, error="gave up", keep_record=KEEP)
            continue
        with contextlib.suppress(StoreUnavailable):
            store.commit(export.id, claimed.fence, checkpoint(2), lease=LEASE, progress=0.6)
            if store.end(
                export.id,
                claimed.fence,
                State.FINISHED,
                result=result(),
                keep_file=KEEP,
                keep_record=KEEP,
            ):
                ended.add(export.id)


def is_idle(client: redis.Redis) -> bool:
    """True if no export is ready, waits, has a lease or is cut."""
    names = ("leases", "waiting", "cut", "lined")
    return not client.exists(*(f"{{exporter}}:{name}" for name in names))


def clean(store: RedisStore) -> None:
    clock = FakeClock()
    cleaning.clean(store, MemoryStorage(clock), clock, grace=timedelta(hours=1))


@bounded(40)
@given(stage=st.sampled_from(STAGES), field=st.sampled_from(FIELDS), value=VALUES | MISSING)
@example(stage=queued, field="concurrency", value=b"x")
@example(stage=leased, field="user", value=b"\xff")
@example(stage=waiting, field="level", value=b"x")
@example(stage=leased_partition, field="weight", value=b"x")
@example(stage=whole, field="spec", value=None)
@example(stage=partition, field="partition", value=None)
@example(stage=queued, field="concurrency", value=b"0")
def test_any_bytes_in_any_field_of_an_export_leave_all_others_being_served(
    client: redis.Redis, stage: Callable[[RedisStore], str], field: str, value: bytes | None
) -> None:
    # Given: a damaged export of ann before others of ann and bob, all with webhooks
    client.flushdb()
    store = RedisStore(client)
    for user in ("ann", "bob"):
        Endpoints(client).create(user, "https://example.com/", events=EVENTS)
    damaged = stage(store)
    sound = [("a", "ann"), ("b", "bob"), ("c", "bob")]
    for export_id, user in sound:
        store.create(spec(export_id, user, concurrency=1))
    damage(client, f"{{exporter}}:export:{damaged}", field, value)

    # When: the first round serves all others
    ended: set[str] = set()
    repair(client, store)
    for _ in sound:
        work(store, ended)
    assert ended >= {"a", "b", "c"}
    for _ in range(ROUNDS):
        repair(client, store)
        work(store, ended)
        if is_idle(client):
            break
    clean(store)

    # Then: the damaged one has ended, nothing is left of it in a queue, and lists show the others
    for one in ("e", "e/0", "e/1") if stage is not finished else ():
        assert client.hget(f"{{exporter}}:export:{one}", "state") in ENDED
    counted = store.queue_counts()
    assert (sum(counted.ready), counted.running, counted.waiting) == (0, 0, 0)
    assert client.hgetall("{exporter}:running") == {}
    assert {one.id for one in store.list("bob", limit=9).exports} == {"b", "c"}
    assert "a" in {one.id for one in store.list("ann", limit=9).exports}
    Outbox(client).peek()
    with contextlib.suppress(StoreUnavailable):
        store.request_cancel("e", keep_record=KEEP)


@bounded(20)
@given(
    stage=st.sampled_from([queued, leased, waiting, whole]),
    field=st.sampled_from([one for one in FIELDS if one not in ("user", "deleted", "whole")]),
    value=VALUES,
    action=st.sampled_from(["cancel", "delete"]),
)
def test_the_owner_ends_a_damaged_export(
    client: redis.Redis,
    stage: Callable[[RedisStore], str],
    field: str,
    value: bytes,
    action: str,
) -> None:
    # Given
    client.flushdb()
    store = RedisStore(client)
    damaged = stage(store)
    damage(client, f"{{exporter}}:export:{damaged}", field, value)

    # When
    if action == "cancel":
        store.request_cancel("e", keep_record=KEEP)
    else:
        assert store.delete("e", "ann") is not None

    # Then: at once, or as soon as its worker has lost it
    for _ in range(2):
        repair(client, store)
        work(store, set())
    assert client.hget("{exporter}:export:e", "state") in ENDED
    counted = store.queue_counts()
    assert (sum(counted.ready), counted.running, counted.waiting) == (0, 0, 0)


def test_a_damaged_export_can_be_shown(client: redis.Redis) -> None:
    # Given
    store = RedisStore(client)
    queued(store)
    whole = client.hgetall("{exporter}:export:e")
    for field, value in itertools.product(FIELDS, NASTY):
        client.delete("{exporter}:export:e")
        client.hset("{exporter}:export:e", mapping=cast("dict[Any, Any]", whole))
        client.hset("{exporter}:export:e", field, value)

        # When
        page = store.list("ann", limit=5)

        # Then
        assert len(page.exports) == 1
