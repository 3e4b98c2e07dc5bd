"""Check of the Redis settings that decide whether acknowledged writes survive, and its version."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import redis
from redis.exceptions import ResponseError

from exporter.errors import ConfigurationError
from exporter.store.redis import errors, versions


def check(client: redis.Redis) -> Sequence[str]:
    """Returns warnings: of settings that weaken durability, or of a version with known holes.

    A setting that could not be read is a warning as well.

    Raises ConfigurationError if this Redis would lose exports: if it evicts keys when full, or if
    it has no append-only file.
    """
    check_database(client, "EXPORTER_REDIS_URL")
    warnings: list[str] = []
    info: Mapping[str, Any] = {}
    config: Mapping[str, str] = {}
    with errors.translate_errors():
        try:
            info = cast("Mapping[str, Any]", client.info("everything"))
        except ResponseError as error:
            warnings.append(
                f"Redis refused to report whether it evicts keys and keeps an append-only file "
                f"({error}): make sure that it has maxmemory-policy noeviction and appendonly yes."
            )
        try:
            config = cast("Mapping[str, str]", client.config_get("appendfsync"))
        except ResponseError as error:
            warnings.append(
                f"Redis refused to report how often it writes to disk ({error}): without "
                "appendfsync always, a power cut may lose accepted exports."
            )
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        raise ConfigurationError(
            f"Redis has maxmemory-policy {policy}, so it deletes exports silently when full: run "
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
    hole = versions.warn(info)
    return warnings if hole is None else [*warnings, hole]


def check_database(client: redis.Redis, variable: str) -> None:
    """Raises ConfigurationError if the Redis does not have the database that `variable` names."""
    with errors.translate_errors():
        try:
            client.ping()
        except ResponseError as error:
            if "DB index is out of range" not in str(error):
                raise
            number = client.connection_pool.connection_kwargs.get("db")
            raise ConfigurationError(
                f"{variable} leads to database {number}, which this Redis does not have: set "
                f"{variable} to a URL with a lower number, such as redis://HOST:PORT/1, or raise "
                "`databases` in redis.conf."
            ) from None
