"""A bucket whose policy asks for encryption: its header in each write, and its refusal named."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from exporter.cli.doctor import storage_checks
from exporter.cli.doctor.checks import Problem
from exporter.core.checkpoints import FileState
from exporter.errors import ConfigurationError, StorageUnavailable
from exporter.settings import Settings
from exporter.storage.keys import prefix
from exporter.storage.s3.encryption import Encryption, parse
from exporter.storage.s3.storage import S3Storage
from tests.integration import faulty_s3
from tests.integration.faulty_s3 import FaultyS3
from tests.integration.s3_stores.conftest import CSV
from tests.store_rules import StoreRules
from tests.store_rules.rules import SSE

At = Callable[..., S3Storage]
Ruled = Callable[[str], StoreRules]
MIB = 1024**2


@pytest.mark.parametrize(
    ("profile", "setting"),
    [("encrypted", "AES256"), ("encrypted-kms", "aws:kms"), ("encrypted-kms", "aws:kms:k-1")],
)
def test_all_that_an_export_writes_asks_for_the_encryption_of_the_setting(
    ruled: Ruled, storage_at: At, key: str, profile: str, setting: str
) -> None:
    # Given
    store, export_id = ruled(profile), key.partition("/")[0]
    storage = storage_at(store.url, encryption=parse(setting))
    storage.check()

    # When: a part, a tail, a second worker that copies the sealed file, and its publication
    open_file = partial(storage.open_file, prefix(export_id), headers=CSV, piece_bytes=5 * MIB)
    first = open_file(fence="1-a", state=FileState())
    first.append(bytearray(5 * MIB))()
    second = open_file(fence="2-b", state=first.pause(5 * MIB, bytearray(b"tail")))
    second.resume(clean=False)
    second.append(second.read_rest())()
    second.publish()
    text = storage_checks.exports(Settings(s3_endpoint_url=store.url, s3_sse=parse(setting)))

    # Then
    assert store.refused == []
    assert storage.read(second.key) == bytes(5 * MIB) + b"tail"
    assert text.startswith("writes, completes, copies and deletes")
    keys = {seen.headers.get(f"{SSE}-aws-kms-key-id") for seen in store.requests} - {None}
    assert keys == ({"k-1"} if "k-1" in setting else set())


@pytest.mark.parametrize(
    ("profile", "setting", "remedy"),
    [
        ("encrypted", None, "without encryption: set EXPORTER_S3_SSE=AES256"),
        ("encrypted-kms", None, "without encryption: set EXPORTER_S3_SSE=aws:kms"),
        ("encrypted", "aws:kms:k-1", "EXPORTER_S3_SSE=aws:kms:k-1: set EXPORTER_S3_SSE=AES256"),
        ("r2", "AES256", "EXPORTER_S3_SSE=AES256: leave EXPORTER_S3_SSE out"),
        ("b2", "aws:kms", "EXPORTER_S3_SSE=aws:kms: leave EXPORTER_S3_SSE out"),
    ],
)
def test_the_doctor_names_the_encryption_that_the_bucket_takes(
    ruled: Ruled, profile: str, setting: str | None, remedy: str
) -> None:
    # Given
    settings = Settings(
        s3_endpoint_url=ruled(profile).url, s3_sse=parse(setting) if setting else None
    )

    # When, Then
    with pytest.raises(Problem, match=f"'exports' refuses objects .*{remedy}") as caught:
        storage_checks.access(settings)
    assert "AWS_ACCESS_KEY_ID" not in str(caught.value)


@pytest.mark.parametrize("setting", [None, Encryption("aws:kms")])
def test_a_worker_that_is_refused_names_the_setting(
    ruled: Ruled, storage_at: At, key: str, setting: Encryption | None
) -> None:
    # Given
    storage = storage_at(ruled("encrypted").url, encryption=setting)

    # When, Then
    for write in (
        lambda: storage.begin(key, CSV),
        lambda: storage.put_small(key, b"a", CSV),
    ):
        with pytest.raises(StorageUnavailable, match=r"AccessDenied.*EXPORTER_S3_SSE"):
            write()


@pytest.mark.parametrize(
    ("status", "code", "text"),
    [
        (400, "KMS.NotFoundException", "Key 'arn:aws:kms:…' does not exist"),
        (400, "KMS.DisabledException", "the key is disabled"),
        (501, "NotImplemented", "Server side encryption specified but KMS is not configured"),
        (400, "InvalidArgument", "Server Side Encryption with AWS KMS managed key requires HTTPS"),
    ],
)
def test_a_key_that_cannot_be_used_is_waited_for_and_named(
    ruled: Ruled, storage_at: At, key: str, status: int, code: str, text: str
) -> None:
    # Given
    with FaultyS3(ruled("b2").url) as faulty:
        faulty.otherwise = faulty_s3.text(
            status, f"<Error><Code>{code}</Code><Message>{text}</Message></Error>"
        )
        storage = storage_at(faulty.url, encryption=Encryption("aws:kms", "k-1"))

        # When, Then
        for write in (
            lambda: storage.begin(key, CSV),
            lambda: storage.put_small(key, b"a", CSV),
        ):
            with pytest.raises(StorageUnavailable, match=f"{code}.*EXPORTER_S3_SSE"):
                write()
        with pytest.raises(ConfigurationError, match="EXPORTER_S3_SSE"):
            storage.check()


def test_a_repeated_write_is_recognized_although_the_etag_of_an_encrypted_object_is_no_md5(
    ruled: Ruled, storage_at: At, key: str
) -> None:
    # Given: an object whose etag is not the MD5 of its bytes, as under a key of a KMS
    storage = storage_at(ruled("encrypted").url, encryption=Encryption("AES256"))
    upload_id = storage.begin(key, CSV)
    storage.complete(key, upload_id, [storage.put_part(key, upload_id, 1, b"rows")])

    # When
    storage.put_small(key, b"rows", CSV)

    # Then
    assert storage.read(key) == b"rows"
