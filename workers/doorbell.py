"""Carries wake-ups from the store to the broker, beside the worker's main thread.

The API only writes records, in one script that also leaves a wake-up in the store; it knows no
broker. Any worker's relay takes the wake-up from there and rings. Both are best effort: the
sweep rings again for exports that are ready and were not heard. For the workers that send webhooks
it is the same, with wake-ups, relay and sweep of their own.
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

from exporter import settings, wiring
from exporter.errors import StoreUnavailable
from exporter.maintenance.sweeper import Sweeper
from exporter.store.base import Wake
from exporter.store.redis.store import RedisStore
from exporter.webhooks.outbox import Outbox
from workers.app import BROKER_ERRORS, app
from workers.routing import QUEUE, WEBHOOKS, broker_priority
from workers.watchdog import Watchdog

log = structlog.get_logger()

ENOUGH = 64
"""Doorbells on the broker above which none is added: each one serves whatever is best then."""
TRIES = 2
"""The first may only find out that its connection is dead; the sweep makes up for the last."""
PATIENCE = timedelta(seconds=2)
DUE_EVERY = timedelta(seconds=1)
"""How late the next try of a webhook may begin."""
ENOUGH_FOR_WEBHOOKS = 2
"""Each one keeps a process sending for as long as there is anything to send."""
PAUSE = 0.05
"""Seconds between two rings for webhooks: while there is much to tell, one in many is enough."""
PRESENCE = "exporter:workers:"
SENDERS = "exporter:senders:"
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
        priority = broker_priority(wake.priority)
        ring(self._celery, "exporter.tick", QUEUE, enough=ENOUGH, priority=priority)


class WebhookRelay(threading.Thread):
    """Rings while there are webhooks to send, sweeps their leases, and shows that it lives."""

    def __init__(self, outbox: Outbox, celery: Celery, presence: Presence) -> None:
        super().__init__(name="webhook-relay", daemon=True)
        self._outbox = outbox
        self._celery = celery
        self._presence = presence
        self._stop_asked = threading.Event()

    def run(self) -> None:
        while not self._stop_asked.wait(PAUSE):
            self._presence.show()
            try:
                rung = self._outbox.wait(DUE_EVERY)
                swept = self._outbox.sweep()
            except StoreUnavailable as error:
                log.warning("relay.store_silent", reason=str(error))
                self._stop_asked.wait(1)
                continue
            if swept.expired:
                log.warning("sweep.delivery_leases_expired", count=swept.expired)
            if rung or swept.ready:
                ring(self._celery, "exporter.deliver", WEBHOOKS, enough=ENOUGH_FOR_WEBHOOKS)

    def stop(self) -> None:
        """End the thread soon; does not wait for it."""
        self._stop_asked.set()


def ring(celery: Celery, task: str, queue: str, *, enough: int, priority: int = 0) -> None:
    """Ask for a task, unless that many messages wait in its queue already. Raises nothing."""
    for _ in range(TRIES):
        try:
            # One connection for both: a second one that has gone silent costs its timeout too.
            with celery.connection_or_acquire() as connection:
                # The stubs know only the calls that every transport shares.
                channel: Any = connection.default_channel
                if channel.queue_declare(queue).message_count < enough:
                    celery.send_task(task, queue=queue, priority=priority, connection=connection)
        except BROKER_ERRORS as error:
            log.warning("relay.broker_silent", reason=str(error))
        else:
            return


class Presence:
    """Shows, for PRESENCE_SECONDS at a time, that a worker of this name lives."""

    def __init__(self, store: RedisStore, name: str, kind: str = PRESENCE) -> None:
        self._store = store
        self._key = kind + name

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


_company: list[Relay | WebhookRelay | Sweeper | Watchdog] = []
"""The threads beside a running worker."""


@worker_ready.connect
def _start(sender: Any, **_: object) -> None:
    found = settings.load()
    store = RedisStore.connect(found.redis_url)
    name = f"{socket.gethostname()}:{os.getpid()}"
    slots = sender.pool.num_processes
    queues = app.amqp.queues.consume_from
    if QUEUE in queues:
        presence = Presence(store, name)
        relay, sweeper = Relay(store, app), Sweeper(store, then=presence.show)
        watchdog = Watchdog(store, slots, [relay, sweeper], broker_answers=broker_answers)
        _company.extend([relay, sweeper, watchdog])
        presence.show()
    if WEBHOOKS in queues:
        outbox = wiring.outbox(found, store)
        bell = WebhookRelay(outbox, app, Presence(store, name, SENDERS))
        watchdog = Watchdog(outbox, slots, [bell], broker_answers=broker_answers)
        _company.extend([bell, watchdog])
    for thread in _company:
        thread.start()


@worker_shutdown.connect
def _stop(**_: object) -> None:
    for thread in _company:
        thread.stop()
