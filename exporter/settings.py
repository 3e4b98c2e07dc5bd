"""Settings of all processes, read from environment variables."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import timedelta
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, get_args
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ByteSize,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from exporter.core import limits
from exporter.core.rates import Rate
from exporter.environment import buckets, names, proxies, urls
from exporter.environment.problems import problem_text
from exporter.environment.values import (
    Count,
    Duration,
    Network,
    Size,
    check_key_prefix,
    parse_networks,
    parse_rate,
)
from exporter.errors import ConfigurationError
from exporter.storage.s3 import encryption
from exporter.storage.s3.encryption import Encryption
from exporter.storage.s3.limits import MAX_LINK_SECONDS, MIN_PART_BYTES, Addressing


def _days(value: timedelta) -> str:
    return f"{value.total_seconds() / 86400:g}d"


def _addressing(value: object) -> object:
    """Parses the place of the bucket in addresses."""
    if isinstance(value, str) and value.lower() not in get_args(Addressing):
        raise ValueError(
            f"{urls.shown(value)} is no place of the bucket: write path for https://HOST/BUCKET, "
            "virtual for https://BUCKET.HOST, or auto"
        )
    return value.lower() if isinstance(value, str) else value


def _encryption(value: object) -> object:
    return encryption.parse(value) if isinstance(value, str) else value


def _switch(value: object) -> object:
    """Refuses all but 0 and 1: `native.library` reads the same variable, without the settings."""
    if isinstance(value, str) and value not in ("0", "1"):
        raise ValueError(
            f"{urls.shown(value)} is neither 0 nor 1: write 0 to read and write rows by Python "
            "code alone, or leave it out"
        )
    return value


MAX_PART_BYTES = 5 * 1024**3
"""Largest part of a multipart upload of S3."""
_DATABASES = 16
"""Number of databases of a Redis that is not configured otherwise."""
_OTHER_NAMES = ("API_KEY", "BOARD_DATABASE")
"""Variables that are options of commands, not settings of the processes."""
MAX_CONCURRENCY = 512
"""Maximum number of concurrent slices of one worker.

The worker's shared memory is created before the configured number is known.
"""
MIN_LEASE = timedelta(seconds=2)
"""Shortest allowed lease; a short pause of the worker would already end a shorter lease."""
SLICE_GRACE = timedelta(minutes=15)
"""Time that a slice may take beyond its budget before it is treated as hanging.

At its end, a slice waits for the last page, for the last part and for publishing, each for a minute
or more. A worker that takes over a file of many gigabytes also waits until S3 has copied it.
"""
MIN_WORKER_MEMORY_BYTES = 256 * 1024 * 1024
"""Smallest memory limit of a worker process, in addition to the memory for parts.

