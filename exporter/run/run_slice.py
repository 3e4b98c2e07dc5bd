"""run_slice(): what a worker does with what it claimed."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from exporter.clock import Clock
from exporter.core.exports import Export
from exporter.errors import LeaseLost
from exporter.formats.base import Format
from exporter.run.ending import Ending
from exporter.run.lease import LeasedExport
from exporter.run.limits import Limits
from exporter.run.partition_slices import CompositionSlice, PartitionSlice
from exporter.run.slices import Slice
from exporter.sources.base import Source
from exporter.storage.base import Storage, guarded
from exporter.store.base import Claim, ExportStore

__all__ = ["Ending", "Limits", "run_slice"]

log = structlog.get_logger()


def run_slice(
    claim: Claim,
    *,
    source: Source,
    encoder: Format,
    storage: Storage,
    store: ExportStore,
    clock: Clock,
    limits: Limits,
    claimed_at: float,
    draining: Callable[[], bool] = lambda: False,
) -> Ending:
    """Work on a claimed export until its end, the slice's budget, a cancel or a lost lease.

    `claimed_at` is the monotonic time before the claim was sent: a worker that was stopped right
    after it must not believe that its lease is fresh.

    Whatever happens inside, the file that is published in the end has the same bytes. Errors of
    upstream, S3 and store end as a state of the export; only a defect of our own is raised.
    """
    held = LeasedExport(claim, store, clock, lease=limits.lease, claimed_at=claimed_at)
    run = _kind(claim.export)(held, source, encoder, storage, clock, limits, draining)
    with held.kept(), guarded(held.check):
        try:
            return run.work()
        except LeaseLost as error:
            log.warning("slice.lost", reason=str(error))
            return Ending.LOST
        finally:
            run.uploader.forget()


def _kind(export: Export) -> type[Slice]:
    if export.partition is not None:
        return PartitionSlice
    return CompositionSlice if export.partitions else Slice
