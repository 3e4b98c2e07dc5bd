"""Who is next: the lines of ready exports, as the store in memory keeps them."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec

from exporter.core.exports import Export, Phase
from exporter.store.base import AHEAD, Verdict

LEVELS = range(9, -1, -1)
"""Priorities, the most urgent first."""


@dataclass
class Record:
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
    ready_since: datetime | None = None
    """At its level."""
    deleted: bool = False
    """Its owner may not see it any more."""
    kept: bool = False
    """Its file is not yet known to be deleted."""
    forget_at: datetime | None = None
    payer: str | None = None
    """The key whose credits it took, until that is settled."""
    reserved: int = 0
    """How many."""
    sequence: int = 0
    """Events so far."""
    told: tuple[float, int] = (0.0, 0)
    """What the latest event of progress said."""
    told_at: datetime | None = None
    weight: float = 1.0
    """Of a partition, its share of its export's rows."""
    cut_by: str | None = None
    """The fence with which it was cut into partitions."""

    @property
    def user_id(self) -> str:
        return self.export.user_id

    def set(self, **changes: Any) -> None:
        self.export = msgspec.structs.replace(self.export, **changes)

    @property
    def visible(self) -> bool:
        """To its owner, as neither deleted exports nor partitions are."""
        return not self.deleted and self.export.partition is None

    def holds(self, fence: str) -> bool:
        return self.fence == fence and self.lease_until is not None

    @property
    def phase_at_work(self) -> Phase:
        """While a worker has it: of one that was cut there is nothing to read."""
        export = self.export
        return Phase.COMPLETING if export.closing or export.partitions else Phase.READING

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


class MemoryQueue:
    """The ready ones among all records; a line for each level and user."""

    def __init__(self, records: Mapping[str, Record]) -> None:
        self._records = records
        self._levels = {level: _Level() for level in LEVELS}
        self._turns = itertools.count()

    def enter(self, record: Record, now: datetime) -> None:
        """Put a record at the end of its user's line."""
        level = self._levels[record.level]
        if not any(
            other.turn is not None
            and other.level == record.level
            and other.user_id == record.user_id
            for other in self._records.values()
        ):
            tag = level.tags.get(record.user_id, 0)
            level.tags[record.user_id] = max(tag, level.virtual)
        record.turn = next(self._turns)
        record.ready_since = now

    def best(self, tenant_slots: int) -> Record | None:
        """Who is next, without users that have all their slots and exports whose own bound is
        reached."""
        running = Counter(
            record.user_id for record in self._records.values() if record.lease_until is not None
        )
        passed = Counter[tuple[int, str]]()

        def rank(record: Record) -> tuple[int, int, str, int]:
            tag = self._levels[record.level].tags[record.user_id]
            return -record.level, tag, record.user_id, record.turn or 0

        ready = (record for record in self._records.values() if record.turn is not None)
        for record in sorted(ready, key=rank):
            line, leases = (record.level, record.user_id), running[record.user_id]
            bound = record.export.spec.concurrency
            if (tenant_slots and leases >= tenant_slots) or passed[line] == AHEAD:
                continue
            if bound == 0 or leases < bound:
                return record
            passed[line] += 1
        return None

    def serve(self, record: Record) -> None:
        """Take the best record out of line and charge its user for a slice."""
        level = self._levels[record.level]
        # A user passed over for its cap has a start in the past; it may not save that up.
        level.virtual = max(level.virtual, level.tags[record.user_id])
        level.tags[record.user_id] = level.virtual + 1
        record.turn = None
        record.level = record.export.spec.priority

    def lift(self, now: datetime, ageing: timedelta, limit: int) -> int:
        """Let those ready for `ageing` rise one level, the oldest first; how many rose."""
        old = sorted(
            (record.ready_since, record.export.id)
            for record in self._records.values()
            if record.turn is not None
            and record.level < LEVELS[0]
            and record.ready_since is not None
            and record.ready_since <= now - ageing
        )[:limit]
        for _, export_id in old:
            record = self._records[export_id]
            record.turn = None
            record.level += 1
            self.enter(record, now)
        return len(old)
