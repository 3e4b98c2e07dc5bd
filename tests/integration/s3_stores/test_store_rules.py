"""The proxy itself: it refuses what the other store refuses, and changes nothing else."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import httpx
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from exporter.errors import StorageError
from exporter.storage.base import ObjectRange
from exporter.storage.s3.storage import S3Storage
from tests.integration.s3_stores.conftest import CSV
from tests.store_rules import StoreRules

if TYPE_CHECKING:
    from tests.conftest import S3

MIB = 1024**2

At = Callable[..., S3Storage]
Ruled = Callable[[str], StoreRules]


def _client(url: str, *, style: str = "path", region: str = "us-east-1") -> Any:
    config: Any = Config(
        signature_version="s3v4",
        request_checksum_calculation="when_required",
        s3={"addressing_style": style},  # type: ignore[arg-type]
        retries={"total_max_attempts": 1},
    )
    session: Any = boto3.session.Session()
    return session.client("s3", endpoint_url=url, region_name=region, config=config)


def _uploaded(storage: S3Storage, key: str, sizes: Sequence[int]) -> None:
    upload_id = storage.begin(key, CSV)
    parts = [
        storage.put_part(key, upload_id, number, bytes(size))
        for number, size in enumerate(sizes, 1)
    ]
    storage.complete(key, upload_id, parts)


@pytest.mark.parametrize("sizes", [(6, 6, 1), (6, 6, 6), (6,), (6, 6)])
def test_r2_takes_parts_of_one_length_and_a_last_one_that_is_not_longer(
    ruled: Ruled, storage_at: At, key: str, sizes: tuple[int, ...]
) -> None:
    # Given
    store = ruled("r2")
    storage = storage_at(store.url)

    # When
    _uploaded(storage, key, [size * MIB for size in sizes])

    # Then
    assert store.refused == []
    found = storage.head(key)
    assert found is not None
    assert found.size == sum(sizes) * MIB


@pytest.mark.parametrize("sizes", [(6, 7, 1), (6, 6, 7), (6, 7), (7, 6, 6)])
def test_r2_refuses_parts_of_several_lengths(
    ruled: Ruled, storage_at: At, key: str, sizes: tuple[int, ...]
) -> None:
    # Given
    store = ruled("r2")
    storage = storage_at(store.url)

    # When
    with pytest.raises(StorageError, match=r"InvalidPart.*must have the same length"):
        _uploaded(storage, key, [size * MIB for size in sizes])

    # Then
    assert storage.head(key) is None


@pytest.mark.parametrize(("span", "taken"), [(6, True), (7, False)])
def test_r2_counts_a_copied_part_with_the_length_of_its_range(
    ruled: Ruled,
    storage_at: At,
    key: str,
    span: int,
    taken: bool,
) -> None:
    # Given
    store = ruled("r2")
    storage = storage_at(store.url)
    storage.put_small(f"{key}.old", bytes(10 * MIB), CSV)
    old = storage.head(f"{key}.old")
    assert old is not None
    upload_id = storage.begin(key, CSV)
    ranges = [range(6 * MIB), range(MIB, (1 + span) * MIB)]
    parts = [
        storage.copy_part(ObjectRange(old, one), key, upload_id, number)
        for number, one in enumerate(ranges, 1)
    ]
    last = storage.put_part(key, upload_id, 3, b"end")

    # When
    refused = []
    try:
        storage.complete(key, upload_id, [*parts, last])
    except StorageError as error:
        refused.append(str(error))

    # Then
    assert bool(refused) is not taken


def test_r2_refuses_encryption_headers_and_other_regions(ruled: Ruled, key: str) -> None:
    # Given
    store = ruled("r2")

    # When
    with pytest.raises(ClientError):
        _client(store.url).put_object(Bucket="exports", Key=key, ServerSideEncryption="AES256")
    with pytest.raises(ClientError):
        _client(store.url, region="eu-central-1").put_object(Bucket="exports", Key=key)
    _client(store.url, region="auto").put_object(Bucket="exports", Key=key)

    # Then
    assert store.refused == [("PutObject", "NotImplemented"), ("PutObject", "InvalidRegionName")]


def test_b2_refuses_conditions_checksums_and_kms(ruled: Ruled, key: str) -> None:
    # Given
    store = ruled("b2")
    client = _client(store.url)

    # When
    for extra in (
        {"IfNoneMatch": "*"},
        {"ChecksumAlgorithm": "CRC32"},
        {"ServerSideEncryption": "aws:kms"},
    ):
        with pytest.raises(ClientError):
            client.put_object(Bucket="exports", Key=key, **extra)
    client.put_object(Bucket="exports", Key=key, ServerSideEncryption="AES256")

    # Then
    assert [code for _, code in store.refused] == [
        "NotImplemented",
        "InvalidArgument",
        "InvalidRequest",
    ]


def test_the_virtual_store_refuses_a_bucket_in_the_path(ruled: Ruled, key: str) -> None:
    # Given
    store = ruled("virtual")

    # When
    with pytest.raises(ClientError, match="SecondLevelDomainForbidden"):
        _client(store.url).put_object(Bucket="exports", Key=key, Body=b"a")
    _client(store.virtual_url, style="virtual").put_object(Bucket="exports", Key=key, Body=b"a")

    # Then
    found = _client(store.virtual_url, style="virtual").get_object(Bucket="exports", Key=key)
    assert found["Body"].read() == b"a"


@pytest.mark.parametrize(
    ("profile", "wanted", "other"),
    [("encrypted", "AES256", "aws:kms"), ("encrypted-kms", "aws:kms", "AES256")],
)
def test_the_encrypted_bucket_refuses_writes_without_its_header(
    ruled: Ruled, key: str, profile: str, wanted: str, other: str
) -> None:
    # Given
    store = ruled(profile)
    client = _client(store.url)

    # When
    for extra in ({}, {"ServerSideEncryption": other}):
        for write in (client.put_object, client.create_multipart_upload):
            with pytest.raises(ClientError, match="AccessDenied"):
                write(Bucket="exports", Key=key, **extra)
    client.put_object(Bucket="exports", Key=key, ServerSideEncryption=wanted)

    # Then
    assert len(store.refused) == 4


def test_a_wrong_signature_is_refused_in_a_header_and_in_a_link(
    ruled: Ruled, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    store = ruled("virtual")
    client = _client(store.virtual_url, style="virtual")
    client.put_object(Bucket="exports", Key=key, Body=b"a")
    link = client.generate_presigned_url("get_object", Params={"Bucket": "exports", "Key": key})
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")

    # When
    good = httpx.get(link)
    bad = httpx.get(link.replace("X-Amz-Expires=3600", "X-Amz-Expires=9999"))

    # Then
    assert (good.status_code, good.content) == (200, b"a")
    assert (bad.status_code, "SignatureDoesNotMatch" in bad.text) == (403, True)
    with pytest.raises(ClientError, match="SignatureDoesNotMatch"):
        _client(store.virtual_url, style="virtual").put_object(Bucket="exports", Key=key)


def test_the_proxy_runs_as_a_process_and_passes_large_bodies_in_bounded_memory(
    s3_server: S3, storage_at: At, key: str
) -> None:
    # Given
    with subprocess.Popen(
        [sys.executable, "-m", "tests.store_rules", "r2", "--upstream", s3_server.endpoint_url],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            assert process.stdout is not None
            storage = storage_at(process.stdout.readline().strip())
            data = hashlib.shake_128(b"seed").digest(48 * MIB)

            # When
            upload_id = storage.begin(key, CSV)
            parts = [storage.put_part(key, upload_id, 1, data)]
            storage.complete(key, upload_id, parts)
            back = storage.read(key)
            status = Path(f"/proc/{process.pid}/status").read_text()
        finally:
            process.terminate()

    # Then
    assert back == data
    peak = next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM"))
    assert int(peak) < 60 * 1024
