"""The lease of a claimed export, and the store calls of the worker that has the lease."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TypeVar

import structlog

from exporter.clock import Clock
from exporter.core.checkpoints import Checkpoint
from exporter.core.exports import Export, Partition, Result, State, WrongAnswers
from exporter.errors import LeaseLost, StoreUnavailable
from exporter.store.base import Claim, ExportStore, Verdict

log = structlog.get_logger()

TRUSTED_SHARE = 0.8
"""Share of a lease's duration during which this process relies on the lease.

The rest is a safety margin, because clocks drift, a request may be on its way to S3, and the lease
ends by the clock of the store, not by the clock of this process.
"""
RENEWALS_PER_LEASE = 4
"""Number of renewals sent during the duration of one lease, at equal intervals."""


class Lease:
    """Decides from the local clock alone, without a request, if this process may still write."""

    def __init__(self, duration: timedelta, clock: Clock, granted_at: float) -> None:
        """Starts a lease that the store granted in answer to a request sent at `granted_at`.

        `granted_at` is a time of the monotonic clock.
        """
        self.duration = duration
        self._clock = clock
        self._verdict = Verdict.CONTINUE
        self._trust_from(granted_at)

    def _trust_from(self, asked_at: float) -> None:
        self._deadline = asked_at + self.duration.total_seconds() * TRUSTED_SHARE

    def record(self, verdict: Verdict, asked_at: float) -> Verdict:
        """Records the store's answer to a request sent at `asked_at`, and returns `verdict`.

        CONTINUE and CANCEL confirm the lease from `asked_at` on. A recorded CANCEL is later
        replaced only by LOST, and a recorded LOST is never replaced.
        """
        if verdict is Verdict.CONTINUE:
            self._trust_from(asked_at)
        elif self._verdict is not Verdict.LOST:
            self._verdict = verdict
            if verdict is Verdict.CANCEL:
                self._trust_from(asked_at)
        return self.verdict

    @property
    def verdict(self) -> Verdict:
        """The worst verdict recorded so far, or LOST if the lease is not confirmed any more.

        The store's last confirmation counts for TRUSTED_SHARE of the lease's duration.
        """
        if self._verdict is not Verdict.LOST and self._clock.monotonic() > self._deadline:
            return Verdict.LOST
        return self._verdict

    def check(self) -> None:
        """Raises LeaseLost unless this process can be sure that it still owns the export."""
        if self.verdict is Verdict.LOST:
            raise LeaseLost("the lease expired: another worker may own this export now")


@contextmanager
def renewing(lease: Lease, renew: Callable[[], Verdict], clock: Clock) -> Iterator[None]:
    """Renews the lease in a background thread until the block ends, and records each verdict.

    If the store does not answer, the thread tries again until the lease is lost. An outage of the
    store that ends earlier has no effect on the block.
    """
    stop = threading.Event()
    interval = lease.duration.total_seconds() / RENEWALS_PER_LEASE

    def renew_until_stopped() -> None:
        while not stop.wait(interval):
            asked_at = clock.monotonic()
            try:
                verdict = lease.record(renew(), asked_at)
            except StoreUnavailable as error:
                log.warning("lease.renew_failed", reason=str(error))
                verdict = lease.verdict
            if verdict is Verdict.LOST:
                return

    thread = threading.Thread(target=renew_until_stopped, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


T = TypeVar("T")

HEARTBEAT_SECONDS = 0.2
"""Shortest time between two heartbeats that send a request to the store.

