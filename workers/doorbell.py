"""Sends the Celery messages (doorbells) that wake workers, from threads beside the main thread.

A doorbell is a Celery message that makes a worker claim work; it names no export. The API does not
use the broker: the script that stores a record also adds a wake-up to the store. The relay of any
worker takes the wake-up from the store and sends a doorbell. Wake-ups and doorbells are best
effort: the sweep adds new wake-ups for exports that are ready but were not claimed. Webhook workers
use the same mechanism, with their own wake-ups, relay and sweep.
"""

from __future__ import annotations

import threading
from datetime import timedelta
from typing import Any

import structlog
from celery import Celery
from celery.signals import worker_ready, worker_shutdown

from exporter import settings, wiring
from exporter.errors import StoreUnavailable
from exporter.maintenance.sweeper import Sweeper
from exporter.store.base import Wake
from exporter.store.redis import keys
from exporter.store.redis.store import RedisStore
from exporter.webhooks.outbox import Outbox
from workers.app import BROKER_ERRORS, app
from workers.presence import Presence
from workers.routing import QUEUE, WEBHOOK_QUEUE, broker_priority
from workers.watchdog import Watchdog

log = structlog.get_logger()

MAX_WAITING_DOORBELLS = 64
"""Length of the queue of doorbells (messages that wake a worker) at which none is added.

More are unnecessary: a doorbell is not tied to an export, and the worker claims the best ready one.
"""
SEND_TRIES = 2
"""Tries to send one doorbell (message that wakes a worker).

A second try is needed because the first may only detect that its connection is dead. If the last
try fails, the next sweep causes another doorbell.
"""
WAKE_TIMEOUT = timedelta(seconds=2)
"""Longest wait for a wake-up from the store before the relay checks whether it must stop."""
OUTBOX_TIMEOUT = timedelta(seconds=1)
"""Longest wait for a wake-up from the outbox before the webhook relay sweeps.

No wake-up announces an attempt that becomes due by the passing of time, so it may start this much
late.
"""
MAX_WAITING_WEBHOOK_DOORBELLS = 2
"""Length of the queue of messages that wake a webhook worker at which none is added.

Few are sufficient: one message keeps a process sending until nothing is due.
"""
MIN_WEBHOOK_DOORBELL_INTERVAL_SECONDS = 0.05
"""Shortest time between two messages that wake a webhook worker.

During a burst of events, one message is sufficient for many events.
"""


class Relay(threading.Thread):
    """Thread that takes wake-ups from the store and sends a message that wakes a worker for each.

    Nothing is sent while MAX_WAITING_DOORBELLS messages are in the queue.
    """

    def __init__(self, store: RedisStore, celery: Celery) -> None:
        super().__init__(name="relay", daemon=True)
        self._store = store
        self._celery = celery
        self._stop_asked = threading.Event()

    def run(self) -> None:
        while not self._stop_asked.is_set():
            try:
                wake = self._store.next_wake(timeout=WAKE_TIMEOUT)
                if wake is not None:
                    self._pass_on(wake)
            except StoreUnavailable as error:
                log.warning("relay.store_silent", reason=str(error))
                self._stop_asked.wait(1)
            except Exception:
                log.exception("relay.failed")
                self._stop_asked.wait(1)

    def stop(self) -> None:
        """Asks the thread to end, and does not wait for it."""
        self._stop_asked.set()

    def _pass_on(self, wake: Wake) -> None:
        priority = broker_priority(wake.priority)
        send_doorbell(
            self._celery,
            "exporter.tick",
            QUEUE,
            max_waiting=MAX_WAITING_DOORBELLS,
            priority=priority,
        )


class WebhookRelay(threading.Thread):
    """Thread that wakes webhook workers while webhooks are due.

    In the same loop it makes the deliveries of lost workers due again, and renews the presence key
    that shows that this worker is alive.
    """

    def __init__(self, outbox: Outbox, celery: Celery, presence: Presence) -> None:
        super().__init__(name="webhook-relay", daemon=True)
        self._outbox = outbox
        self._celery = celery
        self._presence = presence
        self._stop_asked = threading.Event()

    def run(self) -> None:
        while not self._stop_asked.wait(MIN_WEBHOOK_DOORBELL_INTERVAL_SECONDS):
            self._presence.show()
            try:
                is_woken = self._outbox.wait(OUTBOX_TIMEOUT)
                swept = self._outbox.sweep()
            except StoreUnavailable as error:
                log.warning("relay.store_silent", reason=str(error))
                self._stop_asked.wait(1)
                continue
            except Exception:
                log.exception("relay.failed")
                self._stop_asked.wait(1)
                continue
            if swept.expired:
                log.warning("sweep.delivery_leases_expired", count=swept.expired)
            if is_woken or swept.ready:
                send_doorbell(
                    self._celery,
                    "exporter.deliver",
                    WEBHOOK_QUEUE,
                    max_waiting=MAX_WAITING_WEBHOOK_DOORBELLS,
                )

    def stop(self) -> None:
        """Asks the thread to end, and does not wait for it."""
        self._stop_asked.set()


def send_doorbell(
    celery: Celery, task: str, queue: str, *, max_waiting: int, priority: int = 0
) -> None:
    """Sends a message that starts `task`, unless `max_waiting` messages are already in its queue.

    Errors of the broker are logged, not raised.
    """
    for _ in range(SEND_TRIES):
        try:
            # One connection for both calls: a second connection could cost another timeout.
            with celery.connection_or_acquire() as connection:
                # Any: the type stubs contain only the calls that all transports share.
                channel: Any = connection.default_channel
                if channel.queue_declare(queue).message_count < max_waiting:
                    celery.send_task(task, queue=queue, priority=priority, connection=connection)
        except BROKER_ERRORS as error:
            log.warning("relay.broker_silent", reason=str(error))
        else:
            return


def can_reach_broker() -> bool:
    """True if a new connection to the broker works."""
    try:
        with app.connection_for_write() as connection:
            channel: Any = connection.default_channel
            channel.queue_declare(QUEUE)
    except BROKER_ERRORS as error:
        log.warning("watchdog.broker_silent", reason=str(error))
        return False
    return True


_threads: list[Relay | WebhookRelay | Sweeper | Watchdog] = []
"""Threads beside the main thread of a running worker."""


@worker_ready.connect
def _start(sender: Any, **_: object) -> None:
    found = settings.load()
    store = wiring.store(found)
    slots = sender.pool.num_processes
    queues = app.amqp.queues.consume_from
    if QUEUE in queues:
        presence = Presence(store)
        relay, sweeper = Relay(store, app), Sweeper(store, then=presence.show)
        watchdog = Watchdog(store, slots, [relay, sweeper], can_reach_broker=can_reach_broker)
        _threads.extend([relay, sweeper, watchdog])
        presence.show()
    if WEBHOOK_QUEUE in queues:
        outbox = wiring.outbox(found, store.client)
        webhook_relay = WebhookRelay(outbox, app, Presence(store, keys.SENDERS))
        watchdog = Watchdog(outbox, slots, [webhook_relay], can_reach_broker=can_reach_broker)
        _threads.extend([webhook_relay, watchdog])
    for thread in _threads:
        thread.start()


@worker_shutdown.connect
def _stop(**_: object) -> None:
    for thread in _threads:
        thread.stop()
