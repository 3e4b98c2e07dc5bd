"""Who is next: priority, fairness between users, then the order of coming."""

from __future__ import annotations

from collections import Counter

import pytest

from exporter.core.exports import State
from exporter.store.base import ExportStore
from tests.contract.store.given import (
    KEEP,
    LEASE,
    SHORT,
    Elapse,
    claim,
    claim_ids,
    fill,
    finish,
    spec,
)


def test_five_urgent_exports_are_the_next_five_however_many_wait(store: ExportStore) -> None:
    # Given
    fill(store, 200, "ann", priority=0)
    claim_ids(store, 2)
    urgent = fill(store, 5, "ann", priority=9)

    # When / Then
    assert claim_ids(store, 5) == urgent
    assert claim_ids(store, 1) == ["ann-0-2"]


def test_every_priority_is_served_before_the_one_below(store: ExportStore) -> None:
    # Given
    for priority in (3, 0, 9, 1, 8, 2, 7, 4, 6, 5):
        store.create(spec(f"p{priority}", user=f"user-{priority % 3}", priority=priority))

    # When / Then
    assert claim_ids(store, 10) == [f"p{n}" for n in range(9, -1, -1)]


def test_exports_of_one_user_are_claimed_in_the_order_they_came(store: ExportStore) -> None:
    ids = [f"e{n * 7919 % 50}" for n in range(50)]
    for export_id in ids:
        store.create(spec(export_id))
    assert claim_ids(store, 50) == ids


def test_a_user_with_200_exports_delays_another_by_one_slice_at_most(store: ExportStore) -> None:
    # Given ann, who has been served a while
    fill(store, 200, "ann")
    claim_ids(store, 20)

    # When bob comes, and carl in the middle of that
    fill(store, 5, "bob")
    first = claim_ids(store, 4)
    fill(store, 3, "carl")
    rest = claim_ids(store, 12)

    # Then
    assert "bob-0-0" in first[:2]
    assert [i for i, export_id in enumerate(first + rest) if export_id.startswith("bob")][-1] <= 13
    assert "carl-0-0" in rest[:2]
    assert Counter(export_id.split("-")[0] for export_id in rest[:6]) == {
        "ann": 2,
        "bob": 2,
        "carl": 2,
    }


def test_a_newcomer_does_not_catch_up_on_slices_it_never_asked_for(store: ExportStore) -> None:
    # Given ann was served 50 slices while bob was not there
    fill(store, 100, "ann")
    claim_ids(store, 50)

    # When
    fill(store, 50, "bob")

    # Then
    served = Counter(export_id.split("-")[0] for export_id in claim_ids(store, 10))
    assert served == {"ann": 5, "bob": 5}


def test_going_away_and_coming_back_earns_nothing(store: ExportStore) -> None:
    # Given bob always has one export in line, ann comes anew for each
    fill(store, 20, "bob")

    # When
    order = []
    for n in range(10):
        store.create(spec(f"ann-{n}", "ann"))
        order += claim_ids(store, 1)

    # Then
    assert Counter(export_id.split("-")[0] for export_id in order) == {"ann": 5, "bob": 5}


def test_withdrawing_and_asking_anew_earns_nothing(store: ExportStore) -> None:
    # Given ann was served, and both have one export in line
    fill(store, 2, "ann")
    fill(store, 1, "bob")
    assert claim_ids(store, 1) == ["ann-0-0"]

    # When
    store.request_cancel("ann-0-1", keep_record=KEEP)
    store.create(spec("ann-anew", "ann"))

    # Then
    assert claim_ids(store, 2) == ["bob-0-0", "ann-anew"]


def test_urgent_work_of_others_is_no_debt_of_a_newcomer(store: ExportStore) -> None:
    # Given ann waited at priority 0 while 30 workers served bob at priority 9
    fill(store, 20, "ann", priority=0)
    fill(store, 30, "bob", priority=9)
    assert {claim(store).export.user_id for _ in range(30)} == {"bob"}

    # When carl comes at priority 0, and bob too
    fill(store, 2, "carl", priority=0)
    fill(store, 2, "bob", priority=0)

    # Then
    assert {"carl-0-0", "bob-0-0"} <= set(claim_ids(store, 3))


def test_a_released_export_goes_behind_the_others_of_its_user(store: ExportStore) -> None:
    # Given
    fill(store, 3)
    first = claim(store)

    # When
    store.release(first.export.id, first.fence, clean=True)

    # Then
    assert claim_ids(store, 3) == ["ann-0-1", "ann-0-2", "ann-0-0"]


