"""The repair that needs no leader: every worker and API process runs it all the time."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from exporter.errors import StoreUnavailable
from exporter.store.base import ExportStore

log = structlog.get_logger()

INTERVAL = 2.0
"""Seconds between two sweeps; with the lease it bounds how long a dead worker's export waits."""


class Sweeper(threading.Thread):
    """Makes exports with an expired lease, or whose waiting is over, ready again.

    Each step is idempotent and bounded, so any number of sweepers may run. A store that does not
    answer is swept the next time.
    """

    def __init__(
        self,
        store: ExportStore,
        *,
        then: Callable[[], None] | None = None,
        interval: float = INTERVAL,
    ) -> None:
        super().__init__(name="sweeper", daemon=True)
        self._store = store
        self._then = then
        self._interval = interval
        self._stop_asked = threading.Event()

    def run(self) -> None:
        while not self._stop_asked.wait(self._interval):
            try:
                swept = self._store.sweep()
                if self._then is not None:
                    self._then()
            except StoreUnavailable as error:
                log.warning("sweep.skipped", reason=str(error))
                continue
            if swept.expired:
                log.warning("sweep.leases_expired", count=swept.expired)

    def stop(self) -> None:
        """End the thread soon; does not wait for it."""
        self._stop_asked.set()
