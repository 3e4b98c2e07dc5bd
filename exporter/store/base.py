"""Interface of the stores that keep the records of exports, and the types of its values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

import msgspec

from exporter.core import limits
from exporter.core.activity import Activity
from exporter.core.checkpoints import Checkpoint
from exporter.core.exports import (
    PRIORITIES,
    TRANSITIONS,
    Export,
    Partition,
    Result,
    Spec,
    State,
    WrongAnswers,
)
from exporter.core.limits import LimitReached
from exporter.errors import ExporterError
from exporter.store.filters import NO_FILTERS, Filters, StateCounts

MAX_LIVE = 500
"""Queued exports, and as many processing ones, that `ExportStore.live` returns."""
AGEING_PERIOD = timedelta(minutes=10)
"""Time for which an export must be ready and unclaimed before it is raised by one level."""
MAX_PAGE_BYTES = limits.PAGE_BYTES.default
"""Maximum total size of the specs of the exports on one page of a list."""
MAX_COUNTED = 3_000
"""Number of exports that counting with filters looks at."""
MAX_LOOKAHEAD = 16
"""Maximum number of exports of one user and level that a claim examines.

If the concurrency limit of their plan prevents the claim of all of these, the user's later exports
at that level are not claimed either.
"""


class KeyReused(ExporterError):
    """The idempotency key was used before with a different request; nothing was created."""

    def __init__(self, key: str) -> None:
        super().__init__(
            f"idempotency key {key!r} was used with a different request: send a new key for a new"
            " export"
        )


class Unreadable(ExporterError):
    """A record cannot be decoded by this version; a worker of another version may decode it."""

    def __init__(self, message: str, shown: Export) -> None:
        super().__init__(message)
        self.shown = shown
        """The fields that can be decoded, to be shown to the owner; see `Export.readable`."""


class KeySpent(ExporterError):
    """The export that the idempotency key created is deleted or expired; nothing was created."""

    def __init__(self, key: str) -> None:
        super().__init__(
            f"the export of idempotency key {key!r} is deleted or expired: send a new key for a new"
            " export"
        )


def check_create(spec: Spec) -> None:
    """Raises ValueError if the export could write more rows than it reserves credits for.

    Also raises ValueError for a negative number of credits, and for a priority out of range. An
    export that reserves no credits may write any number of rows.
    """
    if spec.priority not in PRIORITIES:
        raise ValueError(
            f"priority {spec.priority} of export {spec.id} is out of range: give 0 to 9"
        )
    if spec.reserved < 0 or (
        spec.account and spec.reserved and (spec.limit is None or spec.limit > spec.reserved)
    ):
        raise ValueError(
            f"export {spec.id} reserves {spec.reserved} credits but may write"
            f" {spec.limit or 'any number of'} rows: set its limit to at most {spec.reserved}"
        )


def check_end(export_id: str, state: State, result: Result | None) -> None:
    """Raises ValueError unless a processing export can end in that state with that result."""
    if state not in TRANSITIONS[State.PROCESSING]:
        raise ValueError(
            f"export {export_id} cannot end as {state}: give finished, failed or canceled"
        )
    if (state is State.FINISHED) != (result is not None):
        raise ValueError(
            f"export {export_id} cannot end as {state}: give a result with finished alone"
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
    """Idempotency key of a create request.

    All requests of a user with the same key and fingerprint create only one export.
    """

    key: str
    """Key chosen by the caller; different users may choose the same key."""
    fingerprint: str
    """Digest of the request; equal requests have the same digest. Contains no space."""
    ttl: timedelta = timedelta(hours=24)
    """Time after the first request during which the key is remembered."""
    until_ended: bool = False
    """True if the key may create another export when its export has ended or is deleted."""


class Quota(msgspec.Struct, frozen=True):
    """Limits of the exports of one user; 0: no limit."""

    queued: int = 0
    """Maximum number of exports that have not ended."""
    kept: int = 0
    """Maximum number of records, ended exports included."""
    stored_bytes: int = 0
    """Maximum sum of the sizes of the specs of all records."""


NO_QUOTA = Quota()
QUEUED_RETRY_SECONDS = 30.0
"""Retry-After of a user with too many exports that have not ended."""


def limit_reached(name: str, quota: Quota) -> LimitReached:
    """Returns the error for the limit `name`: queued, kept or bytes."""
    if name == "queued":
        return LimitReached(
            limits.QUEUED_EXPORTS,
            f"{quota.queued} of your exports have not ended, which is the limit: wait until some"
            " end, or cancel some",
            retry_after=QUEUED_RETRY_SECONDS,
        )
    if name == "kept":
        return LimitReached(
            limits.KEPT_EXPORTS,
            f"{quota.kept} of your exports are kept, which is the limit: delete exports that you no"
            " longer need",
        )
    return LimitReached(
        limits.STORED_BYTES,
        f"the searches of your exports would take more than {quota.stored_bytes} bytes, which is"
        " the limit: delete exports that you no longer need",
    )


class Verdict(StrEnum):
    """The store's answer to a worker that sends a request with its fence."""

    CONTINUE = "continue"
    CANCEL = "cancel"
    """The owner canceled the export. The worker must clean up and end the export as canceled."""
    LOST = "lost"
    """The fence is stale, because the lease was lost or the export has ended.

    The worker must write nothing more.
    """


