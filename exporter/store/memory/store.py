"""An export store in plain Python: for tests without Redis, and as the readable specification."""

from __future__ import annotations

import itertools
import secrets
from collections import Counter
from datetime import datetime, timedelta

from exporter.clock import Clock
from exporter.core import activity, public_text
from exporter.core.activity import Activity
from exporter.core.checkpoints import Checkpoint
from exporter.core.exports import Export, Phase, Result, Spec, State, WrongAnswers
from exporter.store import codec
from exporter.store.base import (
    AGEING_PERIOD,
    NO_QUOTA,
    Claim,
    Idempotency,
    KeyReused,
    KeySpent,
    QueueCounts,
    Quota,
    Swept,
    Verdict,
    Wake,
    check_create,
    check_end,
    limit_reached,
)
from exporter.store.memory.credit_accounts import MemoryAccounts
from exporter.store.memory.partitions import MemoryPartitions
from exporter.store.memory.queue import LEVELS, Record
from exporter.store.memory.records import IdempotencyEntry, copy

MAX_REWAKES = 16
"""Maximum number of wake-ups that one sweep makes.

A sweep makes wake-ups if exports are ready but no wake-up is left.
"""
MAX_DUE_PER_CLAIM = 16
"""Maximum number of waiting exports that one claim makes ready at the end of their wait."""

TOMBSTONE_TTL = timedelta(minutes=1)
"""Time for which the record of a deleted export is kept after the export has ended.

During that time, a repeated delete is answered with the export's state.
"""


