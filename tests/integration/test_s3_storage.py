"""S3Storage against a real S3, with faults on the way to it."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import httpx
import pytest

from exporter.clock import FakeClock
from exporter.errors import (
    ConfigurationError,
    LeaseLost,
    ObjectExists,
    StorageError,
    StorageUnavailable,
    UploadGone,
)
from exporter.local import ports
from exporter.storage import s3, s3_failures
from exporter.storage.base import FileHeaders, ObjectInfo, guarded
from exporter.storage.s3 import S3Storage
from tests.integration import faulty_s3
from tests.integration.faulty_s3 import FaultyS3

if TYPE_CHECKING:
    from tests.conftest import S3

CSV = FileHeaders("text/csv", "postings.csv")
MIB = 1024**2


@pytest.fixture(autouse=True)
def _keys(s3_server: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", s3_server.access_key)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", s3_server.secret_key)
    monkeypatch.delenv("AWS_SESSION_TOKEN", raising=False)
    monkeypatch.delenv("AWS_PROFILE", raising=False)


@pytest.fixture
def proxy(s3_server: S3) -> Iterator[FaultyS3]:
    with FaultyS3(s3_server.endpoint_url) as server:
        yield server


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def storage(proxy: FaultyS3, s3_server: S3, clock: FakeClock) -> S3Storage:
    return _storage(s3_server.bucket, proxy.url, clock)


@pytest.fixture
def key() -> str:
    return f"{uuid.uuid4().hex}/postings.csv"


def _storage(bucket: str, endpoint_url: str | None, clock: FakeClock) -> S3Storage:
    return S3Storage(
        bucket,
        endpoint_url=endpoint_url,
        public_endpoint_url=None,
        region="us-east-1",
        clock=clock,
    )


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
    monkeypatch.setattr(s3, "READ_TIMEOUT", 0.3)
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


def test_a_store_that_stays_away_is_given_up_after_about_a_minute(
    storage: S3Storage, proxy: FaultyS3, clock: FakeClock, key: str
) -> None:
    # Given
    proxy.otherwise = faulty_s3.error(503, "SlowDown")

    # When
    with pytest.raises(StorageUnavailable, match=f"{key}.*SlowDown") as caught:
        storage.put_small(key, b"a", CSV)

    # Then
    assert s3_failures.PATIENCE - s3.LONGEST_WAIT <= clock.monotonic() <= 60
    assert "'exports'" in str(caught.value)
    # Patient with the store, and not a flood for it.
    assert 12 <= len(proxy.requests) <= 80


def test_a_store_that_cannot_be_reached_is_unavailable(s3_server: S3, clock: FakeClock) -> None:
    # Given
    nobody = f"http://127.0.0.1:{ports.free(1)[0]}"
    started = time.monotonic()

    # When
    with pytest.raises(StorageUnavailable, match="EndpointConnectionError"):
        _storage(s3_server.bucket, nobody, clock).head("any")

    # Then
    assert 55 <= clock.monotonic() <= 60
    assert time.monotonic() - started < 20


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


@pytest.mark.parametrize(
    ("status", "code", "mend"),
    [
        (403, "AccessDenied", "AWS_ACCESS_KEY_ID"),
        (403, "InvalidAccessKeyId", "AWS_ACCESS_KEY_ID"),
        (400, "ExpiredToken", "AWS_ACCESS_KEY_ID"),
        (403, "SomethingNew", "AWS_ACCESS_KEY_ID"),
        (403, "RequestTimeTooSkewed", "clock"),
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
    assert clock.monotonic() <= s3_failures.OPERATOR_PATIENCE


@pytest.mark.parametrize(
    ("status", "code", "raised"),
    [
        (400, "EntityTooSmall", StorageError),
        (400, "InvalidPart", StorageError),
        (400, "SomethingNew", StorageError),
        (501, "NotImplemented", StorageError),
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


def test_every_body_carries_its_md5(storage: S3Storage, proxy: FaultyS3, key: str) -> None:
    # Given, When
    storage.put_small(key, b"small", CSV)
    storage.put_part(key, storage.begin(key, CSV), 1, b"part")

    # Then
    sent = [request.headers.get("content-md5") for request in proxy.requests]
    small, part = (
        base64.b64encode(hashlib.md5(data).digest()).decode() for data in (b"small", b"part")
    )
    assert sent == [small, None, part]


def test_writes_that_publish_ask_the_store_not_to_replace(
    storage: S3Storage, proxy: FaultyS3, key: str
) -> None:
    # Given
    upload_id = storage.begin(key, CSV)
    part = storage.put_part(key, upload_id, 1, b"a")

    # When
    storage.complete(key, upload_id, [part])
    storage.put_small(f"{key}.tail", b"a", CSV)

    # Then
    asked = [request.headers.get("if-none-match") for request in proxy.requests]
    assert asked == [None, None, "*", "*"]


def test_a_large_object_is_copied_as_several_parts(
    storage: S3Storage, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    monkeypatch.setattr(s3, "COPY_PIECE", 10 * MIB)
    data = hashlib.shake_128(b"seed").digest(22 * MIB)
    storage.put_small(f"{key}.old", data, CSV)
    old = storage.head(f"{key}.old")
    assert old is not None
    upload_id = storage.begin(key, CSV)

    # When
    parts = storage.copy_parts(old, key, upload_id, 1)
    last = storage.put_part(key, upload_id, 4, b"and more")
    storage.complete(key, upload_id, [*parts, last])

    # Then
    assert len(parts) == 3
    assert storage.read(key) == data + b"and more"


@pytest.mark.parametrize("size", [1, 64 * MIB, 64 * MIB + 1, 1024 * MIB - 1])
def test_copied_ranges_are_asked_for_without_gap_or_overlap(
    storage: S3Storage, proxy: FaultyS3, key: str, size: int
) -> None:
    # Given
    proxy.otherwise = faulty_s3.text(200, '<CopyPartResult><ETag>"e"</ETag></CopyPartResult>')

    # When
    parts = storage.copy_parts(ObjectInfo("old", size, "e"), key, "upload", 1)

    # Then
    asked = [request.headers.get("x-amz-copy-source-range") for request in proxy.requests]
    if len(parts) == 1:
        # S3 refuses ranges of small objects.
        assert asked == [None]
    else:
        ranges = [tuple(map(int, text.removeprefix("bytes=").split("-"))) for text in asked if text]
        assert [first for first, _ in ranges] == [0, *(last + 1 for _, last in ranges[:-1])]
        assert [last - first + 1 for first, last in ranges] == [part.size for part in parts]
    assert sum(part.size for part in parts) == size


@pytest.mark.parametrize("size", [5 * MIB, 64 * MIB + 1, 125 * 1024 * MIB + 1, 5 * 1024**4])
def test_an_object_of_any_size_can_be_copied_within_the_bounds_of_a_part(size: int) -> None:
    # Given, When
    ranges = s3.copy_ranges(size)

    # Then
    assert all(5 * MIB <= len(one) <= 5 * 1024**3 for one in ranges)
    assert 1 <= len(ranges) <= 2000
    assert sum(map(len, ranges)) == size


def test_a_list_that_gives_the_same_place_twice_ends_with_an_error(
    storage: S3Storage, proxy: FaultyS3
) -> None:
    # Given
    proxy.otherwise = faulty_s3.text(
        200,
        "<ListBucketResult><IsTruncated>true</IsTruncated>"
        "<NextContinuationToken>again</NextContinuationToken></ListBucketResult>",
    )

    # When
    with pytest.raises(StorageError, match="again"):
        list(storage.objects("any/"))

    # Then
    assert len(proxy.requests) == 2


def test_a_link_is_made_without_a_request_for_the_host_that_downloaders_reach(
    s3_server: S3, proxy: FaultyS3, clock: FakeClock, key: str
) -> None:
    # Given a store whose own name is of no use outside
    inside = S3Storage(
        s3_server.bucket,
        endpoint_url=s3_server.endpoint_url,
        public_endpoint_url=proxy.url,
        region="us-east-1",
        clock=clock,
    )
    inside.put_small(key, b"a", CSV)

    # When
    link = inside.presign(key, 60)

    # Then
    assert proxy.requests == []
    assert urlsplit(link).netloc == urlsplit(proxy.url).netloc
    assert httpx.get(link).content == b"a"


def test_a_link_to_aws_names_the_bucket_and_its_region(
    s3_server: S3, clock: FakeClock, key: str
) -> None:
    # Given
    aws = S3Storage(
        "some-bucket",
        endpoint_url=None,
        public_endpoint_url=None,
        region="eu-central-1",
        clock=clock,
    )

    # When
    link = urlsplit(aws.presign(key, 60))

    # Then a redirect to the region, which would break the signature, is not needed
    assert (link.scheme, link.netloc) == ("https", "some-bucket.s3.eu-central-1.amazonaws.com")
    assert s3_server.secret_key not in link.query


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
    storage = _storage(s3_server.bucket, f"http://127.0.0.1:{ports.free(1)[0]}", clock)

    # When
    with pytest.raises(StorageUnavailable):
        storage.check()

    # Then
    assert clock.monotonic() <= s3.CHECK_PATIENCE


FORKS = """
import os, sys
from exporter.clock import SystemClock
from exporter.storage.base import FileHeaders
from exporter.storage.s3 import S3Storage

bucket, url, prefix = sys.argv[1:]
storage = S3Storage(
    bucket, endpoint_url=url, public_endpoint_url=None, region="us-east-1", clock=SystemClock()
)
headers = FileHeaders("text/csv", "a.csv")
storage.put_small(prefix + "before", b"before", headers)
child = os.fork()
name = "parent" if child else "child"
for n in range(10):
    storage.put_small(f"{prefix}{name}{n}", name.encode(), headers)
    assert storage.read(f"{prefix}{name}{n}") == name.encode()
if child:
    sys.exit(os.waitpid(child, 0)[1])
"""


def test_a_forked_child_shares_no_connection_with_its_parent(
    storage: S3Storage, proxy: FaultyS3, s3_server: S3, key: str
) -> None:
    # Given a process that used the store, then forks
    # When both go on at the same time
    subprocess.run(
        [sys.executable, "-c", FORKS, s3_server.bucket, proxy.url, key], check=True, timeout=60
    )

    # Then
    def connections(name: str) -> set[int]:
        return {request.peer for request in proxy.requests if f"{key}{name}" in request.path}

    assert connections("parent") & connections("before")
    assert not connections("child") & connections("parent")
    assert len(list(storage.objects(key))) == 21
