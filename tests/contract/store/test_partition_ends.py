"""How the ends of a cut export and of its partitions hang together."""

from __future__ import annotations

import pytest

from exporter.core.exports import State
from exporter.store.base import Claim, ExportStore, Verdict
from tests.contract.store.given import (
    KEEP,
    LEASE,
    checkpoint,
    claim,
    cut,
    drain,
    finish,
    known,
    partitions_of,
    spec,
)


def end(store: ExportStore, claimed: Claim, state: State) -> None:
    error = "HTTP 403" if state is State.FAILED else None
    assert store.end(claimed.export.id, claimed.fence, state, error=error, keep_record=KEEP)


def test_an_export_that_its_owner_withdrew_is_not_cut_and_stays_with_its_worker(
    store: ExportStore,
) -> None:
    # Given
    store.create(spec("e"))
    claimed = claim(store)
    store.request_cancel("e", keep_record=KEEP)

    # When
    verdict = store.cut("e", claimed.fence, partitions_of(60, 40))

    # Then
    assert verdict is Verdict.CANCEL
    assert store.partitions("e") == ()
    assert store.renew("e", claimed.fence, lease=LEASE) is Verdict.CANCEL
    end(store, claimed, State.CANCELED)
    assert known(store, "e").partitions is None


def test_a_partition_that_fails_stops_those_beside_it_and_then_its_export_comes_into_line(
    store: ExportStore,
) -> None:
    # Given one that has ended, one that waits for an hour, one at work, one ready
    cut(store, "e", 10, 10, 10, 10, 10)
    done, failing, waits, at_work = (claim(store) for _ in range(4))
    finish(store, done)
    store.release("e/2", waits.fence, clean=True, retry_in=KEEP, reason="HTTP 429")
    drain(store)

    # When
    end(store, failing, State.FAILED)

    # Then
    stopped = [one.cancel_requested for one in store.partitions("e")]
    assert stopped == [False, False, True, True, True]
    assert drain(store) == [("e/2", 0), ("e/4", 0)]
    verdict = store.commit("e/3", at_work.fence, checkpoint(), lease=LEASE, progress=0.5)
    assert verdict is Verdict.CANCEL
    for claimed in (at_work, claim(store), claim(store)):
        assert claimed is at_work or claimed.export.cancel_requested
        end(store, claimed, State.CANCELED)
    whole = claim(store)
    assert (whole.export.id, whole.export.cancel_requested) == ("e", False)
    states = [one.state for one in store.partitions("e")]
    assert states == [State.FINISHED, State.FAILED] + [State.CANCELED] * 3
    assert store.partitions("e")[1].error == "HTTP 403"
    end(store, whole, State.FAILED)
    assert store.counters().get("exports_canceled", 0) == 0


@pytest.mark.parametrize("way", ["request_cancel", "delete"])
def test_withdrawing_a_cut_export_stops_its_partitions_and_then_itself(
    store: ExportStore, way: str
) -> None:
    # Given one at work, one that waits, one ready
    cut(store, "e", 10, 10, 10)
    at_work, waits = claim(store), claim(store)
    store.release("e/1", waits.fence, clean=True, retry_in=KEEP, reason="HTTP 429")

    # When
    for _ in range(2):
        if way == "delete":
            assert store.delete("e", "ann") is State.PROCESSING
        else:
            store.request_cancel("e", keep_record=KEEP)

    # Then
    assert store.renew("e/0", at_work.fence, lease=LEASE) is Verdict.CANCEL
    for claimed in (at_work, claim(store), claim(store)):
        end(store, claimed, State.CANCELED)
    whole = claim(store)
    assert (whole.export.id, whole.export.cancel_requested) == ("e", True)
    assert len(store.partitions("e")) == 3
    end(store, whole, State.CANCELED)
    assert store.partitions("e") == ()
    assert store.claim("worker-1", lease=LEASE) is None
    assert store.deleted_exports() == (("e",) if way == "delete" else ())


@pytest.mark.parametrize("state", [State.FINISHED, State.FAILED])
def test_with_the_end_of_an_export_its_partitions_are_forgotten(
    store: ExportStore, state: State
) -> None:
    # Given
    cut(store, "e", 60, 40)
    ended = [claim(store), claim(store)]
    for one in ended:
        finish(store, one)
    whole = claim(store)
    assert len(store.partitions("e")) == 2

    # When
    if state is State.FINISHED:
        finish(store, whole)
    else:
        end(store, whole, state)

    # Then
    assert store.partitions("e") == ()
    assert store.renew("e/0", ended[0].fence, lease=LEASE) is Verdict.LOST
    assert not store.end("e/0", ended[0].fence, State.CANCELED, keep_record=KEEP)
    assert store.counters()[f"exports_{state}"] == 1
    assert store.sweep().ready == 0


def test_an_export_withdrawn_while_it_is_put_together_is_not_rejoined(store: ExportStore) -> None:
    # Given
    cut(store, "e", 60)
    finish(store, claim(store))
    whole = claim(store)
    store.request_cancel("e", keep_record=KEEP)

    # When
    verdict = store.rejoin("e", whole.fence)

    # Then: its worker still learns what there is to clean up
    assert verdict is Verdict.CANCEL
    assert len(store.partitions("e")) == 1
    end(store, whole, State.CANCELED)
