"""What webhooks will tell is recorded with the change itself: all of it, once, in order."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
import redis

from exporter.core.events import EVENTS, PROGRESS
from exporter.core.exports import Hook, State
from exporter.store.base import ExportStore, Idempotency, KeyReused, Verdict
from exporter.store.memory.store import MemoryStore
from tests.contract.store.given import (
    KEEP,
    LEASE,
    SHORT,
    STALE,
    Elapse,
    EmittedEvents,
    Listen,
    checkpoint,
    claim,
    finish,
    names,
    spec,
)


def test_each_step_of_an_export_is_emitted_once_and_in_order(
    store: ExportStore, emitted: EmittedEvents, listen: Listen
) -> None:
    # Given
    listen("ann", EVENTS)
    store.create(spec("e"))
    # When
    claimed = claim(store)
    store.commit("e", claimed.fence, checkpoint(3), lease=LEASE, progress=0.5)
    finish(store, claimed, rows=300)
    # Then
    events = emitted()
    assert names(events) == ["export.queued", "export.started", PROGRESS, "export.finished"]
    assert [event.sequence for event in events] == [1, 2, 3, 4]
    assert [(event.progress, event.rows) for event in events] == [
        (0.0, 0),
        (0.0, 0),
        (0.5, 300),
        (1.0, 300),
    ]
    assert {event.subject_id for event in events} == {"e"}
    assert [event.message_id for event in events] == [f"msg_e_{n}" for n in range(1, 5)]
    times = [event.at for event in events]
    assert times == sorted(times)


def test_nothing_is_recorded_for_exports_that_nobody_listens_to(
    store: ExportStore, emitted: EmittedEvents, listen: Listen
) -> None:
    # Given: somebody else listens, and one who wants to hear of failures alone
    listen("bob", EVENTS)
    listen("ann", ["export.failed"])
    # When
    store.create(spec("e"))
    finish(store, claim(store))
    # Then
    assert emitted() == []


def test_an_export_that_names_an_endpoint_tells_what_that_wants(
    store: ExportStore, emitted: EmittedEvents
) -> None:
    # Given
    store.create(spec("e", webhook=Hook("we_1", ("export.started", "export.finished"))))
    store.create(spec("f", "bob"))
    # When
    for _ in range(2):
        finish(store, claim(store))
    # Then
    assert [(event.subject_id, event.type, event.sequence) for event in emitted()] == [
        ("e", "export.started", 1),
        ("e", "export.finished", 2),
    ]


def test_a_creation_that_is_sent_again_tells_nothing_again(
    store: ExportStore, emitted: EmittedEvents, listen: Listen
) -> None:
    # Given
    listen("ann", EVENTS)
    key = Idempotency("k", "f")
    store.create(spec("e"), key)
    # When: the client repeats itself, its caller does, and a third mistakes the key
    store.create(spec("e"), key)
    store.create(spec("other"), key)
    with pytest.raises(KeyReused):
        store.create(spec("third"), Idempotency("k", "another"))
    # Then
    assert [(event.subject_id, event.type) for event in emitted()] == [("e", "export.queued")]


@pytest.mark.parametrize("write", STALE)
def test_a_worker_that_lost_its_lease_tells_nothing(
    store: ExportStore, emitted: EmittedEvents, listen: Listen, elapse: Elapse, write: str
) -> None:
    # Given
    listen("ann", EVENTS)
    store.create(spec("e"))
    stale = claim(store, lease=SHORT)
    elapse(SHORT)
    store.sweep()
    claim(store)
    before = emitted()
    # When
    STALE[write](store, stale.fence)
    # Then
    assert emitted() == before


def test_only_the_first_claim_is_a_start(
    store: ExportStore, emitted: EmittedEvents, listen: Listen, elapse: Elapse
) -> None:
    # Given
    listen("ann", EVENTS)
    store.create(spec("e"))
    # When: given back in order, then lost, then taken over
    first = claim(store, lease=LEASE)
    store.release("e", first.fence, clean=True)
    claim(store, lease=SHORT)
    elapse(SHORT)
    store.sweep()
    claim(store)
    # Then
    assert names(emitted()) == ["export.queued", "export.started"]


@pytest.mark.parametrize("state", [State.FAILED, State.CANCELED, State.FINISHED])
def test_an_end_is_emitted_once_however_often_it_is_asked_for(
    store: ExportStore, emitted: EmittedEvents, listen: Listen, state: State
) -> None:
    # Given
    listen("ann", EVENTS)
    store.create(spec("e"))
    claimed = claim(store)
    # When
    for _ in range(2):
        if state is State.FINISHED:
            finish(store, claimed)
        else:
            assert store.end("e", claimed.fence, state, keep_record=KEEP)
    # Then
    assert names(emitted())[2:] == [f"export.{state}"]


def test_a_withdrawal_before_the_start_is_emitted_once(
    store: ExportStore, emitted: EmittedEvents, listen: Listen
) -> None:
    # Given
    listen("ann", EVENTS)
    store.create(spec("e"))
    # When
    for _ in range(2):
        store.request_cancel("e", keep_record=KEEP)
    # Then
    assert names(emitted()) == ["export.queued", "export.canceled"]


def test_a_request_to_stop_is_not_told_before_it_has_stopped(
    store: ExportStore, emitted: EmittedEvents, listen: Listen
) -> None:
    # Given
    listen("ann", EVENTS)
    store.create(spec("e"))
    claimed = claim(store)
    # When
    store.request_cancel("e", keep_record=KEEP)
    # Then
    assert names(emitted()) == ["export.queued", "export.started"]
    store.end("e", claimed.fence, State.CANCELED, keep_record=KEEP)
    assert names(emitted()) == ["export.queued", "export.started", "export.canceled"]


@pytest.mark.parametrize("running", [False, True])
def test_a_deleted_export_tells_nothing_more(
    store: ExportStore, emitted: EmittedEvents, listen: Listen, running: bool
) -> None:
    # Given
    listen("ann", EVENTS)
    store.create(spec("e"))
    claimed = claim(store) if running else None
    before = emitted()
    # When
    store.delete("e", "ann")
    if claimed is not None:
        store.commit("e", claimed.fence, checkpoint(), lease=LEASE, progress=0.5)
        store.end("e", claimed.fence, State.CANCELED, keep_record=KEEP)
    # Then
    assert emitted() == before


def test_a_file_that_is_forgotten_is_emitted_once(
    store: ExportStore, emitted: EmittedEvents, listen: Listen, elapse: Elapse
) -> None:
    # Given
    listen("ann", ["export.expired"])
    store.create(spec("e"))
    finish(store, claim(store), keep_file=SHORT)
    elapse(SHORT)
    # When
    forgotten = [store.forget_file("e") for _ in range(2)]
    # Then
    assert forgotten == [True, False]
    assert [(event.type, event.progress) for event in emitted()] == [("export.expired", 1.0)]


def test_progress_is_emitted_when_there_was_any_and_not_twice_within_ten_seconds(
    store: ExportStore, emitted: EmittedEvents, listen: Listen
) -> None:
    # Given
    listen("ann", [PROGRESS])
    store.create(spec("e"))
    claimed = claim(store)
    # When: nothing yet, then much at once
    store.renew("e", claimed.fence, lease=LEASE)
    for page in range(1, 6):
        store.commit("e", claimed.fence, checkpoint(page), lease=LEASE, progress=page / 10)
        store.renew("e", claimed.fence, lease=LEASE, progress=page / 9)
    # Then
    assert [(event.progress, event.rows) for event in emitted()] == [(0.1, 100)]


def test_progress_is_emitted_again_after_ten_seconds_if_there_was_more(
    store: ExportStore, emitted: EmittedEvents, listen: Listen, past: Callable[[timedelta], None]
) -> None:
    # Given
    listen("ann", [PROGRESS])
    store.create(spec("e"))
    claimed = claim(store)
    store.commit("e", claimed.fence, checkpoint(1), lease=LEASE, progress=0.1)
    # When: first without news, then with
    past(timedelta(seconds=10))
    store.renew("e", claimed.fence, lease=LEASE)
    assert len(emitted()) == 1
    store.renew("e", claimed.fence, lease=LEASE, progress=0.3)
    # Then
    assert [event.progress for event in emitted()] == [0.1, 0.3]


def test_a_takeover_that_goes_back_does_not_take_rows_back(
    store: ExportStore, emitted: EmittedEvents, listen: Listen, past: Callable[[timedelta], None]
) -> None:
    # Given
    listen("ann", EVENTS)
    store.create(spec("e"))
    claimed = claim(store)
    store.commit("e", claimed.fence, checkpoint(5, 5), lease=LEASE, progress=0.5)
    # When
    verdict = store.commit("e", claimed.fence, checkpoint(2, 2), lease=LEASE, progress=0.2)
    past(timedelta(seconds=10))
    store.end("e", claimed.fence, State.FAILED, error="no", keep_record=KEEP)
    # Then
    assert verdict is Verdict.CONTINUE
    assert [event.rows for event in emitted()] == [0, 0, 500, 500]


@pytest.fixture
def past(
    store: ExportStore, request: pytest.FixtureRequest, elapse: Elapse
) -> Callable[[timedelta], None]:
    """Makes the latest progress event of export `e` that much older."""

    def shift(by: timedelta) -> None:
        if isinstance(store, MemoryStore):
            elapse(by)
            return
        client: redis.Redis = request.getfixturevalue("client")
        micros = by // timedelta(microseconds=1)
        client.hincrby("{exporter}:export:e", "told_at", -micros)

    return shift
