"""Every store bounds the exports of one user, atomically, and leaves other users alone."""

from __future__ import annotations

import time
from datetime import timedelta

import pytest
import redis

from exporter.core import limits
from exporter.core.exports import State
from exporter.core.limits import LimitReached
from exporter.errors import StoreFull
from exporter.store import codec
from exporter.store.base import ExportStore, Idempotency, Quota
from exporter.store.redis.store import RedisStore
from tests.contract.store.given import KEEP, LEASE, SHORT, Elapse, claim, fill, race, result, spec

ONE_QUEUED = Quota(queued=1)
TWO_KEPT = Quota(kept=2)


def end(store: ExportStore, *, keep: timedelta = KEEP) -> str:
    """Claims an export and ends it as failed; returns its id."""
    claimed = claim(store)
    assert store.end(claimed.export.id, claimed.fence, State.FAILED, error="gone", keep_record=keep)
    return claimed.export.id


def test_exports_that_have_not_ended_are_bounded_for_each_user(store: ExportStore) -> None:
    """Given a running export, when its user creates another one, then only that is refused."""
    store.create(spec("e"), quota=ONE_QUEUED)
    claimed = claim(store)
    with pytest.raises(LimitReached, match="1 of your exports have not ended") as reached:
        store.create(spec("f"), quota=ONE_QUEUED)
    assert reached.value.limit is limits.QUEUED_EXPORTS
    assert reached.value.retry_after is not None
    assert store.get("f") is None
    store.create(spec("g", "bob"), quota=ONE_QUEUED)
    # When it has ended
    assert store.end("e", claimed.fence, State.FAILED, error="gone", keep_record=KEEP)
    # Then there is room
    store.create(spec("f"), quota=ONE_QUEUED)


@pytest.mark.parametrize("way", ["cancel", "delete"])
def test_an_export_that_its_owner_removes_from_the_queue_makes_room(
    store: ExportStore, way: str
) -> None:
    store.create(spec("e"), quota=ONE_QUEUED)
    if way == "cancel":
        store.request_cancel("e", keep_record=KEEP)
    else:
        store.delete("e", "ann")
    store.create(spec("f"), quota=ONE_QUEUED)


def test_a_running_export_counts_until_its_worker_ends_it_although_it_is_deleted(
    store: ExportStore,
) -> None:
    store.create(spec("e"), quota=ONE_QUEUED)
    claimed = claim(store)
    store.delete("e", "ann")
    with pytest.raises(LimitReached):
        store.create(spec("f"), quota=ONE_QUEUED)
    assert store.end("e", claimed.fence, State.CANCELED, keep_record=KEEP)
    store.create(spec("f"), quota=ONE_QUEUED)


def test_kept_records_are_bounded_until_their_retention_is_over(
    store: ExportStore, elapse: Elapse
) -> None:
    """Given two ended exports, when one record expires, then another export fits."""
    for export_id in ("e", "f"):
        store.create(spec(export_id), quota=TWO_KEPT)
    end(store, keep=SHORT)
    end(store)
    with pytest.raises(LimitReached, match="2 of your exports are kept") as reached:
        store.create(spec("g"), quota=TWO_KEPT)
    assert reached.value.limit is limits.KEPT_EXPORTS
    assert reached.value.retry_after is None
    elapse(SHORT)
    store.create(spec("g"), quota=TWO_KEPT)
    with pytest.raises(LimitReached):
        store.create(spec("h"), quota=TWO_KEPT)


def test_the_stored_bytes_of_a_user_are_bounded_and_given_back(
    store: ExportStore, elapse: Elapse
) -> None:
    quota = Quota(stored_bytes=len(codec.encode(spec("e"))) + 1)
    store.create(spec("e"), quota=quota)
    with pytest.raises(LimitReached, match=f"more than {quota.stored_bytes} bytes") as reached:
        store.create(spec("f"), quota=quota)
    assert reached.value.limit is limits.STORED_BYTES
    end(store, keep=SHORT)
    elapse(SHORT)
    store.create(spec("f"), quota=quota)


def test_a_replay_is_neither_counted_nor_refused(store: ExportStore) -> None:
    mark = Idempotency("k", "f")
    quota = Quota(queued=1, kept=1)
    store.create(spec("e"), mark, quota)
    assert store.create(spec("f"), mark, quota).id == "e"
    assert store.create(spec("e"), mark, quota).id == "e"


def test_creates_that_race_exceed_no_quota(store: ExportStore) -> None:
    """Given room for five, when twelve creates race, then five exports exist."""
    found = race(12, lambda n: store.create(spec(f"e{n}"), quota=Quota(queued=5)).id)
    created = {one for one in found if not isinstance(one, LimitReached)}
    assert len(created) == 5
    assert {one.id for one in store.list("ann", limit=20).exports} == created


def test_without_a_quota_nothing_is_refused(store: ExportStore) -> None:
    assert len(fill(store, 30)) == 30


@pytest.mark.external
def test_exports_ended_by_an_older_version_do_not_count_for_ever(client: redis.Redis) -> None:
    """Given exports that a worker without these counts ended, when the limit is reached, then
    the counts are corrected.
    """
    store = RedisStore(client)
    for n in range(3):
        store.create(spec(f"e{n}"), quota=Quota(queued=3))
    # The older scripts write no count; one record has expired since.
    client.hset("{exporter}:export:e0", "state", "failed")
    client.delete("{exporter}:export:e1")
    store.create(spec("e3"), quota=Quota(queued=2))
    with pytest.raises(LimitReached):
        store.create(spec("e4"), quota=Quota(queued=2))


@pytest.mark.external
def test_nearly_all_memory_of_redis_is_kept_for_exports_that_run(client: redis.Redis) -> None:
    """Given a Redis that is 95 % full, when an export is created, then it is refused, and another
    one that runs commits and ends.
    """
    store = RedisStore(client)
    store.create(spec("e"))
    used = int(client.info("memory")["used_memory"])
    client.config_set("maxmemory", int(used / 0.95))
    time.sleep(0.03)  # for 20 ms a create trusts the look of another at the memory
    try:
        with pytest.raises(StoreFull, match="Redis is full"):
            store.create(spec("f"))
        claimed = store.claim("w", lease=LEASE)
        assert claimed is not None
        assert store.end(
            "e", claimed.fence, State.FINISHED, result=result(), keep_file=KEEP, keep_record=KEEP
        )
        store.create(spec("e"))  # the same call again, whose first answer was lost
    finally:
        client.config_set("maxmemory", 0)
    store.create(spec("f"))
