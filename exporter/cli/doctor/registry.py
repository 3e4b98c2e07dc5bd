"""All checks of the doctor, in the order of the report; a new check is one line here."""

from __future__ import annotations

from collections.abc import Sequence

from exporter.cli.doctor import (
    library_checks,
    process_checks,
    redis_checks,
    source_checks,
    storage_checks,
)
from exporter.cli.doctor.checks import Check
from exporter.native.library import VARIABLE
from exporter.settings import Settings

_REDIS = ("EXPORTER_REDIS_URL",)
_PROCESSES = (*_REDIS, "EXPORTER_REDIS_PREFIX")
_BROKER = ("EXPORTER_BROKER_URL", *_REDIS)
_S3 = (
    "EXPORTER_S3_ENDPOINT_URL",
    "EXPORTER_S3_BUCKET",
    "EXPORTER_S3_REGION",
    "EXPORTER_S3_ADDRESSING",
    "EXPORTER_S3_SSE",
)
_LINK = ("EXPORTER_S3_PUBLIC_ENDPOINT_URL", *_S3)

CHECKS: Sequence[Check] = (
    Check("library", library_checks.is_used, variables=[VARIABLE]),
    Check("redis", redis_checks.connection, variables=_REDIS),
    Check("redis writes", redis_checks.writes, needs=["redis"], variables=_REDIS),
    Check("redis records", redis_checks.has_records, needs=["redis"], variables=_PROCESSES),
    Check("redis durability", redis_checks.is_durable, needs=["redis"], variables=_REDIS),
    Check("redis memory", redis_checks.has_memory, needs=["redis"], variables=_REDIS),
    Check("redis version", redis_checks.is_maintained, needs=["redis"], variables=_REDIS),
    Check("broker", redis_checks.broker, variables=_BROKER),
    Check("s3", storage_checks.access, variables=_S3),
    Check("s3 exports", storage_checks.exports, needs=["s3"], variables=_S3),
    Check("s3 link", storage_checks.link, needs=["s3"], variables=_LINK),
    Check("api", process_checks.api, variables=["EXPORTER_PUBLIC_URL"]),
    Check("workers", process_checks.workers, needs=["redis"], variables=_PROCESSES),
    Check("webhooks", process_checks.senders, needs=["redis"], variables=_PROCESSES),
    Check("beat", process_checks.beat, needs=["redis"], variables=_PROCESSES),
)
"""The checks that do not depend on the content of a file."""


def checks(settings: Settings) -> list[Check]:
    """Returns all checks, those of the configured sources included.

    Without a URL of its own, the broker is the same Redis, so its check needs that of the records.
    """
    own = [
        check._replace(needs=["redis"])
        if check.name == "broker" and settings.broker_url is None
        else check
        for check in CHECKS
    ]
    return [*own, *source_checks.checks(settings)]
