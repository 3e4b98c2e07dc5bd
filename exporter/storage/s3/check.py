"""Check of a bucket before it is used, with the correction if the store refuses."""

from __future__ import annotations

import contextlib
from typing import Any

from exporter.errors import ConfigurationError, StorageError, StorageUnavailable, UploadGone
from exporter.storage.s3 import failures
from exporter.storage.s3.encryption import Encryption
from exporter.storage.s3.requests import Requests

CHECK_RETRY_SECONDS = 5.0
"""Time for which each request of `check` is retried.

It is short, so that a process that cannot start reports its error soon.
"""
KEY = "exporter-check"
_ALTERNATIVES = (None, Encryption("AES256"), Encryption("aws:kms"))


def check(requests: Requests) -> None:
    """Raises an error unless the bucket can be listed and written.

    Raises ConfigurationError with the necessary correction if the store refuses, and
    StorageUnavailable if it does not answer in time. Leaves nothing in the bucket.
    """
    try:
        requests.call(
            "ListObjectsV2",
            KEY,
            lambda s3: s3.list_objects_v2(Bucket=requests.bucket, Prefix=KEY, MaxKeys=1),
            CHECK_RETRY_SECONDS,
        )
        try:
            _begin_and_abort(requests, requests.encryption, CHECK_RETRY_SECONDS)
        except StorageError as error:
            is_answer = not isinstance(error, StorageUnavailable)
            if is_answer or isinstance(error, failures.Refused):
                _name_encryption(requests, error)
            raise
    except failures.Refused as error:
        raise ConfigurationError(str(error)) from error


def _name_encryption(requests: Requests, cause: StorageError) -> None:
    """Raises ConfigurationError if an upload can begin with another encryption."""
    refused = requests.encryption
    for other in _ALTERNATIVES:
        if other == refused:
            continue
        with contextlib.suppress(StorageError):
            _begin_and_abort(requests, other, 0)
            asked = f"with EXPORTER_S3_SSE={refused}" if refused else "without encryption"
            remedy = f"set EXPORTER_S3_SSE={other}" if other else "leave EXPORTER_S3_SSE out"
            raise ConfigurationError(
                f"The bucket {requests.bucket!r} refuses objects {asked}: {remedy}."
            ) from cause


def _begin_and_abort(
    requests: Requests, encryption: Encryption | None, retry_seconds: float
) -> None:
    bucket = requests.bucket
    arguments: dict[str, Any] = dict(encryption.arguments) if encryption else {}
    upload_id = requests.call(
        "CreateMultipartUpload",
        KEY,
        lambda s3: s3.create_multipart_upload(Bucket=bucket, Key=KEY, **arguments),
        retry_seconds,
    )["UploadId"]
    with contextlib.suppress(UploadGone):
        requests.call(
            "AbortMultipartUpload",
            KEY,
            lambda s3: s3.abort_multipart_upload(Bucket=bucket, Key=KEY, UploadId=upload_id),
            failures.RETRY_SECONDS,
        )
