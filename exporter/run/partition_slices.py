"""Slices of a partitioned export: one reads a partition, one composes the file of all."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from exporter.core.checkpoints import Checkpoint, FileState, Row
from exporter.core.exports import Export, State
from exporter.errors import LeaseLost, SourceError, SourceMoved, SourceUntrue
from exporter.run import partitions
from exporter.run.ending import Ending
from exporter.run.slices import Slice
from exporter.run.uploads import PieceUploader, Position
from exporter.sources.base import Page
from exporter.storage import composing
from exporter.storage.base import ObjectInfo, read_ranges
from exporter.store.base import Verdict

log = structlog.get_logger()

COPIES_PER_PIECE_AHEAD = 2
"""Number of concurrent copies inside the object store for each piece of `Limits.parts_ahead`.

This load is below the capacity of a small store.
"""


class PartitionSlice(Slice):
    """Reads one partition of an export into an object of its own, which users cannot download.

    If the source contradicts itself, for example because rows have moved between partitions, the
    partition ends as canceled. The export is then read again without partitions.
    """

    def _first_checkpoint(self) -> Checkpoint:
        partition = self.export.partition
        assert partition is not None
        return (
            super()
            ._first_checkpoint()
            .evolve(
                packed=partitions.initial_packed(partition),
                total_at_end=max(partition.total - self.spec.offset, 0),
            )
        )

    def _accept(self, page: Page) -> Sequence[Row]:
        assert self.export.partition is not None
        rows = super()._accept(page)
        partitions.check_unmoved(self.export.partition, page, self.at)
        return rows

    def _fail_by_source(self, error: SourceError) -> Ending:
        if not isinstance(error, SourceUntrue):
            return super()._fail_by_source(error)
        log.warning("partition.given_up", reason=str(error))
        return self._cancel()

    def _publish(self) -> Ending:
        # The composition writes the closing bytes of the file behind the last partition.
        # A partition is never published by a single PUT: the composition needs the checkpoint
        # that describes this partition's bytes.
        at = self._position()
        result = self._result(None)
        return self._upload(at, result)


class CompositionSlice(Slice):
    """Joins the objects of all partitions into one file by copies inside the object store.

    The copied pieces are committed when the slice hands over: the next slice continues after them.
    A worker that is lost costs its copies, because the partitions still exist.
    """

    def _resume(self) -> None:
        if self.held.clean:
            super()._resume()
            return
        # A takeover would copy the committed pieces, too.
        self.file = self._open_file(FileState())
        self.file.resume(clean=False)
        if self.saved.file != FileState():
            log.info("slice.took_over", rows=self.saved.rows, attempt=self.export.attempts)
            self._restart()

    def _read(self) -> Ending:
        pieces = self.held.partitions()
        if not pieces:
            raise LeaseLost(
                "the partitions no longer exist: another worker has ended or rejoined this export"
            )
        failed = next((one for one in pieces if one.state is State.FAILED), None)
        if failed is not None:
            return self._fail(failed.error or f"partition {failed.id} failed")
        try:
            whole = partitions.join(self.export.spec, pieces)
        except SourceMoved as error:
            return self._read_as_one(str(error))
        self.row_counts = whole.row_counts
        if self.saved.end_reason is None:
            # A worker of a version without partitions may have started to read this export:
            # its pieces belong to another file.
            self.saved = self._first_checkpoint()
            self.file = self._open_file(FileState())
        objects = [_object(one) for one in pieces]
        self.file.expect(sum(one.size for one in objects))
        self.reader.at = whole.with_file(self.saved.file)
        return self._compose(objects)

    def _compose(self, objects: Sequence[ObjectInfo]) -> Ending:
        sizes = self.file.copy_sizes(objects)
        # A copy uses no memory here, and several take the store little longer than one copy.
        max_copies = COPIES_PER_PIECE_AHEAD * self.limits.parts_ahead
        self.uploader = PieceUploader(self.file, ahead=max_copies, check=self.held.check)
        rest = bytearray()
        end = self.saved.uploaded
        for step in composing.plan_steps(objects, end, sizes=sizes):
            if step.size < sizes[0]:
                rest = read_ranges(self.storage, step.ranges)
                break
            if self.draining() or self._is_budget_spent():
                if end > self.saved.uploaded:
                    self.uploader.send(bytearray(), Position(self.at, end))
                return self._commit_stored(all_=True) or self._release(
                    Ending.HANDED_OVER, clean=True
                )
            end += step.size
            self.uploader.compose(step)
            ending = self._commit_stored()
            if ending is not None:
                return ending
        ending = self._commit_stored(all_=True)
        if ending is not None:
            return ending
        self._continue_file(self.at.with_file(self.file.state(end)), rest)
        return self._publish()

    def _read_as_one(self, reason: str) -> Ending:
        log.warning("export.read_as_one", reason=reason)
        if self.held.rejoin() is Verdict.CANCEL:
            return self._cancel()
        self._delete_files()
        return self._release(Ending.HANDED_OVER, clean=True)

    def _restart(self) -> None:
        # Only the upload that joins the partitions is gone; the partitions still exist.
        self._commit(self._first_checkpoint())


def _object(partition: Export) -> ObjectInfo:
    assert partition.result is not None
    return ObjectInfo(partition.result.key, partition.result.file_size, "")
