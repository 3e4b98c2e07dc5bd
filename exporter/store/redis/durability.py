"""Check of a Redis before it is used: what it may lose, what it refuses, and its version."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import redis
from redis.backoff import NoBackoff
from redis.exceptions import NoPermissionError, RedisError, ResponseError
from redis.retry import Retry

from exporter.errors import ConfigurationError, StoreUnavailable
from exporter.store.redis import diagnosis, errors, probe, versions
from exporter.store.redis.diagnosis import Diagnosis
from exporter.store.redis.keys import KeyNames

FULL_SHARE = 0.9
"""Share of maxmemory above which no export is created; the same as in create.lua."""


def check(client: redis.Redis, names: KeyNames) -> Sequence[str]:
    """Returns warnings about this Redis, such as settings that weaken durability.

    Raises ConfigurationError if waiting does not help: if Redis would lose exports, because it
    evicts keys when full or has no append-only file; if it refuses the user, the database, or a
    command that the service needs; or if it is a cluster. Raises StoreUnavailable if Redis does not
    answer.
    """
    try:
        found = [*persistence(client), *writes(client, names)]
    except RedisError as error:
        cause = diagnosis.diagnose(error, client)
        kind = ConfigurationError if cause.is_permanent else StoreUnavailable
        raise kind(f"EXPORTER_REDIS_URL: {cause}.") from error
    for one in found:
        if one.is_permanent:
            raise ConfigurationError(f"EXPORTER_REDIS_URL: {one}.")
    return [f"{one}." for one in found]


def check_broker(url: str, names: KeyNames, variable: str) -> Sequence[str]:
    """Returns warnings about the Redis of Celery's messages, whose URL is in the variable.

    Raises ConfigurationError and StoreUnavailable like `check`.
    """
    with connect_once(url) as client:
        try:
            refused = diagnosis.explain(probe.probe_broker(client, names), client)
        except RedisError as error:
            refused = diagnosis.diagnose(error, client)
            if not refused.is_permanent:
                raise StoreUnavailable(f"{variable}: {refused}.") from error
    if refused is None:
        return []
    if refused.is_permanent:
        raise ConfigurationError(f"{variable}: {refused}.")
    return [f"{variable}: {refused}."]


def allows_channels(url: str, names: KeyNames) -> bool:
    """True if the user of the URL may subscribe to the channel of Celery's remote control.

    Raises StoreUnavailable if Redis does not answer.
    """
    with connect_once(url) as client, client.pubsub() as channels:
        database = client.connection_pool.connection_kwargs.get("db") or 0
        try:
            channels.psubscribe(names(f"/{database}.celery.pidbox"))
            return channels.get_message(timeout=3) is not None
        except NoPermissionError:
            return False
        except RedisError as error:
            raise StoreUnavailable(f"Redis did not answer: {error}") from error


def connect_once(url: str) -> redis.Redis:
    """Returns a client for a check: it does not repeat a command, and waits 3 s at most."""
    return redis.Redis.from_url(
        url, socket_timeout=3, socket_connect_timeout=3, retry=Retry(NoBackoff(), 0)
    )


def writes(client: redis.Redis, names: KeyNames) -> Sequence[Diagnosis]:
    """Returns why Redis refuses commands that the record store needs; nothing if it refuses none.

    Raises RedisError if Redis does not answer.
    """
    found = diagnosis.explain(probe.probe_records(client, names), client)
    return [] if found is None else [found]


def persistence(client: redis.Redis) -> Sequence[Diagnosis]:
    """Returns what is wrong with the kind, the settings and the version of Redis.

    What Redis does not report counts as wrong, but not as permanent. Raises RedisError if Redis
    does not answer.
    """
    report = read(client)
    return [one for judge in TOPICS.values() for one in judge(report)]


class Report(NamedTuple):
    """Answers of Redis to INFO and CONFIG GET; empty if it refused."""

    info: Mapping[str, Any]
    config: Mapping[str, str]
    refused: Sequence[str] = ()
    """Errors, with their codes, of what was refused."""


def read(client: redis.Redis) -> Report:
    """Returns what Redis reports about itself. Raises RedisError if it does not answer."""
    info: Mapping[str, Any] = {}
    config: Mapping[str, str] = {}
    refused: list[str] = []
    try:
        info = cast("Mapping[str, Any]", client.info("everything"))
    except ResponseError as error:
        refused.append(diagnosis.short(errors.with_code(error)))
    try:
        config = cast("Mapping[str, str]", client.config_get("appendfsync"))
    except ResponseError as error:
        refused.append(diagnosis.short(errors.with_code(error)))
    return Report(info, config, refused)


def _judge_kind(report: Report) -> Iterator[Diagnosis]:
    # Valkey has its own name of the mode, and may be set up to leave out the other one.
    for name in ("redis_mode", "server_mode"):
        kind = diagnosis.unsupported(str(report.info.get(name, "")))
        if kind is not None:
            yield kind
            return


_DURABLE = {"maxmemory_policy": "evicts keys", "aof_enabled": "keeps an append-only file"}
"""Fields of INFO that durability depends on, and their meanings."""


def _judge_durability(report: Report) -> Iterator[Diagnosis]:
    info, config, refused = report
    missing = {name: what for name, what in _DURABLE.items() if name not in info}
    if missing:
        unknown = " and ".join(missing.values())
        yield Diagnosis(
            f"it is unknown whether Redis {unknown} (INFO has no {' and no '.join(missing)})"
            if info
            else f"Redis refused to report whether it {unknown} ({refused[0]})",
            "make sure that it has maxmemory-policy noeviction and appendonly yes",
        )
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        yield Diagnosis(
            f"Redis has maxmemory-policy {policy}, so it deletes exports silently when full",
            "run redis-cli CONFIG SET maxmemory-policy noeviction, and set it in redis.conf",
            is_permanent=True,
        )
    if not info.get("aof_enabled", 1):
        yield Diagnosis(
            "Redis keeps no append-only file, so a restart loses exports",
            "run redis-cli CONFIG SET appendonly yes, and set it in redis.conf",
            is_permanent=True,
        )
    fsync = config.get("appendfsync")
    if fsync is None:
        reason = refused[-1] if refused else "CONFIG GET has no appendfsync"
        yield Diagnosis(
            f"Redis refused to report how often it writes to disk ({reason})",
            "make sure that it has appendfsync always, or a power cut may lose accepted exports",
        )
    elif fsync != "always":
        yield Diagnosis(
            f"Redis has appendfsync {fsync}, so a power cut may lose accepted exports",
            "run redis-cli CONFIG SET appendfsync always, and set it in redis.conf",
        )


def _judge_memory(report: Report) -> Iterator[Diagnosis]:
    used, most = (int(report.info.get(name, 0)) for name in ("used_memory", "maxmemory"))
    if most and used > FULL_SHARE * most:
        yield Diagnosis(
            f"Redis has used {used / most:.0%} of its maxmemory, so no export is created",
            "raise maxmemory, or wait until records expire",
        )


def _judge_version(report: Report) -> Iterator[Diagnosis]:
    hole = versions.find_hole(report.info)
    if hole is not None:
        yield hole


TOPICS: Mapping[str, Callable[[Report], Iterator[Diagnosis]]] = {
    "kind": _judge_kind,
    "durability": _judge_durability,
    "memory": _judge_memory,
    "version": _judge_version,
}
"""Judges of a report, by topic.

They look for Cluster or Sentinel; eviction and lost writes; free memory; and security holes.
"""
