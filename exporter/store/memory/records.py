"""Reading, listing, counting and expiry of records, for the store in memory."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate
from typing import TypeVar

import msgspec

from exporter.clock import Clock
from exporter.core.exports import Export, State
from exporter.store import codec, list_cursors
from exporter.store.base import MAX_LIVE, MAX_PAGE_BYTES, Live, RecordPage
from exporter.store.filters import NO_FILTERS, Filters, StateCounts
from exporter.store.memory.outbox import MemoryOutbox
from exporter.store.memory.queue import Record

_Value = TypeVar("_Value")


@dataclass
class IdempotencyEntry:
    """An idempotency key and the export that it created; removed when the key expires."""

    fingerprint: str
    export_id: str
    forget_at: datetime


class MemoryRecords:
    """The methods of ExportStore that do not change the state of an export."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.RLock()
        self._records: dict[str, Record] = {}
        self._keys: dict[tuple[str, str], IdempotencyEntry] = {}
        self._deleted: dict[str, datetime] = {}
        self._counters = Counter[str]()
        self.outbox = MemoryOutbox()
        self._since: datetime | None = None
        self._cleanup_cursor = ""

    def get(self, export_id: str) -> Export | None:
        with self._lock:
            self._expire()
            record = self._visible(export_id)
            return copy(record.export) if record else None

    def show(self, export_id: str) -> Export | None:
        export = self.get(export_id)
        return _without_checkpoint(export) if export else None

    def live(self, user_id: str | None, newest: int | None) -> Live:
        with self._lock:
            self._expire()
            own = self._matching(user_id, NO_FILTERS)
            ids = {
                state: tuple(one.export.id for one in own if one.export.state is state)[:MAX_LIVE]
                for state in (State.QUEUED, State.PROCESSING)
            }
            created = [one.export.id for one in own if newest is not None and one.place > newest]
            return Live(
                queued=ids[State.QUEUED],
                running=ids[State.PROCESSING],
                created=tuple(created[-MAX_LIVE:]),
                newest=max((one.place for one in own), default=-1 if newest is None else newest),
            )

    def changed(self, export_ids: Sequence[str]) -> Sequence[datetime | None]:
        with self._lock:
            found = [self._visible(one) for one in export_ids]
            return [one.export.updated_at if one else None for one in found]

    def list(
        self,
        user_id: str | None,
        *,
        limit: int,
        cursor: str | None = None,
        filters: Filters = NO_FILTERS,
    ) -> RecordPage:
        start = list_cursors.decode(cursor, filters.tag) if cursor is not None else None
        with self._lock:
            self._expire()
            own = [
                record
                for record in self._matching(user_id, filters)
                if start is None
                or (record.place > start if filters.oldest_first else record.place < start)
            ]
            sizes = accumulate(len(codec.encode(record.export.spec)) for record in own[:limit])
            fitting = sum(size <= MAX_PAGE_BYTES for size in sizes)
            page = own[: max(fitting, 1)]
            more = len(own) > len(page)
            return RecordPage(
                exports=tuple(_without_checkpoint(record.export) for record in page),
                next_cursor=list_cursors.encode(page[-1].place, filters.tag) if more else None,
            )

    def count_states(self, user_id: str | None, filters: Filters = NO_FILTERS) -> StateCounts:
        others = msgspec.structs.replace(filters, states=())
        with self._lock:
            self._expire()
            found = Counter(record.export.state for record in self._matching(user_id, others))
        return StateCounts({state: found[state] for state in State})

    def _matching(self, user_id: str | None, filters: Filters) -> Sequence[Record]:
        """Returns the visible records of a user, or of all, that meet the filters, in order."""
        found = [
            record
            for record in self._records.values()
            if record.visible and user_id in (None, record.user_id) and filters.match(record.export)
        ]
        return found if filters.oldest_first else found[::-1]

    def deleted_exports(self, *, limit: int = 100) -> tuple[str, ...]:
        with self._lock:
            gone = sorted((since, export_id) for export_id, since in self._deleted.items())
            return tuple(export_id for _, export_id in gone[:limit])

    def forget_deleted(self, export_id: str) -> bool:
        with self._lock:
            return self._deleted.pop(export_id, None) is not None

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
            return tuple(copy(self._records[export_id].export) for _, export_id in past[:limit])

    def forget_file(self, export_id: str) -> bool:
        with self._lock:
            now = self._expire()
            record = self._records.get(export_id)
            if record is None or not record.kept:
                return False
            record.kept = False
            self.outbox.emit(record, "export.expired", now)
            return True

    def trim_lists(self, *, users: int = 10, again: timedelta = timedelta(hours=1)) -> int:
        del users, again
        return 0  # Lists are made from the live records, so expired exports are never in a list.

    def count(self, what: str, by: int) -> None:
        with self._lock:
            self._counters[what] += by

    def counters(self) -> Mapping[str, int]:
        with self._lock:
            return +self._counters

    def cleanup_cursor(self) -> str:
        return self._cleanup_cursor

    def set_cleanup_cursor(self, place: str) -> None:
        self._cleanup_cursor = place

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
        return record if record is not None and record.visible else None


def copy(value: _Value) -> _Value:
    """Returns a deep copy, so that changes by the caller have no effect on the stored value."""
    return msgspec.json.decode(codec.encode(value), type=type(value))


def _without_checkpoint(export: Export) -> Export:
    return copy(msgspec.structs.replace(export, checkpoint=None, closing=None))
