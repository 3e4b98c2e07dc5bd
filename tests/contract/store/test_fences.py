"""Claims: one owner at a time, and a stale fence changes nothing."""

from __future__ import annotations

from datetime import timedelta

import pytest

from exporter.core.exports import Phase, State
from exporter.store.base import ExportStore, Verdict
from tests.contract.store.given import (
    KEEP,
    LEASE,
    SHORT,
    STALE,
    Elapse,
    checkpoint,
    claim,
    fill,
    known,
    race,
    result,
    spec,
)


def test_a_claim_starts_an_export_and_names_its_worker(store: ExportStore) -> None:
    # Given
    store.create(spec("e"))

    # When
    claimed = store.claim("host-7", lease=LEASE)

    # Then
    assert claimed is not None
    assert claimed.clean
    assert claimed.export == known(store, "e")
    assert (claimed.export.state, claimed.export.phase) == (State.PROCESSING, Phase.READING)
    assert claimed.export.worker_id == "host-7"
    assert claimed.export.started_at is not None


def test_an_export_starts_once_however_many_slices_it_needs(
    store: ExportStore, elapse: Elapse
) -> None:
    # Given
    store.create(spec("e"))
    first = claim(store)
    store.release("e", first.fence, clean=True)
    elapse(timedelta(0))

    # When
    second = claim(store)

    # Then
    assert second.export.started_at == first.export.started_at
    assert second.export.updated_at > first.export.updated_at


def test_each_claim_has_a_higher_count_and_a_nonce_in_its_fence(store: ExportStore) -> None:
    # Given
    store.create(spec("e"))

    # When
    fences = []
    for _ in range(12):
        claimed = claim(store)
        fences.append(claimed.fence)
        store.release("e", claimed.fence, clean=True)

    # Then
    assert [int(fence.partition("-")[0]) for fence in fences] == list(range(1, 13))
    nonces = {fence.partition("-")[2] for fence in fences}
    assert len(nonces) == 12
    assert min(map(len, nonces)) >= 8


def test_concurrent_claimers_never_get_the_same_export(store: ExportStore) -> None:
    # Given
    ids = fill(store, 60) + fill(store, 60, "bob")
    got: list[str] = []

    def work(_: int) -> None:
        while (claimed := store.claim("w", lease=LEASE)) is not None:
            got.append(claimed.export.id)

    # When
    race(4, work)

    # Then
    assert sorted(got) == sorted(ids)


@pytest.mark.parametrize("call", STALE)
def test_a_stale_fence_changes_nothing(store: ExportStore, elapse: Elapse, call: str) -> None:
    # Given an export whose first worker lost it to a second
    store.create(spec("e"))
    first = claim(store, SHORT)
    elapse(SHORT)
    store.sweep()
    second = claim(store)
    store.commit("e", second.fence, checkpoint(), lease=LEASE, progress=0.1)
    before = known(store, "e")

    # When
    for fence in (first.fence, "2-guess", ""):
        answer = STALE[call](store, fence)
        assert answer in (Verdict.LOST, False)

    # Then
    assert known(store, "e") == before
    assert store.renew("e", second.fence, lease=LEASE) is Verdict.CONTINUE


@pytest.mark.parametrize("call", STALE)
def test_a_fence_swept_away_changes_nothing_even_before_the_next_claim(
    store: ExportStore, elapse: Elapse, call: str
) -> None:
    # Given
    store.create(spec("e"))
    claimed = claim(store, SHORT)
    elapse(SHORT)
    store.sweep()
    before = known(store, "e")

    # When / Then
    assert STALE[call](store, claimed.fence) in (Verdict.LOST, False)
    assert known(store, "e") == before


@pytest.mark.parametrize("call", sorted(STALE.keys() - {"release"}))
def test_a_fence_given_back_changes_nothing(store: ExportStore, call: str) -> None:
    # Given
    store.create(spec("e"))
    claimed = claim(store)
    store.release("e", claimed.fence, clean=True)
    before = known(store, "e")

    # When / Then
    assert STALE[call](store, claimed.fence) in (Verdict.LOST, False)
    assert known(store, "e") == before


@pytest.mark.parametrize("call", STALE)
@pytest.mark.parametrize("state", [State.FINISHED, State.FAILED, State.CANCELED])
def test_a_terminal_export_never_changes(store: ExportStore, state: State, call: str) -> None:
    # Given
    store.create(spec("e"))
    claimed = claim(store)
    ending = result() if state is State.FINISHED else None
    assert store.end("e", claimed.fence, state, result=ending, keep_file=KEEP, keep_record=KEEP)
    before = known(store, "e")

    # When
    STALE[call](store, claimed.fence)
    canceled = store.request_cancel("e", keep_record=timedelta(0))
    store.sweep()

    # Then
    assert canceled == known(store, "e") == before
    assert store.claim("worker-1", lease=LEASE) is None
