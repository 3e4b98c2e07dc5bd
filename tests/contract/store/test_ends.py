"""How exports end: finished, failed, canceled, forgotten."""

from __future__ import annotations

from datetime import timedelta

import pytest

from exporter.core.exports import Phase, State
from exporter.store.base import ExportStore, Verdict
from tests.contract.store.given import (
    KEEP,
    LEASE,
    SHORT,
    Elapse,
    checkpoint,
    claim,
    claim_ids,
    drain,
    fill,
    finish,
    known,
    result,
    spec,
)


def test_a_finished_export_is_whole_and_drops_what_it_needed_to_go_on(store: ExportStore) -> None:
    # Given
    store.create(spec("e"))
    claimed = claim(store)
    store.commit("e", claimed.fence, checkpoint(), lease=LEASE, progress=0.9, closing=result())

    # When
    finish(store, claimed)

    # Then
    export = known(store, "e")
    assert (export.state, export.phase, export.progress) == (State.FINISHED, Phase.DONE, 1.0)
    assert (export.result, export.checkpoint, export.closing) == (result(), None, None)
    assert export.completed_at is not None
    assert export.file_expires_at == export.completed_at + KEEP


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELED])
def test_an_export_that_ends_without_a_file_keeps_its_progress(
    store: ExportStore, state: State
) -> None:
    # Given one that once waited for the upstream
    store.create(spec("e"))
    store.release("e", claim(store).fence, clean=True, retry_in=timedelta(0), reason="429")
    claimed = claim(store)
    store.renew("e", claimed.fence, lease=LEASE, progress=0.4)
    error = "the upstream answered 403" if state is State.FAILED else None

    # When
    assert store.end("e", claimed.fence, state, error=error, keep_record=KEEP)

    # Then
    export = known(store, "e")
    assert (export.state, export.progress, export.error) == (state, 0.4, error)
    assert (export.result, export.file_expires_at, export.checkpoint) == (None, None, None)
    assert export.completed_at is not None


def test_neither_a_wait_nor_an_error_shows_an_address_of_the_deployment(
    store: ExportStore,
) -> None:
    # Given
    store.create(spec("e"))
    reason = 'no answer from "http://minio:9000/exports/e?uploads" and redis.internal:6379'

    # When
    store.release("e", claim(store).fence, clean=True, retry_in=timedelta(0), reason=reason)
    waiting = known(store, "e").error
    store.end("e", claim(store).fence, State.FAILED, error=f"gave up: {reason}", keep_record=KEEP)

    # Then
    assert waiting == 'no answer from "(address)" and (address)'
    assert known(store, "e").error == f"gave up: {waiting}"


def test_ending_twice_with_one_fence_is_ending_once(store: ExportStore, elapse: Elapse) -> None:
    # Given
    store.create(spec("e"))
    claimed = claim(store)
    finish(store, claimed)
    before = known(store, "e")
    elapse(timedelta(0))

    # When
    finish(store, claimed)

    # Then
    assert known(store, "e") == before
    assert not store.end("e", claimed.fence, State.FAILED, error="late", keep_record=KEEP)


def test_ending_in_a_state_that_is_no_end_is_an_error_of_the_caller(store: ExportStore) -> None:
    store.create(spec("e"))
    fence = claim(store).fence
    with pytest.raises(ValueError, match="give finished, failed or canceled"):
        store.end("e", fence, State.QUEUED, keep_record=KEEP)
    with pytest.raises(ValueError, match="give a result with finished alone"):
        store.end("e", fence, State.FINISHED, keep_record=KEEP)
    assert known(store, "e").state is State.PROCESSING


def test_a_terminal_record_is_forgotten_after_its_retention(
    store: ExportStore, elapse: Elapse
) -> None:
    # Given
    fill(store, 2)
    first, second = claim(store), claim(store)
    store.end(first.export.id, first.fence, State.FAILED, error="no", keep_record=SHORT)
    store.end(second.export.id, second.fence, State.FAILED, error="no", keep_record=KEEP)

    # When
    elapse(SHORT)

    # Then
    assert store.get(first.export.id) is None
    assert known(store, second.export.id).state is State.FAILED


