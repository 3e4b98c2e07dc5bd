"""Carries wake-ups from the store to the broker, beside the worker's main thread.

The API only writes records, in one script that also leaves a wake-up in the store; it knows no
broker. Any worker's relay takes the wake-up from there and rings. Both are best effort: the
sweep rings again for exports that are ready and were not heard.
"""

from __future__ import annotations

import os
import socket
import threading
from datetime import timedelta
from typing import Any

import structlog
from celery import Celery
from celery.signals import worker_ready, worker_shutdown
from redis.exceptions import RedisError

from exporter import settings
from exporter.errors import StoreUnavailable
from exporter.store.base import Wake
from exporter.store.redis import RedisStore
from exporter.sweeper import Sweeper
from workers.app import BROKER_ERRORS, app
from workers.routing import QUEUE, broker_priority
from workers.watchdog import Watchdog

log = structlog.get_logger()

ENOUGH = 64
"""Doorbells on the broker above which none is added: each one serves whatever is best then."""
TRIES = 2
"""The first may only find out that its connection is dead; the sweep makes up for the last."""
PATIENCE = timedelta(seconds=2)
PRESENCE = "exporter:workers:"
PRESENCE_SECONDS = 15


class Relay(threading.Thread):
    """Rings once for each wake-up in the store, unless enough doorbells wait already."""

    def __init__(self, store: RedisStore, celery: Celery) -> None:
        super().__init__(name="relay", daemon=True)
        self._store = store
        self._celery = celery
        self._stop_asked = threading.Event()

    def run(self) -> None:
        while not self._stop_asked.is_set():
            try:
                wake = self._store.next_wake(timeout=PATIENCE)
            except StoreUnavailable as error:
                log.warning("relay.store_silent", reason=str(error))
                self._stop_asked.wait(1)
                continue
            if wake is not None:
                self._ring(wake)

    def stop(self) -> None:
        """End the thread soon; does not wait for it."""
        self._stop_asked.set()

    def _ring(self, wake: Wake) -> None:
        for _ in range(TRIES):
            try:
                # One connection for both: a second one that has gone silent costs its timeout too.
                with self._celery.connection_or_acquire() as connection:
                    # The stubs know only the calls that every transport shares.
                    channel: Any = connection.default_channel
                    if channel.queue_declare(QUEUE).message_count < ENOUGH:
                        self._celery.send_task(
                            "exporter.tick",
                            priority=broker_priority(wake.priority),
                            connection=connection,
                        )
            except BROKER_ERRORS as error:
                log.warning("relay.broker_silent", reason=str(error))
            else:
                return


class Presence:
    """Shows, for PRESENCE_SECONDS at a time, that a worker of this name lives."""

    def __init__(self, store: RedisStore, name: str) -> None:
        self._store = store
        self._key = PRESENCE + name

    def show(self) -> None:
        """Show it anew. Raises nothing: a sweep that calls this must outlive its Redis."""
        try:
            self._store.client.set(self._key, "1", ex=PRESENCE_SECONDS)
        except RedisError as error:
            log.warning("presence.not_shown", reason=str(error))


def broker_answers() -> bool:
    """Whether a new connection to the broker works."""
    try:
        with app.connection_for_write() as connection:
            channel: Any = connection.default_channel
            channel.queue_declare(QUEUE)
    except BROKER_ERRORS as error:
        log.warning("watchdog.broker_silent", reason=str(error))
        return False
    return True


_company: list[Relay | Sweeper | Watchdog] = []
"""The threads beside a running worker."""


@worker_ready.connect
def _start(sender: Any, **_: object) -> None:
    store = RedisStore.connect(settings.load().redis_url)
    presence = Presence(store, f"{socket.gethostname()}:{os.getpid()}")
    relay = Relay(store, app)
    sweeper = Sweeper(store, then=presence.show)
    watchdog = Watchdog(
        store, sender.pool.num_processes, [relay, sweeper], broker_answers=broker_answers
    )
    _company.extend([relay, sweeper, watchdog])
    for thread in _company:
        thread.start()
    presence.show()


@worker_shutdown.connect
def _stop(**_: object) -> None:
    for thread in _company:
        thread.stop()
