"""Checks of the processes of the service."""

from __future__ import annotations

import redis

from exporter.cli.doctor.checks import Problem
from exporter.settings import Settings
from exporter.store.redis import keys


def workers(settings: Settings) -> str:
    """At least one worker is alive."""
    return _alive(settings, keys.WORKERS, "worker", "start one with `exporter worker`")


def _alive(settings: Settings, presence: str, what: str, remedy: str) -> str:
    try:
        with redis.Redis.from_url(settings.redis_url, socket_timeout=3) as client:
            alive = sum(1 for _ in client.scan_iter(f"{presence}*"))
    except redis.RedisError as error:
        raise Problem(str(error)) from error
    if not alive:
        raise Problem(f"no {what} is alive", remedy=remedy)
    return f"{alive} alive"
