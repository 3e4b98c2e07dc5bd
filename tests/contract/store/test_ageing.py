"""Nobody starves: what is ready for long becomes more urgent."""

from __future__ import annotations

from datetime import timedelta

from exporter.store.base import ExportStore
from tests.contract.store.given import SHORT, Elapse, claim, claim_ids, fill, known, spec

NOW = timedelta(0)


def test_an_export_ready_for_long_overtakes_more_urgent_ones_that_came_later(
    store: ExportStore,
) -> None:
    # Given
    store.create(spec("old", priority=0))
    for _ in range(5):
        assert store.sweep(ageing=NOW).risen == 1

    # When
    store.create(spec("urgent", user="bob", priority=4))
    store.create(spec("more urgent", user="bob", priority=6))

    # Then
    assert claim_ids(store, 3) == ["more urgent", "old", "urgent"]


def test_a_rise_takes_its_time_and_is_one_level(store: ExportStore, elapse: Elapse) -> None:
    # Given
    store.create(spec("e"))

    # When
    soon = store.sweep(ageing=SHORT)
    elapse(SHORT)
    late = store.sweep(ageing=SHORT)
    again = store.sweep(ageing=SHORT)

    # Then
    assert (soon.risen, late.risen, again.risen) == (0, 1, 0)
    assert store.queue_counts().ready == (0, 1, 0, 0, 0, 0, 0, 0, 0, 0)


def test_nothing_rises_above_the_most_urgent_and_all_keep_what_was_asked(
    store: ExportStore,
) -> None:
    # Given
    store.create(spec("e", priority=3))

    # When
    risen = [store.sweep(ageing=NOW).risen for _ in range(8)]

    # Then
    assert risen == [1] * 6 + [0] * 2
    assert store.queue_counts().ready[9] == 1
    assert known(store, "e").spec.priority == 3


def test_a_claimed_export_is_worth_what_was_asked_again(store: ExportStore) -> None:
    # Given
    store.create(spec("e"))
    store.sweep(ageing=NOW)

    # When
    claimed = claim(store)
    store.release("e", claimed.fence, clean=True)

    # Then
    assert store.queue_counts().ready[:2] == (1, 0)


def test_exports_of_one_user_rise_in_the_order_they_came_and_so_many_a_sweep(
    store: ExportStore,
) -> None:
    # Given
    ids = fill(store, 5)

    # When
    risen = store.sweep(ageing=NOW, limit=3).risen

    # Then
    assert risen == 3
    assert store.queue_counts().ready[:2] == (2, 3)
    assert claim_ids(store, 5) == ids


def test_a_risen_export_can_be_canceled_and_leaves_no_trace(store: ExportStore) -> None:
    # Given
    fill(store, 2)
    store.sweep(ageing=NOW)

    # When
    store.request_cancel("ann-0-0", keep_record=SHORT)
    store.delete("ann-0-1", "ann")

    # Then
    assert store.queue_counts().ready == (0,) * 10
    assert store.sweep(ageing=NOW).risen == 0
    assert store.claim("worker-1", lease=SHORT) is None