Python, the libraries and threads take 110 MB of data before the first page.
"""


PREFIX = "EXPORTER_"
StoreUrl = Annotated[str, AfterValidator(urls.store_url)]


class Settings(BaseSettings):
    """All settings with their defaults; read from the variables `EXPORTER_*` only."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, extra="ignore")

    redis_url: str = "redis://127.0.0.1:6379/0"
    """URL of the Redis that stores the records.

    The Redis must persist (AOF) and must not evict keys; processes refuse to start otherwise.
    """
    redis_prefix: Annotated[str, AfterValidator(check_key_prefix)] = "exporter"
    """Prefix of all keys in Redis: letters, digits and `-_.:`.

    Installations with different prefixes can share one database of one Redis.
    """
    broker_url: str | None = None
    """URL of Celery's broker; default: the next database of the same Redis."""
    s3_endpoint_url: StoreUrl | None = None
    """URL of the S3 service; None: that of the AWS configuration, or AWS."""
    s3_public_endpoint_url: StoreUrl | None = None
    """URL of the S3 service in download links, if clients use another URL than the workers."""
    s3_bucket: Annotated[str, AfterValidator(buckets.check_bucket)] = "exports"
    """Bucket that stores the files."""
    s3_region: Annotated[str, AfterValidator(buckets.check_region)] | None = None
    """Region of the bucket; None: that of the AWS configuration, or us-east-1."""
    s3_addressing: Annotated[Addressing, BeforeValidator(_addressing)] = "auto"
    """Place of the bucket in addresses: `path`, `virtual` (in the host name), or `auto`."""
    s3_sse: Annotated[Encryption | None, NoDecode, BeforeValidator(_encryption)] = None
    """Encryption that each object asks the store for: `AES256`, `aws:kms` or `aws:kms:KEY`."""
    public_url: str = "http://127.0.0.1:8800"
    """URL of the API in links, as callers reach it."""
    console: bool = True
    """Whether the API process also serves the web console, at `/`."""
    config: Path | None = None
    """TOML file of the sources; default: exporter.toml in the current directory, if it exists."""
    part_size: Size = ByteSize(8 * 1024 * 1024)
    """Bytes collected before a part is uploaded and committed.

    A part is the most work that a crash costs, and the larger share of a worker's memory.
    """
    partition_rows: Count = Field(default=100_000, ge=0)
    """Minimum number of rows in a partition; 0: no export is partitioned.

    An export with at least twice as many rows is split into partitions, which several workers read
    in parallel, if its source is read by page number and announces a total.
    """
    partitions: int = Field(default=16, ge=1, le=1_000)
    """Maximum number of partitions of one export."""
    slice_seconds: Duration = timedelta(seconds=30)
    """Time that a worker spends on one export before it lets other exports have their turn."""
    lease_seconds: Duration = timedelta(seconds=30)
    """Duration of a lease.

    The export of a dead worker stays unread for about that long, until another worker may claim it.
    """
    link_ttl: Duration = timedelta(hours=24)
    """Validity of a presigned download URL after the poll that created it; 7 days at most."""
    retention: Duration = timedelta(days=7)
    """Retention of a finished file."""
    record_retention: Duration = timedelta(days=30)
    """Retention of the record of an ended export, which can be polled for that time."""
    patience: Duration = timedelta(hours=6)
    """Longest wait for an upstream or S3 that does not answer, before the export fails."""
    deadline: Duration = timedelta(days=7)
    """Longest duration of an export, waits included, before it fails."""
    max_attempts: Count = Field(default=5, ge=1)
    """Consecutive workers that an export may lose without a commit, before it fails."""
    charge_canceled: bool = False
    """Whether the rows that were read for an export cost credits if its owner then canceled or
    deleted it; at most the credits that it reserved."""
    tenant_slots: Count = Field(default=0, ge=0)
    """Maximum number of slices of one user that run at the same time; 0: no limit."""
    create_rate: Annotated[Rate, NoDecode, BeforeValidator(parse_rate)] = limits.CREATE_RATE.default
    """Rate limit of one API key for creating and retrying exports, on any contract."""
    change_rate: Annotated[Rate, NoDecode, BeforeValidator(parse_rate)] = limits.CHANGE_RATE.default
    """Rate limit of one API key for canceling and deleting exports, on any contract."""
    list_rate: Annotated[Rate, NoDecode, BeforeValidator(parse_rate)] = limits.LIST_RATE.default
    """Rate limit of one API key for reading lists of exports, on any contract."""
    estimate_rate: Annotated[Rate, NoDecode, BeforeValidator(parse_rate)] = (
        limits.ESTIMATE_RATE.default
    )
    """Rate limit of one API key for estimates, on any contract."""
    preview_rate: Annotated[Rate, NoDecode, BeforeValidator(parse_rate)] = (
        limits.PREVIEW_RATE.default
    )
    """Rate limit of one API key for previews, on any contract."""
    hirebase_rate: Annotated[Rate, NoDecode, BeforeValidator(parse_rate)] = (
        limits.HIREBASE_RATE.default
    )
    """Rate limit of one API key on the paths of the Hirebase contract, except polls of a task."""
    pipeline_rate: Annotated[Rate, NoDecode, BeforeValidator(parse_rate)] = (
        limits.PIPELINE_RATE.default
    )
    """Rate limit of one API key for exports of its user's own rows, on any contract."""
    max_queued_exports: Count = Field(default=limits.QUEUED_EXPORTS.default, ge=0)
    """Maximum number of exports of one user that have not ended; 0: no limit."""
    max_kept_exports: Count = Field(default=limits.KEPT_EXPORTS.default, ge=0)
    """Maximum number of records of one user, ended exports included; 0: no limit."""
    max_stored_bytes: Size = ByteSize(limits.STORED_BYTES.default)
    """Maximum bytes of the searches of all records of one user; 0: no limit."""
    native: Annotated[bool, BeforeValidator(_switch)] = True
    """Whether the compiled library reads and writes rows, where it is installed: 0 or 1."""
    worker_memory: Size = ByteSize(1024**3)
    """Maximum bytes of data in one worker process; 0: no limit.

    A slice that needs more ends like a crashed slice, before the machine runs out of memory.
    """

    max_connections: Count = Field(default=limits.CONNECTIONS.default, ge=1)
    """Connections that one API process serves at once; fewer if it may open few files.

    Above it the connection that has been idle for the longest time is closed. If all connections
    have a request in progress, a new one gets 503.
    """
    head_timeout: Duration = timedelta(seconds=limits.HEAD_TIMEOUT.default)
    """Longest time for the head of a request to arrive; then the API answers 408 and closes."""
    body_timeout: Duration = timedelta(seconds=limits.BODY_TIMEOUT.default)
    """Longest time for each megabyte of a request's body to arrive; then 408."""
    reader_timeout: Duration = timedelta(seconds=limits.READER_TIMEOUT.default)
    """Longest time for which a client may not read the bytes that the API has sent.

    Then its connection is closed, also in the middle of a download.
    """

    webhook_allow_private: Annotated[
        tuple[Network, ...], NoDecode, BeforeValidator(parse_networks)
    ] = ()
    """Private networks that webhooks may reach, such as `10.1.0.0/16`, separated by commas.

    Plain http and any port are allowed there. Empty: webhooks reach public addresses only.
    """
    webhook_allow_http: bool = False
    """Whether webhooks may go to public addresses by plain http, which is readable in transit."""
    webhook_timeout: Duration = timedelta(seconds=20)
    """Timeout of one attempt to deliver a webhook, in total; 60 s at most."""
    webhook_concurrency: int = Field(default=16, ge=2, le=64)
    """Maximum number of webhooks that one process sends at the same time.

    In addition, up to three times as many may wait for slow receivers.
    """
    webhook_resend_rate: Annotated[Rate, NoDecode, BeforeValidator(parse_rate)] = (
        limits.WEBHOOK_RESENDS.default
    )
    """Rate limit of one user for tests, redeliveries and recoveries of webhooks."""
    webhook_kept_deliveries: Count = Field(default=limits.KEPT_DELIVERIES.default, ge=1_000)
    """Webhook deliveries of one user that are kept; above that, the oldest are deleted."""
    webhook_user_concurrency: Count = Field(default=limits.USER_ATTEMPTS.default, ge=1)
    """Webhooks of one user that all processes together send at the same time; others wait."""

    @field_validator("redis_url", "broker_url")
    @classmethod
    def _is_redis(cls, value: str | None) -> str | None:
        return None if value is None else urls.redis_url(value)

    @field_validator("public_url")
    @classmethod
    def _is_public(cls, value: str) -> str:
        return urls.http_url(value, example="https://exports.example.com")

    @model_validator(mode="after")
    def _fit_together(self) -> Settings:
        bucket = self.s3_bucket
        if self.s3_endpoint_url is None and not buckets.endpoint_of_aws_configuration():
            buckets.check_aws_bucket(bucket)
        for name in ("s3_endpoint_url", "s3_public_endpoint_url"):
            if urlsplit(getattr(self, name) or "").path == f"/{bucket}":
                raise ValueError(
                    f"{PREFIX}{name.upper()} ends with the bucket /{bucket}, which is added to it: "
                    "leave the bucket out there"
                )
        self._check_virtual()
        if self.broker_url is None and _database(self.redis_url) == _DATABASES - 1:
            raise ValueError(
                f"EXPORTER_REDIS_URL uses database {_DATABASES - 1}, so the broker would use "
                f"database {_DATABASES}, which a Redis does not have unless configured: set "
                f"EXPORTER_BROKER_URL to another database of it, such as redis://HOST:PORT/"
                f"{_DATABASES - 2}, or lower the first"
            )
        return self

    def _check_virtual(self) -> None:
        """Raises ValueError if a bucket in the host name was asked for and cannot be there."""
        if self.s3_addressing != "virtual":
            return
        if not buckets.fits_a_host(self.s3_bucket):
            raise ValueError(
                f"EXPORTER_S3_ADDRESSING is virtual, but the bucket {self.s3_bucket!r} cannot be "
                "part of a host name: name another in EXPORTER_S3_BUCKET, of lower-case letters, "
                "digits and hyphens, or write path"
            )
        for name in ("s3_endpoint_url", "s3_public_endpoint_url"):
            host = urlsplit(getattr(self, name) or "").hostname or ""
            if urls.is_address(host):
                raise ValueError(
                    f"EXPORTER_S3_ADDRESSING is virtual, but {PREFIX}{name.upper()} has the "
                    f"address {host}, before which no bucket can be put: give a host name, or "
                    "write path"
                )

    @model_validator(mode="after")
    def _within_bounds(self) -> Settings:
        if self.part_size < MIN_PART_BYTES:
            raise ValueError(
                f"EXPORTER_PART_SIZE is {int(self.part_size)} bytes, below S3's minimum of 5 MiB:"
                " give 5MiB or more"
            )
        if self.part_size > MAX_PART_BYTES:
            raise ValueError(
                f"EXPORTER_PART_SIZE is {int(self.part_size)} bytes, above S3's maximum of 5 GiB:"
                " give less, such as 8MiB"
            )
        if self.retention > self.record_retention:
            raise ValueError(
                f"EXPORTER_RETENTION is {_days(self.retention)} and EXPORTER_RECORD_RETENTION "
                f"{_days(self.record_retention)}: a file must not outlive its record, because the "
                "record has the time at which the file is deleted; raise the second"
            )
        if self.link_ttl > timedelta(seconds=MAX_LINK_SECONDS):
            raise ValueError(
                "EXPORTER_LINK_TTL is over 7d, the longest validity of a presigned URL: give 7d or"
                " less"
            )
        if self.lease_seconds < MIN_LEASE:
            raise ValueError(
                f"EXPORTER_LEASE_SECONDS is {self.lease_seconds.total_seconds():g}s; a lease is "
                "renewed four times in that time, and a short pause of the worker would lose the "
                f"lease: give {MIN_LEASE.total_seconds():g}s or more"
            )
        if self.webhook_timeout > timedelta(seconds=60):
            raise ValueError(
                "EXPORTER_WEBHOOK_TIMEOUT is over 60s, which would block a worker for too long:"
                " give 60s or less"
            )
        needed = MIN_WORKER_MEMORY_BYTES + 4 * self.part_size
        if 0 < self.worker_memory < needed:
            raise ValueError(
                f"EXPORTER_WORKER_MEMORY is {int(self.worker_memory)} bytes; with an "
                f"EXPORTER_PART_SIZE of {int(self.part_size)} a worker process needs {needed}: "
                "raise the first, lower the second, or give 0 for no limit"
            )
        return self

    @property
    def slice_soft_limit(self) -> timedelta:
        """Time after which a hanging slice is interrupted and its lease is given up."""
        return self.slice_seconds + SLICE_GRACE

    @property
    def slice_hard_limit(self) -> timedelta:
        """Time after which the process of a hanging slice is killed."""
        return self.slice_soft_limit + timedelta(minutes=1)

    @property
    def webhook_url_retention(self) -> timedelta:
        """Time for which the endpoint of a `webhook_url` is kept.

        It is kept as long as the record of its export may exist, because during that time a
        delivery can be sent again.
        """
        return self.deadline + self.record_retention

    @property
    def storage_url(self) -> str:
        """URL of the destination of all files; its scheme chooses from `storage.registry`."""
        return f"s3://{self.s3_bucket}"

    @property
    def broker(self) -> str:
        """URL of Celery's broker."""
        if self.broker_url:
            return self.broker_url
        url = urlsplit(self.redis_url)
        return url._replace(path=f"/{_database(self.redis_url) + 1}").geturl()


