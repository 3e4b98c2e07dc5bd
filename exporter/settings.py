"""What an operator sets for every process: environment variables."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import timedelta
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from pathlib import Path
from typing import Annotated, Any
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

from exporter.core.rates import Rate
from exporter.errors import ConfigurationError
from exporter.storage.base import MAX_LINK_SECONDS, MIN_PART_BYTES

_DURATION = re.compile(r"\s*(\d+(?:\.\d+)?)\s*([smhd]?)\s*", re.ASCII)
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def _seconds(value: object) -> object:
    """Durations are written as `90`, `90s`, `15m`, `24h` or `7d`."""
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value)
    if match is None:
        raise ValueError(f"{value!r} is no duration: write 90, 90s, 15m, 24h or 7d")
    try:
        return timedelta(seconds=float(match[1]) * _UNITS[match[2] or "s"])
    except OverflowError:
        raise ValueError(f"{value!r} is longer than a calendar") from None


def _days(value: timedelta) -> str:
    return f"{value.total_seconds() / 86400:g}d"


def _some_time(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError("a duration must be longer than 0")
    return value


Duration = Annotated[timedelta, BeforeValidator(_seconds), AfterValidator(_some_time)]


def _networks(value: object) -> object:
    """Networks are written as `10.1.0.0/16, fd00::/8`; a single address is one, too."""
    if not isinstance(value, str):
        return value
    return tuple(ip_network(text.strip()) for text in value.split(",") if text.strip())


Network = IPv4Network | IPv6Network


def parse_rate(value: object) -> object:
    """Rates are written as `100/60s`, `5/s` or `1000/h`."""
    if not isinstance(value, str):
        return value
    count, _, window = (text.strip() for text in value.partition("/"))
    match = _DURATION.fullmatch(f"1{window}" if window in _UNITS else window)
    requests = int(count) if re.fullmatch(r"[0-9]{1,9}", count) else 0
    seconds = float(match[1]) * _UNITS[match[2] or "s"] if match else 0.0
    if not requests or not 0 < seconds <= LONGEST_WINDOW:
        raise ValueError(f"{value!r} is no rate: write 100/60s, 5/s or 1000/h")
    return Rate(requests, seconds)


LONGEST_WINDOW = 7 * 86400
"""Seconds. An export that waits longer for its next page fails at its deadline."""
MAX_CONCURRENCY = 512
"""Slices at once of one worker: its shared memory is made before their number is known."""
SHORTEST_LEASE = timedelta(seconds=2)
SLICE_GRACE = timedelta(minutes=15)
"""What a slice may take beyond its budget before it is thought to hang. Its last page, part and
publishing wait for upstream and S3 in turn, each for a minute or more, and whoever takes over a
file of many gigabytes first lets S3 copy it."""
LEAST_WORKER_MEMORY = 256 * 1024 * 1024
"""Python, the libraries and threads take 110 MB of data before the first page."""


class Settings(BaseSettings):
    """Every setting, its default and what follows from it. Read from `EXPORTER_*` only."""

    model_config = SettingsConfigDict(env_prefix="EXPORTER_", extra="ignore")

    redis_url: str = "redis://127.0.0.1:6379/0"
    """Where records live. Must persist (AOF) and never evict; start-up refuses otherwise."""
    broker_url: str | None = None
    """Where Celery's messages live; default: the next database of the same Redis."""
    s3_endpoint_url: str | None = None
    """None: AWS itself."""
    s3_public_endpoint_url: str | None = None
    """The address of S3 as those who download see it, if it differs from ours."""
    s3_bucket: str = "exports"
    s3_region: str = "us-east-1"
    public_url: str = "http://127.0.0.1:8800"
    """The API as its callers see it; stands in links."""
    config: Path | None = None
    """The sources' TOML file; default: exporter.toml in the current directory, if there."""
    part_size: ByteSize = ByteSize(8 * 1024 * 1024)
    """Bytes collected before a part is uploaded and committed: what a crash costs at most,
    and the larger share of a worker's memory."""
    partition_rows: int = Field(default=100_000, ge=0)
    """An export of twice as many rows or more is cut into partitions of that many at least, which
    several workers read at once, if its source is read by page number and announces its rows.
    0: exports are never cut."""
    partitions: int = Field(default=16, ge=1, le=1_000)
    """Partitions of one export at most."""
    slice_seconds: Duration = timedelta(seconds=30)
    """How long an export holds a worker before others get their turn."""
    lease_seconds: Duration = timedelta(seconds=30)
    """How long a dead worker's export waits for another worker."""
    link_ttl: Duration = timedelta(hours=24)
    """How long a presigned download URL works after the poll that made it; 7 days at most."""
    retention: Duration = timedelta(days=7)
    """How long a finished file is kept."""
    record_retention: Duration = timedelta(days=30)
    """How long the record of an ended export can be polled."""
    patience: Duration = timedelta(hours=6)
    """How long an export waits for an upstream or S3 that does not answer, before it fails."""
    deadline: Duration = timedelta(days=7)
    """How long an export may take in all, waits included, before it fails."""
    max_attempts: int = Field(default=5, ge=1)
    """Workers that an export may lose without a committed part between them, before it fails."""
    tenant_slots: int = Field(default=0, ge=0)
    """Slices of one user that may run at once; 0: no cap."""
    hirebase_rate: Annotated[Rate, NoDecode, BeforeValidator(parse_rate)] = Rate(100, 60)
    """Requests of one API key on the paths of the Hirebase contract, polls of a task aside."""
    pipeline_rate: Annotated[Rate, NoDecode, BeforeValidator(parse_rate)] = Rate(10, 3600)
    """Exports that one API key may ask for on the path of the pipeline contract."""
    worker_memory: ByteSize = ByteSize(1024**3)
    """Bytes of data that one worker process may hold. A slice that wants more ends like a crash
    instead of taking the machine with it. 0: no ceiling."""

    webhook_allow_private: Annotated[tuple[Network, ...], NoDecode, BeforeValidator(_networks)] = ()
    """Networks that webhooks may reach although they are private, such as `10.1.0.0/16`, by plain
    http and at any port too; a comma between two. Empty: the internet alone."""
    webhook_allow_http: bool = False
    """Whether webhooks may go to the internet by plain http, where anyone on the way reads them."""
    webhook_timeout: Duration = timedelta(seconds=20)
    """How long one try of a webhook may take in all; 60 s at most."""
    webhook_concurrency: int = Field(default=16, ge=2, le=64)
    """Webhooks that one process sends at once; as many again, three times over, may wait for slow
    receivers meanwhile."""

    @field_validator("redis_url", "broker_url")
    @classmethod
    def _is_redis(cls, value: str | None) -> str | None:
        if value is None:
            return None
        url = urlsplit(value)
        database = url.path.strip("/")
        if url.scheme not in ("redis", "rediss") or not (database.isdecimal() or not database):
            raise ValueError("it is no URL of a Redis: write redis://HOST:PORT/DATABASE")
        return value

    @model_validator(mode="after")
    def _within_bounds(self) -> Settings:
        if self.part_size < MIN_PART_BYTES:
            raise ValueError(
                f"EXPORTER_PART_SIZE is {int(self.part_size)} bytes; S3 takes no part under 5 MiB"
            )
        if self.retention > self.record_retention:
            raise ValueError(
                f"EXPORTER_RETENTION is {_days(self.retention)} and EXPORTER_RECORD_RETENTION "
                f"{_days(self.record_retention)}: a file must not outlive its record, or nothing "
                "would know when to delete it; raise the second"
            )
        if self.link_ttl > timedelta(seconds=MAX_LINK_SECONDS):
            raise ValueError("EXPORTER_LINK_TTL is over 7d, the longest life of a presigned URL")
        if self.lease_seconds < SHORTEST_LEASE:
            raise ValueError(
                f"EXPORTER_LEASE_SECONDS is {self.lease_seconds.total_seconds():g}s; it is renewed "
                "four times in that time, and a short pause of a worker would lose it: give "
                f"{SHORTEST_LEASE.total_seconds():g}s or more"
            )
        if self.webhook_timeout > timedelta(seconds=60):
            raise ValueError("EXPORTER_WEBHOOK_TIMEOUT is over 60s, and a worker waits that long")
        needed = LEAST_WORKER_MEMORY + 4 * self.part_size
        if 0 < self.worker_memory < needed:
            raise ValueError(
                f"EXPORTER_WORKER_MEMORY is {int(self.worker_memory)} bytes; with an "
                f"EXPORTER_PART_SIZE of {int(self.part_size)} a worker process needs {needed}: "
                "raise the first, lower the second, or give 0 for no ceiling"
            )
        return self

    @property
    def slice_soft_limit(self) -> timedelta:
        """When a slice that seems to hang is interrupted; its lease is then given up."""
        return self.slice_seconds + SLICE_GRACE

    @property
    def slice_hard_limit(self) -> timedelta:
        """When the process of a slice that did not hear the interruption is killed."""
        return self.slice_soft_limit + timedelta(minutes=1)

    @property
    def webhook_url_retention(self) -> timedelta:
        """How long the endpoint of a `webhook_url` is kept: as long as its export's record may be,
        because a delivery can be sent again for that time."""
        return self.deadline + self.record_retention

    @property
    def broker(self) -> str:
        """The URL of Celery's broker."""
        if self.broker_url:
            return self.broker_url
        url = urlsplit(self.redis_url)
        return url._replace(path=f"/{int(url.path.strip('/') or 0) + 1}").geturl()


@lru_cache
def load() -> Settings:
    """The settings of this process. Raises ConfigurationError naming the variable."""
    try:
        return Settings()
    except ValidationError as error:
        problems = "; ".join(
            f"EXPORTER_{'_'.join(map(str, e['loc'])).upper()}: {said(e)}" if e["loc"] else said(e)
            for e in error.errors()
        )
        raise ConfigurationError(problems) from None


def said(problem: Mapping[str, Any]) -> str:
    """What pydantic found wrong, without its prefix."""
    return str(problem["msg"]).removeprefix("Value error, ")
