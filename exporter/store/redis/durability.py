"""Whether a Redis keeps what it acknowledged."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import redis
from redis.exceptions import ResponseError

from exporter.errors import ConfigurationError
from exporter.store.redis import errors


def check(client: redis.Redis) -> Sequence[str]:
    """Raises ConfigurationError if this Redis would lose exports; returns, one sentence each,
    what could not be checked or weakens the promise."""
    warnings: list[str] = []
    info: Mapping[str, Any] = {}
    config: Mapping[str, str] = {}
    with errors.translate_errors():
        try:
            info = cast("Mapping[str, Any]", client.info("everything"))
        except ResponseError as error:
            warnings.append(
                f"Redis does not tell whether it evicts keys or keeps an append-only file "
                f"({error}): make sure of maxmemory-policy noeviction and appendonly yes."
            )
        try:
            config = cast("Mapping[str, str]", client.config_get("appendfsync"))
        except ResponseError as error:
            warnings.append(
                f"Redis does not tell how often it writes to disk ({error}): with anything "
                "but appendfsync always, a power cut may lose accepted exports."
            )
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise ConfigurationError(
            f"Redis has maxmemory-policy {policy}, so a full one drops exports silently: run "
            "redis-cli CONFIG SET maxmemory-policy noeviction, and set it in redis.conf."
        )
    if not info.get("aof_enabled", 1):
        raise ConfigurationError(
            "Redis keeps no append-only file, so a restart loses exports: run redis-cli "
            "CONFIG SET appendonly yes, and set it in redis.conf."
        )
    fsync = config.get("appendfsync", "always")
    if fsync != "always":
        warnings.append(
            f"Redis has appendfsync {fsync}, so a power cut may lose accepted exports: run "
            "redis-cli CONFIG SET appendfsync always, and set it in redis.conf."
        )
    return warnings
