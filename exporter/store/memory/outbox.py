"""What webhooks are to tell, as the store in memory records it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta

from exporter.core.events import PROGRESS, Event
from exporter.store.memory.queue import Record

PROGRESS_EVERY = timedelta(seconds=10)


class MemoryOutbox:
    """The events of exports that somebody listens to. Nobody takes them out."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._listeners = defaultdict[str, set[str]](set)

    def listen(self, user_id: str, events: Iterable[str]) -> None:
        """Record these events of all exports of a user from now on."""
        self._listeners[user_id].update(events)

    def emit(self, record: Record, kind: str, now: datetime) -> None:
        """Record an event of an export, if somebody is to hear of it."""
        if not record.visible or not self._is_heard(record, kind):
            return
        record.sequence += 1
        export = record.export
        self.events.append(
            Event(kind, now, record.sequence, export.progress, record.export.rows, export.id)
        )

    def emit_progress(self, record: Record, now: datetime) -> None:
        """The same of progress: when there was any, and only now and then."""
        says = (record.export.progress, record.export.rows)
        if (
            self._is_heard(record, PROGRESS)
            and says != record.told
            and (record.told_at is None or now - record.told_at >= PROGRESS_EVERY)
        ):
            record.told, record.told_at = says, now
            self.emit(record, PROGRESS, now)

    def _is_heard(self, record: Record, kind: str) -> bool:
        hook = record.export.spec.webhook
        return kind in self._listeners[record.user_id] or (hook is not None and kind in hook.events)
