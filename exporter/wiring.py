"""Puts the real parts together, from the environment alone."""

from __future__ import annotations

from exporter.clock import SystemClock
from exporter.engine import Engine
from exporter.pipeline import Limits
from exporter.settings import Settings, load, load_config
from exporter.storage.s3 import S3Storage
from exporter.store.budgets import RedisBudgets
from exporter.store.redis import RedisStore


def engine() -> Engine:
    """The engine over the Redis and S3 that the environment names; nothing is contacted yet.

    Raises ConfigurationError naming the wrong setting.
    """
    settings = load()
    clock = SystemClock()
    store = RedisStore.connect(settings.redis_url)
    return Engine(
        settings=settings,
        config=load_config(settings.config),
        store=store,
        storage=storage(settings),
        clock=clock,
        budgets=RedisBudgets(store.client).open,
    )


def storage(settings: Settings) -> S3Storage:
    """The object store that the settings name."""
    return S3Storage(
        settings.s3_bucket,
        endpoint_url=settings.s3_endpoint_url,
        public_endpoint_url=settings.s3_public_endpoint_url,
        region=settings.s3_region,
        clock=SystemClock(),
    )


def limits(settings: Settings) -> Limits:
    """The numbers that a slice works by."""
    return Limits(
        part_size=int(settings.part_size),
        slice=settings.slice_seconds,
        lease=settings.lease_seconds,
        patience=settings.patience,
        deadline=settings.deadline,
        max_attempts=settings.max_attempts,
        keep_file=settings.retention,
        keep_record=settings.record_retention,
    )
