"""Queue of ready exports with start-time fair queueing, for the store in memory."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import msgspec

from exporter.core import activity
from exporter.core.activity import Activity
from exporter.core.exports import Export, Phase
from exporter.store.base import MAX_LOOKAHEAD, Verdict

LEVELS = range(9, -1, -1)
"""Levels, the most urgent first; the level of an export is its current priority."""


@dataclass
class Record:
    """The stored state of one export or partition: its public record and fields of the store."""

    export: Export
    level: int
    """Current priority; ageing raises it above the requested priority."""
    place: int
    """Position in the order of creation."""
    fence: str | None = None
    """Fence of the latest claim; None before the first claim and after its lease expired."""
    fences: int = 0
    """Number of claims so far."""
    lease_until: datetime | None = None
    """Expiry of the lease; None without a lease."""
    clean: bool = True
    """Whether nothing of a worker can still reach the object store.

    True if the latest worker released the export cleanly, or if there was none.
    """
    pages: int = 0
    """Highest number of pages in any checkpoint so far.

    Progress is counted from here: when a worker takes over, it falls back to fewer pages, and
    reaching the old number again is no progress. Otherwise an export on which every worker dies
    would seem to advance.
    """
    parts: int = 0
    """Highest number of parts in any checkpoint so far."""
    queue_position: int | None = None
    """Number that orders the queue; None when the export is not ready."""
    ready_since: datetime | None = None
    """Time at which the export became ready at its current level."""
    deleted: bool = False
    """Whether the owner has deleted the export, which hides it."""
    kept: bool = False
    """Whether the export has a file that is not yet recorded as deleted."""
    forget_at: datetime | None = None
    """Time at which the record is removed; None before the export has ended."""
    payer: str | None = None
    """Id of the API key that pays; None without one and after the credits are settled."""
    reserved: int = 0
    """Credits reserved from the payer."""
    sequence: int = 0
    """Number of events so far."""
    last_progress: tuple[float, int] = (0.0, 0)
    """Progress and rows in the latest progress event."""
    last_progress_at: datetime | None = None
    """Time of the latest progress event."""
    weight: float = 1.0
    """The partition's share of its export's rows; 1.0 for an export."""
    cut_by: str | None = None
    """Fence of the claim that cut the export into partitions."""
    activity: tuple[Activity, ...] = ()
    """What happened to the export since it was queued."""

    @property
    def user_id(self) -> str:
        return self.export.user_id

    def set(self, **changes: Any) -> None:
        self.export = msgspec.structs.replace(self.export, **changes)

    def add_activity(self, what: str, by: str = "", detail: str | None = None) -> None:
        """Adds an entry at the time of the latest change."""
        entry = Activity(self.export.updated_at, what, by, detail or "", until=self.export.retry_at)
        self.activity = activity.append(self.activity, entry)

    @property
    def visible(self) -> bool:
        """True if the owner can see the record: it is neither deleted nor a partition."""
        return not self.deleted and self.export.partition is None

    def holds_lease(self, fence: str) -> bool:
        """True if the latest lease has that fence and was not ended.

        An expired lease counts until a sweep ends it.
        """
        return self.fence == fence and self.lease_until is not None

    @property
    def phase_at_work(self) -> Phase:
        """Phase of the export while a worker has its lease.

        It is completing if `closing` is set or the export has partitions, else reading.
        """
        export = self.export
        return Phase.COMPLETING if export.closing or export.partitions else Phase.READING

    @property
    def verdict(self) -> Verdict:
        """CANCEL if the export was requested to stop, else CONTINUE."""
        return Verdict.CANCEL if self.export.cancel_requested else Verdict.CONTINUE


@dataclass
class _Level:
    """Start-time fair queueing between the users of one level, counted in slices.

    Each level has its own virtual time. If all levels shared one, a user who waits at level 0 while
    other users are served at level 9 would be owed many slices, and a new user would have to wait
    for all of them.
    """

    virtual: int = 0
    """Virtual time of the level: the virtual start time of the slice that was claimed last."""
    tags: dict[str, int] = field(default_factory=dict)
    """Virtual start time of each user's next slice; missing if the user was never ready here."""


