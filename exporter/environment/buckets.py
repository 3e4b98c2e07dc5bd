"""Checks of the bucket and of the region of the object store."""

from __future__ import annotations

import os
import re

from exporter.environment import urls

_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,61}[A-Za-z0-9]", re.ASCII)
_AWS_BUCKET = re.compile(
    r"arn:.*|(?!.*\.\.)(?!\d+\.\d+\.\d+\.\d+$)[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", re.ASCII
)
_HOST_BUCKET = re.compile(r"[a-z0-9][a-z0-9-]{1,61}[a-z0-9]", re.ASCII)


def check_bucket(value: str) -> str:
    """Returns the name of a bucket; raises ValueError for a name that no store allows."""
    if not _BUCKET.fullmatch(value) and not value.startswith("arn:"):
        raise ValueError(
            f"{urls.shown(value)} cannot be the name of a bucket: write 3 to 63 letters, "
            "digits, dots and hyphens, such as my-exports, without s3:// and without a folder"
        )
    return value


def check_region(value: str) -> str:
    """Returns the name of a region; raises ValueError for a name that cannot be one."""
    if not re.fullmatch(r"[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?", value, re.ASCII):
        raise ValueError(
            f"{urls.shown(value)} cannot be the name of a region: write one such as us-east-1"
        )
    return value


def fits_a_host(bucket: str) -> bool:
    """True if the name of a bucket can be a part of a host name."""
    return _HOST_BUCKET.fullmatch(bucket) is not None


def endpoint_of_aws_configuration() -> bool:
    """True if a variable of AWS names an endpoint; raises ValueError if that is not a URL."""
    if os.environ.get("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "").lower() == "true":
        return False
    for name in ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"):
        if value := os.environ.get(name):
            try:
                urls.store_url(value)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
            return True
    return False


def check_aws_bucket(bucket: str) -> None:
    """Raises ValueError if AWS does not allow the name of a bucket."""
    if not _AWS_BUCKET.fullmatch(bucket):
        raise ValueError(
            f"EXPORTER_S3_BUCKET is {bucket!r}, which AWS refuses: write lower-case letters, "
            "digits and hyphens, such as my-exports, or set EXPORTER_S3_ENDPOINT_URL to a "
            "store with other rules"
        )
