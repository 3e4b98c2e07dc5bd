"""Interface of the stores that keep the records of exports, with the values they exchange."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

import msgspec

from exporter.core.checkpoints import Checkpoint
from exporter.core.exports import Export, Partition, Result, Spec, State
from exporter.errors import ExporterError

AGEING_PERIOD = timedelta(minutes=10)
"""Time that an export waits, ready and unclaimed, before its level is raised by one."""
MAX_LOOKAHEAD = 16
"""Exports of one user and level that a claim examines at most.

If all of these must wait because of the concurrency limit of their plan, the user's later exports
at that level wait too.
"""


class KeyReused(ExporterError):
    """The idempotency key was used before with a different request; nothing was created."""


class KeySpent(ExporterError):
    """The export that the idempotency key created is deleted or expired; nothing was created."""


def check_reservation(spec: Spec) -> None:
    """Raises ValueError for an export that could write more rows than the credits it reserves."""
    if spec.reserved < 0 or (
        spec.account and spec.reserved and (spec.limit is None or spec.limit > spec.reserved)
    ):
        raise ValueError(
            f"export {spec.id} reserves {spec.reserved} credits but may write"
            f" {spec.limit or 'any number of'} rows: set its limit to at most {spec.reserved}"
        )


def weights(export_id: str, partitions: Sequence[Partition]) -> list[float]:
    """Returns each partition's share of the rows of all partitions.

    Raises ValueError unless there is at least one partition, the places count from 0 without a
    gap, and each partition has at least one row.
    """
    places = [one.place for one in partitions]
    if not places or places != list(range(len(places))) or min(p.rows for p in partitions) < 1:
        raise ValueError(
            f"export {export_id} cannot be cut into {partitions}: give at least one partition,"
            " number their places from 0, and give each at least one row"
        )
    total = sum(one.rows for one in partitions)
    return [one.rows / total for one in partitions]


class Idempotency(msgspec.Struct, frozen=True):
    """Idempotency key of a create request: all attempts with the key create one export together."""

    key: str
    """Key chosen by the caller; equal keys of two users do not conflict."""
    fingerprint: str
    """Digest of the request: equal for equal requests. Contains no space."""
    ttl: timedelta = timedelta(hours=24)
    """Time after the first attempt in which further attempts are recognized."""


class Verdict(StrEnum):
    """Answer of the store to a worker that presents its fence."""

    CONTINUE = "continue"
    CANCEL = "cancel"
    """The owner canceled the export: stop, clean up, end the export as canceled."""
    LOST = "lost"
    """The fence is stale: the lease was lost or the export has ended. Write nothing."""


class Claim(msgspec.Struct, frozen=True):
    """Lease on one export or partition, with its fence: the right to write until it expires."""

    export: Export
    fence: str
    """Fencing token: a counter that only grows, plus a random nonce.

    The nonce is needed when Redis loses its last write in a power cut: two workers may then have
    the same count, but never the same fence.
    """
    clean: bool
    """True if the previous worker released cleanly, or if there was none: its upload can be
    continued. If false, that worker may still be alive, and its upload must be sealed first."""


class Wake(msgspec.Struct, frozen=True):
    """Hint that an export may be ready. Losing or duplicating it causes no error."""

    export_id: str
    priority: int


class Swept(msgspec.Struct, frozen=True):
    """Counts of one sweep."""

    expired: int
    """Expired leases; their exports are ready again."""
    due: int
    """Waiting exports that were made ready because their retry time was reached."""
    risen: int
    """Exports that were raised one level because they were ready for long."""
    ready: int
    """Exports ready for a worker after the sweep."""


class QueueCounts(msgspec.Struct, frozen=True):
    """Current number of exports in each queue and index; a partition counts as an export."""

    ready: tuple[int, ...]
    """Exports ready for a worker, by level: ten numbers, level 0 first."""
    running: int
    """Exports with a lease."""
    waiting: int
    """Exports that wait for their retry time."""
    wakes: int
    """Wake-ups that no process has received yet."""
    kept_files: int
    """Files of finished exports that are not yet recorded as deleted."""
    deleted: int
    """Deleted exports whose objects may still be in the bucket."""
    since: datetime | None
    """Creation time of this store's first export; None before that. Older files in the bucket are
    unknown to the store."""


class RecordPage(msgspec.Struct, frozen=True):
    """Page of a user's exports, newest first."""

    exports: tuple[Export, ...]
    next_cursor: str | None
    """Cursor of the next page; None on the last page."""


