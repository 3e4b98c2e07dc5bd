"""The lease of a claimed export, and the store calls that its fence allows."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import TypeVar

import structlog

from exporter.clock import Clock
from exporter.core.checkpoints import Checkpoint
from exporter.core.exports import Export, Partition, Result, State
from exporter.errors import LeaseLost, StoreUnavailable
from exporter.store.base import Claim, ExportStore, Verdict

log = structlog.get_logger()

TRUSTED_SHARE = 0.8
"""Share of a lease during which this process trusts it.

The rest is a safety margin: clocks drift, a request may be under way, and only the store's own time
decides.
"""
RENEWALS_PER_LEASE = 4
"""Renewals per lease: three may fail before the lease is in danger."""


class Lease:
    """Decides from the local clock alone, without a request, if this process may still write."""

    def __init__(self, duration: timedelta, clock: Clock, granted_at: float) -> None:
        """Starts a lease granted by a request sent at `granted_at` on the monotonic clock."""
        self.duration = duration
        self._clock = clock
        self._verdict = Verdict.CONTINUE
        self._trust_from(granted_at)

    def _trust_from(self, asked_at: float) -> None:
        self._deadline = asked_at + self.duration.total_seconds() * TRUSTED_SHARE

    def record(self, verdict: Verdict, asked_at: float) -> Verdict:
        """Records the store's answer to a request sent at `asked_at`; returns the current verdict.

        LOST is final, and CANCEL can only become LOST. Both CONTINUE and CANCEL extend the lease.
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
        """The worst verdict received so far.

        LOST as well if the store has not confirmed the lease within its trusted share.
        """
        if self._verdict is not Verdict.LOST and self._clock.monotonic() > self._deadline:
            return Verdict.LOST
        return self._verdict

    def check(self) -> None:
        """Raises LeaseLost unless this process certainly still owns the export."""
        if self.verdict is Verdict.LOST:
            raise LeaseLost("the lease expired: another worker may own this export now")


@contextmanager
def renewing(lease: Lease, renew: Callable[[], Verdict], clock: Clock) -> Iterator[None]:
    """Renews the lease in a thread within this block and records each verdict in the lease.

    If the store does not answer, the thread retries until the lease is lost. A shorter outage has
    no effect.
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
"""Shortest time between two heartbeats that reach the store.

Between them the verdict comes from the lease, which its own thread renews.
"""
STORE_RETRY_SECONDS = 0.5
"""Seconds between two attempts to reach the store while the lease is valid."""


class LeasedExport:
    """Sends every store call under one fence; raises LeaseLost as soon as that fence is stale.

    If the store does not answer, calls other than `cut` and `release` are retried for as long as
    the lease is valid. A shorter outage costs only time.
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
        """Renews the lease in a thread within this block."""
        with renewing(self._lease, self._renewal(None), self._clock):
            yield

    def check(self) -> None:
        """Raises LeaseLost unless this process certainly still owns the export."""
        self._lease.check()

    def now(self) -> datetime:
        """Returns the time of the store's clock, derived from the claim.

        The clock of this machine may be hours off.
        """
        since_claim = self._clock.monotonic() - self._claimed_at
        return self.export.updated_at + timedelta(seconds=since_claim)

    def heartbeat(self, progress: float) -> Verdict:
        """Reports progress and returns the verdict; asks the store once per HEARTBEAT_SECONDS."""
        now = self._clock.monotonic()
        if now < self._next_heartbeat_at:
            self.check()
            return self._lease.verdict
        self._next_heartbeat_at = now + HEARTBEAT_SECONDS
        return self._request_verdict(self._renewal(progress))

    def confirm(self) -> None:
        """Returns only if the store itself confirms that this worker owns the export."""
        self._request_verdict(self._renewal(None))

    def commit(
        self, checkpoint: Checkpoint, *, progress: float, closing: Result | None = None
    ) -> Verdict:
        """Makes a checkpoint durable."""
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
        """Hands the export over to partitions; returns None if the store cannot take them now.

        The request is not retried: a full store may refuse for long, and the export can be read
        without partitions. If the store cut the export but its answer was lost, the next request
        raises LeaseLost.
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
        """Drops the partitions, so that the export is read without them from its beginning."""
        return self._request_verdict(lambda: self._store.rejoin(self.export.id, self.fence))

    def end(
        self,
        state: State,
        *,
        keep_record: timedelta,
        keep_file: timedelta | None = None,
        result: Result | None = None,
        error: str | None = None,
    ) -> None:
        """Moves the export to a terminal state."""
        ended = self._retry_while_leased(
            lambda: self._store.end(
                self.export.id,
                self.fence,
                state,
                result=result,
                error=error,
                keep_file=keep_file,
                keep_record=keep_record,
            )
        )
        if not ended:
            raise LeaseLost(
                "the store refused the fence at the end: another worker owns this export"
            )

    def release(self, *, clean: bool, retry_in: timedelta | None, reason: str | None) -> None:
        """Releases the export.

        Raises LeaseLost if the store refuses the fence or does not answer; in the latter case the
        lease expires by itself.
        """
        try:
            held = self._store.release(
                self.export.id, self.fence, clean=clean, retry_in=retry_in, reason=reason
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
