"""Periodic repair of the queue; runs in every worker and API process, without a leader."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from exporter.errors import StoreUnavailable
from exporter.store.base import ExportStore

log = structlog.get_logger()

INTERVAL_SECONDS = 2.0
"""Time between two sweeps.

After the death of its worker, an export waits at most for the end of its lease and then for this
time.
"""


class Sweeper(threading.Thread):
    """A thread that sweeps the queue: makes exports ready whose lease or wait has ended.

    Each sweep is idempotent and bounded, so any number of sweepers may run. If the store does not
    answer, the sweep is skipped and the next sweep tries again. After each successful sweep, the
    function `then` is called.
    """

    def __init__(
        self,
        store: ExportStore,
        *,
        then: Callable[[], None] | None = None,
        interval: float = INTERVAL_SECONDS,
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
            except Exception:
                log.exception("sweep.failed")
                continue
            if swept.expired:
                log.warning("sweep.leases_expired", count=swept.expired)

    def stop(self) -> None:
        """Requests the end of the thread, without waiting for it."""
        self._stop_asked.set()