class ExportStore(Protocol):
    """Stores export records; every state change is one atomic, idempotent step.

    The webhook event of a state change is recorded in the same step, if a webhook endpoint
    subscribes to it; a step without a change records no event. A deleted export emits no event.

    Every method raises StoreUnavailable if the store does not answer. A worker presents the fence
    of its claim with each change; a stale fence changes nothing.

    A worker handles a partition like an export: `claim` returns it, and renew, commit, release and
    end take its `Export.id`. Its lease counts as a slice of its user. It is hidden from the owner:
    get, list, request_cancel and delete treat its id as unknown. It emits no event and costs no
    credits.
    """

    def create(self, spec: Spec, idempotency: Idempotency | None = None) -> Export:
        """Records a queued export, adds it to the queue and wakes a worker, all in one step.

        Of all calls with the same user, key and fingerprint, the first creates the export. The
        others return the current record of that export, so its id differs from `spec.id`. Raises
        KeyReused if the user's key was used with another fingerprint, and KeySpent if its export
        is deleted or expired. Two concurrent attempts do not conflict, because the key and the
        export are recorded in the same step.

        The same step reserves `spec.reserved` credits of `spec.account`. Raises CreditsSpent, with
        nothing recorded, if the account has fewer. Every end of the export settles the reservation
        exactly once: rows of a finished file are charged, the rest is given back.
        """

    def get(self, export_id: str) -> Export | None:
        """Returns the record; None if the id is unknown, deleted or that of a partition."""

    def list(self, user_id: str, *, limit: int, cursor: str | None = None) -> RecordPage:
        """Returns a user's exports, newest first. Raises ValueError for a malformed cursor."""

    def claim(self, worker_id: str, *, lease: timedelta, tenant_slots: int = 0) -> Claim | None:
        """Leases the best ready export under a new fence; None if there is none.

        Order: highest level first; within a level, the user served least (start-time fair
        queueing); within a user, the export that was ready first. A user with `tenant_slots` live
        leases is skipped (0: no limit). So is each of the user's first MAX_LOOKAHEAD exports
        whose `concurrency` limit is reached. An export whose record this version cannot read is
        released for other workers, and is failed if none of these can read it either.
        """

    def renew(
        self, export_id: str, fence: str, *, lease: timedelta, progress: float | None = None
    ) -> Verdict:
        """Renews the lease for `lease` from now, and moves progress forward.

        Progress of a partition also advances its export, by the partition's share of the rows.
        """

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
        """Replaces the checkpoint and renews the lease.

        A checkpoint with more pages or parts than any before also resets attempts and stalls. With
        `closing`, the phase becomes completing. Progress and rows of a partition also advance its
        export, as in `renew`.
        """

    def release(
        self,
        export_id: str,
        fence: str,
        *,
        clean: bool,
        retry_in: timedelta | None = None,
        reason: str | None = None,
    ) -> bool:
        """Ends the lease: the export is ready at once, or waits for `retry_in` first.

        A wait sets phase waiting and counts one stall. `clean` promises that no write of this
        worker can still arrive. Returns False if the fence was stale.
        """

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
        """Moves a processing export to a terminal state. Returns False if the fence was stale.

        The rows of a finished export are charged, unless its owner deleted the export meanwhile
        and will never see the file. All partitions of the export are removed.

        The record of an ended partition keeps its final state and checkpoint; `keep_file` and
        `keep_record` do not apply to it. If a partition does not finish, the other partitions are
        requested to stop. When the last partition has ended, the export is made ready, so that one
        worker composes the file or ends the export.
        """

    def cut(self, export_id: str, fence: str, partitions: Sequence[Partition]) -> Verdict:
        """Cuts an export into ready partitions and ends the export's own lease, all in one step.

        Until all partitions have ended, the export is processing and has no lease; the next worker
        that claims it finds phase completing. Returns CANCEL if the owner canceled the export:
        nothing is cut and the lease remains. Raises StoreUnavailable, with nothing cut, also if
        the store is full: the worker can then continue to read the export without partitions.
        Raises ValueError for partitions without rows or not numbered from 0, for an export that
        was cut or rejoined before, and for a partition.
        """

    def partitions(self, export_id: str) -> tuple[Export, ...]:
        """Returns the full records of an export's partitions, in order.

        Partitions of a deleted export are returned too, because its worker has to clean up. Empty
        for an export that is not cut or has ended.
        """

    def rejoin(self, export_id: str, fence: str) -> Verdict:
        """Removes the partitions of an export, which is then read again from the start as one.

        The export can never be cut again. Its checkpoint is removed as well; the caller must
        remove the objects that the partitions left in the bucket. Returns CANCEL, with nothing
        changed, if the owner canceled the export. A second call changes nothing.
        """

    def request_cancel(self, export_id: str, *, keep_record: timedelta) -> Export | None:
        """Cancels a queued export at once; requests a processing export to stop.

        The partitions of a processing export are requested to stop as well. An ended export is not
        changed. Returns the record after that; None if the id is unknown. `keep_record` is how long
        the record of an export that was canceled at once is kept.
        """

    def delete(self, export_id: str, user_id: str) -> State | None:
        """Hides an export for good. Returns its state; None if the user has no such export.

        From now on get, list and cancel treat the export as unknown. A queued export is canceled
        first. A processing export is requested to stop and is removed when its worker has ended
        it, in whatever state. An ended export leaves only its objects, see `deleted_exports`. A
        second call changes nothing and returns the current state, until one minute after the
        export has ended and was deleted; after that it returns None.
        """

    def deleted_exports(self, *, limit: int = 100) -> tuple[str, ...]:
        """Returns ids of ended, deleted exports whose objects may still be in the bucket.

        The export that was removed first comes first.
        """

    def forget_deleted(self, export_id: str) -> bool:
        """Records that a deleted export has no object left in the bucket.

        Returns False if that was recorded before.
        """

    def sweep(self, *, limit: int = 100, ageing: timedelta = AGEING_PERIOD) -> Swept:
        """Makes exports with an expired lease or a reached retry time ready, and raises levels.

        If exports are ready but no wake-up is left, new wake-ups are made.

        An export that was ready for `ageing` without being claimed is raised one level, at most to
        9, and goes to the end of its user's queue at that level. When the export is claimed, its
        level becomes the requested priority again. So the least urgent export competes with the
        most urgent exports after 9 times `ageing`: 90 minutes by default, and longer if more
        exports are ready than sweeps can raise. Each sweep raises at most `limit` exports, the
        oldest first: with one process that sweeps every 5 s, 12,000 exports in 10 minutes.
        """

    def expired_files(self, *, limit: int = 100) -> tuple[Export, ...]:
        """Returns finished exports whose file is past its retention and not recorded as deleted."""

    def forget_file(self, export_id: str) -> bool:
        """Records that the file of a finished export is deleted, and emits `export.expired`.

        Returns False if that was recorded before.
        """

    def trim_lists(self, *, users: int = 10, again: timedelta = timedelta(hours=1)) -> int:
        """Removes expired exports from the lists of up to `users` users.

        Returns the number of lists examined. The list that waits longest is examined first; a list
        is not examined again for the time `again`, unless it was full of expired exports.
        """

    def count(self, what: str, by: int) -> None:
        """Adds `by` to a counter of events that happen outside the store, such as cleaned files."""

    def counters(self) -> Mapping[str, int]:
        """Returns all counters, which start with the first export; see `metrics.COUNTERS`.

        A state change is counted in the step that makes it, so a repeated call counts once.
        """

    def queue_counts(self) -> QueueCounts:
        """Returns the current size of each queue and index; not one atomic snapshot."""

    def cleanup_cursor(self) -> str:
        """Returns the position at which the last cleanup of the bucket stopped; empty at first."""

    def set_cleanup_cursor(self, place: str) -> None:
        """Stores the position at which a cleanup of the bucket stopped."""

    def next_wake(self, *, timeout: timedelta) -> Wake | None:
        """Waits up to `timeout` for a wake-up; None if none came.

        Each wake-up is returned to only one caller.
        """
