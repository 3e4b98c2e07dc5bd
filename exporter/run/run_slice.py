"""The function `run_slice`: the work of a worker on one claimed export."""

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


def run_slice(  # noqa: PLR0913 - one parameter for each part that a slice works with
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
    """Works on a claimed export until it ends, its time is used up, or its lease is lost.

    Returns the way in which the slice ended. `claimed_at` is the monotonic time before the claim
    was sent, from which the lease is counted: a worker may be stopped for minutes right after its
    claim, and must then not believe that the lease has just begun.

    The published file has the same bytes, whatever fails and however many slices it takes. Errors
    of the upstream, S3 and the store become a state of the export; only a bug of this code is
    raised.
    """
    held = LeasedExport(claim, store, clock, lease=limits.lease, claimed_at=claimed_at)
    run = _slice_class(claim.export)(held, source, encoder, storage, clock, limits, draining)
    with held.renewing(), guarded(held.check):
        try:
            return run.work()
        except LeaseLost as error:
            log.warning("slice.lost", reason=str(error))
            return Ending.LOST
        finally:
            run.uploader.abandon()
            # The pages refer to the slice: its buffers would stay until a garbage collection.
            del run.pages


def _slice_class(export: Export) -> type[Slice]:
    if export.partition is not None:
        return PartitionSlice
    return CompositionSlice if export.partitions else Slice
