"""The Celery application: a fleet of processes that hear doorbells."""

from __future__ import annotations

from celery import Celery
from celery.schedules import crontab
from kombu.exceptions import OperationalError
from kombu.transport import redis as kombu_redis
from redis.exceptions import RedisError

from exporter import settings
from workers import memory
from workers.routing import QUEUE

# Without this, a Redis restart can end a worker: closing the dead connection makes kombu 5.7
# fail with AttributeError ('NoneType' object has no attribute 'hostname'), which it does not
# count among the connection errors that it recovers from (celery/kombu issues 582 and 970).
if AttributeError not in kombu_redis.Transport.connection_errors:
    kombu_redis.Transport.connection_errors += (AttributeError,)

BROKER_ERRORS: tuple[type[Exception], ...] = (
    OperationalError,
    RedisError,
    *kombu_redis.Transport.connection_errors,
)
"""What ringing raises when the broker is silent or full: kombu wraps what fails while it
connects, not what fails while it asks."""

_settings = settings.load()
_hard_limit = _settings.slice_hard_limit.total_seconds()

app = Celery("exporter", include=["workers.tasks"])
app.conf.update(
    broker_url=_settings.broker,
    # The record in the store is the truth. A message is a doorbell: it is acknowledged before
    # the work, its result is nobody's, and its loss or doubling changes nothing.
    result_backend=None,
    task_ignore_result=True,
    task_acks_late=False,
    task_reject_on_worker_lost=False,
    task_publish_retry=False,
    task_serializer="json",
    accept_content=["json"],
    task_default_queue=QUEUE,
    worker_prefetch_multiplier=1,
    worker_pool="prefork",
    worker_max_tasks_per_child=200,
    worker_max_memory_per_child=memory.recycle_at(_settings.worker_memory),
    # A child that is forked on a busy machine says that it is up after the default of 4 s.
    worker_proc_alive_timeout=30,
    # A slice ends by itself long before; these are the last resort against one that hangs.
    task_soft_time_limit=_settings.slice_soft_limit.total_seconds(),
    task_time_limit=_hard_limit,
    # SIGTERM sets the drain flag and waits for slices to hand over. A soft shutdown would cancel
    # them in the middle of a page.
    worker_soft_shutdown_timeout=0,
    worker_hijack_root_logger=False,
    worker_send_task_events=False,
    # The lease decides who works on, not the link to the broker.
    worker_cancel_long_running_tasks_on_connection_loss=False,
    broker_connection_retry_on_startup=True,
    # None: for ever. The default gives up after 100 tries and the worker exits.
    broker_connection_max_retries=None,
    broker_transport_options={
        # One step for each priority; kombu's default knows only four.
        "priority_steps": list(range(10)),
        # A doorbell that was fetched and not begun comes back; none waits longer than a slice.
        "visibility_timeout": int(_hard_limit) + 60,
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        "socket_timeout": 5,
        "socket_connect_timeout": 3,
        "socket_keepalive": True,
        # Without it a half-open connection is not noticed for minutes.
        "health_check_interval": 5,
        "retry_on_timeout": False,
    },
    timezone="UTC",
    beat_schedule={
        "clean": {"task": "exporter.clean", "schedule": crontab(minute="17")},
    },
)
