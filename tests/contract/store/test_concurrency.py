"""What every store promises about the bound of a plan on slices at once."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest

from exporter.core.exports import State
from exporter.store.base import MAX_LOOKAHEAD, ExportStore
from tests.contract.store.given import KEEP, LEASE, claim, claim_ids, fill, finish, spec


def bounded(store: ExportStore, count: int, bound: int, user: str = "ann") -> list[str]:
    ids = [f"{user}-bounded-{n}" for n in range(count)]
    for export_id in ids:
        store.create(spec(export_id, user, concurrency=bound))
    return ids


@pytest.mark.parametrize("bound", [1, 3])
def test_no_more_slices_of_a_user_run_at_once_than_the_plan_says(
    store: ExportStore, bound: int
) -> None:
    # Given
    bounded(store, 5, bound)

    # When
    running = [claim(store) for _ in range(bound)]

    # Then
    assert store.claim("worker-1", lease=LEASE) is None
    finish(store, running[0])
    assert claim(store).export.id == f"ann-bounded-{bound}"
    assert store.claim("worker-1", lease=LEASE) is None


def test_exports_beyond_the_bound_wait_in_line_and_run_in_their_order(store: ExportStore) -> None:
    # Given
    ids = bounded(store, 6, 1)

    # When
    found = claim_ids(store, 6)

    # Then
    assert found == ids


def test_one_that_is_bounded_keeps_nobody_else_waiting(store: ExportStore) -> None:
    # Given ann is bounded and in front: first, more urgent, and many
    for n in range(40):
        store.create(spec(f"ann-{n}", "ann", priority=9, concurrency=1))
    fill(store, 3, "bob")
    held = claim(store)
    assert held.export.user_id == "ann"

    # When
    found = claim_ids(store, 3)

    # Then
    assert found == ["bob-0-0", "bob-0-1", "bob-0-2"]
    assert store.claim("worker-1", lease=LEASE) is None


def test_a_users_other_keys_are_not_held_up_by_the_bounded_one(store: ExportStore) -> None:
    # Given a bounded line, and behind it the same user's export of a key without a bound
    bounded(store, 4, 1)
    claim(store)
    store.create(spec("urgent", "ann", priority=5))
    store.create(spec("unbounded", "ann"))

    # When
    found = [claim(store).export.id for _ in range(2)]

    # Then
    assert found == ["urgent", "unbounded"]
    assert store.claim("worker-1", lease=LEASE) is None


def test_a_claim_looks_past_a_bounded_number_of_exports(store: ExportStore) -> None:
    # Given as many as a claim looks past, and one more behind
    ids = bounded(store, 1 + MAX_LOOKAHEAD, 1)
    held = claim(store)
    store.create(spec("behind", "ann"))
    assert store.claim("worker-1", lease=LEASE) is None

    # When one of those ahead is gone
    store.request_cancel(ids[-1], keep_record=KEEP)

    # Then
    assert claim(store).export.id == "behind"
    assert held.export.id == ids[0]


def test_the_smaller_of_the_plans_bound_and_the_settings_holds(store: ExportStore) -> None:
    # Given
    bounded(store, 9, 2, "ann")
    bounded(store, 9, 5, "bob")

    # When
    served = Counter(claim(store, tenant_slots=3).export.user_id for _ in range(5))

    # Then
    assert served == {"ann": 2, "bob": 3}
    assert store.claim("worker-1", lease=LEASE, tenant_slots=3) is None


def test_each_way_out_of_a_slice_lets_the_next_one_in(store: ExportStore) -> None:
    # Given
    bounded(store, 5, 1)
    for leave in ("release", "wait", "fail", "expire"):
        claimed = claim(store, timedelta(0) if leave == "expire" else LEASE)
        export_id, fence = claimed.export.id, claimed.fence
        assert store.claim("worker-1", lease=LEASE) is None

        # When
        if leave == "release":
            assert store.release(export_id, fence, clean=True)
        elif leave == "wait":
            assert store.release(export_id, fence, clean=True, retry_in=KEEP, reason="429")
        elif leave == "fail":
            assert store.end(export_id, fence, State.FAILED, error="no", keep_record=KEEP)
        else:
            assert store.sweep().expired == 1

    # Then
    claim(store)
