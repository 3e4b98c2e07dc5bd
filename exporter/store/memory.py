"""The export store in plain Python: for tests without a Redis, and to read what the rules are."""

from __future__ import annotations

import itertools
import secrets
import threading
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TypeVar

import msgspec

from exporter.checkpoints import Checkpoint
from exporter.clock import Clock
from exporter.exports import TRANSITIONS, Export, Phase, Result, Spec, State
from exporter.store import cursors, texts
from exporter.store.base import (
    AGEING,
    Census,
    Claim,
    Idempotency,
    KeyReused,
    KeySpent,
    RecordPage,
    Swept,
    Verdict,
    Wake,
)
from exporter.store.lines import LEVELS, Lines, Record

WAKES = 10_000
"""Wake-ups kept; they are only doorbells, so the oldest may go."""
REWAKES = 16
"""Wake-ups that a sweep makes when exports are ready and none is left."""
DUE_PER_CLAIM = 16
"""Waiting exports that a claim makes ready at most."""

TOMBSTONE = timedelta(minutes=1)
"""How long a deleted export that has ended still says so to whoever deletes it again."""

_Value = TypeVar("_Value")


@dataclass
class _Key:
    """What an idempotency key created."""

    fingerprint: str
    export_id: str
    forget_at: datetime


class MemoryStore:
    """Keeps every promise of ExportStore for as long as this process lives.

    Threads may share it. Time is that of the given clock, and `next_wake` waits on it.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._records: dict[str, Record] = {}
        self._lines = Lines(self._records)
        self._places = itertools.count()
        self._wakes: deque[Wake] = deque(maxlen=WAKES)
        self._keys: dict[tuple[str, str], _Key] = {}
        self._deleted: dict[str, datetime] = {}
        self._counters = Counter[str]()
        self._since: datetime | None = None
        self._bookmark = ""

    def create(self, spec: Spec, idempotency: Idempotency | None = None) -> Export:
        if spec.priority not in LEVELS:
            raise ValueError(f"priority {spec.priority} of export {spec.id}: give 0 to 9")
        with self._lock:
            now = self._expire()
            if idempotency is not None:
                known = self._keys.get((spec.user_id, idempotency.key))
                if known and known.fingerprint != idempotency.fingerprint:
                    raise KeyReused(
                        f"idempotency key {idempotency.key!r} came with another request"
                    )
                if known and known.export_id != spec.id:
                    first = self._visible(known.export_id)
                    if first is None:
                        raise KeySpent(f"the export of key {idempotency.key!r} is no more")
                    self._counters["exports_replayed"] += 1
                    return _copy(first.export)
            if spec.id not in self._records:
                record = Record(
                    Export(
                        spec=_copy(spec),
                        state=State.QUEUED,
                        phase=Phase.READY,
                        progress=0.0,
                        created_at=now,
                        updated_at=now,
                    ),
                    level=spec.priority,
                    place=next(self._places),
                )
                self._records[spec.id] = record
                if idempotency is not None:
                    self._keys[spec.user_id, idempotency.key] = _Key(
                        idempotency.fingerprint, spec.id, now + idempotency.lasts
                    )
                self._since = self._since or now
                self._counters["exports_created"] += 1
                self._line_up(record)
            return _copy(self._records[spec.id].export)

    def get(self, export_id: str) -> Export | None:
        with self._lock:
            self._expire()
            record = self._visible(export_id)
            return _copy(record.export) if record else None

    def list(self, user_id: str, *, limit: int, cursor: str | None = None) -> RecordPage:
        before = cursors.decode(cursor) if cursor is not None else None
        with self._lock:
            self._expire()
            own = [
                record
                for record in reversed(self._records.values())
                if record.user_id == user_id
                and not record.deleted
                and (before is None or record.place < before)
            ]
            page = own[:limit]
            return RecordPage(
                exports=tuple(_copy(record.export) for record in page),
                next_cursor=cursors.encode(page[-1].place) if page and len(own) > limit else None,
            )

    def claim(self, worker_id: str, *, lease: timedelta, tenant_slots: int = 0) -> Claim | None:
        with self._lock:
            now = self._expire()
            self._end_waits(now, DUE_PER_CLAIM)
            record = self._lines.best(tenant_slots)
            if record is None:
                return None
            self._lines.serve(record)
            record.fences += 1
            record.fence = f"{record.fences}-{secrets.token_hex(8)}"
            record.lease_until = now + lease
            clean, record.clean = record.clean, False
            self._counters["slices_claimed"] += 1
            self._counters["takeovers"] += not clean
            record.set(
                state=State.PROCESSING,
                phase=Phase.COMPLETING if record.export.closing else Phase.READING,
                started_at=record.export.started_at or now,
                updated_at=now,
                worker_id=worker_id,
                retry_at=None,
            )
            return Claim(export=_copy(record.export), fence=record.fence, clean=clean)

    def renew(
        self, export_id: str, fence: str, *, lease: timedelta, progress: float | None = None
    ) -> Verdict:
        with self._lock:
            now = self._expire()
            record = self._held(export_id, fence)
            if record is None:
                return Verdict.LOST
            record.lease_until = now + lease
            record.set(updated_at=now)
            record.advance(progress)
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
            record = self._held(export_id, fence)
            if record is None:
                return Verdict.LOST
            record.lease_until = now + lease
            record.set(
                updated_at=now,
                checkpoint=_copy(checkpoint),
                closing=_copy(closing),
                phase=Phase.COMPLETING if closing else Phase.READING,
            )
            record.advance(progress)
            if checkpoint.pages > record.pages or len(checkpoint.parts) > record.parts:
                record.set(attempts=0, stalls=0, stalled_since=None, error=None)
                record.pages = max(record.pages, checkpoint.pages)
                record.parts = max(record.parts, len(checkpoint.parts))
            return record.verdict

    def release(
        self,
        export_id: str,
        fence: str,
        *,
        clean: bool,
        retry_in: timedelta | None = None,
        reason: str | None = None,
    ) -> bool:
        with self._lock:
            now = self._expire()
            record = self._records.get(export_id)
            if record is None or record.export.terminal or record.fence != fence:
                return False
            if record.lease_until is None:
                return True  # This fence gave it back before; its caller did not hear so.
            record.lease_until = None
            record.clean = clean
            record.set(updated_at=now)
            if retry_in is None:
                self._line_up(record)
            else:
                self._counters["stalls"] += 1
                record.set(
                    phase=Phase.WAITING,
                    retry_at=now + retry_in,
                    stalls=record.export.stalls + 1,
                    stalled_since=record.export.stalled_since or now,
                    error=reason,
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
    ) -> bool:
        if state not in TRANSITIONS[State.PROCESSING]:
            raise ValueError(f"export {export_id} cannot end as {state}: that is no terminal state")
        if (state is State.FINISHED) != (result is not None):
            raise ValueError(f"export {export_id} ends as {state}: a result is for finished alone")
        with self._lock:
            now = self._expire()
            known = self._records.get(export_id)
            if known and known.fence == fence and known.export.state is state:
                return True
            record = self._held(export_id, fence)
            if record is None:
                return False
            record.lease_until = None
            record.set(
                state=state,
                phase=Phase.DONE,
                updated_at=now,
                completed_at=now,
                checkpoint=None,
                closing=None,
                error=error,
            )
            if state is State.FINISHED:
                assert result is not None
                self._counters["rows"] += result.record_count
                self._counters["file_bytes"] += result.file_size
                record.kept = keep_file is not None and not record.deleted
                record.set(
                    progress=1.0,
                    result=_copy(result),
                    file_expires_at=now + keep_file if keep_file is not None else None,
                )
            record.forget_at = now + keep_record
            self._counters[f"exports_{state}"] += 1
            if record.deleted:
                self._bury(record, now)
            return True

    def request_cancel(self, export_id: str, *, keep_record: timedelta) -> Export | None:
        with self._lock:
            now = self._expire()
            record = self._visible(export_id)
            if record is None:
                return None
            if record.export.state is State.QUEUED:
                self._withdraw(record, now)
                record.forget_at = now + keep_record
            elif record.export.state is State.PROCESSING:
                self._ask_to_stop(record, now)
            return _copy(record.export)

    def delete(self, export_id: str, user_id: str) -> State | None:
        with self._lock:
            now = self._expire()
            record = self._records.get(export_id)
            if record is None or record.user_id != user_id:
                return None
            if record.deleted:
                return record.export.state
            record.deleted = True
            record.kept = False
            self._counters["exports_deleted"] += 1
            if record.export.state is State.PROCESSING:
                self._ask_to_stop(record, now)
            else:
                if record.export.state is State.QUEUED:
                    self._withdraw(record, now)
                self._bury(record, now)
            return record.export.state

    def deleted_exports(self, *, limit: int = 100) -> tuple[str, ...]:
        with self._lock:
            gone = sorted((since, export_id) for export_id, since in self._deleted.items())
            return tuple(export_id for _, export_id in gone[:limit])

    def forget_deleted(self, export_id: str) -> bool:
        with self._lock:
            return self._deleted.pop(export_id, None) is not None

    def sweep(self, *, limit: int = 100, ageing: timedelta = AGEING) -> Swept:
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
                self._line_up(record)
            due = self._end_waits(now, limit)
            risen = self._lines.lift(now, ageing, limit)
            self._counters["levels_risen"] += risen
            ready = [record for record in self._records.values() if record.turn is not None]
            if not self._wakes:
                ready.sort(key=lambda record: (-record.level, record.turn))
                for record in ready[:REWAKES]:
                    self._wake(record)
            return Swept(expired=len(expired), due=due, risen=risen, ready=len(ready))

    def expired_files(self, *, limit: int = 100) -> tuple[Export, ...]:
        with self._lock:
            now = self._expire()
            past = sorted(
                (record.export.file_expires_at, record.export.id)
                for record in self._records.values()
                if record.kept
                and record.export.file_expires_at is not None
                and record.export.file_expires_at <= now
            )
            return tuple(_copy(self._records[export_id].export) for _, export_id in past[:limit])

    def forget_file(self, export_id: str) -> bool:
        with self._lock:
            self._expire()
            record = self._records.get(export_id)
            was_kept = record is not None and record.kept
            if record is not None:
                record.kept = False
            return was_kept

    def trim_lists(self, *, users: int = 10, again: timedelta = timedelta(hours=1)) -> int:
        del users, again
        return 0  # Lists are made from the records, so that no expired one is in them.

    def count(self, what: str, by: int) -> None:
        with self._lock:
            self._counters[what] += by

    def counters(self) -> Mapping[str, int]:
        with self._lock:
            return +self._counters

    def census(self) -> Census:
        with self._lock:
            self._expire()
            records = list(self._records.values())
            ready = Counter(record.level for record in records if record.turn is not None)
            return Census(
                ready=tuple(ready[level] for level in reversed(LEVELS)),
                running=sum(record.lease_until is not None for record in records),
                waiting=sum(record.export.retry_at is not None for record in records),
                wakes=len(self._wakes),
                kept_files=sum(record.kept for record in records),
                deleted=len(self._deleted),
                since=self._since,
            )

    def bookmark(self) -> str:
        return self._bookmark

    def set_bookmark(self, place: str) -> None:
        self._bookmark = place

    def next_wake(self, *, timeout: timedelta) -> Wake | None:
        with self._lock:
            if self._wakes:
                return self._wakes.popleft()
        self._clock.sleep(timeout.total_seconds())
        with self._lock:
            return self._wakes.popleft() if self._wakes else None

    def _expire(self) -> datetime:
        now = self._clock.now()
        gone = [
            export_id
            for export_id, record in self._records.items()
            if record.forget_at is not None and record.forget_at <= now
        ]
        for export_id in gone:
            del self._records[export_id]
        for name, key in list(self._keys.items()):
            if key.forget_at <= now:
                del self._keys[name]
        return now

    def _visible(self, export_id: str) -> Record | None:
        record = self._records.get(export_id)
        return record if record is not None and not record.deleted else None

    def _withdraw(self, record: Record, now: datetime) -> None:
        record.turn = None
        record.set(
            state=State.CANCELED,
            phase=Phase.DONE,
            updated_at=now,
            completed_at=now,
            cancel_requested=True,
        )
        self._counters["exports_canceled"] += 1

    def _ask_to_stop(self, record: Record, now: datetime) -> None:
        if not record.export.cancel_requested:
            record.set(updated_at=now, cancel_requested=True)
        if record.export.phase is Phase.WAITING:
            self._line_up(record)
        elif record.export.phase is Phase.READY:
            self._wake(record)

    def _bury(self, record: Record, now: datetime) -> None:
        self._deleted[record.export.id] = now
        record.forget_at = now + TOMBSTONE

    def _held(self, export_id: str, fence: str) -> Record | None:
        record = self._records.get(export_id)
        return record if record and record.holds(fence) else None

    def _line_up(self, record: Record) -> None:
        self._lines.enter(record, self._clock.now())
        record.set(phase=Phase.READY, retry_at=None)
        self._wake(record)

    def _wake(self, record: Record) -> None:
        self._wakes.append(Wake(record.export.id, record.level))

    def _end_waits(self, now: datetime, limit: int) -> int:
        due = sorted(
            (record.export.retry_at, record.export.id)
            for record in self._records.values()
            if record.export.retry_at is not None and record.export.retry_at <= now
        )[:limit]
        for _, export_id in due:
            self._records[export_id].set(updated_at=now)
            self._line_up(self._records[export_id])
        return len(due)


def _copy(value: _Value) -> _Value:
    """What a store of bytes would give back; the caller's own may still change (`Tally`)."""
    return msgspec.json.decode(texts.encode(value), type=type(value))
