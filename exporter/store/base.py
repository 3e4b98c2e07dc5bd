"""The seam between the engine and where the records of exports live."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Protocol

import msgspec

from exporter.core.checkpoints import Checkpoint
from exporter.core.exports import Export, Partition, Result, Spec, State
from exporter.errors import ExporterError

AGEING = timedelta(minutes=10)
"""How long an export is ready without being claimed before it rises one level."""
AHEAD = 16
"""Exports of one user and level that a claim looks at. If that many must wait because of what
their plan holds, those behind them wait too."""


class KeyReused(ExporterError):
    """The idempotency key came before with another request; nothing was created."""


class KeySpent(ExporterError):
    """What the idempotency key created is deleted or expired; nothing was created again."""


def check_price(spec: Spec) -> None:
    """Raises ValueError for an export that could write more rows than it can pay for."""
    if spec.reserved < 0 or (
        spec.account and spec.reserved and (spec.limit is None or spec.limit > spec.reserved)
    ):
        raise ValueError(
            f"export {spec.id} sets {spec.reserved} credits aside and may write"
            f" {spec.limit or 'any number of'} rows: its limit is to be {spec.reserved} at most"
        )


def weights(export_id: str, partitions: Sequence[Partition]) -> list[float]:
    """Each partition's share of the rows of all.

    Raises ValueError for what an export cannot be cut into.
    """
    places = [one.place for one in partitions]
    if not places or places != list(range(len(places))) or min(p.rows for p in partitions) < 1:
        raise ValueError(
            f"export {export_id} cannot be cut into {partitions}: give at least one partition,"
            " places counted from 0, with rows in each"
        )
    total = sum(one.rows for one in partitions)
    return [one.rows / total for one in partitions]


class Idempotency(msgspec.Struct, frozen=True):
    """Marks all tries of one request to create, so that together they create one export."""

    key: str
    """Chosen by the caller; two users' keys never meet."""
    fingerprint: str
    """Equal for equal requests; without blanks."""
    lasts: timedelta = timedelta(hours=24)
    """How long after the first try a further one is known."""


class Verdict(StrEnum):
    """The store's answer to a worker that shows its fence."""

    CONTINUE = "continue"
    CANCEL = "cancel"
    """The owner withdrew the export: stop, clean up, end it as canceled."""
    LOST = "lost"
    """The fence is stale: another worker owns the export, or it has ended. Write nothing."""


class Claim(msgspec.Struct, frozen=True):
    """The right to write one export for `lease` seconds."""

    export: Export
    fence: str
    """A counter that only grows plus a random nonce. The nonce is for a Redis that lost its
    last write in a power cut: two workers may then hold the same count, never the same fence."""
    clean: bool
    """The previous worker let go in order, or there was none: its upload may be gone on with.
    Otherwise it may still be alive, and its upload must be sealed first."""


class Wake(msgspec.Struct, frozen=True):
    """There may be work; losing or doubling this message changes nothing."""

    export_id: str
    priority: int


class Swept(msgspec.Struct, frozen=True):
    """What one sweep found."""

    expired: int
    """Leases that ran out; their exports are ready again."""
    due: int
    """Waiting exports whose time has come."""
    risen: int
    """Exports that were ready for so long that they rose one level."""
    ready: int
    """Exports ready for a worker now."""


class QueueCounts(msgspec.Struct, frozen=True):
    """How many exports stand where, now; a partition counts as an export does."""

    ready: tuple[int, ...]
    """Ready for a worker, by level: ten numbers, level 0 first."""
    running: int
    waiting: int
    wakes: int
    """Wake-ups that nobody heard yet."""
    kept_files: int
    deleted: int
    """Deleted exports whose objects may still be in the bucket."""
    since: datetime | None
    """When this store's first export was created: it cannot know files from before."""


class RecordPage(msgspec.Struct, frozen=True):
    """Some of a user's exports, newest first."""

    exports: tuple[Export, ...]
    next_cursor: str | None