A heartbeat in between returns the verdict of the lease, which a background thread renews.
"""
STORE_RETRY_SECONDS = 0.5
"""Seconds between two attempts to reach the store while the lease is valid."""


class LeasedExport:
    """Sends all store calls of one worker under its fence; raises LeaseLost for a stale fence.

    If the store does not answer, every call except `cut` and `release` is repeated until it is
    answered or the lease is lost. An outage that is shorter than the lease only delays the calls.
    """

    def __init__(
        self,
        claim: Claim,
        store: ExportStore,
        clock: Clock,
        *,
        lease: timedelta,
        claimed_at: float,
    ) -> None:
        self.export = claim.export
        self.fence = claim.fence
        self.clean = claim.clean
        self._store = store
        self._clock = clock
        self._claimed_at = claimed_at
        self._lease = Lease(lease, clock, claimed_at)
        self._next_heartbeat_at = 0.0

    @contextmanager
    def renewing(self) -> Iterator[None]:
        """Renews the lease in a background thread until the block ends."""
        with renewing(self._lease, self._renewal(None), self._clock):
            yield

    def check(self) -> None:
        """Raises LeaseLost unless this process can be sure that it still owns the export."""
        self._lease.check()

    def now(self) -> datetime:
        """Returns the current time by the store's clock.

        It is computed from the store's time of the claim and the monotonic clock, because this
        machine's wall clock may be hours off.
        """
        since_claim = self._clock.monotonic() - self._claimed_at
        return self.export.updated_at + timedelta(seconds=since_claim)

    def heartbeat(self, progress: float) -> Verdict:
        """Reports progress to the store and returns its verdict: CONTINUE or CANCEL.

        Less than HEARTBEAT_SECONDS after the last report, no request is sent and the verdict is
        that of the lease. Raises LeaseLost if the lease is lost.
        """
        now = self._clock.monotonic()
        if now < self._next_heartbeat_at:
            self.check()
            return self._lease.verdict
        self._next_heartbeat_at = now + HEARTBEAT_SECONDS
        return self._request_verdict(self._renewal(progress))

    def confirm(self) -> None:
        """Raises LeaseLost unless the store confirms, now, that this worker owns the export."""
        self._request_verdict(self._renewal(None))

    def commit(
        self, checkpoint: Checkpoint, *, progress: float, closing: Result | None = None
    ) -> Verdict:
        """Stores the checkpoint durably and returns the store's verdict: CONTINUE or CANCEL.

        Raises LeaseLost, with nothing stored, if the fence is stale.
        """
        return self._request_verdict(
            lambda: self._store.commit(
                self.export.id,
                self.fence,
                checkpoint,
                lease=self._lease.duration,
                progress=progress,
                closing=closing,
            )
        )

    def cut(self, partitions: Sequence[Partition]) -> Verdict | None:
        """Divides the export into partitions and returns CONTINUE; this worker's lease then ends.

        Returns CANCEL, with nothing changed, if the owner canceled the export. Returns None if the
        store did not answer or is full; the worker then reads the export without partitions. The
        request is not repeated in that case, because a full store may refuse for a long time. If
        the store did divide the export but its answer was lost, the next request raises LeaseLost.
        """
        asked_at = self._clock.monotonic()
        self.check()
        try:
            verdict = self._store.cut(self.export.id, self.fence, partitions)
        except StoreUnavailable as error:
            log.warning("export.not_cut", reason=str(error))
            return None
        return self._record(verdict, asked_at)

    def partitions(self) -> tuple[Export, ...]:
        """Returns the partitions of the export, in order."""
        return self._retry_while_leased(lambda: self._store.partitions(self.export.id))

    def rejoin(self) -> Verdict:
        """Drops the partitions and returns CONTINUE: the export is read again without partitions.

        Returns CANCEL, with nothing changed, if the owner canceled the export.
        """
        return self._request_verdict(lambda: self._store.rejoin(self.export.id, self.fence))

    def end(
        self,
        state: State,
        *,
        keep_record: timedelta,
        keep_file: timedelta | None = None,
        result: Result | None = None,
        error: str | None = None,
        charged: int | None = None,
    ) -> None:
        """Moves the export to the terminal state `state`; raises LeaseLost for a stale fence."""
        ended = self._retry_while_leased(
            lambda: self._store.end(
                self.export.id,
                self.fence,
                state,
                result=result,
                error=error,
                keep_file=keep_file,
                keep_record=keep_record,
                charged=charged,
            )
        )
        if not ended:
            raise LeaseLost(
                "the store refused the fence at the end: another worker owns this export"
            )

    def release(
        self,
        *,
        clean: bool,
        retry_in: timedelta | None,
        reason: str | None,
        wrong_answers: WrongAnswers | None = None,
    ) -> None:
        """Gives up the lease: the export is ready at once, or after `retry_in`.

        Raises LeaseLost if the fence is stale or the store does not answer; in the latter case the
        lease expires by itself.
        """
        try:
            held = self._store.release(
                self.export.id,
                self.fence,
                clean=clean,
                retry_in=retry_in,
                reason=reason,
                wrong_answers=wrong_answers,
            )
        except StoreUnavailable as error:
            raise LeaseLost(
                f"the export was not released; its lease expires by itself: {error}"
            ) from None
        if not held:
            raise LeaseLost("the store refused the fence: another worker owns this export")

    def _renewal(self, progress: float | None) -> Callable[[], Verdict]:
        return lambda: self._store.renew(
            self.export.id, self.fence, lease=self._lease.duration, progress=progress
        )

    def _request_verdict(self, request: Callable[[], Verdict]) -> Verdict:
        def recorded() -> Verdict:
            asked_at = self._clock.monotonic()
            return self._record(request(), asked_at)

        return self._retry_while_leased(recorded)

    def _record(self, verdict: Verdict, asked_at: float) -> Verdict:
        self._lease.record(verdict, asked_at)
        if verdict is Verdict.LOST:
            raise LeaseLost("the store refused the fence: another worker owns this export")
        return verdict

    def _retry_while_leased(self, call: Callable[[], T]) -> T:
        while True:
            self.check()
            try:
                return call()
            except StoreUnavailable as error:
                log.warning("store.silent", reason=str(error))
                self._clock.sleep(STORE_RETRY_SECONDS)
