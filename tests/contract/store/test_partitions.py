"""Partitions of one export, which several workers read side by side."""

from __future__ import annotations

from datetime import timedelta

import pytest

from exporter.core.events import EVENTS, PROGRESS
from exporter.core.exports import Export, Hook, Phase, State
from exporter.store.base import ExportStore, Verdict
from tests.contract.store.conftest import Accounts
from tests.contract.store.given import (
    KEEP,
    LEASE,
    SHORT,
    Elapse,
    EmittedEvents,
    Listen,
    checkpoint,
    claim,
    cut,
    drain,
    fill,
    finish,
    known,
    names,
    partitions_of,
    result,
    spec,
)

NOW = timedelta(0)


def places(partitions: tuple[Export, ...]) -> list[tuple[State, Phase]]:
    return [(one.state, one.phase) for one in partitions]


def test_a_cut_export_is_in_nobodys_hands_and_its_partitions_are_ready(store: ExportStore) -> None:
    # Given
    store.create(spec("e", priority=3))
    claimed = claim(store)
    drain(store)

    # When
    verdict = store.cut("e", claimed.fence, partitions_of(60, 40))

    # Then
    assert verdict is Verdict.CONTINUE
    export = known(store, "e")
    assert (export.state, export.phase, export.partitions) == (State.PROCESSING, Phase.READING, 2)
    assert (store.queue_counts().running, store.queue_counts().ready[3]) == (0, 2)
    assert drain(store) == [("e/0", 3), ("e/1", 3)]
    assert store.renew("e", claimed.fence, lease=LEASE) is Verdict.LOST
    first, second = store.partitions("e")
    assert (first.id, second.id) == ("e/0", "e/1")
    assert [first.partition, second.partition] == partitions_of(60, 40)
    assert (first.spec, first.created_at) == (export.spec, export.created_at)
    assert (first.started_at, first.partitions) == (export.started_at, None)
    assert places((first, second)) == [(State.PROCESSING, Phase.READY)] * 2


def test_each_partition_is_claimed_once_and_the_export_not_before_all_have_ended(
    store: ExportStore,
) -> None:
    # Given
    cut(store, "e", 60, 40)

    # When
    claims = [claim(store), claim(store)]

    # Then
    assert [one.export.id for one in claims] == ["e/0", "e/1"]
    assert [one.export.partition for one in claims] == partitions_of(60, 40)
    assert all(one.clean and one.export.spec == spec("e") for one in claims)
    assert [one.export.phase for one in claims] == [Phase.READING] * 2
    assert store.claim("worker-2", lease=LEASE) is None

    # When
    finish(store, claims[1])
    assert store.claim("worker-2", lease=LEASE) is None
    drain(store)
    finish(store, claims[0])

    # Then
    assert known(store, "e").phase is Phase.READY
    assert drain(store) == [("e", 0)]
    whole = claim(store)
    assert (whole.export.id, whole.export.phase, whole.clean) == ("e", Phase.COMPLETING, True)
    assert store.claim("worker-2", lease=LEASE) is None


def test_an_export_moves_forward_with_its_partitions_each_by_its_share(
    store: ExportStore, elapse: Elapse
) -> None:
    # Given one with three quarters of the rows
    cut(store, "e", 300, 100)
    large, small = claim(store), claim(store)
    before = known(store, "e").updated_at
    elapse(NOW)
    seen = []

    # When
    store.renew("e/0", large.fence, lease=LEASE, progress=0.4)
    seen.append(known(store, "e").progress)
    store.commit("e/1", small.fence, checkpoint(), lease=LEASE, progress=0.8)
    seen.append(known(store, "e").progress)
    store.commit("e/1", small.fence, checkpoint(), lease=LEASE, progress=0.4)
    store.renew("e/0", large.fence, lease=LEASE)
    seen.append(known(store, "e").progress)
    finish(store, large)
    seen.append(known(store, "e").progress)
    finish(store, small)
    seen.append(known(store, "e").progress)

    # Then: that of a whole file is 1.0, so all rows read are not yet that
    assert seen == pytest.approx([0.3, 0.5, 0.5, 0.95, 0.99])
    assert known(store, "e").updated_at > before
    assert [one.progress for one in store.partitions("e")] == [1.0, 1.0]


def test_getting_back_what_a_takeover_gave_up_moves_no_export(store: ExportStore) -> None:
    # Given
    cut(store, "e", 50, 50)
    first = claim(store, NOW)
    store.commit("e/0", first.fence, checkpoint(5, 3), lease=NOW, progress=0.5)
    other = claim(store)
    assert store.sweep().expired == 1
    second = claim(store)
    assert (second.export.id, second.clean, second.export.attempts) == ("e/0", False, 1)
    assert second.export.checkpoint == checkpoint(5, 3)

    # When
    store.commit("e/0", second.fence, checkpoint(4, 1), lease=LEASE, progress=0.4)
    store.commit("e/0", second.fence, checkpoint(5, 2), lease=LEASE, progress=0.5)

    # Then
    assert known(store, "e").progress == 0.25
    assert store.renew("e/1", other.fence, lease=LEASE) is Verdict.CONTINUE