class MemoryStore(MemoryPartitions):
    """Keeps all guarantees of ExportStore as long as this process runs.

    Thread-safe. All times come from the given clock, and `next_wake` sleeps on that clock.
    """

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock)
        self.accounts = MemoryAccounts(self._lock, self._counters)
        self._places = itertools.count()

    def create(
        self, spec: Spec, idempotency: Idempotency | None = None, quota: Quota = NO_QUOTA
    ) -> Export:
        check_create(spec)
        with self._lock:
            now = self._expire()
            if idempotency is not None:
                known = self._keys.get((spec.user_id, idempotency.key))
                if known and known.fingerprint != idempotency.fingerprint:
                    raise KeyReused(idempotency.key)
                if known and known.export_id != spec.id:
                    first = self._visible(known.export_id)
                    ended = first is None or first.export.terminal
                    if first is None and not idempotency.until_ended:
                        raise KeySpent(idempotency.key)
                    if first is not None and not (ended and idempotency.until_ended):
                        self._counters["exports_replayed"] += 1
                        return copy(first.export)
            if spec.id not in self._records:
                self._check_quota(spec, quota)
                reserved = self.accounts.reserve(spec)
                record = Record(
                    Export(
                        spec=copy(spec),
                        state=State.QUEUED,
                        phase=Phase.READY,
                        progress=0.0,
                        created_at=now,
                        updated_at=now,
                    ),
                    level=spec.priority,
                    place=next(self._places),
                    payer=spec.account,
                    reserved=reserved,
                )
                self._records[spec.id] = record
                if idempotency is not None:
                    self._keys[spec.user_id, idempotency.key] = IdempotencyEntry(
                        idempotency.fingerprint, spec.id, now + idempotency.ttl
                    )
                self._since = self._since or now
                self._counters["exports_created"] += 1
                self._make_ready(record)
                self.outbox.emit(record, "export.queued", now)
            return copy(self._records[spec.id].export)

    def _check_quota(self, spec: Spec, quota: Quota) -> None:
        """Raises LimitReached if one more record would exceed the quota of its user."""
        own = [
            record.export
            for record in self._records.values()
            if record.user_id == spec.user_id and record.export.partition is None
        ]
        size = len(codec.encode(spec)) + sum(len(codec.encode(export.spec)) for export in own)
        counts = {
            "queued": (1 + sum(not export.terminal for export in own), quota.queued),
            "kept": (1 + len(own), quota.kept),
            "bytes": (size, quota.stored_bytes),
        }
        for name, (count, most) in counts.items():
            if 0 < most < count:
                raise limit_reached(name, quota)

    def claim(self, worker_id: str, *, lease: timedelta, tenant_slots: int = 0) -> Claim | None:
        with self._lock:
            now = self._expire()
            self._end_waits(now, MAX_DUE_PER_CLAIM)
            record = self._queue.best(tenant_slots)
            if record is None:
                return None
            self._queue.dequeue(record)
            record.fences += 1
            record.fence = f"{record.fences}-{secrets.token_hex(8)}"
            record.lease_until = now + lease
            clean, record.clean = record.clean, False
            self._counters["slices_claimed"] += 1
            self._counters["takeovers"] += not clean
            is_start = record.export.started_at is None
            record.set(
                state=State.PROCESSING,
                phase=record.phase_at_work,
                started_at=record.export.started_at or now,
                updated_at=now,
                worker_id=worker_id,
                retry_at=None,
            )
            if is_start:
                self.outbox.emit(record, "export.started", now)
            if record.export.partition is None:
                record.add_activity(
                    "started" if is_start else "slice" if clean else "takeover", worker_id
                )
            elif not clean:
                self._add_activity_of_partition(record, "takeover", worker_id, "")
            return Claim(export=copy(record.export), fence=record.fence, clean=clean)

    def renew(
        self, export_id: str, fence: str, *, lease: timedelta, progress: float | None = None
    ) -> Verdict:
        with self._lock:
            now = self._expire()
            record = self._leased(export_id, fence)
            if record is None:
                return Verdict.LOST
            record.lease_until = now + lease
            record.set(updated_at=now)
            self._advance(record, progress, 0, now)
            return record.verdict

    def commit(
        self,
        export_id: str,
        fence: str,
        checkpoint: Checkpoint,
        *,
        lease: timedelta,
        progress: float,
        closing: Result | None = None,
    ) -> Verdict:
        with self._lock:
            now = self._expire()
            record = self._leased(export_id, fence)
            if record is None:
                return Verdict.LOST
            record.lease_until = now + lease
            record.set(updated_at=now, checkpoint=copy(checkpoint), closing=copy(closing))
            record.set(phase=record.phase_at_work)
            if checkpoint.pages > record.pages or len(checkpoint.parts) > record.parts:
                record.set(attempts=0, stalls=0, stalled_since=None, error=None, wrong_answers=None)
                record.pages = max(record.pages, checkpoint.pages)
                record.parts = max(record.parts, len(checkpoint.parts))
            self._advance(record, progress, checkpoint.rows, now)
            return record.verdict

    def release(
        self,
        export_id: str,
        fence: str,
        *,
        clean: bool,
        retry_in: timedelta | None = None,
        reason: str | None = None,
        wrong_answers: WrongAnswers | None = None,
    ) -> bool:
        with self._lock:
            now = self._expire()
            record = self._records.get(export_id)
            if record is None or record.export.terminal or record.fence != fence:
                return False
            if record.lease_until is None:
                return True  # A repeated call: the caller did not receive the first answer.
            record.lease_until = None
            record.clean = clean
            record.set(updated_at=now)
            if retry_in is None:
                self._make_ready(record)
            else:
                self._counters["stalls"] += 1
                record.set(
                    phase=Phase.WAITING,
                    retry_at=now + retry_in,
                    stalls=record.export.stalls + 1,
                    stalled_since=record.export.stalled_since or now,
                    error=reason and public_text.without_addresses(reason),
                    wrong_answers=wrong_answers,
                )
                if record.export.partition is None:
                    record.add_activity("waiting", detail=record.export.error)
                else:
                    self._add_activity_of_partition(
                        record, "waiting", "", record.export.error or ""
                    )
            return True

    def end(
        self,
        export_id: str,
        fence: str,
        state: State,
        *,
        result: Result | None = None,
        error: str | None = None,
        keep_file: timedelta | None = None,
        keep_record: timedelta,
        charged: int | None = None,
    ) -> bool:
        check_end(export_id, state, result)
        with self._lock:
            now = self._expire()
            known = self._records.get(export_id)
            if known and known.fence == fence and known.export.state is state:
                return True
            record = self._leased(export_id, fence)
            if record is None:
                return False
            self._forget_partitions(record)
            record.lease_until = None
            record.set(
                state=state,
                phase=Phase.DONE,
                updated_at=now,
                completed_at=now,
                closing=None,
                error=error and public_text.without_addresses(error),
            )
            if record.export.partition is not None:
                self._end_partition(record, result, now)
                return True
            record.set(checkpoint=None)
            if state is State.FINISHED:
                assert result is not None
                self._counters["rows"] += result.record_count
                self._counters["file_bytes"] += result.file_size
                record.kept = keep_file is not None and not record.deleted
                record.set(
                    progress=1.0,
                    result=copy(result),
                    file_expires_at=now + keep_file if keep_file is not None else None,
                )
            record.forget_at = now + keep_record
            record.add_activity(
                "published" if state is State.FINISHED else state,
                record.export.worker_id or "",
                record.export.error,
            )
            self._counters[f"exports_{state}"] += 1
            payable = result.record_count if result is not None and not record.deleted else 0
            if not payable and charged is not None and state is not State.FAILED:
                payable = max(charged, record.export.rows)
            self.accounts.settle(record, payable)
            self.outbox.emit(record, f"export.{state}", now)
            if record.deleted:
                self._leave_tombstone(record, now)
            return True

    def request_cancel(
        self, export_id: str, *, keep_record: timedelta, by: str = ""
    ) -> Export | None:
        with self._lock:
            now = self._expire()
            record = self._visible(export_id)
            if record is None:
                return None
            if record.export.state is State.QUEUED:
                self._cancel_queued(record, now)
                record.forget_at = now + keep_record
                record.add_activity("canceled", by)
            elif record.export.state is State.PROCESSING:
                is_requested = record.export.cancel_requested
                self._request_stop(record, now)
                if not is_requested:
                    record.add_activity("canceled", by, "requested")
            return copy(record.export)

    def activity(self, export_id: str) -> tuple[Activity, ...]:
        with self._lock:
            self._expire()
            record = self._visible(export_id)
            return record.activity if record else ()

    def note(self, export_id: str, what: str, by: str, detail: str = "") -> bool:
        with self._lock:
            now = self._expire()
            record = self._visible(export_id)
            if record is not None:
                entry = Activity(now, what, by, detail)
                record.activity = activity.append(record.activity, entry)
            return record is not None

    def queue_position(self, export_id: str) -> int | None:
        with self._lock:
            self._expire()
            record = self._visible(export_id)
            return self._queue.position(record) if record else None

    def _add_activity_of_partition(self, record: Record, what: str, by: str, detail: str) -> None:
        assert record.export.partition is not None
        place = f"partition {record.export.partition.place}"
        parent = self._parent(record)
        detail = f"{place}: {detail}" if detail else place
        entry = Activity(record.export.updated_at, what, by, detail, until=record.export.retry_at)
        parent.activity = activity.append(parent.activity, entry)

    def delete(self, export_id: str, user_id: str | None) -> State | None:
        with self._lock:
            now = self._expire()
            record = self._records.get(export_id)
            if record is None or user_id not in (None, record.user_id):
                return None
            if record.export.partition is not None:
                return None
            if record.deleted:
                return record.export.state
            record.deleted = True
            record.kept = False
            self._counters["exports_deleted"] += 1
            if record.export.state is State.PROCESSING:
                self._request_stop(record, now)
            else:
                if record.export.state is State.QUEUED:
                    self._cancel_queued(record, now)
                self._leave_tombstone(record, now)
            return record.export.state

    def sweep(self, *, limit: int = 100, ageing: timedelta = AGEING_PERIOD) -> Swept:
        with self._lock:
            now = self._expire()
            expired = sorted(
                (record.lease_until, record.export.id)
                for record in self._records.values()
                if record.lease_until is not None and record.lease_until <= now
            )[:limit]
            for _, export_id in expired:
                record = self._records[export_id]
                record.lease_until = None
                record.fence = None
                record.set(updated_at=now, attempts=record.export.attempts + 1)
                self._counters["leases_expired"] += 1
                self._make_ready(record)
            due = self._end_waits(now, limit)
            risen = self._queue.raise_levels(now, ageing, limit)
            self._counters["levels_risen"] += risen
            ready = [
                record for record in self._records.values() if record.queue_position is not None
            ]
            if not self._wakes:
                ready.sort(key=lambda record: (-record.level, record.queue_position))
                for record in ready[:MAX_REWAKES]:
                    self._wake(record)
            return Swept(expired=len(expired), due=due, risen=risen, ready=len(ready))

    def queue_counts(self) -> QueueCounts:
        with self._lock:
            self._expire()
            records = list(self._records.values())
            ready = Counter(record.level for record in records if record.queue_position is not None)
            return QueueCounts(
                ready=tuple(ready[level] for level in reversed(LEVELS)),
                running=sum(record.lease_until is not None for record in records),
                waiting=sum(record.export.retry_at is not None for record in records),
                wakes=len(self._wakes),
                kept_files=sum(record.kept for record in records),
                deleted=len(self._deleted),
                since=self._since,
            )

    def next_wake(self, *, timeout: timedelta) -> Wake | None:
        with self._lock:
            if self._wakes:
                return self._wakes.popleft()
        self._clock.sleep(timeout.total_seconds())
        with self._lock:
            return self._wakes.popleft() if self._wakes else None

    def _cancel_queued(self, record: Record, now: datetime) -> None:
        record.queue_position = None
        record.set(
            state=State.CANCELED,
            phase=Phase.DONE,
            updated_at=now,
            completed_at=now,
            cancel_requested=True,
        )
        self._counters["exports_canceled"] += 1
        self.accounts.settle(record, 0)
        self.outbox.emit(record, "export.canceled", now)

    def _leave_tombstone(self, record: Record, now: datetime) -> None:
        self._deleted[record.export.id] = now
        record.forget_at = now + TOMBSTONE_TTL

    def _end_waits(self, now: datetime, limit: int) -> int:
        due = sorted(
            (record.export.retry_at, record.export.id)
            for record in self._records.values()
            if record.export.retry_at is not None and record.export.retry_at <= now
        )[:limit]
        for _, export_id in due:
            self._records[export_id].set(updated_at=now)
            self._make_ready(self._records[export_id])
        return len(due)
