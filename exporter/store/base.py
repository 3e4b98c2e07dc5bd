"""The seam between the engine and where the records of exports live."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Protocol

import msgspec

from exporter.checkpoints import Checkpoint
from exporter.exports import Export, Result, Spec, State


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
    ready: int
    """Exports ready for a worker now."""


class RecordPage(msgspec.Struct, frozen=True):
    """Some of a user's exports, newest first."""

    exports: tuple[Export, ...]
    next_cursor: str | None


class ExportStore(Protocol):
    """Keeps records; every state change is one atomic step, safe to run twice.

    Every method raises StoreUnavailable if the store does not answer. Whoever changes an
    export while working on it shows the fence of its claim; a stale one changes nothing.
    """

    def create(self, spec: Spec) -> Export:
        """Record a queued export, put it in line and wake a worker, all in one step."""

    def get(self, export_id: str) -> Export | None: ...

    def list(self, user_id: str, *, limit: int, cursor: str | None = None) -> RecordPage:
        """A user's exports, newest first. Raises ValueError for a cursor not made here."""

    def claim(self, worker_id: str, *, lease: timedelta, tenant_slots: int = 0) -> Claim | None:
        """The best ready export under a new fence, or None.

        Best: highest priority; within it the user served least so far; within that the one
        ready longest. A user with `tenant_slots` live leases is passed over (0: no cap).
        """

    def renew(
        self, export_id: str, fence: str, *, lease: timedelta, progress: float | None = None
    ) -> Verdict:
        """Keep the lease for that long from now, and move progress forward."""

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

        With `closing` the export is in phase completing from here on.
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
        """Move a processing export to a terminal state. False if the fence was stale."""

    def request_cancel(self, export_id: str, *, keep_record: timedelta) -> Export | None:
        """A queued export is canceled at once, a processing one is asked to stop, a terminal
        one is unchanged; returns the record after that, None if there is none."""

    def sweep(self, *, limit: int = 100) -> Swept:
        """Make exports with an expired lease or a past waiting time ready, and wake workers."""

    def expired_files(self, *, limit: int = 100) -> tuple[Export, ...]:
        """Finished exports whose file is past its retention and not yet forgotten."""

    def forget_file(self, export_id: str) -> None:
        """Record that the file of a finished export is deleted."""

    def next_wake(self, *, timeout: timedelta) -> Wake | None:
        """Wait for a wake-up; each is given to one caller."""
