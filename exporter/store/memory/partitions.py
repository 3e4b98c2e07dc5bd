"""How exports come into line, and are cut and put together again, in the store in memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from datetime import datetime

from exporter.clock import Clock
from exporter.core.exports import Export, Partition, Phase, Result, State
from exporter.store.base import Verdict, Wake, weights
from exporter.store.memory.queue import MemoryQueue, Record
from exporter.store.memory.records import MemoryRecords, copy

WAKES = 10_000
"""Wake-ups kept; they are only doorbells, so the oldest may go."""


class MemoryPartitions(MemoryRecords):
    """The part of ExportStore that moves an export and its partitions together."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self._lines = MemoryQueue(self._records)
        self._wakes: deque[Wake] = deque(maxlen=WAKES)

    def cut(self, export_id: str, fence: str, partitions: Sequence[Partition]) -> Verdict:
        shares = weights(export_id, partitions)
        with self._lock:
            now = self._expire()
            record = self._records.get(export_id)
            if record and not record.export.terminal and record.cut_by == fence == record.fence:
                return Verdict.CONTINUE  # It was cut before; the caller did not hear so.
            record = self._held(export_id, fence)
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
                self._line_up(one)
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
            record = self._held(export_id, fence)
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
        self._gain(record, record.export.progress - before, record.export.rows - most, now)
        self.outbox.emit_progress(self._whole(record), now)

    def _gain(self, record: Record, share: float, rows: int, now: datetime) -> None:
        """Move the export of a partition forward by what that gained."""
        if record.export.partition is None:
            return
        whole = self._whole(record)
        before = whole.export.progress
        whole.set(
            rows=whole.export.rows + rows,
            progress=max(before, min(0.99, before + share * record.weight)),
            updated_at=now,
        )

    def _end_partition(self, record: Record, result: Result | None, now: datetime) -> None:
        whole = self._whole(record)
        if result is not None:
            rows = max(result.record_count - record.export.rows, 0)
            self._gain(record, 1 - record.export.progress, rows, now)
            record.set(progress=1.0, result=copy(result))
            self.outbox.emit_progress(whole, now)
        else:
            # One that is not read to its end makes the others useless.
            for one in self._live_partitions(whole):
                self._ask_to_stop(one, now)
        if not self._live_partitions(whole):
            whole.set(updated_at=now)
            self._line_up(whole)

    def _forget_partitions(self, record: Record) -> None:
        for one in self._partitions(record):
            del self._records[one.export.id]

    def _whole(self, record: Record) -> Record:
        """The export itself, of a partition that whose partition it is."""
        return self._records[record.export.spec.id]

    def _partitions(self, record: Record) -> list[Record]:
        # One that has ended still says how many there were.
        count = 0 if record.export.terminal else record.export.partitions or 0
        return [self._records[f"{record.export.id}/{place}"] for place in range(count)]

    def _live_partitions(self, record: Record) -> list[Record]:
        return [one for one in self._partitions(record) if not one.export.terminal]

    def _ask_to_stop(self, record: Record, now: datetime) -> None:
        if not record.export.cancel_requested:
            record.set(updated_at=now, cancel_requested=True)
        if record.export.phase is Phase.WAITING:
            self._line_up(record)
        elif record.export.phase is Phase.READY:
            self._wake(record)
        for one in self._live_partitions(record):
            self._ask_to_stop(one, now)

    def _held(self, export_id: str, fence: str) -> Record | None:
        record = self._records.get(export_id)
        return record if record and record.holds(fence) else None

    def _line_up(self, record: Record) -> None:
        self._lines.enter(record, self._clock.now())
        record.set(phase=Phase.READY, retry_at=None)
        self._wake(record)

    def _wake(self, record: Record) -> None:
        self._wakes.append(Wake(record.export.id, record.level))
