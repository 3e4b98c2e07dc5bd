"""All checks of the doctor, in the order of the report; a new check is one line here."""

from __future__ import annotations

from collections.abc import Sequence

from exporter.cli.doctor import process_checks, redis_checks, source_checks, storage_checks
from exporter.cli.doctor.checks import Check
from exporter.settings import Settings

_REDIS = ("EXPORTER_REDIS_URL",)
_BROKER = ("EXPORTER_BROKER_URL", *_REDIS)
_S3 = (
    "EXPORTER_S3_ENDPOINT_URL",
    "EXPORTER_S3_BUCKET",
    "EXPORTER_S3_REGION",
    "EXPORTER_S3_ADDRESSING",
    "EXPORTER_S3_SSE",
)

CHECKS: Sequence[Check] = (
    Check("redis", redis_checks.records, variables=_REDIS),
    Check("broker", redis_checks.broker, variables=_BROKER),
    Check("workers", process_checks.workers, needs=["redis"], variables=_REDIS),
    Check("s3", storage_checks.access, variables=_S3),
    Check("s3 exports", storage_checks.exports, needs=["s3"], variables=_S3),
)
"""The checks that do not depend on the content of a file."""


def checks(settings: Settings) -> list[Check]:
    """Returns all checks, those of the configured sources included."""
    return [*CHECKS, *source_checks.checks(settings)]