def test_slices_of_long_exports_are_shared_between_users(store: ExportStore) -> None:
    # Given two users whose exports need many slices each
    fill(store, 3, "ann")
    fill(store, 1, "bob")

    # When
    served: Counter[str] = Counter()
    for _ in range(12):
        claimed = claim(store)
        served[claimed.export.id] += 1
        store.release(claimed.export.id, claimed.fence, clean=True)

    # Then
    assert served == {"bob-0-0": 6, "ann-0-0": 2, "ann-0-1": 2, "ann-0-2": 2}


def test_a_user_never_has_more_live_leases_than_slots(store: ExportStore) -> None:
    # Given
    fill(store, 5, "ann", priority=9)
    fill(store, 3, "bob")

    # When
    claims = [claim(store, tenant_slots=2) for _ in range(4)]

    # Then
    assert Counter(one.export.user_id for one in claims) == {"ann": 2, "bob": 2}
    assert store.claim("worker-1", lease=LEASE, tenant_slots=2) is None
    assert store.claim("worker-1", lease=LEASE, tenant_slots=3) is not None


def test_each_way_out_of_a_lease_frees_the_slot(store: ExportStore, elapse: Elapse) -> None:
    # Given
    fill(store, 9)

    def full() -> bool:
        return store.claim("worker-2", lease=LEASE, tenant_slots=1) is None

    for leave in ("finish", "fail", "release", "wait", "expire"):
        claimed = claim(store, SHORT if leave == "expire" else LEASE, tenant_slots=1)
        assert full()

        # When
        export_id, fence = claimed.export.id, claimed.fence
        if leave == "finish":
            finish(store, claimed)
        elif leave == "fail":
            assert store.end(export_id, fence, State.FAILED, error="no", keep_record=KEEP)
        elif leave == "release":
            assert store.release(export_id, fence, clean=True)
        elif leave == "wait":
            assert store.release(export_id, fence, clean=True, retry_in=KEEP, reason="429")
        else:
            elapse(SHORT)
            assert store.sweep().expired == 1

    # Then
    claim(store, tenant_slots=1)


def test_a_capped_user_does_not_save_up_the_slices_it_missed(store: ExportStore) -> None:
    # Given ann holds her only slot while bob is served ten times
    fill(store, 20, "ann")
    fill(store, 30, "bob")
    held = claim(store, tenant_slots=1)
    while held.export.user_id != "ann":
        finish(store, held)
        held = claim(store, tenant_slots=1)
    claim_ids(store, 10, tenant_slots=1)

    # When
    finish(store, held)

    # Then
    served = Counter(export_id.split("-")[0] for export_id in claim_ids(store, 10))
    assert abs(served["ann"] - served["bob"]) <= 2


def _turns(store: ExportStore, workers: int, slices: int) -> list[list[str]]:
    """Returns the users that `workers` workers serve in each of `slices` rounds; every export needs
    many slices.
    """
    held = [claim(store) for _ in range(workers)]
    rounds = [[one.export.user_id for one in held]]
    for _ in range(slices - 1):
        for n, one in enumerate(held):
            store.release(one.export.id, one.fence, clean=True)
            held[n] = claim(store)
        rounds.append([one.export.user_id for one in held])
    return rounds


@pytest.mark.parametrize("workers", [1, 4])
def test_a_flood_of_urgent_exports_delays_another_user_by_one_slice_a_worker(
    store: ExportStore, workers: int
) -> None:
    """Given a flood of priority 9, when another user creates an export of priority 0, then it
    waits at most one slice of each worker, again and again, and the flood keeps the other slices.
    """
    fill(store, 60, "ann", priority=9)
    fill(store, 3, "bob")
    order = [user for turn in _turns(store, workers, 6) for user in turn]
    assert "bob" in order[: workers + 1], order
    assert order.count("ann") >= len(order) * workers // (workers + 1), order


def test_users_who_flood_in_turns_delay_another_user_by_as_many_slices(store: ExportStore) -> None:
    """Given two users who flood at priority 9, and one worker, then a third user of priority 0
    waits for one slice of each.
    """
    fill(store, 30, "ann", priority=9)
    fill(store, 30, "bob", priority=9)
    fill(store, 10, "carl")
    order = [user for turn in _turns(store, 1, 9) for user in turn]
    assert order.count("carl") == 3, order
    assert "carl" in order[:3]


def test_urgent_exports_come_first_if_no_other_user_can_be_served(store: ExportStore) -> None:
    """Given an urgent user who has jumped, when the waiting user is at its limit, then no worker
    is idle.
    """
    store.create(spec("low", "bob", concurrency=1))
    store.create(spec("low2", "bob", concurrency=1))
    claim(store)
    fill(store, 4, "ann", priority=9)
    assert claim_ids(store, 4) == [f"ann-9-{n}" for n in range(4)]
