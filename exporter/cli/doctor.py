"""Checks every dependency and setting; the text of each failed check says what to do."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import NamedTuple, cast

import redis

from exporter import wiring
from exporter.clock import SystemClock
from exporter.config import load_config
from exporter.errors import ExporterError
from exporter.settings import Settings, load
from exporter.sources import registry
from exporter.storage import keys as object_keys
from exporter.storage.base import FileHeaders
from exporter.store.redis import keys as redis_keys
from exporter.store.redis import versions
from exporter.store.redis.store import RedisStore


class Finding(NamedTuple):
    """Result of one check: the name of what was checked, True if it works, and a text."""

    what: str
    well: bool
    detail: str


def examine() -> Iterator[Finding]:
    """Yields the result of each check; a failed dependency does not stop the other checks."""
    try:
        settings = load()
    except ExporterError as error:
        yield Finding("settings", False, str(error))
        return
    yield Finding("settings", True, f"bucket {settings.s3_bucket}, API {settings.public_url}")
    yield _check("redis", lambda: _redis(settings))
    yield _check("broker", lambda: _broker(settings))
    yield _check("workers", lambda: _workers(settings))
    yield _check("s3", lambda: _s3(settings))
    try:
        config = load_config(settings.config)
    except ExporterError as error:
        yield Finding("sources", False, str(error))
        return
    for name in sorted(config.sources):
        yield _check(f"source {name}", lambda name=name: _source(settings, name))  # type: ignore[misc]
    if config.surfaces.hirebase not in config.sources:
        yield Finding(
            "surface hirebase",
            False,
            f"exports from {config.surfaces.hirebase!r}, which is not a configured source: "
            "name one under [surfaces]",
        )


def _check(what: str, at: Callable[[], str]) -> Finding:
    try:
        return Finding(what, True, at())
    except (ExporterError, redis.RedisError) as error:
        return Finding(what, False, str(error))


def _redis(settings: Settings) -> str:
    store = RedisStore.connect(settings.redis_url)
    warnings = store.check()
    return "; ".join(("persists and never evicts", *warnings))


def _broker(settings: Settings) -> str:
    with redis.Redis.from_url(settings.broker, socket_timeout=3) as client:
        client.ping()
        try:
            hole = versions.warn(cast("dict[str, str]", client.info("server")))
        except redis.ResponseError:  # a user who may not ask
            hole = None
    return "answers" if hole is None else f"answers; {hole}"


def _workers(settings: Settings) -> str:
    with redis.Redis.from_url(settings.redis_url, socket_timeout=3) as client:
        alive = sum(1 for _ in client.scan_iter(f"{redis_keys.WORKERS}*"))
    if not alive:
        raise ExporterError("no worker is alive: start one with `exporter worker`")
    return f"{alive} alive"


def _s3(settings: Settings) -> str:
    """Runs the S3 calls of an export: upload, complete, copy, head, delete."""
    storage = wiring.storage(settings)
    storage.check()
    probe = f"{object_keys.ROOT}doctor-{uuid.uuid4()}/"
    headers = FileHeaders(content_type="text/plain", file_name="probe.txt")
    keys = [f"{probe}one", f"{probe}two"]
    try:
        upload = storage.begin(keys[0], headers)
        part = storage.put_part(keys[0], upload, 1, b"probe")
        storage.complete(keys[0], upload, [part])
        info = storage.head(keys[0])
        if info is None or info.size != len(b"probe"):
            raise ExporterError(f"an object just written is not shown: {info}")
        upload = storage.begin(keys[1], headers)
        copied = storage.copy_parts(info, keys[1], upload, 1)
        storage.complete(keys[1], upload, copied)
    finally:
        for upload_left in storage.open_uploads(probe):
            storage.abort(upload_left.key, upload_left.upload_id)
        storage.delete(keys)
    return "writes, completes, copies and deletes"


def _source(settings: Settings, name: str) -> str:
    config = load_config(settings.config).sources[name]
    source = registry.make(config, SystemClock())
    try:
        search = source.search({}, datetime.now(UTC), user_id="doctor")
        page = source.fetch(search.query, source.start(1, 0))
    finally:
        source.close()
    return f"answers, {'an unknown number of' if page.total is None else page.total} postings"