class ExportStore(Protocol):
    """Keeps records; every state change is one atomic step, safe to run twice.

    The event that webhooks tell of a change is recorded in the same step, if somebody listens; one
    that changed nothing records none. A deleted export tells nothing more.

    Every method raises StoreUnavailable if the store does not answer. Whoever changes an
    export while working on it shows the fence of its claim; a stale one changes nothing.

    A partition is worked on as an export is: `claim` gives it, and renew, commit, release and end
    take its `Export.id`. It is a slice of its user like any other. To its owner it does not exist:
    no other method knows that id, and nothing is told or charged for it.
    """

    def create(self, spec: Spec, idempotency: Idempotency | None = None) -> Export:
        """Record a queued export, put it in line and wake a worker, all in one step.

        Of all calls with one user, key and fingerprint the first creates, and the others return
        its export as it stands now: another id than the spec's. Raises KeyReused if the user's
        key came with another fingerprint, KeySpent if its export is no more. A try never meets
        one that is still under way, because recording the key and the export is the same step.

        Whoever creates pays: `spec.reserved` credits leave the account for the export in the same
        step. Raises CreditsSpent, with nothing recorded, if there are fewer. Every way out of the
        export settles that, once: what was written is charged, the rest is given back.
        """

    def get(self, export_id: str) -> Export | None:
        """The record; None if there is none, or it is deleted."""

    def list(self, user_id: str, *, limit: int, cursor: str | None = None) -> RecordPage:
        """A user's exports, newest first. Raises ValueError for a cursor not made here."""

    def claim(self, worker_id: str, *, lease: timedelta, tenant_slots: int = 0) -> Claim | None:
        """The best ready export under a new fence, or None.

        Best: highest priority; within it the user served least so far; within that the one
        ready longest. A user with `tenant_slots` live leases is passed over (0: no cap), and so is
        each of the first AHEAD exports in its line whose own `concurrency` is reached. An export
        whose record this version cannot read is left to others, and failed when none comes.
        """

    def renew(
        self, export_id: str, fence: str, *, lease: timedelta, progress: float | None = None
    ) -> Verdict:
        """Keep the lease for that long from now, and move progress forward.

        With a partition's progress that of its export moves, by the partition's share of the rows.
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
        """Replace the checkpoint and renew the lease; forgets past attempts and stalls.

        With `closing` the export is in phase completing from here on. A partition's progress and
        rows are its export's too, as in `renew`.
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
        """Give the export back: at once, or after `retry_in` (phase waiting, one stall more).

        `clean` promises that no write of this worker can still be on its way. False if the
        fence was stale.
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
        """Move a processing export to a terminal state. False if the fence was stale.

        If it is finished its rows are charged, unless its owner deleted it meanwhile and will
        never see the file. Of the partitions of one that was cut nothing is left.

        A partition's record stays as it ended, with its checkpoint, whatever the times to keep
        say. If it did not finish, those beside it are asked to stop. With the end of the last one
        the export comes into line, so that one worker makes one file of them or ends it.
        """

    def cut(self, export_id: str, fence: str, partitions: Sequence[Partition]) -> Verdict:
        """Put partitions into the export's line, to be read side by side, and end its own lease,
        all in one step.

        From then on the export is processing and in nobody's hands, until all of them have ended:
        then whoever claims it finds it in phase completing. CANCEL: its owner withdrew it, nothing
        was cut and the lease stays. Raises StoreUnavailable, with nothing cut, also if the store is
        full: the export can be read on as one. Raises ValueError for partitions without rows or
        not counted from 0, and for an export that was cut before or is itself a partition.
        """

    def partitions(self, export_id: str) -> tuple[Export, ...]:
        """What an export was cut into, in order, with all that is known of each; also of a deleted
        export, whose worker has to clean up. Empty for one that is not cut, or has ended."""

    def rejoin(self, export_id: str, fence: str) -> Verdict:
        """Let a cut export be read as one from now on, from its beginning and for good.

        Its partitions and its checkpoint are forgotten; what they left in the bucket is the
        caller's to remove. CANCEL: its owner withdrew it, and nothing was changed. Asked again it
        changes nothing.
        """

    def request_cancel(self, export_id: str, *, keep_record: timedelta) -> Export | None:
        """A queued export is canceled at once, a processing one and its partitions are asked to
        stop, a terminal one is unchanged; returns the record after that, None if there is none."""

    def delete(self, export_id: str, user_id: str) -> State | None:
        """Hide an export for good; returns its state, None if the user has no such export.

        From now on it is in no get, list or cancel. A queued one is canceled first. A processing
        one is asked to stop and goes once its worker ended it, in whatever state. Of one that has
        ended nothing is left but its objects, see `deleted_exports`. Deleting again changes
        nothing and answers the same, until a minute after the export has ended; then None.
        """

    def deleted_exports(self, *, limit: int = 100) -> tuple[str, ...]:
        """Ids of deleted exports that have ended and whose objects are not yet known to be gone,
        longest gone first."""

    def forget_deleted(self, export_id: str) -> bool:
        """Record that a deleted export has nothing left in the bucket; False if it was known."""

    def sweep(self, *, limit: int = 100, ageing: timedelta = AGEING) -> Swept:
        """Make exports with an expired lease or a past waiting time ready, wake workers, and
        let exports rise.

        An export that was ready for `ageing` without being claimed rises one level, up to 9, to
        the end of its user's line there; claimed, it is worth what was asked again. So the least
        urgent export competes with the most urgent ones after 9 times `ageing`: 90 minutes, and
        as much longer as more exports are ready than sweeps can raise. Each does `limit` of them,
        the oldest first: with one process sweeping every 5 s, 12,000 in 10 minutes.
        """

    def expired_files(self, *, limit: int = 100) -> tuple[Export, ...]:
        """Finished exports whose file is past its retention and not yet forgotten."""

    def forget_file(self, export_id: str) -> bool:
        """Record that the file of a finished export is deleted, which webhooks tell of; False if it
        was known."""

    def trim_lists(self, *, users: int = 10, again: timedelta = timedelta(hours=1)) -> int:
        """Drop expired exports from the lists of some users; how many users were looked at.

        Those waiting longest come first, and not again before `again` is over.
        """

    def count(self, what: str, by: int) -> None:
        """Add to a counter of what the store does not do itself."""

    def counters(self) -> Mapping[str, int]:
        """How often what happened, since the first export; see `metrics.COUNTERS`.

        Transitions are counted in the step that makes them: once, however often it was asked.
        """

    def queue_counts(self) -> QueueCounts:
        """How many exports stand where; the numbers are of moments close to each other."""

    def cleanup_cursor(self) -> str:
        """Where the last walk through the bucket stopped; empty if there was none."""

    def set_cleanup_cursor(self, place: str) -> None:
        """Remember where a walk through the bucket stopped."""

    def next_wake(self, *, timeout: timedelta) -> Wake | None:
        """Wait for a wake-up; each is given to one caller."""