def test_events_are_emitted_only_for_the_whole_export(
    store: ExportStore, emitted: EmittedEvents, listen: Listen
) -> None:
    # Given
    listen("ann", EVENTS)
    store.create(spec("e", webhook=Hook("own", (PROGRESS,))))
    store.cut("e", claim(store).fence, partitions_of(300, 100))
    first, second = claim(store), claim(store)

    # When
    store.commit("e/0", first.fence, checkpoint(2), lease=LEASE, progress=0.5)
    finish(store, first, rows=300)
    finish(store, second, rows=100)
    finish(store, claim(store), rows=400)

    # Then: progress within ten seconds is emitted once
    events = emitted()
    assert {event.subject_id for event in events} == {"e"}
    assert names(events) == ["export.queued", "export.started", PROGRESS, "export.finished"]
    assert [(event.progress, event.rows) for event in events[2:]] == [(0.375, 200), (1.0, 400)]


def test_an_ended_partition_keeps_all_it_knows_and_costs_nobody_anything(
    store: ExportStore, accounts: Accounts, elapse: Elapse
) -> None:
    # Given
    key = accounts.open(500)
    store.create(spec("e", account=key, reserved=400))
    store.cut("e", claim(store).fence, partitions_of(300, 100))
    claimed = claim(store)
    store.commit("e/0", claimed.fence, checkpoint(3, 2), lease=LEASE, progress=0.9)
    before = {**store.counters()}

    # When
    for _ in range(2):
        finish(store, claimed, keep_file=NOW, rows=300)
        elapse(timedelta(milliseconds=1))

    # Then
    partition, _ = store.partitions("e")
    assert places((partition,)) == [(State.FINISHED, Phase.DONE)]
    assert (partition.checkpoint, partition.result) == (checkpoint(3, 2), result(300))
    assert (partition.file_expires_at, partition.progress) == (None, 1.0)
    assert partition.completed_at is not None
    assert store.counters() == before
    assert (accounts.balance(key).left, accounts.balance(key).reserved) == (100, 400)
    assert (store.expired_files(), store.queue_counts().kept_files) == ((), 0)
    assert store.commit("e/0", claimed.fence, checkpoint(), lease=LEASE, progress=0) is Verdict.LOST
    assert not store.release("e/0", claimed.fence, clean=True)


def test_nobody_sees_or_stops_a_partition_by_its_id(store: ExportStore) -> None:
    # Given
    cut(store, "e", 60, 40)
    claimed = claim(store)

    # When / Then
    assert store.get("e/0") is None
    assert store.request_cancel("e/0", keep_record=KEEP) is None
    assert store.delete("e/0", "ann") is None
    assert [one.id for one in store.list("ann", limit=9).exports] == ["e"]
    assert store.renew("e/0", claimed.fence, lease=LEASE) is Verdict.CONTINUE
    assert store.counters().get("exports_deleted", 0) == 0


def test_whoever_takes_over_the_putting_together_knows_the_partitions(
    store: ExportStore, elapse: Elapse
) -> None:
    # Given
    cut(store, "e", 60, 40)
    for _ in range(2):
        finish(store, claim(store))
    first = claim(store, SHORT)
    store.commit("e", first.fence, checkpoint(), lease=SHORT, progress=0.9)
    assert known(store, "e").phase is Phase.COMPLETING

    # When
    elapse(SHORT)
    store.sweep()
    second = claim(store)

    # Then
    assert (second.export.phase, second.export.attempts) == (Phase.COMPLETING, 1)
    assert not second.clean
    assert len(store.partitions("e")) == 2
    finish(store, second)


def test_partitions_take_turns_slots_and_levels_as_exports_do(
    store: ExportStore, elapse: Elapse
) -> None:
    # Given two of a user and plan with two slots, and one of somebody else
    store.create(spec("e", concurrency=2))
    store.cut("e", claim(store).fence, partitions_of(10, 10, 10))
    fill(store, 1, "bob")

    # When
    claims = [claim(store, tenant_slots=3) for _ in range(3)]

    # Then
    assert {one.export.id for one in claims} == {"e/0", "e/1", "bob-0-0"}
    assert store.claim("worker-1", lease=LEASE, tenant_slots=3) is None
    mine = next(one for one in claims if one.export.id == "e/0")
    elapse(NOW)
    store.release("e/0", mine.fence, clean=True, retry_in=NOW, reason="HTTP 429")
    assert store.claim("worker-1", lease=LEASE, tenant_slots=1) is None
    assert store.sweep(ageing=NOW).risen == 2
    assert store.queue_counts().ready[1] == 2
    assert claim(store).export.id == "e/2"


def test_a_partition_waits_by_itself(store: ExportStore, elapse: Elapse) -> None:
    # Given
    cut(store, "e", 60, 40)
    claimed = claim(store)

    # When
    store.release("e/0", claimed.fence, clean=True, retry_in=SHORT, reason="HTTP 429")

    # Then
    waiting, ready = store.partitions("e")
    assert (waiting.phase, waiting.stalls, waiting.error) == (Phase.WAITING, 1, "HTTP 429")
    assert (ready.phase, ready.stalls) == (Phase.READY, 0)
    assert (known(store, "e").phase, known(store, "e").stalls) == (Phase.READING, 0)
    assert claim(store).export.id == "e/1"
    assert store.claim("worker-1", lease=LEASE) is None
    elapse(SHORT)
    assert claim(store).export.id == "e/0"
