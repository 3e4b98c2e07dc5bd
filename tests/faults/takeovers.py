"""Measures how long the exports of killed workers wait for another worker."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import cast

import redis

_POLL_SECONDS = 0.05


@dataclass
class Takeover:
    """Export whose worker was killed."""

    export_id: str
    fence: bytes
    killed_at: float
    ready_after: float | None = None
    """Seconds until a sweep removed the dead worker's lease."""
    claimed_after: float | None = None
    """Seconds until another worker claimed the export, or the export ended."""
    disturbed: bool = False
    """True if Redis failed meanwhile, so that the times do not measure leases and sweeps."""


class Takeovers(threading.Thread):
    """Polls the records in Redis of exports whose workers were killed."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__(name="takeovers", daemon=True)
        self._redis = client
        self._open: list[Takeover] = []
        self._done: list[Takeover] = []
        self._lock = threading.Lock()
        self._stop_asked = threading.Event()

    def kill_and_watch(self, pids: Collection[int], kill: Callable[[], None]) -> None:
        """Kills the worker with these process ids, and watches the exports that it had leased."""
        kill()
        at = time.monotonic()
        try:
            held = [
                Takeover(export_id, fence, at)
                for export_id, fence, worker in self._leases()
                if int(worker.rpartition(b"-")[2]) in pids
            ]
        except redis.RedisError:
            return  # Redis is unavailable: the wait would include more than a lease
        with self._lock:
            self._open += held

    def disturb(self) -> None:
        """Marks all open takeovers as disturbed; call it before killing Redis."""
        with self._lock:
            for one in self._open:
                one.disturbed = True

    def measured(self) -> list[Takeover]:
        """Returns all completed takeovers that were not disturbed."""
        with self._lock:
            return [one for one in self._done if not one.disturbed]

    def waiting(self) -> list[Takeover]:
        with self._lock:
            return list(self._open)

    def run(self) -> None:
        while not self._stop_asked.wait(_POLL_SECONDS):
            for one in self.waiting():
                try:
                    self._look(one)
                except redis.RedisError:
                    one.disturbed = True

    def stop(self) -> None:
        self._stop_asked.set()
        self.join()

    def _look(self, one: Takeover) -> None:
        fields = cast(
            "list[bytes | None]",
            self._redis.hmget(f"{{exporter}}:export:{one.export_id}", ["fence", "state"]),
        )
        fence, state = fields
        waited = time.monotonic() - one.killed_at
        ended = state not in (b"queued", b"processing")
        if one.ready_after is None and (ended or fence != one.fence):
            one.ready_after = waited
        if ended or fence not in (None, one.fence):
            one.claimed_after = waited
            with self._lock:
                self._open.remove(one)
                self._done.append(one)

    def _leases(self) -> list[tuple[str, bytes, bytes]]:
        found = []
        for member in cast("list[bytes]", self._redis.zrange("{exporter}:leases", 0, -1)):
            fields = cast(
                "list[bytes | None]",
                self._redis.hmget(b"{exporter}:export:" + member, ["fence", "worker_id"]),
            )
            fence, worker = fields
            if fence is not None and worker is not None:
                found.append((member.decode(), fence, worker))
        return found