class Claim(msgspec.Struct, frozen=True):
    """A new lease on an export or partition, with its fence.

    It gives the worker the right to write the file until the lease expires.
    """

    export: Export
    fence: str
    """Fencing token: a counter that only grows, plus a random nonce.

    The nonce is needed if Redis loses its last write in a power cut: two workers may then get the
    same count, but never the same fence.
    """
    clean: bool
    """Whether nothing of an earlier worker can still reach the object store.

    If true, the earlier worker released the export cleanly, or there was none; its upload can be
    continued. If false, that worker may still be alive. Its upload must first be sealed: completed
    early, so that its upload id can no longer be used.
    """


class Wake(msgspec.Struct, frozen=True):
    """A wake-up: a message of the store that an export may be ready.

    The process that receives it sends a doorbell, the Celery message that wakes a worker. A lost or
    repeated wake-up causes no error.
    """

    export_id: str
    priority: int


class Swept(msgspec.Struct, frozen=True):
    """The numbers of changes that one sweep made."""

    expired: int
    """Number of leases that had expired; their exports are ready again."""
    due: int
    """Number of waiting exports that were made ready, because their retry time was reached."""
    risen: int
    """Number of exports that were raised one level, because they were ready for long."""
    ready: int
    """Number of exports that are ready for a worker after the sweep."""


class QueueCounts(msgspec.Struct, frozen=True):
    """Current number of exports in each state of the queue; a partition counts as an export."""

    ready: tuple[int, ...]
    """Number of exports ready for a worker at each level: ten numbers, level 0 first."""
    running: int
    """Number of exports with a lease."""
    waiting: int
    """Number of exports that wait for their retry time."""
    wakes: int
    """Number of wake-ups that no process has received yet."""
    kept_files: int
    """Number of finished exports whose file is not yet recorded as deleted."""
    deleted: int
    """Number of deleted exports whose objects may still be in the bucket."""
    since: datetime | None
    """Creation time of the first export in this store; None if there was none yet.

    The store does not know the owners of files that are older.
    """


class Live(msgspec.Struct, frozen=True):
    """The exports of a user, or of all, that have not ended, and those created lately."""

    queued: tuple[str, ...]
    running: tuple[str, ...]
    """Ids of the newest MAX_LIVE queued, and as many processing exports."""
    created: tuple[str, ...]
    """Ids of exports created since `newest` of the earlier call, which may have ended."""
    newest: int
    """Place of the latest creation that was seen, for the next call."""


class RecordPage(msgspec.Struct, frozen=True):
    """One page of a list of exports."""

    exports: tuple[Export, ...]
    next_cursor: str | None
    """Cursor of the next page; None on the last page."""


