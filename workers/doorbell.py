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
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from exporter import settings
from exporter.errors import StoreUnavailable
from exporter.store.base import Wake
from exporter.store.redis import RedisStore
from exporter.sweeper import Sweeper
from workers.app import app
from workers.routing import QUEUE, broker_priority

log = structlog.get_logger()

ENOUGH = 64
"""Doorbells on the broker above which none is added: each one serves whatever is best then."""
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
        try:
            with self._celery.connection_or_acquire() as connection:
                # The stubs know only the calls that every transport shares.
                channel: Any = connection.default_channel
                waiting = channel.queue_declare(QUEUE).message_count
            if waiting >= ENOUGH:
                return
            self._celery.send_task("exporter.tick", priority=broker_priority(wake.priority))
        except (OperationalError, RedisError, OSError) as error:
            # RedisError: kombu wraps what fails while it connects, not while it asks.
            log.warning("relay.broker_silent", reason=str(error))


class _Company:
    """The threads beside a running worker."""

    relay: Relay | None = None
    sweeper: Sweeper | None = None


@worker_ready.connect
def _start(**_: object) -> None:
    store = RedisStore.connect(settings.load().redis_url)
    name = f"{socket.gethostname()}:{os.getpid()}"

    def show_presence() -> None:
        try:
            store.client.set(PRESENCE + name, "1", ex=PRESENCE_SECONDS)
        except RedisError as error:
            log.warning("presence.not_shown", reason=str(error))

    _Company.relay = Relay(store, app)
    _Company.sweeper = Sweeper(store, then=show_presence)
    _Company.relay.start()
    _Company.sweeper.start()
    show_presence()


@worker_shutdown.connect
def _stop(**_: object) -> None:
    for thread in (_Company.relay, _Company.sweeper):
        if thread is not None:
            thread.stop()
