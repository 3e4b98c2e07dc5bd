"""Makes exports ready, divides them into partitions and rejoins them, for the store in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import datetime

from exporter.clock import Clock
from exporter.core.exports import Export, Partition, Phase, Result, State
from exporter.store.base import Verdict, Wake, weights
from exporter.store.memory.queue import MemoryQueue, Record
from exporter.store.memory.records import MemoryRecords, copy

MAX_WAKES = 10_000
"""Maximum number of wake-ups that are kept.

If there are more, the oldest are dropped, because a lost wake-up causes no error.
"""


class MemoryPartitions(MemoryRecords):
    """The methods of ExportStore that handle an export together with its partitions."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._queue = MemoryQueue(self._records)
        self._wakes: deque[Wake] = deque(maxlen=MAX_WAKES)

    def cut(self, export_id: str, fence: str, partitions: Sequence[Partition]) -> Verdict:
        shares = weights(export_id, partitions)
        with self._lock:
            now = self._expire()
            record = self._records.get(export_id)
            if record and not record.export.terminal and record.cut_by == fence == record.fence:
                return (
                    Verdict.CONTINUE
                )  # A repeated call: the caller did not receive the first answer.
            record = self._leased(export_id, fence)
            if record is None:
                return Verdict.LOST
            export = record.export
            if export.cancel_requested:
                return Verdict.CANCEL
            if export.partitions is not None or export.partition is not None:
                raise ValueError(f"export {export_id} was cut before, or is a partition")
            for partition, weight in zip(partitions, shares, strict=True):
                one = Record(
                    Export(
                        spec=export.spec,
                        state=State.PROCESSING,
                        phase=Phase.READY,
                        progress=0.0,
                        created_at=export.created_at,
                        started_at=export.started_at,
                        updated_at=now,
                        partition=partition,
                    ),
                    level=record.level,
                    place=record.place,
                    weight=weight,
                )
                self._records[one.export.id] = one
                self._make_ready(one)
            record.lease_until = None
            record.clean = True
            record.cut_by = fence
            record.set(partitions=len(partitions), phase=Phase.READING, updated_at=now)
            self._counters["exports_cut"] += 1
            return Verdict.CONTINUE

    def partitions(self, export_id: str) -> tuple[Export, ...]:
        with self._lock:
            self._expire()
            record = self._records.get(export_id)
            return tuple(copy(one.export) for one in self._partitions(record)) if record else ()

    def rejoin(self, export_id: str, fence: str) -> Verdict:
        with self._lock:
            now = self._expire()
            record = self._leased(export_id, fence)
            if record is None:
                return Verdict.LOST
            if record.export.cancel_requested:
                return Verdict.CANCEL
            if record.export.partitions == 0:
                return Verdict.CONTINUE
            self._counters["exports_rejoined"] += record.export.partitions is not None
            self._forget_partitions(record)
            record.pages = record.parts = 0
            record.cut_by = None
            record.set(
                partitions=0, checkpoint=None, closing=None, phase=Phase.READING, updated_at=now
            )
            return Verdict.CONTINUE

    def _advance(self, record: Record, progress: float | None, rows: int, now: datetime) -> None:
        before, most = record.export.progress, record.export.rows
        if progress is not None and before < progress < 1:
            record.set(progress=progress)
        record.set(rows=max(most, rows))
        self._advance_parent(
            record, record.export.progress - before, record.export.rows - most, now
        )
        self.outbox.emit_progress(self._parent(record), now)

    def _advance_parent(self, record: Record, share: float, rows: int, now: datetime) -> None:
        """Adds the progress and rows that a partition has gained to its export.

        Does nothing if the record is not a partition.
        """
        if record.export.partition is None:
            return
        parent = self._parent(record)
        before = parent.export.progress
        parent.set(
            rows=parent.export.rows + rows,
            progress=max(before, min(0.99, before + share * record.weight)),
            updated_at=now,
        )

    def _end_partition(self, record: Record, result: Result | None, now: datetime) -> None:
        parent = self._parent(record)
        if result is not None:
            rows = max(result.record_count - record.export.rows, 0)
            self._advance_parent(record, 1 - record.export.progress, rows, now)
            record.set(progress=1.0, result=copy(result))
            self.outbox.emit_progress(parent, now)
        else:
            # Without this partition the other partitions are useless.
            for one in self._live_partitions(parent):
                self._request_stop(one, now)
        if not self._live_partitions(parent):
            parent.set(updated_at=now)
            self._make_ready(parent)

    def _forget_partitions(self, record: Record) -> None:
        for one in self._partitions(record):
            del self._records[one.export.id]

    def _parent(self, record: Record) -> Record:
        """Returns the record of a partition's export; of an export, its own record."""
        return self._records[record.export.spec.id]

    def _partitions(self, record: Record) -> list[Record]:
        # An ended export keeps the number of its partitions, but their records are removed.
        count = 0 if record.export.terminal else record.export.partitions or 0
        return [self._records[f"{record.export.id}/{place}"] for place in range(count)]

    def _live_partitions(self, record: Record) -> list[Record]:
        return [one for one in self._partitions(record) if not one.export.terminal]

    def _request_stop(self, record: Record, now: datetime) -> None:
        if not record.export.cancel_requested:
            record.set(updated_at=now, cancel_requested=True)
        if record.export.phase is Phase.WAITING:
            self._make_ready(record)
        elif record.export.phase is Phase.READY:
            self._wake(record)
        for one in self._live_partitions(record):
            self._request_stop(one, now)

    def _leased(self, export_id: str, fence: str) -> Record | None:
        record = self._records.get(export_id)
        return record if record and record.holds_lease(fence) else None

    def _make_ready(self, record: Record) -> None:
        self._queue.enqueue(record, self._clock.now())
        record.set(phase=Phase.READY, retry_at=None)
        self._wake(record)

    def _wake(self, record: Record) -> None:
        self._wakes.append(Wake(record.export.id, record.level))
