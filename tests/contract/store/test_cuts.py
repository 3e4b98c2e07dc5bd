"""The cut of an export into partitions, and its undoing."""

from __future__ import annotations

from datetime import timedelta

import pytest

from exporter.core.exports import Partition, Phase, State
from exporter.store.base import ExportStore, Verdict
from tests.contract.store.given import (
    LEASE,
    checkpoint,
    claim,
    cut,
    finish,
    known,
    partitions_of,
    result,
    spec,
)

NOW = timedelta(0)


def test_a_cut_asked_again_is_one_cut(store: ExportStore) -> None:
    # Given
    store.create(spec("e"))
    claimed = claim(store)
    assert store.cut("e", claimed.fence, partitions_of(60, 40)) is Verdict.CONTINUE
    finish(store, claim(store))

    # When
    verdict = store.cut("e", claimed.fence, partitions_of(60, 40))

    # Then
    assert verdict is Verdict.CONTINUE
    assert [one.state for one in store.partitions("e")] == [State.FINISHED, State.PROCESSING]
    assert store.sweep().ready == 1
    assert store.counters()["exports_cut"] == 1


def test_a_stale_fence_cuts_and_rejoins_nothing(store: ExportStore) -> None:
    # Given
    store.create(spec("e"))
    before = claim(store)
    store.release("e", before.fence, clean=True)
    claim(store)

    # When
    verdicts = [
        store.cut("e", before.fence, partitions_of(60, 40)),
        store.rejoin("e", before.fence),
        store.cut("none", before.fence, partitions_of(60, 40)),
        store.rejoin("none", before.fence),
    ]

    # Then
    assert verdicts == [Verdict.LOST] * 4
    assert (known(store, "e").partitions, store.partitions("e")) == (None, ())
    assert store.partitions("none") == ()


@pytest.mark.parametrize(
    "partitions",
    [[], [Partition(1, 0, 5, 5)], [Partition(0, 0, 5, 5), Partition(1, 5, 0, 5)]],
    ids=["none", "not from 0", "without rows"],
)
def test_what_is_no_cut_is_refused(store: ExportStore, partitions: list[Partition]) -> None:
    # Given
    store.create(spec("e"))
    claimed = claim(store)

    # When / Then
    with pytest.raises(ValueError, match="cannot be cut into"):
        store.cut("e", claimed.fence, partitions)
    assert store.renew("e", claimed.fence, lease=LEASE) is Verdict.CONTINUE


def test_neither_a_partition_nor_what_was_cut_before_is_cut(store: ExportStore) -> None:
    # Given
    cut(store, "e", 60)
    partition = claim(store)

    # When / Then
    with pytest.raises(ValueError, match="or is a partition"):
        store.cut("e/0", partition.fence, partitions_of(60))
    finish(store, partition)
    whole = claim(store)
    with pytest.raises(ValueError, match="was cut before"):
        store.cut("e", whole.fence, partitions_of(60))
    store.rejoin("e", whole.fence)
    with pytest.raises(ValueError, match="was cut before"):
        store.cut("e", whole.fence, partitions_of(60))


def test_a_rejoined_export_is_read_as_one_from_its_beginning(store: ExportStore) -> None:
    # Given
    cut(store, "e", 60, 40)
    for pages in (3, 2):
        claimed = claim(store)
        store.commit(claimed.export.id, claimed.fence, checkpoint(pages), lease=LEASE, progress=0.9)
        finish(store, claimed)
    whole = claim(store)
    store.commit("e", whole.fence, checkpoint(5), lease=LEASE, progress=0.9, closing=result())

    # When
    verdicts = [store.rejoin("e", whole.fence) for _ in range(2)]

    # Then: nothing but its progress, which never goes back, tells that it was cut
    assert verdicts == [Verdict.CONTINUE] * 2
    export = known(store, "e")
    assert (export.partitions, export.checkpoint, export.closing) == (0, None, None)
    assert (export.phase, export.progress) == (Phase.READING, 0.99)
    assert store.partitions("e") == ()
    assert store.counters()["exports_rejoined"] == 1
    store.commit("e", whole.fence, checkpoint(1), lease=LEASE, progress=0.1)
    assert store.rejoin("e", whole.fence) is Verdict.CONTINUE
    store.release("e", whole.fence, clean=True)
    again = claim(store)
    assert (again.export.id, again.export.phase) == ("e", Phase.READING)
    assert again.export.checkpoint == checkpoint(1)
    finish(store, again)
    assert known(store, "e").state is State.FINISHED


def test_the_first_part_after_a_rejoin_is_progress(store: ExportStore) -> None:
    # Given one whose workers died before and after it was rejoined
    cut(store, "e", 60)
    finish(store, claim(store))
    whole = claim(store)
    store.commit("e", whole.fence, checkpoint(9, 9), lease=LEASE, progress=0.9)
    store.rejoin("e", whole.fence)
    store.renew("e", whole.fence, lease=NOW)
    store.sweep()
    again = claim(store)
    assert again.export.attempts == 1

    # When
    store.commit("e", again.fence, checkpoint(1, 1), lease=LEASE, progress=0.1)

    # Then
    assert known(store, "e").attempts == 0
