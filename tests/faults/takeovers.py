"""How long the exports of killed workers wait for another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import cast

import redis

_LOOK = 0.05


@dataclass
class Takeover:
    """One export whose worker was killed."""

    export_id: str
    fence: bytes
    killed_at: float
    ready_after: float | None = None
    """Seconds until a sweep had noticed."""
    claimed_after: float | None = None
    """Seconds until another worker had it."""
    disturbed: bool = False
    """Redis was killed too meanwhile, so the time says nothing about leases and sweeps."""


class Takeovers(threading.Thread):
    """Watches the records of exports whose workers were killed, in Redis itself."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__(name="takeovers", daemon=True)
        self._redis = client
        self._open: list[Takeover] = []
        self._done: list[Takeover] = []
        self._lock = threading.Lock()
        self._stop_asked = threading.Event()

    def killed(self, pids: Collection[int], kill: Callable[[], None]) -> None:
        """Kill the worker of these processes and watch the exports that it held."""
        kill()
        at = time.monotonic()
        try:
            held = [
                Takeover(export_id, fence, at)
                for export_id, fence, worker in self._leases()
                if int(worker.rpartition(b"-")[2]) in pids
            ]
        except redis.RedisError:
            return  # Redis is away: what waits for it waits for more than a lease
        with self._lock:
            self._open += held

    def disturb(self) -> None:
        """Redis is about to be killed."""
        with self._lock:
            for one in self._open:
                one.disturbed = True

    def measured(self) -> list[Takeover]:
        """All that ended undisturbed."""
        with self._lock:
            return [one for one in self._done if not one.disturbed]

    def waiting(self) -> list[Takeover]:
        with self._lock:
            return list(self._open)

    def run(self) -> None:
        while not self._stop_asked.wait(_LOOK):
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
            self._redis.hmget(f"exporter:export:{one.export_id}", ["fence", "state"]),
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
        for member in cast("list[bytes]", self._redis.zrange("exporter:leases", 0, -1)):
            fields = cast(
                "list[bytes | None]",
                self._redis.hmget(b"exporter:export:" + member, ["fence", "worker_id"]),
            )
            fence, worker = fields
            if fence is not None and worker is not None:
                found.append((member.decode(), fence, worker))
        return found
