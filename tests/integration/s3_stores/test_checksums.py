"""Checksums of parts: used where the store confirms them, and given up where it does not."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from unittest import mock

import msgspec
import pytest

from exporter.errors import StorageError, StorageUnavailable
from exporter.storage.keys import prefix
from exporter.storage.s3 import checksums
from exporter.storage.s3.encryption import parse
from exporter.storage.s3.multipart import MultipartFile
from exporter.storage.s3.storage import S3Storage
from tests.integration.s3_stores.conftest import CSV
from tests.integration.s3_stores.test_sealing import NEW, PART
from tests.store_rules import StoreRules

pytestmark = pytest.mark.skipif(not checksums.is_available(), reason="no compiled library")
At = Callable[..., S3Storage]
Ruled = Callable[[str], StoreRules]


def _file(storage: S3Storage, key: str, fence: str = "1-a") -> MultipartFile:
    folder = prefix(key.partition("/")[0])
    return storage.open_file(folder, fence, CSV, NEW, piece_bytes=PART)


def _stored(file: MultipartFile) -> None:
    for piece in (b"a" * PART, b"end"):
        file.append(bytearray(piece))()


def _checks(store: StoreRules, operation: str) -> list[str]:
    """Returns the header with the check of each such request: its name, or `none`."""
    names = ("x-amz-checksum-algorithm", "x-amz-checksum-crc64nvme", "content-md5")
    seen = (one for one in store.requests if one.operation == operation)
    return [next((name for name in names if name in one.headers), "none") for one in seen]


@pytest.mark.parametrize("profile", ["r2", "minio", "encrypted"])
def test_parts_and_the_file_carry_checksums_where_the_store_confirms_them(
    ruled: Ruled, storage_at: At, key: str, profile: str
) -> None:
    # Given
    store = ruled(profile)
    encryption = {"encryption": parse("AES256")} if profile == "encrypted" else {}
    storage = storage_at(store.url, **encryption)
    file = _file(storage, key)

    # When
    _stored(file)
    file.publish()

    # Then
    assert _checks(store, "UploadPart") == ["x-amz-checksum-crc64nvme"] * 2
    assert _checks(store, "CompleteMultipartUpload") == ["x-amz-checksum-crc64nvme"]
    assert store.refused == []
    assert storage.read(file.key) == b"a" * PART + b"end"


@pytest.mark.parametrize(
    ("profile", "refused", "aborted"),
    [
        ("b2", [("CreateMultipartUpload", "InvalidArgument")], 0),
        ("swift", [("CreateMultipartUpload", "NotImplemented")], 0),
        ("ignores", [], 1),
    ],
)
def test_a_store_without_checksums_gets_the_md5_of_each_part(
    ruled: Ruled,
    storage_at: At,
    key: str,
    profile: str,
    refused: list[tuple[str, str]],
    aborted: int,
) -> None:
    # Given
    store = ruled(profile)
    storage = storage_at(store.url)

    # When
    for fence in ("1-a", "2-b"):
        file = _file(storage, key, fence)
        _stored(file)
        file.publish()
        assert storage.read(file.key) == b"a" * PART + b"end"

    # Then: it is asked once
    assert _checks(store, "UploadPart") == ["content-md5"] * 4
    assert [one for one in store.refused if one[0] == "CreateMultipartUpload"] == refused
    assert len(_checks(store, "CreateMultipartUpload")) == 3
    assert len(_checks(store, "AbortMultipartUpload")) == aborted


def test_a_store_that_wants_checksums_without_confirming_them_gets_another_upload(
    ruled: Ruled, storage_at: At, key: str
) -> None:
    # Given: MinIO's rules, without the confirmation
    storage = storage_at(ruled("minio").url)
    begin = storage._begin

    def silent(*args: Any, **announced: Any) -> Mapping[str, Any]:
        return {"UploadId": begin(*args, **announced)["UploadId"]}

    # When
    with mock.patch.object(storage, "_begin", silent):
        file = _file(storage, key)
        _stored(file)
    file.publish()

    # Then
    assert storage.read(file.key) == b"a" * PART + b"end"
    assert list(storage.open_uploads(prefix(key.partition("/")[0]))) == []


def test_a_store_that_is_only_out_of_order_is_asked_again(
    ruled: Ruled, storage_at: At, key: str
) -> None:
    # Given
    store = ruled("r2")
    storage = storage_at(store.url)
    with (
        mock.patch.object(storage, "_begin", side_effect=StorageUnavailable("later")),
        pytest.raises(StorageUnavailable),
    ):
        _stored(_file(storage, key))

    # When
    _stored(_file(storage, key))

    # Then
    assert _checks(store, "UploadPart") == ["x-amz-checksum-crc64nvme"] * 2


@pytest.mark.parametrize("profile", ["minio", "r2"])
def test_a_takeover_copies_into_an_upload_without_checksums(
    ruled: Ruled, storage_at: At, key: str, profile: str
) -> None:
    # Given: a worker that died with one of two parts committed
    store = ruled(profile)
    storage = storage_at(store.url)
    dead = _file(storage, key)
    _stored(dead)
    state, folder = dead.state(PART), prefix(key.partition("/")[0])

    # When
    file = storage.open_file(folder, "2-b", CSV, state, piece_bytes=PART)
    file.resume(clean=False)
    file.append(bytearray(b"end"))()
    file.publish()

    # Then: the completion that seals proves the committed bytes
    assert storage.read(file.key) == b"a" * PART + b"end"
    assert _checks(store, "CompleteMultipartUpload") == ["x-amz-checksum-crc64nvme", "none"]
    assert store.refused == []


def test_a_file_that_differs_from_what_was_counted_is_not_published(
    ruled: Ruled, storage_at: At, key: str
) -> None:
    # Given
    store = ruled("r2")
    storage = storage_at(store.url)
    file = _file(storage, key)
    _stored(file)

    # When
    with (
        mock.patch.object(checksums, "of_whole", return_value=checksums.of(b"counted")),
        pytest.raises(StorageError, match=r"BadDigest.*other bytes.*export again") as caught,
    ):
        file.publish()

    # Then: at once, because no retry can help
    assert not isinstance(caught.value, StorageUnavailable)
    assert len(_checks(store, "CompleteMultipartUpload")) == 1
    assert storage.head(file.key) is None

    # When: the export is made again, by a store that perhaps sums wrongly
    again = _file(storage, key, "2-a")
    _stored(again)
    again.publish()

    # Then: by its parts only
    assert _checks(store, "CompleteMultipartUpload")[1:] == ["none"]
    assert storage.head(again.key) is not None


def test_a_worker_without_checksums_can_go_on_with_an_upload_that_has_them(
    ruled: Ruled, storage_at: At, key: str
) -> None:
    """So do AWS and SeaweedFS, which compute what is missing; MinIO refuses the part."""
    # Given: an upload of this version, continued by a worker that reads no checksums from the state
    storage = storage_at(ruled("r2").url)
    file = _file(storage, key)
    _stored(file)
    state, folder = file.state(PART), prefix(key.partition("/")[0])
    old = msgspec.structs.replace(state, checksums=None)

    # When
    second = storage.open_file(folder, "1-a", CSV, old, piece_bytes=PART)
    second.append(bytearray(b"another end"))()
    second.publish()

    # Then
    assert storage.read(second.key) == b"a" * PART + b"another end"
