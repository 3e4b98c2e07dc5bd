"""Errors: what S3Storage gives up on, how soon, and what it tells an operator to mend."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest

from exporter.clock import FakeClock
from exporter.errors import (
    ConfigurationError,
    ObjectExists,
    StorageError,
    StorageUnavailable,
    UploadGone,
)
from exporter.local import ports
from exporter.storage.base import ObjectInfo, ObjectRange
from exporter.storage.s3 import check as s3_check
from exporter.storage.s3 import failures as s3_failures
from exporter.storage.s3 import requests as s3
from exporter.storage.s3.storage import S3Storage
from tests.integration import faulty_s3
from tests.integration.faulty_s3 import FaultyS3
from tests.integration.s3_storage.conftest import CSV

if TYPE_CHECKING:
    from tests.conftest import S3


WHOLE = ObjectRange(ObjectInfo("old", 9, "e"), range(9))


def _storage(bucket: str, endpoint_url: str | None, clock: FakeClock) -> S3Storage:
    return S3Storage(
        bucket,
        endpoint_url=endpoint_url,
        public_endpoint_url=None,
        region="us-east-1",
        clock=clock,
    )


def test_a_store_that_stays_away_is_given_up_after_about_a_minute(
    storage: S3Storage, proxy: FaultyS3, clock: FakeClock, key: str
) -> None:
    # Given
    proxy.otherwise = faulty_s3.error(503, "SlowDown")

    # When
    with pytest.raises(StorageUnavailable, match=f"{key}.*SlowDown") as caught:
        storage.put_small(key, b"a", CSV)

    # Then
    assert s3_failures.RETRY_SECONDS - s3.MAX_BACKOFF_SECONDS <= clock.monotonic() <= 60
    assert "'exports'" in str(caught.value)
    # Patient with the store, and not a flood for it.
    assert 12 <= len(proxy.requests) <= 80


def test_a_store_that_cannot_be_reached_is_unavailable(s3_server: S3, clock: FakeClock) -> None:
    # Given
    nobody = f"http://127.0.0.1:{ports.find_free(1)[0]}"
    started = time.monotonic()

    # When
    with pytest.raises(StorageUnavailable, match="EndpointConnectionError"):
        _storage(s3_server.bucket, nobody, clock).head("any")

    # Then
    assert 55 <= clock.monotonic() <= 60
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    ("status", "code", "mend"),
    [
        (403, "AccessDenied", "AWS_ACCESS_KEY_ID"),
        (403, "InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
        (400, "ExpiredToken", "AWS_ACCESS_KEY_ID"),
        (403, "SomethingNew", "AWS_ACCESS_KEY_ID"),
        (403, "RequestTimeTooSkewed", "clock"),
        (400, "InvalidRegionName", "EXPORTER_S3_REGION"),
        (404, "NoSuchBucket", "EXPORTER_S3_BUCKET"),
        (507, "XMinioStorageFull", "room"),
        (403, "QuotaExceeded", "room"),
    ],
)
def test_what_an_operator_must_mend_is_unavailable_soon_and_says_how(
    storage: S3Storage,
    proxy: FaultyS3,
    clock: FakeClock,
    key: str,
    status: int,
    code: str,
    mend: str,
) -> None:
    # Given
    proxy.otherwise = faulty_s3.error(status, code)

    # When
    with pytest.raises(StorageUnavailable, match=f"{code}.*{mend}"):
        storage.put_small(key, b"a", CSV)

    # Then
    assert clock.monotonic() <= s3_failures.OPERATOR_RETRY_SECONDS


@pytest.mark.parametrize(
    ("status", "code", "raised"),
    [
        (400, "EntityTooSmall", StorageError),
        (400, "InvalidPart", s3_failures.WrongParts),
        (400, "SomethingNew", StorageError),
        (404, "NoSuchUpload", UploadGone),
        (412, "PreconditionFailed", ObjectExists),
    ],
)
def test_what_no_retry_can_change_is_raised_at_once_with_code_and_key(
    storage: S3Storage,
    proxy: FaultyS3,
    clock: FakeClock,
    key: str,
    status: int,
    code: str,
    raised: type[StorageError],
) -> None:
    # Given
    upload_id = storage.begin(key, CSV)
    part = storage.put_part(key, upload_id, 1, b"a")
    proxy.faults.append(faulty_s3.error(status, code))

    # When
    with pytest.raises(StorageError, match=f"{key}.*{code}") as caught:
        storage.complete(key, upload_id, [part])

    # Then
    assert caught.type is raised
    assert clock.monotonic() == 0
    assert len(proxy.requests) == 3


@pytest.mark.parametrize("status", [400, 403])
def test_a_head_that_is_refused_is_not_taken_for_an_absent_object(
    storage: S3Storage, proxy: FaultyS3, status: int
) -> None:
    # Given
    proxy.otherwise = faulty_s3.error(status, "the code of a HEAD is never sent")

    # When, Then
    with pytest.raises(StorageUnavailable):
        storage.head("any")


def test_check_passes_and_leaves_nothing(storage: S3Storage, proxy: FaultyS3) -> None:
    # Given, When
    storage.check()

    # Then
    assert proxy.requests
    assert list(storage.open_uploads("exporter-check")) == []
    assert list(storage.objects("exporter-check")) == []


def test_check_names_a_bucket_that_does_not_exist(s3_server: S3, clock: FakeClock) -> None:
    # Given
    storage = _storage("no-such-bucket", s3_server.endpoint_url, clock)

    # When, Then
    with pytest.raises(ConfigurationError, match=r"no-such-bucket.*EXPORTER_S3_BUCKET"):
        storage.check()


@pytest.mark.parametrize("variable", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_check_asks_for_other_keys_when_these_are_refused_and_shows_none(
    storage: S3Storage, s3_server: S3, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    # Given
    monkeypatch.setenv(variable, "quite-another-one")

    # When
    with pytest.raises(ConfigurationError, match=variable) as caught:
        storage.check()

    # Then
    assert s3_server.secret_key not in str(caught.value)
    assert "quite-another-one" not in str(caught.value)


def test_check_asks_for_keys_when_there_are_none(
    storage: S3Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")

    # When, Then
    with pytest.raises(ConfigurationError, match="AWS_ACCESS_KEY_ID"):
        storage.check()


def test_check_explains_an_endpoint_that_is_no_url(s3_server: S3, clock: FakeClock) -> None:
    # Given
    storage = _storage(s3_server.bucket, "127.0.0.1:9000", clock)

    # When, Then
    with pytest.raises(ConfigurationError, match="EXPORTER_S3_ENDPOINT_URL"):
        storage.check()


def test_check_does_not_wait_long_for_a_store_that_is_away(s3_server: S3, clock: FakeClock) -> None:
    # Given
    storage = _storage(s3_server.bucket, f"http://127.0.0.1:{ports.find_free(1)[0]}", clock)

    # When
    with pytest.raises(StorageUnavailable):
        storage.check()

    # Then
    assert clock.monotonic() <= s3_check.CHECK_RETRY_SECONDS


@pytest.mark.parametrize(
    ("answer", "call", "said"),
    [
        (
            "<InitiateMultipartUploadResult/>",
            lambda storage: storage.begin("k", CSV),
            "CreateMultipartUpload without UploadId",
        ),
        (
            "",
            lambda storage: storage.put_part("k", "upload", 1, b"a"),
            "UploadPart without ETag",
        ),
        (
            "",
            lambda storage: storage.copy_part(WHOLE, "k", "upload", 1),
            "UploadPartCopy without ETag|UploadPartCopy without CopyPartResult",
        ),
        (
            "<ListAllMyBucketsResult/>",
            lambda storage: list(storage.open_uploads("k")),
            "ListMultipartUploads without IsTruncated",
        ),
        (
            "<ListAllMyBucketsResult/>",
            lambda storage: list(storage.objects("k")),
            "ListObjectsV2 without IsTruncated",
        ),
    ],
)
def test_a_store_that_takes_a_request_for_another_is_named(
    storage: S3Storage,
    proxy: FaultyS3,
    answer: str,
    call: Callable[[S3Storage], object],
    said: str,
) -> None:
    # Given
    proxy.otherwise = faulty_s3.text(200, answer)

    # When, Then
    with pytest.raises(StorageError, match=said):
        call(storage)


@pytest.mark.parametrize(
    ("status", "body", "raised"),
    [
        (404, "<Error><Code>NoSuchUpload</Code><Message></Message></Error>", UploadGone),
        (412, "<Error><Code>PreconditionFailed</Code><Message/></Error>", ObjectExists),
        (400, "<Error><Code>Unknown</Code><Message></Message></Error>", StorageError),
        (400, "<Error><Code></Code><Message></Message></Error>", StorageError),
        (400, "<Error></Error>", StorageError),
    ],
)
def test_an_error_without_a_text_as_ceph_sends_it_is_understood(
    storage: S3Storage, proxy: FaultyS3, status: int, body: str, raised: type[StorageError]
) -> None:
    # Given
    proxy.otherwise = faulty_s3.text(status, body)

    # When
    with pytest.raises(StorageError, match="no message") as caught:
        storage.put_part("k", "upload", 1, b"a")

    # Then
    assert caught.type is raised


@pytest.mark.parametrize(("is_open", "raised"), [(False, UploadGone), (True, StorageUnavailable)])
def test_an_upload_of_which_ceph_says_that_it_is_being_completed_is_looked_up(
    storage: S3Storage,
    proxy: FaultyS3,
    key: str,
    is_open: bool,
    raised: type[StorageError],
) -> None:
    """Ceph 16 answers so to the completion of an upload that was aborted."""
    # Given
    upload_id = storage.begin(key, CSV)
    part = storage.put_part(key, upload_id, 1, b"a")
    if not is_open:
        storage.abort(key, upload_id)
    told = (
        "<Error><Code>InternalError</Code>"
        "<Message>This multipart completion is already in progress</Message></Error>"
    )

    def fault(exchange: faulty_s3.Exchange, body: bytes) -> None:
        if exchange.command == "POST":
            exchange.answer(500, told.encode())
        else:
            faulty_s3.passed_on(exchange, body)

    proxy.otherwise = fault

    # When, Then
    with pytest.raises(raised):
        storage.complete(key, upload_id, [part])
