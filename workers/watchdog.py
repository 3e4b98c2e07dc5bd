"""Ends a worker that hears nothing although there is work, so that its supervisor restarts it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

import structlog

from exporter.errors import StoreUnavailable
from workers import draining, pulse

log = structlog.get_logger()

INTERVAL = 5.0
"""Seconds between two looks."""
DEAF_AFTER = 60.0
"""Seconds without a claim, while work is ready and a slot idle, after which a worker is deaf. The
slowest recovery from a broken link that was ever measured took 29 s."""
GRACE = 10.0
"""Seconds that slices under way have to hand over before the process ends."""
EXIT_CODE = 70


class HasReady(Protocol):
    """What a sweep found."""

    @property
    def ready(self) -> int:
        """How much a worker could begin now."""


class Sweeps(Protocol):
    """Where the work of a worker comes from: the exports, or the webhooks."""

    def sweep(self) -> HasReady:
        """Repair what dead workers left, and tell what is ready."""


class Watchdog(threading.Thread):
    """Ends this process with exit code 70 when its worker is deaf, or a thread beside it is dead.

    Deaf: for DEAF_AFTER seconds work was ready, a slot was idle, and no child asked for work.
    Libraries have hung like this after a broker restart, with nothing in their logs. A broker
    that does not answer a new connection either is no deafness: a restart would not help.
    """

    def __init__(
        self,
        store: Sweeps,
        slots: int,
        beside: Sequence[threading.Thread],
        *,
        broker_answers: Callable[[], bool],
    ) -> None:
        super().__init__(name="watchdog", daemon=True)
        self._store = store
        self._slots = slots
        self._beside = beside
        self._broker_answers = broker_answers
        self._waiting_since: float | None = None
        self._stop_asked = threading.Event()

    def run(self) -> None:
        while not self._stop_asked.wait(INTERVAL):
            dead = [thread.name for thread in self._beside if not thread.is_alive()]
            if draining.asked():
                continue
            if dead:
                log.critical("watchdog.thread_died", threads=dead)
                self._end()
            seconds = self.deaf_for(time.monotonic())
            if seconds > DEAF_AFTER:
                log.critical("watchdog.deaf", seconds=round(seconds))
                self._end()

    def stop(self) -> None:
        """End the thread soon; does not wait for it."""
        self._stop_asked.set()

    def deaf_for(self, now: float) -> float:
        """Seconds for which this worker let work lie, as far as the looks until now tell."""
        if not self._has_work_for_idle_slot():
            self._waiting_since = None
            return 0.0
        if self._waiting_since is None:
            self._waiting_since = now
        return now - max(self._waiting_since, pulse.last_claim())

    def _has_work_for_idle_slot(self) -> bool:
        if not pulse.idle(self._slots):
            return False
        try:
            # Any number of sweeps is harmless, and no other call tells what is ready.
            return self._store.sweep().ready > 0 and self._broker_answers()
        except StoreUnavailable:
            return False  # the sweeper beside us logs it

    def _end(self) -> None:
        draining.ask()
        deadline = time.monotonic() + GRACE
        while pulse.idle(self._slots) < self._slots and time.monotonic() < deadline:
            time.sleep(0.1)
        # Not sys.exit: the main thread is what does not listen. The kernel ends the children.
        os._exit(EXIT_CODE)
