"""Outbox of webhook events, in memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta

from exporter.core.events import PROGRESS, Event
from exporter.store.memory.queue import Record

MIN_PROGRESS_INTERVAL = timedelta(seconds=10)
"""Minimum time between two progress events of one export."""


class MemoryOutbox:
    """Records the events of exports that have a subscriber; recorded events are never removed."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._subscriptions = defaultdict[str, set[str]](set)

    def subscribe(self, user_id: str, events: Iterable[str]) -> None:
        """From now on, the events of these names are recorded for all exports of the user."""
        self._subscriptions[user_id].update(events)

    def emit(self, record: Record, kind: str, now: datetime) -> None:
        """Records an event, if it has a subscriber and the owner can see the export."""
        if not record.visible or not self._is_subscribed(record, kind):
            return
        record.sequence += 1
        export = record.export
        self.events.append(
            Event(kind, now, record.sequence, export.progress, record.export.rows, export.id)
        )

    def emit_progress(self, record: Record, now: datetime) -> None:
        """Records a progress event, if the event has a subscriber and progress has changed.

        Does nothing within MIN_PROGRESS_INTERVAL of the export's latest progress event.
        """
        latest = (record.export.progress, record.export.rows)
        if (
            self._is_subscribed(record, PROGRESS)
            and latest != record.last_progress
            and (
                record.last_progress_at is None
                or now - record.last_progress_at >= MIN_PROGRESS_INTERVAL
            )
        ):
            record.last_progress, record.last_progress_at = latest, now
            self.emit(record, PROGRESS, now)

    def _is_subscribed(self, record: Record, kind: str) -> bool:
        hook = record.export.spec.webhook
        return kind in self._subscriptions[record.user_id] or (
            hook is not None and kind in hook.events
        )
