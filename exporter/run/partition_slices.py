"""Slices of an export that was cut: of one partition, and the one that makes one file of all."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from exporter.core.checkpoints import Checkpoint, Row
from exporter.core.exports import Export, State
from exporter.errors import LeaseLost, SourceError, SourceMoved, SourceUntrue
from exporter.run import partitions
from exporter.run.ending import Ending
from exporter.run.packer import FileEncoder
from exporter.run.slices import Slice
from exporter.run.uploads import PartUploader
from exporter.sources.base import Page
from exporter.storage import composing
from exporter.storage.base import PART_SIZE_MIN, ObjectInfo
from exporter.store.base import Verdict

log = structlog.get_logger()

COPIES = 2
"""Copies under way for each part that may be: less than what a small store is kept busy by."""


class PartitionSlice(Slice):
    """Reads a stretch of an export's rows into an object of its own, which nobody downloads.

    It ends as canceled when it cannot be trusted to fit to the others: the export is then read as
    one.
    """

    def _beginning(self) -> Checkpoint:
        assert self.export.partition is not None
        return super()._beginning().evolve(packed=partitions.packed(self.export.partition))

    def _taken(self, page: Page) -> Sequence[Row]:
        assert self.export.partition is not None
        rows = super()._taken(page)
        partitions.check(self.export.partition, page, self.at)
        if self.at.pages == 1:
            self.reader.at = self.at.evolve(head=self.reader.checkpoint().seen)
        return rows

    def _refused(self, error: SourceError) -> Ending:
        if not isinstance(error, SourceUntrue):
            return super()._refused(error)
        log.warning("partition.given_up", reason=str(error))
        return self._cancel()

    def _publish(self) -> Ending:
        # What ends the file stands behind the last partition, and whoever joins them writes it.
        # Never stored at once: the checkpoint has to say what this partition's bytes are.
        at = self._in_hand()
        result = self._result(None)
        return self._upload(at, result)


class CompositionSlice(Slice):
    """Makes one file of the objects of an export's partitions, inside the store, in their order.

    The parts made so far say how far it came: they are the first bytes of those objects.
    """

    def _read(self) -> Ending:
        pieces = self.held.partitions()
        if not pieces:
            raise LeaseLost("the partitions are no more: another worker did what was left to do")
        failed = next((one for one in pieces if one.state is State.FAILED), None)
        if failed is not None:
            return self._fail(failed.error or f"partition {failed.id} failed")
        try:
            whole = partitions.joined(self.export.spec, pieces)
        except SourceMoved as error:
            return self._read_as_one(str(error))
        self.row_counts = whole.row_counts
        if self.saved.end_reason is None:
            # A worker of a version that knew no partitions may have begun to read this export as
            # one: those parts are of another file.
            self.saved = self._beginning()
        self.reader.at = whole.evolve(
            key=self.saved.key, upload_id=self.saved.upload_id, parts=self.saved.parts
        )
        return self._compose([_object(one) for one in pieces])

    def _compose(self, objects: Sequence[ObjectInfo]) -> Ending:
        least = min(PART_SIZE_MIN, self.limits.part_size)
        # A copy holds no memory here, and several take the store little longer than one.
        most = COPIES * self.limits.parts_ahead
        self.uploader = PartUploader(self.file, ahead=most, check=self.held.check)
        rest = bytearray()
        for step in composing.steps(objects, self.at.uploaded, least=least):
            if step.copy is None and step.size < least:
                rest += self.file.fetch(step.read)
                break
            if self.draining() or self._is_late():
                return self._commit_stored(all_=True) or self._release(
                    Ending.HANDED_OVER, clean=True
                )
            if step.copy is None:
                self.uploader.send(self.at, self.file.fetch(step.read))
            else:
                self.uploader.copy(self.at, step.copy)
            ending = self._commit_stored()
            if ending is not None:
                return ending
        ending = self._commit_stored(all_=True)
        if ending is not None:
            return ending
        self.file_encoder = FileEncoder(self.encoder, self.spec, self.at, rest)
        return self._publish()

    def _read_as_one(self, reason: str) -> Ending:
        log.warning("export.read_as_one", reason=reason)
        if self.held.rejoin() is Verdict.CANCEL:
            return self._cancel()
        self._discard()
        return self._release(Ending.HANDED_OVER, clean=True)

    def _start_over(self) -> None:
        # Only what was made of the partitions is gone; they themselves are still there.
        self._commit(self._beginning())


def _object(partition: Export) -> ObjectInfo:
    assert partition.result is not None
    return ObjectInfo(partition.result.key, partition.result.file_size, "")
