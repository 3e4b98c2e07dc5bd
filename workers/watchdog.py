"""Ends a worker that no longer claims work although work is ready, so that it is restarted."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence

import structlog

from exporter.errors import StoreUnavailable
from exporter.store.base import ExportStore
from exporter.webhooks.outbox import Outbox
from workers import draining, pulse

log = structlog.get_logger()

INTERVAL_SECONDS = 5.0
"""Seconds between two checks."""
MAX_STUCK_SECONDS = 60.0
"""Time without a claim, while work is ready and a child is idle, after which the process ends.

The slowest recovery from a broken broker connection that was measured took 29 s.
"""
DRAIN_GRACE_SECONDS = 10.0
"""Seconds that running slices get to release their exports before the watchdog ends the process."""
EXIT_CODE = 70
"""Exit code of a process that the watchdog ends (EX_SOFTWARE)."""


class Watchdog(threading.Thread):
    """Thread that ends this process with exit code 70 if its worker is stuck or a thread is dead.

    A worker is stuck if for MAX_STUCK_SECONDS work was ready, a child process was idle, and no
    child process claimed work. Broker libraries have hung in this way after a broker restart,
    without a line in the log. While the broker does not answer a new connection, the worker is not
    considered stuck, because a restart would not help. The threads are those that relay messages
    and sweep.
    """

    def __init__(
        self,
        work: ExportStore | Outbox,
        slots: int,
        beside: Sequence[threading.Thread],
        *,
        can_reach_broker: Callable[[], bool],
    ) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._work = work
        self._slots = slots
        self._beside = beside
        self._can_reach_broker = can_reach_broker
        self._waiting_since: float | None = None
        self._stop_asked = threading.Event()

    def run(self) -> None:
        while not self._stop_asked.wait(INTERVAL_SECONDS):
            dead = [thread.name for thread in self._beside if not thread.is_alive()]
            if draining.requested():
                continue
            if dead:
                log.critical("watchdog.thread_died", threads=dead)
                self._end()
            seconds = self.stuck_seconds(time.monotonic())
            if seconds > MAX_STUCK_SECONDS:
                log.critical("watchdog.stuck", seconds=round(seconds))
                self._end()

    def stop(self) -> None:
        """Asks the thread to end, and does not wait for it."""
        self._stop_asked.set()

    def stuck_seconds(self, now: float) -> float:
        """Checks for stuck work: returns the seconds for which ready work was not claimed.

        The seconds count from the first of the checks in a row that found ready work and an idle
        child process, or from a later claim. Returns 0 if there is no ready work or no idle child
        process. `now` is the time by the monotonic clock.
        """
        if not self._has_work_for_idle_slot():
            self._waiting_since = None
            return 0.0
        if self._waiting_since is None:
            self._waiting_since = now
        return now - max(self._waiting_since, pulse.last_claim())

    def _has_work_for_idle_slot(self) -> bool:
        if not pulse.count_idle(self._slots):
            return False
        try:
            # Sweeps are idempotent, and no other call returns the amount of ready work.
            return self._work.sweep().ready > 0 and self._can_reach_broker()
        except StoreUnavailable:
            return False  # logged by the sweeper or relay thread

    def _end(self) -> None:
        draining.request()
        deadline = time.monotonic() + DRAIN_GRACE_SECONDS
        while pulse.count_idle(self._slots) < self._slots and time.monotonic() < deadline:
            time.sleep(0.1)
        # Not sys.exit: the main thread hangs and would not run it. The kernel ends the children.
        os._exit(EXIT_CODE)
