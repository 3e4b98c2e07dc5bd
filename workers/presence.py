"""Keys in Redis that show which processes are alive; `exporter doctor` counts them."""

from __future__ import annotations

import os
import socket
import threading
import time

import structlog
from redis.exceptions import RedisError

from exporter.store.redis import keys
from exporter.store.redis.store import RedisStore

log = structlog.get_logger()

TTL_SECONDS = 15
"""TTL of a presence key: a process counts as live for this time after its last sign of life."""
INTERVAL_SECONDS = 5.0
"""Time between two signs of life of a process that has no other thread to give them."""


class Presence:
    """Redis key that shows that this process is alive; expires TTL_SECONDS after `show`."""

    def __init__(self, store: RedisStore, kind: str = keys.WORKERS) -> None:
        self._store = store
        process = socket.gethostname(), str(os.getpid())
        self._key = store.names(kind, *process)
        self._member = ":".join((kind, *process))

    def show(self) -> None:
        """Sets the presence key, or renews its TTL. Errors of Redis are logged, not raised."""
        try:
            pipe = self._store.client.pipeline(transaction=False)
            pipe.set(self._key, "1", ex=TTL_SECONDS)
            # So that the console lists the processes without a scan of all keys.
            alive, now = self._store.names("alive"), time.time()
            pipe.zremrangebyscore(alive, "-inf", now - TTL_SECONDS)
            pipe.zadd(alive, {self._member: now + TTL_SECONDS})
            pipe.execute()
        except RedisError as error:
            log.warning("presence.not_shown", reason=str(error))

    def keep_shown(self) -> None:
        """Starts a daemon thread that renews the presence key until the process ends."""

        def renew() -> None:
            pause = threading.Event()
            while True:
                self.show()
                pause.wait(INTERVAL_SECONDS)

        threading.Thread(target=renew, name="presence", daemon=True).start()