def test_files_past_their_retention_are_listed_until_forgotten(
    store: ExportStore, elapse: Elapse
) -> None:
    # Given
    fill(store, 3)
    for keep in (SHORT, KEEP, timedelta(0)):
        finish(store, claim(store), keep_file=keep)

    # When
    elapse(SHORT)

    # Then
    assert [export.id for export in store.expired_files()] == ["ann-0-2", "ann-0-0"]
    assert [export.id for export in store.expired_files(limit=1)] == ["ann-0-2"]
    store.forget_file("ann-0-2")
    store.forget_file("ann-0-2")
    assert [export.id for export in store.expired_files()] == ["ann-0-0"]
    assert known(store, "ann-0-2").result == result()


def test_the_file_of_a_record_that_is_gone_is_not_listed(store: ExportStore) -> None:
    # Given
    fill(store, 2)
    for keep_record in (timedelta(0), KEEP):
        claimed = claim(store)
        store.end(
            claimed.export.id,
            claimed.fence,
            State.FINISHED,
            result=result(),
            keep_file=timedelta(0),
            keep_record=keep_record,
        )

    # When / Then
    assert [export.id for export in store.expired_files()] == ["ann-0-1"]


def test_a_queued_export_is_canceled_at_once(store: ExportStore) -> None:
    # Given
    fill(store, 2)

    # When
    canceled = store.request_cancel("ann-0-0", keep_record=KEEP)

    # Then
    assert canceled is not None
    assert (canceled.state, canceled.phase) == (State.CANCELED, Phase.DONE)
    assert canceled.completed_at is not None
    assert canceled.cancel_requested
    assert store.get("ann-0-0") == canceled
    assert claim_ids(store, 1) == ["ann-0-1"]
    assert store.sweep().ready == 0


def test_a_running_export_hears_of_its_cancel_with_every_answer(store: ExportStore) -> None:
    # Given
    store.create(spec("e"))
    claimed = claim(store)

    # When
    asked = store.request_cancel("e", keep_record=KEEP)

    # Then
    assert asked is not None
    assert (asked.state, asked.cancel_requested) == (State.PROCESSING, True)
    assert store.renew("e", claimed.fence, lease=LEASE) is Verdict.CANCEL
    verdict = store.commit("e", claimed.fence, checkpoint(), lease=LEASE, progress=0.1)
    assert verdict is Verdict.CANCEL
    assert known(store, "e").checkpoint == checkpoint()
    assert store.end("e", claimed.fence, State.CANCELED, keep_record=KEEP)
    assert known(store, "e").state is State.CANCELED


def test_a_waiting_export_is_ready_at_once_when_canceled_for_a_worker_must_clean_up(
    store: ExportStore, elapse: Elapse
) -> None:
    # Given
    store.create(spec("e"))
    store.release("e", claim(store).fence, clean=True, retry_in=SHORT, reason="429")
    drain(store)

    # When
    asked = store.request_cancel("e", keep_record=KEEP)

    # Then
    assert asked is not None
    assert (asked.state, asked.phase, asked.retry_at) == (State.PROCESSING, Phase.READY, None)
    assert drain(store) == [("e", 0)]
    claimed = claim(store)
    assert claimed.export.cancel_requested
    elapse(SHORT)
    assert store.sweep().due == 0
    assert store.claim("worker-2", lease=LEASE) is None
    assert store.renew("e", claimed.fence, lease=LEASE) is Verdict.CANCEL


def test_canceling_between_two_slices_wakes_a_worker_and_keeps_one_place_in_line(
    store: ExportStore,
) -> None:
    # Given
    store.create(spec("e"))
    store.release("e", claim(store).fence, clean=True)
    drain(store)

    # When
    store.request_cancel("e", keep_record=KEEP)
    store.request_cancel("e", keep_record=KEEP)

    # Then
    assert ("e", 0) in drain(store)
    assert store.sweep().ready == 1
    assert claim(store).export.cancel_requested
    assert store.claim("worker-2", lease=LEASE) is None


def test_a_cancel_that_came_too_late_does_not_undo_a_finished_file(store: ExportStore) -> None:
    # Given
    store.create(spec("e"))
    claimed = claim(store)
    store.request_cancel("e", keep_record=KEEP)

    # When
    finish(store, claimed)

    # Then
    assert known(store, "e").state is State.FINISHED
    after = store.request_cancel("e", keep_record=KEEP)
    assert after is not None
    assert after.state is State.FINISHED