class ExportStore(Protocol):
    """Stores export records; every state change is one atomic, idempotent step.

    The webhook event of a state change is recorded in the same step, if a webhook endpoint
    subscribes to it; a step without a change records no event. A deleted export emits no event.

    Every method raises StoreUnavailable if the store does not answer. A worker sends the fence of
    its claim with each change; with a stale fence, nothing is changed.

    A worker handles a partition like an export: `claim` returns it, and renew, commit, release and
    end take its `Export.id`. Its lease counts as a slice of its user. It is hidden from the owner:
    get, show, list, request_cancel and delete treat its id as unknown. It emits no event and costs
    no credits.
    """

    def create(
        self, spec: Spec, idempotency: Idempotency | None = None, quota: Quota = NO_QUOTA
    ) -> Export:
        """Records a queued export, adds it to the queue and makes a wake-up, all in one step.

        Returns the record. Of all calls with the same user, key and fingerprint, only the first
        creates an export. The others return the current record of that export, whose id then
        differs from `spec.id`. Raises KeyReused if the user's key was used with another
        fingerprint, and KeySpent if the export of the key is deleted or expired. Concurrent calls
        are safe, because the key and the export are recorded in the same step.

        The same step reserves `spec.reserved` credits of `spec.account`. Raises CreditsSpent, with
        nothing recorded, if the account has fewer. When the export ends, the reservation is settled
        exactly once: the rows of a finished file are charged, and the other credits are given back.

        Raises LimitReached, with nothing recorded, if one more record would exceed the quota of its
        user; a deleted export counts until its worker has ended it and for a minute after that.
        Raises StoreFull if the store keeps the memory that is left for the exports that run. A
        replayed call is neither counted nor refused.
        """

    def get(self, export_id: str) -> Export | None:
        """Returns the record; returns None if the id is unknown, deleted or that of a partition.

        Raises Unreadable if this version cannot read the record.
        """

    def show(self, export_id: str) -> Export | None:
        """Returns the record as its owner may see it; returns None for the same ids as `get`.

        The export has no checkpoint, which may be large. Of an unreadable record it has what can be
        read, and `readable` is False.
        """

    def list(
        self,
        user_id: str | None,
        *,
        limit: int,
        cursor: str | None = None,
        filters: Filters = NO_FILTERS,
    ) -> RecordPage:
        """Returns a page of a user's exports that meet the filters; deleted exports are left out.

        None as the user: of all users. A page ends before `limit` if the specs of its exports
        exceed MAX_PAGE_BYTES. Its exports have no checkpoints. Without a cursor it is the first
        page. Raises ValueError for a malformed cursor, and for one of a list with other filters.
        """

    def count_states(self, user_id: str | None, filters: Filters = NO_FILTERS) -> StateCounts:
        """Returns the number of exports in each state that meet the other filters.

        Counting stops after MAX_COUNTED exports were looked at, except without filters other than
        the time of creation: those counts are the sizes of the indexes. They are exact, but for
        exports that an earlier version without indexes has created, ended or deleted: these are
        counted, or counted in their new state, when `trim_lists` has looked at them. If more than
        1,000 records have expired since the last sweep, the counts are not exact and say so.
        """

    def live(self, user_id: str | None, newest: int | None) -> Live:
        """Returns the exports of a user (None: of all) that have not ended.

        `newest` is that of the call before, None at the first call, which sees no creations.
        """

    def changed(self, export_ids: Sequence[str]) -> Sequence[datetime | None]:
        """Returns the time of the latest change of each record; None for an unknown one."""

    def claim(self, worker_id: str, *, lease: timedelta, tenant_slots: int = 0) -> Claim | None:
        """Leases the ready export that is next in order, under a new fence.

        Returns None if no ready export may be claimed. The order is: highest level first; within a
        level, the user who has been served least (start-time fair queueing); within a user, the
        export that was ready first. A user with `tenant_slots` running leases is skipped (0: no
        limit). An export is skipped while its user has as many running leases as the `concurrency`
        of its spec allows; after MAX_LOOKAHEAD skipped exports, the rest of that user's exports at
        that level are skipped too. An export whose record this version cannot read is released for
        workers of other versions; if none of these can read it either, it fails.

        A user who was served while other users waited at lower levels is skipped, for one claim,
        after as many slices as leases are live, and one more: one slice of each busy worker. This
        exception ends when a claim passes nobody over, and does not apply if no other export may be
        claimed.
        """

    def renew(
        self, export_id: str, fence: str, *, lease: timedelta, progress: float | None = None
    ) -> Verdict:
        """Extends the lease to `lease` from now, records progress, and returns the verdict.

        Progress never decreases. Progress of a partition also advances its export, by the
        partition's share of the rows.
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
        """Replaces the checkpoint, extends the lease to `lease` from now, and returns the verdict.

        If the checkpoint has more pages or parts than every earlier checkpoint, the export has made
        progress: attempts and stalls become 0. With `closing`, the phase becomes completing.
        Progress and rows of a partition also advance its export, as in `renew`. Returns LOST, with
        nothing changed, if the fence is stale.
        """

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
        """Ends the lease and returns True; the export is ready at once, or after `retry_in`.

        With `retry_in`, the phase becomes waiting, the export's stalls grow by one, and its wrong
        answers become `wrong_answers`. With
        `clean`, the worker guarantees that none of its writes can still reach the object store.
        Returns False, and changes nothing, if the fence is stale.
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
        charged: int | None = None,
    ) -> bool:
        """Moves a processing export to the terminal state `state`, and returns True.

        Returns False, and changes nothing, if the fence is stale. The rows of a finished export are
        charged, unless its owner deleted the export before and will never see the file. All
        partitions of the export are removed.

        With `charged`, an export that its owner canceled or deleted costs that many rows, or those
        of its last commit if they are more; None: it costs nothing. Failed exports cost nothing.

        If a partition is ended, its record keeps its final state and checkpoint, and `keep_file`
        and `keep_record` have no effect. If it ends in another state than finished, the other
        partitions are requested to stop. When all partitions have ended, the export is made ready,
        so that one worker composes the file or ends the export.
        """

    def cut(self, export_id: str, fence: str, partitions: Sequence[Partition]) -> Verdict:
        """Divides an export into ready partitions, ends its lease, and returns CONTINUE.

        All of this is one step. Until all partitions have ended, the export is processing and has
        no lease. A worker that claims it after that finds the phase completing. Returns CANCEL,
        with nothing changed, if the owner canceled the export; the lease then remains. Returns
        LOST, with nothing changed, if the fence is stale. Raises StoreUnavailable, with nothing
        changed, also if the store is full: the worker can then continue to read the export without
        partitions. Raises ValueError for partitions without rows or not numbered from 0, for an
        export that was divided or rejoined before, and for a partition.
        """

    def partitions(self, export_id: str) -> tuple[Export, ...]:
        """Returns the records of an export's partitions, in order.

        They are also returned for a deleted export, because its worker has to clean up. Returns an
        empty tuple for an export that is not partitioned or has ended.
        """

    def rejoin(self, export_id: str, fence: str) -> Verdict:
        """Removes the partitions of an export and returns CONTINUE.

        The export is then read again from its first row, without partitions, and can never be
        partitioned again. Its checkpoint is removed as well; the caller must remove the objects
        that the partitions left in the bucket. Returns CANCEL, with nothing changed, if the owner
        canceled the export, and LOST if the fence is stale. A second call changes nothing.
        """

    def request_cancel(
        self, export_id: str, *, keep_record: timedelta, by: str = ""
    ) -> Export | None:
        """Cancels an export if it is queued; requests its worker to stop if it is processing.

        Returns the record after the change; returns None if the id is unknown. The workers of a
        processing export's partitions are requested to stop as well. An export that has ended is
        not changed. `keep_record` is the time for which the record of an export that was queued is
        kept. The activity names `by`, the id of an API key.
        """

    def activity(self, export_id: str) -> tuple[Activity, ...]:
        """Returns what happened to an export since it was queued, oldest first.

        The methods that change an export add the entry of their change in the same step. Empty for
        an unknown id, and for an export of a version without activity.
        """

    def note(self, export_id: str, what: str, by: str, detail: str = "") -> bool:
        """Adds an entry to the activity of an export, about something that no method here does.

        Returns False, and adds nothing, if the id is unknown, deleted or that of a partition.
        """

    def queue_position(self, export_id: str) -> int | None:
        """Returns the number of ready exports that are claimed before this one, as things stand.

        Returns None if the export is not ready, or if very many users may be served before its own.
        Exports that come later may be claimed before it, and limits of users may let it go first.
        """

    def delete(self, export_id: str, user_id: str | None) -> State | None:
        """Hides an export permanently and returns its state.

        Returns None if the user (None: any user) has no such export. From now on get, list and
        cancel treat the export as unknown. A queued export is canceled first. The worker of a
        processing export is requested to stop; the export is removed when its worker has ended it,
        in whatever state. Of an export that has ended, only its objects remain until the next
        cleaning (see
        `deleted_exports`). A second call changes nothing and returns the current state. One minute
        after the export has both ended and been deleted, its record is gone and the call returns
        None.
        """

    def deleted_exports(self, *, limit: int = 100) -> tuple[str, ...]:
        """Returns ids of deleted exports that have ended and whose objects may still exist.

        At most `limit` ids are returned, beginning with the export that was removed first.
        """

    def forget_deleted(self, export_id: str) -> bool:
        """Records that no object of a deleted export is left in the bucket; returns True.

        Returns False if that was recorded before.
        """

    def sweep(self, *, limit: int = 100, ageing: timedelta = AGEING_PERIOD) -> Swept:
        """Makes exports ready whose lease has expired or whose wait has ended, and raises levels.

        Returns the numbers of changes. If exports are ready but no wake-up is left, new wake-ups
        are made.

        An export that was ready for `ageing` without being claimed is raised one level, at most to
        level 9, and goes to the end of its user's queue at that level. When the export is claimed,
        its level becomes the requested priority again. The least urgent export thus competes with
        the most urgent exports after 9 times `ageing`: 90 minutes by default, and longer if more
        exports are ready than sweeps can raise. Each sweep raises at most `limit` exports, the
        oldest first: with one process that sweeps every 5 s, 12,000 exports in 10 minutes.
        """

    def expired_files(self, *, limit: int = 100) -> tuple[Export, ...]:
        """Returns finished exports whose file must be deleted, because its retention has ended.

        An export whose file is recorded as deleted is not returned. At most `limit` are returned.
        """

    def forget_file(self, export_id: str) -> bool:
        """Records that the file of a finished export was deleted; returns True.

        The event `export.expired` is recorded in the same step.

        Returns False, without an event, if that was recorded before.
        """

    def trim_lists(self, *, users: int = 10, again: timedelta = timedelta(hours=1)) -> int:
        """Makes the lists of up to `users` users agree with the records; returns 0 at the end.

        Without versions that keep no indexes, it finds nothing to do. A call looks at some hundred
        exports, and the next call goes on after them: lists of any length are looked at whole. It
        returns the number of lists examined, beginning with the one that was not examined for the
        longest time. A list is examined again after the time `again`.
        """

    def count(self, what: str, by: int) -> None:
        """Adds `by` to a counter of events that happen outside the store, such as cleaned files."""

    def counters(self) -> Mapping[str, int]:
        """Returns all counters by name; see `metrics.COUNTERS`.

        They count from the first export of the store on. A state change is counted in the step that
        makes it, so a repeated call counts once.
        """

    def queue_counts(self) -> QueueCounts:
        """Returns the current size of each queue and index.

        The numbers are read one after the other, so they may differ by changes in between.
        """

    def cleanup_cursor(self) -> str:
        """Returns the bucket position where the last cleaning stopped; empty for the start."""

    def set_cleanup_cursor(self, place: str) -> None:
        """Stores the bucket position where a cleaning has stopped."""

    def next_wake(self, *, timeout: timedelta) -> Wake | None:
        """Waits for a wake-up and returns it; returns None if none came within `timeout`.

        Each wake-up is returned to only one caller.
        """
