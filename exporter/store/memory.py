"""The export store in plain Python: for tests without a Redis, and to read what the rules are."""

from __future__ import annotations

import itertools
import secrets
import threading
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

import msgspec

from exporter.checkpoints import Checkpoint
from exporter.clock import Clock
from exporter.exports import TRANSITIONS, Export, Phase, Result, Spec, State
from exporter.store import cursors
from exporter.store.base import Claim, RecordPage, Swept, Verdict, Wake

LEVELS = range(9, -1, -1)
"""Priorities, the most urgent first."""
WAKES = 10_000
"""Wake-ups kept; they are only doorbells, so the oldest may go."""
REWAKES = 16
"""Wake-ups that a sweep makes when exports are ready and none is left."""
DUE_PER_CLAIM = 16
"""Waiting exports that a claim makes ready at most."""

_Value = TypeVar("_Value")


@dataclass
class _Record:
    export: Export
    level: int
    place: int
    """In the list of all that were created."""
    fence: str | None = None
    """Of the latest claim; None once its lease expired."""
    fences: int = 0
    lease_until: datetime | None = None
    clean: bool = True
    pages: int = 0
    """Most that any checkpoint had. A takeover goes back to fewer parts, and getting those
    back is not progress: it would hide that every worker dies on this export."""
    parts: int = 0
    turn: int | None = None
    """Its place in line; None when it is not ready."""
    kept: bool = False
    """Its file is not yet known to be deleted."""
    forget_at: datetime | None = None

    @property
    def user_id(self) -> str:
        return self.export.user_id

    def set(self, **changes: Any) -> None:
        self.export = msgspec.structs.replace(self.export, **changes)

    def holds(self, fence: str) -> bool:
        return self.fence == fence and self.lease_until is not None

    def advance(self, progress: float | None) -> None:
        if progress is not None and self.export.progress < progress < 1:
            self.set(progress=progress)

    @property
    def verdict(self) -> Verdict:
        return Verdict.CANCEL if self.export.cancel_requested else Verdict.CONTINUE


@dataclass
class _Level:
    """Who was served how much at one priority, in slices: start-time fair queueing.

    Each priority has its own account. With one for all, a user starved at priority 0 while
    others are served at 9 would be so far behind that a newcomer had to wait for all of it.
    """

    virtual: int = 0
    """Start of the slice claimed last."""
    tags: dict[str, int] = field(default_factory=dict)
    """Where each user's next slice starts, if that is not in the past."""


class MemoryStore:
    """Keeps every promise of ExportStore for as long as this process lives.

    Threads may share it. Time is that of the given clock, and `next_wake` waits on it.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._records: dict[str, _Record] = {}
        self._levels = {level: _Level() for level in LEVELS}
        self._places = itertools.count()
        self._turns = itertools.count()
        self._wakes: deque[Wake] = deque(maxlen=WAKES)

    def create(self, spec: Spec) -> Export:
        if spec.priority not in LEVELS:
            raise ValueError(f"priority {spec.priority} of export {spec.id}: give 0 to 9")
        with self._lock:
            now = self._expire()
            if spec.id not in self._records:
                record = _Record(
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
                self._line_up(record)
            return _copy(self._records[spec.id].export)

    def get(self, export_id: str) -> Export | None:
        with self._lock:
            self._expire()
            record = self._records.get(export_id)
            return _copy(record.export) if record else None

    def list(self, user_id: str, *, limit: int, cursor: str | None = None) -> RecordPage:
        before = cursors.decode(cursor) if cursor is not None else None
        with self._lock:
            self._expire()
            own = [
                record
                for record in reversed(self._records.values())
                if record.user_id == user_id and (before is None or record.place < before)
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
            record = self._best(tenant_slots)
            if record is None:
                return None
            level = self._levels[record.level]
            # A user passed over for its cap has a start in the past; it may not save that up.
            level.virtual = max(level.virtual, level.tags[record.user_id])
            level.tags[record.user_id] = level.virtual + 1
            record.turn = None
            record.fences += 1
            record.fence = f"{record.fences}-{secrets.token_hex(8)}"
            record.lease_until = now + lease
            clean, record.clean = record.clean, False
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
                record.kept = keep_file is not None
                record.set(
                    progress=1.0,
                    result=_copy(result),
                    file_expires_at=now + keep_file if keep_file is not None else None,
                )
            record.forget_at = now + keep_record
            return True

    def request_cancel(self, export_id: str, *, keep_record: timedelta) -> Export | None:
        with self._lock:
            now = self._expire()
            record = self._records.get(export_id)
            if record is None:
                return None
            if record.export.state is State.QUEUED:
                record.turn = None
                record.forget_at = now + keep_record
                record.set(
                    state=State.CANCELED,
                    phase=Phase.DONE,
                    updated_at=now,
                    completed_at=now,
                    cancel_requested=True,
                )
            elif record.export.state is State.PROCESSING:
                if not record.export.cancel_requested:
                    record.set(updated_at=now, cancel_requested=True)
                if record.export.phase is Phase.WAITING:
                    self._line_up(record)
                elif record.export.phase is Phase.READY:
                    self._wake(record)
            return _copy(record.export)

    def sweep(self, *, limit: int = 100) -> Swept:
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
                self._line_up(record)
            due = self._end_waits(now, limit)
            ready = [record for record in self._records.values() if record.turn is not None]
            if not self._wakes:
                ready.sort(key=lambda record: (-record.level, record.turn))
                for record in ready[:REWAKES]:
                    self._wake(record)
            return Swept(expired=len(expired), due=due, ready=len(ready))

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

    def forget_file(self, export_id: str) -> None:
        with self._lock:
            self._expire()
            if export_id in self._records:
                self._records[export_id].kept = False

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
        return now

    def _held(self, export_id: str, fence: str) -> _Record | None:
        record = self._records.get(export_id)
        return record if record and record.holds(fence) else None

    def _line_up(self, record: _Record) -> None:
        level = self._levels[record.level]
        if not any(self._ready(record.level, record.user_id)):
            tag = level.tags.get(record.user_id, 0)
            level.tags[record.user_id] = max(tag, level.virtual)
        record.turn = next(self._turns)
        record.set(phase=Phase.READY, retry_at=None)
        self._wake(record)

    def _wake(self, record: _Record) -> None:
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

    def _ready(self, level: int, user_id: str) -> Iterable[_Record]:
        return (
            record
            for record in self._records.values()
            if record.turn is not None and record.level == level and record.user_id == user_id
        )

    def _best(self, tenant_slots: int) -> _Record | None:
        slots: dict[str, int] = {}
        for record in self._records.values():
            if record.lease_until is not None:
                slots[record.user_id] = slots.get(record.user_id, 0) + 1

        def rank(record: _Record) -> tuple[int, int, str, int]:
            tag = self._levels[record.level].tags[record.user_id]
            return -record.level, tag, record.user_id, record.turn or 0

        eligible = (
            record
            for record in self._records.values()
            if record.turn is not None
            and (tenant_slots == 0 or slots.get(record.user_id, 0) < tenant_slots)
        )
        return min(eligible, key=rank, default=None)


def _copy(value: _Value) -> _Value:
    """What a store of bytes would give back; the caller's own may still change (`Tally`)."""
    return msgspec.json.decode(msgspec.json.encode(value), type=type(value))