def _database(redis_url: str) -> int:
    return int(urlsplit(redis_url).path.strip("/") or 0)


@lru_cache
def load() -> Settings:
    """Returns the settings of this process.

    Raises ConfigurationError that names each wrong variable, its value and the right form.
    """
    _remove_blanks()
    try:
        return Settings()
    except ValidationError as error:
        problems = "; ".join(_problem_text(dict(e)) for e in error.errors())
        raise ConfigurationError(problems) from None


def _remove_blanks() -> None:
    """Removes blanks around the values of variables, and variables that have no value.

    In the environment itself: boto3 and the options of commands read from there as well, and boto3
    takes an empty variable for a value.
    """
    for name in list(os.environ):
        if name.upper().startswith(("AWS_", PREFIX)):
            os.environ[name] = os.environ[name].strip()
            if not os.environ[name]:
                del os.environ[name]


def _problem_text(problem: Mapping[str, Any]) -> str:
    text = problem_text(problem)
    if not problem["loc"]:  # several settings together, which the text names
        return text
    name = str(problem["loc"][0])
    default = Settings.model_fields[name].default
    if type(default) is int and not str(problem["type"]).startswith("value_error"):
        text += f", such as {default}"
    return f"{PREFIX}{name.upper()}: {text}"


def warnings() -> Sequence[str]:
    """Returns a text for each variable that has no effect, or not the one that was meant."""
    return [*unknown_names(), *proxies.warnings()]


def unknown_names(environ: Mapping[str, str] | None = None) -> Sequence[str]:
    """Returns a text for each unknown EXPORTER_* variable, which has no effect.

    It is not an error, because the variable may belong to another version of this service.
    """
    found = os.environ if environ is None else environ
    known = {*(name.upper() for name in Settings.model_fields), *_OTHER_NAMES}
    texts = []
    for name in sorted(found):
        bare = name.upper().removeprefix(PREFIX)
        if bare == name.upper() or bare in known:
            continue
        meant = names.similar(bare, known)
        hint = f"did you mean {PREFIX}{meant}?" if meant else "the README lists the settings"
        texts.append(f"{name} has no effect: unknown setting: {hint}")
    return texts
