"""Creates the real services from the environment variables and the configuration file."""

from __future__ import annotations

import threading

import redis
import structlog

from exporter.clock import Clock, SystemClock
from exporter.config import check_proxies, load_config
from exporter.core.exports import Export
from exporter.errors import ExporterError
from exporter.run.run_slice import Limits
from exporter.service.exports import ExportService
from exporter.settings import Settings, load
from exporter.storage import registry
from exporter.storage.base import Storage
from exporter.store.redis.keys import KeyNames
from exporter.store.redis.rate_budgets import RedisBudgets
from exporter.store.redis.source_statistics import SourceStatistics
from exporter.store.redis.store import RedisStore
from exporter.webhooks import private
from exporter.webhooks.delivering import Deliverer
from exporter.webhooks.delivery_store import Deliveries
from exporter.webhooks.endpoint_store import Endpoints
from exporter.webhooks.outbox import Outbox
from exporter.webhooks.private import OperatorGuard
from exporter.webhooks.sender import Sender

log = structlog.get_logger()


def export_service(*, for_api: bool = False) -> ExportService:
    """Returns the service for the configured Redis and S3, without connecting to them.

    With `for_api`, its requests to sources leave the workers their share of each source's rate.
    Raises ConfigurationError that names the wrong setting.
    """
    settings = load()
    config = load_config(settings.config)
    check_proxies(config, settings.s3_endpoint_url)
    clock = SystemClock()
    own_store = store(settings)
    budgets = RedisBudgets(own_store.client, own_store.names)
    return ExportService(
        settings=settings,
        config=config,
        store=own_store,
        storage=storage(settings),
        clock=clock,
        budgets=budgets.open_for_api if for_api else budgets.open,
        meters=SourceStatistics(own_store.client, own_store.names).meter,
    )


def store(settings: Settings, *, patient: bool = True) -> RedisStore:
    """Returns the store of the settings, without connecting to it. See `RedisStore.connect`."""
    names = KeyNames(settings.redis_prefix)
    return RedisStore.connect(settings.redis_url, names, patient=patient)


def warm_up(storage: Storage) -> None:
    """Signs one unused link in a background thread, so that a client loads its data.

    Loading takes boto3 a quarter of a second, for which the first caller or export would wait.
    """

    def sign() -> None:
        try:
            storage.presign("exporter-check", 1)
        except ExporterError as error:
            log.warning("storage.cannot_sign", reason=str(error))

    threading.Thread(target=sign, name="warm", daemon=True).start()


def guard(settings: Settings) -> OperatorGuard:
    """Returns the check of webhook addresses that is made at registration and at each delivery."""
    return private.guard(settings.webhook_allow_private, allow_http=settings.webhook_allow_http)


def endpoints(settings: Settings, client: redis.Redis) -> Endpoints:
    """Returns the store of webhook endpoints."""
    names = KeyNames(settings.redis_prefix)
    return Endpoints(client, names, url_endpoint_ttl=settings.webhook_url_retention)


def deliveries(settings: Settings, client: redis.Redis) -> Deliveries:
    """Returns the store of webhook deliveries."""
    return Deliveries(
        client,
        KeyNames(settings.redis_prefix),
        keep=settings.record_retention,
        kept_deliveries=settings.webhook_kept_deliveries,
    )


def outbox(settings: Settings, client: redis.Redis) -> Outbox:
    """Returns the outbox of events that are not yet delivered."""
    return Outbox(
        client,
        KeyNames(settings.redis_prefix),
        keep=settings.record_retention,
        url_endpoint_ttl=settings.webhook_url_retention,
        user_limit=settings.webhook_user_concurrency,
        kept_deliveries=settings.webhook_kept_deliveries,
    )


def deliverer() -> Deliverer:
    """Returns the sender of webhooks for the configured Redis, without connecting to it.

    Raises ConfigurationError that names the wrong setting.
    """
    own = export_service()
    settings = own.settings
    own_store = own.store
    assert isinstance(own_store, RedisStore)

    def link(export: Export) -> str | None:
        found = own.link(export)
        return found[0] if found else None

    return Deliverer(
        outbox=outbox(settings, own_store.client),
        endpoints=endpoints(settings, own_store.client),
        store=own_store,
        sender=Sender(guard(settings), own.clock, timeout=settings.webhook_timeout.total_seconds()),
        clock=own.clock,
        link=link,
        public_url=settings.public_url,
        concurrency=settings.webhook_concurrency,
        timeout=settings.webhook_timeout,
    )


def storage(settings: Settings, clock: Clock | None = None) -> Storage:
    """Returns the destination of the settings, without connecting to it.

    `clock` is the time of its retries; default: the machine's.
    """
    return registry.connect(settings.storage_url, settings, clock or SystemClock())


def limits(settings: Settings) -> Limits:
    """Returns the limits of a slice from the settings."""
    return Limits(
        part_size=int(settings.part_size),
        partition_rows=settings.partition_rows,
        partitions=settings.partitions,
        slice=settings.slice_seconds,
        lease=settings.lease_seconds,
        patience=settings.patience,
        deadline=settings.deadline,
        max_attempts=settings.max_attempts,
        keep_file=settings.retention,
        keep_record=settings.record_retention,
        charge_canceled=settings.charge_canceled,
    )
