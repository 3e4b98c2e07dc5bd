"""Checks of the Redis of the records and of the Redis of Celery's messages."""

from __future__ import annotations

from typing import cast

import redis

from exporter.cli.doctor.checks import Problem
from exporter.settings import Settings
from exporter.store.redis import versions
from exporter.store.redis.store import RedisStore


def records(settings: Settings) -> str:
    """The Redis of the records keeps all that was acknowledged."""
    store = RedisStore.connect(settings.redis_url)
    warnings = store.check()
    return "; ".join(("persists and never evicts", *warnings))


def broker(settings: Settings) -> str:
    """The Redis of the messages answers."""
    try:
        with redis.Redis.from_url(settings.broker, socket_timeout=3) as client:
            client.ping()
            try:
                hole = versions.warn(cast("dict[str, str]", client.info("server")))
            except redis.ResponseError:  # a user who may not ask
                hole = None
    except redis.RedisError as error:
        raise Problem(str(error)) from error
    return "answers" if hole is None else f"answers; {hole}"
