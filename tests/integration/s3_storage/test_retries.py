"""Retries: failures on the way to S3 that pass lose and damage nothing."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from exporter.clock import FakeClock
from exporter.errors import LeaseLost, ObjectExists, StorageUnavailable, UploadGone
from exporter.storage.base import guarded
from exporter.storage.s3 import clients as s3_client
from exporter.storage.s3.storage import S3Storage
from tests.integration import faulty_s3
from tests.integration.faulty_s3 import FaultyS3
from tests.integration.s3_storage.conftest import CSV


@pytest.mark.parametrize(
    "fault",
    [
        faulty_s3.error(503, "SlowDown"),
        faulty_s3.error(500, "InternalError"),
        faulty_s3.error(502, "NobodyKnowsThisCode"),
        faulty_s3.error(400, "RequestTimeout"),
        faulty_s3.text(503, "<html>a balancer's own page</html>"),
        faulty_s3.connection_reset,
        faulty_s3.answer_lost,
        faulty_s3.body_damaged,
    ],
    ids=[
        "slow down",
        "internal error",
        "unknown 5xx",
        "request timeout",
        "not xml",
        "reset",
        "answer lost",
        "body damaged",
    ],
)
def test_a_part_gets_there_through_failures_that_pass(
    storage: S3Storage,
    proxy: FaultyS3,
    clock: FakeClock,
    key: str,
    fault: Callable[[faulty_s3.Exchange, bytes], None],
) -> None:
    # Given
    upload_id = storage.begin(key, CSV)
    proxy.faults.extend([fault] * 3)

    # When
    part = storage.put_part(key, upload_id, 1, bytearray(b"the part"))
    storage.complete(key, upload_id, [part])

    # Then
    assert storage.read(key) == b"the part"
    assert [request.method for request in proxy.requests[1:5]] == ["PUT"] * 4
    assert clock.monotonic() > 0


def test_a_silent_store_is_asked_again(
    storage: S3Storage, proxy: FaultyS3, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    monkeypatch.setattr(s3_client, "READ_TIMEOUT_SECONDS", 0.3)
    proxy.faults.append(faulty_s3.silence)

    # When
    storage.put_small(key, b"a", CSV)

    # Then
    assert storage.read(key) == b"a"


def test_an_error_inside_a_200_is_not_taken_for_success(
    storage: S3Storage, proxy: FaultyS3, key: str
) -> None:
    # Given
    upload_id = storage.begin(key, CSV)
    part = storage.put_part(key, upload_id, 1, b"a")
    proxy.faults.append(faulty_s3.error(200, "InternalError"))

    # When
    storage.complete(key, upload_id, [part])

    # Then
    assert storage.read(key) == b"a"


def test_a_small_object_whose_answer_was_lost_is_recognised(
    storage: S3Storage, proxy: FaultyS3, key: str
) -> None:
    # Given
    proxy.faults.append(faulty_s3.answer_lost)

    # When
    storage.put_small(key, b"a", CSV)

    # Then
    assert storage.read(key) == b"a"


def test_a_completion_whose_answer_was_lost_is_told_and_head_shows_it(
    storage: S3Storage, proxy: FaultyS3, key: str
) -> None:
    # Given
    upload_id = storage.begin(key, CSV)
    part = storage.put_part(key, upload_id, 1, b"abc")
    proxy.faults.append(faulty_s3.answer_lost)

    # When
    with pytest.raises((UploadGone, ObjectExists)):
        storage.complete(key, upload_id, [part])

    # Then
    info = storage.head(key)
    assert info is not None
    assert info.size == 3


def test_a_body_that_breaks_off_is_read_again(
    storage: S3Storage, proxy: FaultyS3, key: str
) -> None:
    # Given
    data = bytes(range(256)) * 4096
    storage.put_small(key, data, CSV)
    proxy.faults.extend([faulty_s3.answer_cut] * 2)

    # When
    read = storage.read(key)

    # Then
    assert read == data


def test_a_stretch_that_breaks_off_goes_on_where_it_did(
    storage: S3Storage, proxy: FaultyS3, key: str
) -> None:
    # Given
    data = bytes(range(256)) * 4096
    storage.put_small(key, data, CSV)
    proxy.faults.extend([faulty_s3.answer_cut] * 2)

    # When
    read = b"".join(storage.stream(key, 1000, len(data)))

    # Then
    assert read == data[1000:]


def test_a_stretch_that_cannot_go_on_ends_with_an_error_and_never_short(
    storage: S3Storage, proxy: FaultyS3, key: str
) -> None:
    # Given
    data = bytes(range(256)) * 4096
    storage.put_small(key, data, CSV)
    proxy.faults.extend([faulty_s3.answer_cut, *[faulty_s3.connection_reset] * 500])

    # When, Then
    with pytest.raises(StorageUnavailable):
        list(storage.stream(key, 0, len(data)))


def test_a_lease_that_ends_between_two_tries_stops_the_second(
    storage: S3Storage, proxy: FaultyS3, key: str
) -> None:
    # Given a store that refuses for ever, and a lease that outlives three requests
    upload_id = storage.begin(key, CSV)
    proxy.otherwise = faulty_s3.error(503, "SlowDown")
    arrived = len(proxy.requests)

    def check() -> None:
        if len(proxy.requests) >= arrived + 3:
            raise LeaseLost("the lease ended")

    # When
    with pytest.raises(LeaseLost, match=r"^the lease ended$"), guarded(check):
        storage.put_part(key, upload_id, 1, b"a")

    # Then
    assert len(proxy.requests) == arrived + 3
