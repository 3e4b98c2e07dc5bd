"""A deleted export is not to be seen any more, whatever it was doing."""

from __future__ import annotations

from datetime import timedelta

import pytest
import redis

from exporter.core.exports import Phase, State
from exporter.store.base import ExportStore, Verdict
from exporter.store.redis.store import RedisStore
from tests.contract.store.given import (
    KEEP,
    LEASE,
    checkpoint,
    claim,
    drain,
    finish,
    known,
    result,
    spec,
)


def hidden(store: ExportStore, export_id: str) -> bool:
    return (
        store.get(export_id) is None
        and store.request_cancel(export_id, keep_record=KEEP) is None
        and export_id not in {export.id for export in store.list("ann", limit=100).exports}
    )


def test_a_deleted_export_that_had_ended_is_gone_but_for_its_objects(store: ExportStore) -> None:
    # Given
    store.create(spec("e"))
    finish(store, claim(store), keep_file=timedelta(0))

    # When
    state = store.delete("e", "ann")

    # Then
    assert state is State.FINISHED
    assert hidden(store, "e")
    assert store.expired_files() == ()
    assert store.deleted_exports() == ("e",)
    assert store.forget_deleted("e")
    assert not store.forget_deleted("e")
    assert store.deleted_exports() == ()


def test_a_deleted_export_that_was_queued_is_never_claimed(store: ExportStore) -> None:
    # Given
    store.create(spec("e"))

    # When
    state = store.delete("e", "ann")

    # Then
    assert state is State.CANCELED
    assert hidden(store, "e")
    assert store.claim("worker-1", lease=LEASE) is None
    assert store.sweep().ready == 0


@pytest.mark.parametrize("ending", [State.CANCELED, State.FINISHED, State.FAILED])
def test_a_deleted_export_at_work_is_hidden_at_once_and_goes_when_its_worker_ends_it(
    store: ExportStore, ending: State
) -> None:
    # Given
    store.create(spec("e"))
    claimed = claim(store)

    # When
    state = store.delete("e", "ann")

    # Then
    assert state is State.PROCESSING
    assert hidden(store, "e")
    assert store.deleted_exports() == ()
    verdict = store.commit("e", claimed.fence, checkpoint(), lease=LEASE, progress=0.5)
    assert verdict is Verdict.CANCEL

    # When
    file = result() if ending is State.FINISHED else None
    keep_file = timedelta(0) if file else None
    for _ in range(2):
        assert store.end(
            "e", claimed.fence, ending, result=file, keep_file=keep_file, keep_record=KEEP
        )

    # Then
    assert hidden(store, "e")
    assert store.deleted_exports() == ("e",)
    assert store.expired_files() == ()


def test_a_deleted_export_that_waited_is_made_ready_for_a_worker_to_clean_up(
    store: ExportStore,
) -> None:
    # Given
    store.create(spec("e"))
    store.release("e", claim(store).fence, clean=True, retry_in=LEASE, reason="429")
    drain(store)

    # When
    store.delete("e", "ann")

    # Then
    assert drain(store) == [("e", 0)]
    again = claim(store)
    assert again.export.phase is Phase.READING
    assert again.export.cancel_requested


def test_deleting_again_answers_the_same_and_counts_once(store: ExportStore) -> None:
    # Given
    store.create(spec("e"))

    # When
    answers = [store.delete("e", "ann") for _ in range(3)]

    # Then
    assert answers == [State.CANCELED] * 3
    assert store.counters()["exports_deleted"] == 1
    assert store.counters()["exports_canceled"] == 1


def test_nobody_deletes_the_export_of_another_user(store: ExportStore) -> None:
    # Given
    store.create(spec("e"))
    before = known(store, "e")

    # When / Then
    assert store.delete("e", "bob") is None
    assert store.delete("nobody", "ann") is None
    assert known(store, "e") == before


def test_the_record_of_a_deleted_export_leaves_redis_within_a_minute(client: redis.Redis) -> None:
    # Given
    store = RedisStore(client)
    store.create(spec("queued"))
    store.delete("queued", "ann")
    store.create(spec("running"))
    claimed = claim(store)
    store.delete("running", "ann")

    # When
    store.end("running", claimed.fence, State.CANCELED, keep_record=KEEP)

    # Then
    for name in ("queued", "running"):
        assert 0 < client.ttl(f"{{exporter}}:export:{name}") <= 60
    assert client.zcard("{exporter}:user:ann") == 0
