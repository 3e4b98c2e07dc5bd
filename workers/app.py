"""Configures the Celery application.

Its messages are doorbells: they wake a worker, which then chooses and claims work itself; see
`workers.doorbell`.
"""

from __future__ import annotations

from celery import Celery
from celery.schedules import crontab
from kombu.exceptions import OperationalError
from kombu.transport import redis as kombu_redis
from redis.exceptions import RedisError

from exporter import settings
from exporter.store.redis.keys import KeyNames
from workers import memory
from workers.routing import QUEUE

# Errors that end a worker unless they count as recoverable. AttributeError: after a Redis restart,
# closing the dead connection makes kombu 5.7 raise it ('NoneType' object has no attribute
# 'hostname'; celery/kombu issues 582 and 970). RedisError: a Redis that is full, read-only or
# cannot write to its disk refuses commands, even the acknowledgement of a message.
for _error in (AttributeError, RedisError):
    if _error not in kombu_redis.Transport.connection_errors:
        kombu_redis.Transport.connection_errors += (_error,)

BROKER_ERRORS: tuple[type[Exception], ...] = (
    OperationalError,
    RedisError,
    *kombu_redis.Transport.connection_errors,
)
"""Exceptions that sending a message can raise if the broker does not answer or is full.

Kombu wraps errors of connecting in OperationalError, but not errors of commands.
"""

_settings = settings.load()
_hard_limit = _settings.slice_hard_limit.total_seconds()

app = Celery("exporter", include=["workers.tasks"])
app.conf.update(
    broker_url=_settings.broker,
    # The store is the only source of truth. A message is only a doorbell: it is acknowledged before
    # the work, has no result, and can be lost or duplicated without an effect.
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
    # On a busy machine, a forked child can take longer than the default of 4 s to report ready.
    worker_proc_alive_timeout=30,
    # Last resort against a slice that hangs: normally a slice ends long before these limits.
    task_soft_time_limit=_settings.slice_soft_limit.total_seconds(),
    task_time_limit=_hard_limit,
    # SIGTERM sets the drain flag and waits until slices release their exports. A soft shutdown
    # would cancel slices in the middle of a page.
    worker_soft_shutdown_timeout=0,
    worker_hijack_root_logger=False,
    worker_send_task_events=False,
    # A lost broker connection does not end a slice: the lease alone decides who may continue.
    worker_cancel_long_running_tasks_on_connection_loss=False,
    broker_connection_retry_on_startup=True,
    # None: retry without limit. By default the worker exits after 100 tries.
    broker_connection_max_retries=None,
    broker_transport_options={
        # Of the queues, of what else kombu stores, and of the channels of the remote control.
        "global_keyprefix": KeyNames(_settings.redis_prefix).root,
        # One step for each priority; kombu's default has only four steps.
        "priority_steps": list(range(10)),
        # Visibility timeout, in seconds: a doorbell that a dead worker fetched but did not start is
        # redelivered. A fetched doorbell waits at most for one slice, so the timeout is longer.
        "visibility_timeout": int(_hard_limit) + 60,
        "unacked_restore_interval": 5,
        "unacked_restore_throttle": 1,
        "socket_timeout": 5,
        "socket_connect_timeout": 3,
        "socket_keepalive": True,
        # Without this check, a half-open connection is not detected for minutes.
        "health_check_interval": 5,
        "retry_on_timeout": False,
    },
    timezone="UTC",
    beat_schedule={
        "clean": {"task": "exporter.clean", "schedule": crontab(minute="17")},
    },
)
