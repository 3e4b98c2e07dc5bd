"""Checks of the Redis of the records, and of the Redis of Celery's messages."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import redis

from exporter.cli.doctor.checks import Problem, Status
from exporter.settings import Settings
from exporter.store.redis import diagnosis, durability, probe, schema, versions
from exporter.store.redis.diagnosis import Diagnosis
from exporter.store.redis.keys import KeyNames

RECORDS = "EXPORTER_REDIS_URL"
BROKER = "EXPORTER_BROKER_URL"


def connection(settings: Settings) -> str:
    """The Redis of the records takes the credentials, has the database, and is no cluster."""
    with connected(settings.redis_url, RECORDS) as client:
        client.ping()
        report = durability.read(client)
        _raise(list(durability.TOPICS["kind"](report)), RECORDS, Status.FAIL)
        return f"{versions.name(report.info)} at {_place(client)}"


def writes(settings: Settings) -> str:
    """The Redis takes every command of the service; the keys of the check are deleted."""
    with connected(settings.redis_url, RECORDS) as client:
        _raise(durability.writes(client, KeyNames(settings.redis_prefix)), RECORDS, Status.FAIL)
    return "takes every command of the service"


def has_records(settings: Settings) -> str:
    """The records are of a version that this release can use."""
    with connected(settings.redis_url, RECORDS) as client:
        _raise(schema.problems(client, KeyNames(settings.redis_prefix)), RECORDS, Status.WARN)
    return f"version {schema.VERSION}, with the prefix {settings.redis_prefix}"


def is_durable(settings: Settings) -> str:
    """The Redis neither evicts keys nor loses what was acknowledged."""
    _judge(settings, "durability", Status.WARN)
    return "writes each change to disk, and never evicts"


def has_memory(settings: Settings) -> str:
    """The Redis has memory for new exports."""
    report = _judge(settings, "memory", Status.FAIL)
    is_known = {"used_memory", "maxmemory"} <= report.info.keys()
    return "has room for new exports" if is_known else "not reported"


def is_maintained(settings: Settings) -> str:
    """The version of Redis has no known security hole."""
    report = _judge(settings, "version", Status.WARN)
    return "no security hole known" if report.info else "not reported"


def broker(settings: Settings) -> str:
    """The Redis of the messages takes every command of Celery."""
    with connected(settings.broker, BROKER) as client:
        names = KeyNames(settings.redis_prefix)
        refused = diagnosis.explain(probe.probe_broker(client, names), client)
        _raise([refused] if refused else [], BROKER, Status.FAIL)
        with connected(settings.redis_url, RECORDS) as records:
            is_another = diagnosis.address(client) != diagnosis.address(records)
        if is_another:
            report = durability.read(client)
            _raise(list(durability.TOPICS["version"](report)), BROKER, Status.WARN)
        return f"takes every command of Celery at {_place(client)}"


@contextmanager
def connected(url: str, variable: str) -> Iterator[redis.Redis]:
    """Context manager for a client; raises Problem in place of each error of Redis."""
    with durability.connect_once(url) as client:
        try:
            yield client
        except redis.RedisError as error:
            _raise([diagnosis.diagnose(error, client)], variable, Status.FAIL)


def _judge(settings: Settings, topic: str, otherwise: Status) -> durability.Report:
    with connected(settings.redis_url, RECORDS) as client:
        report = durability.read(client)
    _raise(list(durability.TOPICS[topic](report)), RECORDS, otherwise)
    return report


def _raise(found: Sequence[Diagnosis], variable: str, otherwise: Status) -> None:
    """Raises Problem if there is a diagnosis; its status is `otherwise` if none is permanent."""
    if not found:
        return
    worst = sorted(found, key=lambda one: not one.is_permanent)
    raise Problem(
        "; ".join(one.text for one in worst),
        variable=variable,
        remedy="; ".join(one.remedy for one in worst),
        status=Status.FAIL if worst[0].is_permanent else otherwise,
    )


def _place(client: redis.Redis) -> str:
    database = client.connection_pool.connection_kwargs.get("db") or 0
    return f"{diagnosis.address(client)}, database {database}"