class MemoryQueue:
    """Ready records, in one queue for each level and user."""

    def __init__(self, records: Mapping[str, Record]) -> None:
        self._records = records
        self._levels = {level: _Level() for level in LEVELS}
        self._queue_positions = itertools.count()
        self._jumps = Counter[str]()
        """Slices of each user claimed while another user waited at a lower level, since the last
        claim that passed nobody over."""

    def enqueue(self, record: Record, now: datetime) -> None:
        """Adds a record at the end of its user's queue."""
        level = self._levels[record.level]
        if not any(
            other.queue_position is not None
            and other.level == record.level
            and other.user_id == record.user_id
            for other in self._records.values()
        ):
            tag = level.tags.get(record.user_id, 0)
            level.tags[record.user_id] = max(tag, level.virtual)
        record.queue_position = next(self._queue_positions)
        record.ready_since = now

    def best(self, tenant_slots: int) -> Record | None:
        """Returns the ready record to claim next; returns None if none may be claimed.

        Skips users with `tenant_slots` leases (0: no limit), and exports whose concurrency limit is
        reached. If another user can be served, also skips a user who was served before waiting
        users of lower levels for as many slices as leases are live, and one more.
        """
        running = Counter(
            record.user_id for record in self._records.values() if record.lease_until is not None
        )
        jumped = {user for user, jumps in self._jumps.items() if jumps > running.total()}
        found = self._best(tenant_slots, running, jumped) if jumped else None
        return found or self._best(tenant_slots, running, set())

    def _best(self, tenant_slots: int, running: Counter[str], skipped: set[str]) -> Record | None:
        passed = Counter[tuple[int, str]]()

        def rank(record: Record) -> tuple[int, int, str, int]:
            tag = self._levels[record.level].tags[record.user_id]
            return -record.level, tag, record.user_id, record.queue_position or 0

        ready = (record for record in self._records.values() if record.queue_position is not None)
        for record in sorted(ready, key=rank):
            line, leases = (record.level, record.user_id), running[record.user_id]
            bound = record.export.spec.concurrency
            if (tenant_slots and leases >= tenant_slots) or passed[line] == MAX_LOOKAHEAD:
                continue
            if record.user_id in skipped:
                continue
            if bound == 0 or leases < bound:
                return record
            passed[line] += 1
        return None

    def position(self, record: Record) -> int | None:
        """Returns the ready records that come before this one, as things stand; None if not ready.

        Without the limits of users and exports, which only a claim knows.
        """
        if record.queue_position is None:
            return None
        ready = [one for one in self._records.values() if one.queue_position is not None]

        def turn(of: Record) -> tuple[int, int, str]:
            """Returns the level, the virtual start of the record's slice, and the user."""
            level = self._levels[of.level]
            before = sum(
                (one.level, one.user_id) == (of.level, of.user_id)
                and (one.queue_position or 0) < (of.queue_position or 0)
                for one in ready
            )
            start = max(level.tags[of.user_id], level.virtual)
            return -of.level, start + before, of.user_id

        own = turn(record)
        return sum(turn(one) < own for one in ready)

    def dequeue(self, record: Record) -> None:
        """Removes a record from the queue, and counts one slice for its user."""
        if any(
            other.queue_position is not None
            and other.level < record.level
            and other.user_id != record.user_id
            for other in self._records.values()
        ):
            self._jumps[record.user_id] += 1
        else:
            self._jumps.clear()
        level = self._levels[record.level]
        # A user skipped because of its concurrency limit must not accumulate credit: its virtual
        # start time is raised to that of the level.
        level.virtual = max(level.virtual, level.tags[record.user_id])
        level.tags[record.user_id] = level.virtual + 1
        record.queue_position = None
        record.level = record.export.spec.priority

    def raise_levels(self, now: datetime, ageing: timedelta, limit: int) -> int:
        """Raises exports that have been ready for `ageing` by one level, the oldest first.

        At most `limit` exports are raised; returns their number.
        """
        old = sorted(
            (record.ready_since, record.export.id)
            for record in self._records.values()
            if record.queue_position is not None
            and record.level < LEVELS[0]
            and record.ready_since is not None
            and record.ready_since <= now - ageing
        )[:limit]
        for _, export_id in old:
            record = self._records[export_id]
            record.queue_position = None
            record.level += 1
            self.enqueue(record, now)
        return len(old)
