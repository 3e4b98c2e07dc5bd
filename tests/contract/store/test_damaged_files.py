"""Damaged records do not stop cleaning, and wake-ups that are damaged wake a worker as well."""

from __future__ import annotations

from datetime import timedelta

import redis

from exporter.clock import FakeClock
from exporter.maintenance import cleaning
from exporter.storage import keys
from exporter.storage.base import FileHeaders
from exporter.storage.memory import MemoryStorage
from exporter.store.base import Wake
from exporter.store.redis.store import RedisStore
from tests.contract.store.given import claim, finish, spec

DAMAGED = "00000000-0000-4000-8000-000000000000"
SOUND = "00000000-0000-4000-8000-000000000001"
LIVE = "00000000-0000-4000-8000-000000000002"


def test_the_file_of_a_damaged_record_is_deleted_after_its_retention_and_other_files_too(
    client: redis.Redis,
) -> None:
    # Given: two files past their retention, and a live export, which no version can read
    store, clock = RedisStore(client), FakeClock()
    storage = MemoryStorage(clock)
    for export_id in (DAMAGED, SOUND):
        store.create(spec(export_id))
        finish(store, claim(store), keep_file=timedelta(0))
    store.create(spec(LIVE))
    for export_id in (DAMAGED, LIVE):
        storage.put_small(f"{keys.prefix(export_id)}1/a.csv", b"a", FileHeaders("text/csv", "a"))
    client.hset(f"{{exporter}}:export:{DAMAGED}", "result", b"\xff")
    client.hset(f"{{exporter}}:export:{LIVE}", "spec", b"\xff")
    client.set("{exporter}:since", 1)

    # When
    cleaned = cleaning.clean(store, storage, clock, grace=timedelta(hours=1))

    # Then
    assert cleaned.files == 2
    assert [info.key for info in storage.objects("")] == [f"{keys.prefix(LIVE)}1/a.csv"]
    assert store.queue_counts().kept_files == 0


def test_a_damaged_wake_up_wakes_a_worker_and_the_next_one_is_read(client: redis.Redis) -> None:
    # Given
    store = RedisStore(client)
    for entry in (b"3 e", b"", b"x e", b"\xff", b"99999999999999999999 e"):
        client.lpush("{exporter}:wake", entry)

    # When
    wakes = [store.next_wake(timeout=timedelta(0)) for _ in range(5)]

    # Then
    assert wakes[0] == Wake("e", 3)
    assert [wake.priority for wake in wakes[1:] if wake is not None] == [0, 0, 0, 0]
