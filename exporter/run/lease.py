"""The lease of a claimed export, and the calls to the store that its fence allows."""

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

SAFETY = 0.8
"""Share of a lease after which this process no longer trusts it: the store's clock and ours
run on, a request is under way, and only the store's own time decides."""
RENEWALS = 4
"""Renewals per lease: three may fail before the lease is in danger."""


class Lease:
    """Says whether this process may write, from its own clock alone, without asking anyone."""

    def __init__(self, duration: timedelta, clock: Clock, granted_at: float) -> None:
        """Granted by a request that was sent at `granted_at` on the monotonic clock."""
        self.duration = duration
        self._clock = clock
        self._verdict = Verdict.CONTINUE
        self._begin(granted_at)

    def _begin(self, asked_at: float) -> None:
        self._deadline = asked_at + self.duration.total_seconds() * SAFETY

    def note(self, verdict: Verdict, asked_at: float) -> Verdict:
        """Take in the store's answer to a request sent at `asked_at`."""
        if verdict is Verdict.CONTINUE:
            self._begin(asked_at)
        elif self._verdict is not Verdict.LOST:
            self._verdict = verdict
            if verdict is Verdict.CANCEL:
                self._begin(asked_at)
        return self.verdict

    @property
    def verdict(self) -> Verdict:
        """The worst answer heard; LOST also when none was heard for too long."""
        if self._verdict is not Verdict.LOST and self._clock.monotonic() > self._deadline:
            return Verdict.LOST
        return self._verdict

    def check(self) -> None:
        """Raises LeaseLost unless this process still surely owns the export."""
        if self.verdict is Verdict.LOST:
            raise LeaseLost("the lease ended: another worker may own this export now")


@contextmanager
def kept(lease: Lease, renew: Callable[[], Verdict], clock: Clock) -> Iterator[None]:
    """Within this block a thread renews the lease; what it hears is noted in the lease.

    A store that does not answer is asked again until the lease is past saving: an outage
    shorter than that costs nothing.
    """
    stop = threading.Event()
    interval = lease.duration.total_seconds() / RENEWALS

    def keep() -> None:
        while not stop.wait(interval):
            asked_at = clock.monotonic()
            try:
                verdict = lease.note(renew(), asked_at)
            except StoreUnavailable as error:
                log.warning("lease.renew_failed", reason=str(error))
                verdict = lease.verdict
            if verdict is Verdict.LOST:
                return

    thread = threading.Thread(target=keep, name="lease", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


T = TypeVar("T")

BEAT = 0.2
"""Seconds between two questions whether to go on; in between, the lease's thread hears."""
STORE_RETRY = 0.5
"""Seconds between two tries to reach the store while the lease still holds."""


class LeasedExport:
    """Says everything to the store under one fence, and raises LeaseLost as soon as that is stale.

    A silent store is asked again for as long as the lease surely holds: a shorter outage costs
    nothing but time.
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
        self._beat_at = 0.0

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Within this block a thread renews the lease."""
        with kept(self._lease, self._renewal(None), self._clock):
            yield

    def check(self) -> None:
        """Raises LeaseLost unless this process still surely owns the export."""
        self._lease.check()

    def now(self) -> datetime:
        """The store's clock, which the claim just read: this machine's may be hours off."""
        since_claim = self._clock.monotonic() - self._claimed_at
        return self.export.updated_at + timedelta(seconds=since_claim)

    def beat(self, progress: float) -> Verdict:
        """Whether to go on; asks the store only now and then."""
        now = self._clock.monotonic()
        if now < self._beat_at:
            self.check()
            return self._lease.verdict
        self._beat_at = now + BEAT
        return self._ask(self._renewal(progress))

    def confirm(self) -> None:
        """Return only if the store itself says that this export is still ours."""
        self._ask(self._renewal(None))

    def commit(
        self, checkpoint: Checkpoint, *, progress: float, closing: Result | None = None
    ) -> Verdict:
        """Make a checkpoint durable."""
        return self._ask(
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
        """Hand the export over to partitions; None if the store does not take them now.

        Asked once only: a full store would refuse them for long, and the export can be read as
        one. If they were taken and the answer was lost, the next word to the store tells.
        """
        asked_at = self._clock.monotonic()
        self.check()
        try:
            verdict = self._store.cut(self.export.id, self.fence, partitions)
        except StoreUnavailable as error:
            log.warning("export.not_cut", reason=str(error))
            return None
        return self._heard(verdict, asked_at)

    def partitions(self) -> tuple[Export, ...]:
        """What the export was cut into."""
        return self._patiently(lambda: self._store.partitions(self.export.id))

    def rejoin(self) -> Verdict:
        """Let the export be read as one, from its beginning."""
        return self._ask(lambda: self._store.rejoin(self.export.id, self.fence))

    def end(
        self,
        state: State,
        *,
        keep_record: timedelta,
        keep_file: timedelta | None = None,
        result: Result | None = None,
        error: str | None = None,
    ) -> None:
        """Move the export to a terminal state."""
        ended = self._patiently(
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
            raise LeaseLost("the store refused the fence at the end: another worker owns it")

    def release(self, *, clean: bool, retry_in: timedelta | None, reason: str | None) -> None:
        """Give the export back. If the store is silent the lease runs out by itself."""
        try:
            held = self._store.release(
                self.export.id, self.fence, clean=clean, retry_in=retry_in, reason=reason
            )
        except StoreUnavailable as error:
            raise LeaseLost(f"not given back, so left to the sweep: {error}") from None
        if not held:
            raise LeaseLost("the store refused the fence: another worker owns this export")

    def _renewal(self, progress: float | None) -> Callable[[], Verdict]:
        return lambda: self._store.renew(
            self.export.id, self.fence, lease=self._lease.duration, progress=progress
        )

    def _ask(self, question: Callable[[], Verdict]) -> Verdict:
        def noted() -> Verdict:
            asked_at = self._clock.monotonic()
            return self._heard(question(), asked_at)

        return self._patiently(noted)

    def _heard(self, verdict: Verdict, asked_at: float) -> Verdict:
        self._lease.note(verdict, asked_at)
        if verdict is Verdict.LOST:
            raise LeaseLost("the store refused the fence: another worker owns this export")
        return verdict

    def _patiently(self, call: Callable[[], T]) -> T:
        while True:
            self.check()
            try:
                return call()
            except StoreUnavailable as error:
                log.warning("store.silent", reason=str(error))
                self._clock.sleep(STORE_RETRY)
