"""The right to write, and the thread that keeps it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import structlog

from exporter.clock import Clock
from exporter.errors import LeaseLost, StoreUnavailable
from exporter.store.base import Verdict

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
