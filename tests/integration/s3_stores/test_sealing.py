"""Takeovers on a store that wants all parts of an upload in its completion, such as Ceph."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from exporter.core.checkpoints import FileState
from exporter.errors import StorageError
from exporter.storage.base import guarded
from exporter.storage.keys import prefix
from exporter.storage.s3.multipart import MultipartFile
from exporter.storage.s3.storage import S3Storage
from tests.integration.s3_stores.conftest import CSV
from tests.store_rules import StoreRules

At = Callable[..., S3Storage]
Ruled = Callable[[str], StoreRules]
MIB = 1024**2
NEW = FileState()
PART = 5 * MIB


def _file(storage: S3Storage, fence: str, export_id: str, state: FileState = NEW) -> MultipartFile:
    return storage.open_file(prefix(export_id), fence, CSV, state, piece_bytes=PART)


def _put(storage: S3Storage, at: FileState, number: int, data: bytes) -> None:
    assert at.key is not None
    assert at.upload_id is not None
    storage.put_part(at.key, at.upload_id, number, data)


def _dies_with_one_part_committed(
    storage: S3Storage, export_id: str, uncommitted: tuple[int, ...]
) -> FileState:
    """Returns the committed state of a worker that also sent the parts with these numbers."""
    file = _file(storage, "1-a", export_id)
    file.append(bytearray(b"a" * PART))()
    at = file.state(PART)
    for number in uncommitted:
        _put(storage, at, number, b"b" * PART)
    return at


@pytest.mark.parametrize("profile", ["ceph", "r2", "b2"])
@pytest.mark.parametrize("uncommitted", [(), (2,), (3,), (2, 3)])
def test_a_file_goes_on_after_its_committed_parts_whatever_else_the_dead_worker_sent(
    ruled: Ruled, storage_at: At, key: str, profile: str, uncommitted: tuple[int, ...]
) -> None:
    # Given
    storage, export_id = storage_at(ruled(profile).url), key.partition("/")[0]
    at = _dies_with_one_part_committed(storage, export_id, uncommitted)

    # When: a first takeover dies before its commit, and another takes over
    _file(storage, "2-b", export_id, at).resume(clean=False)
    third = _file(storage, "3-c", export_id, at)
    third.resume(clean=False)
    third.append(bytearray(b"end"))()
    third.publish()

    # Then
    assert storage.read(third.key) == b"a" * PART + b"end"


def test_parts_that_arrive_while_the_upload_is_sealed_are_sealed_too(
    ruled: Ruled, storage_at: At, key: str
) -> None:
    # Given: a worker that lost its lease and sends a part between the list and the completion
    storage, export_id = storage_at(ruled("ceph").url), key.partition("/")[0]
    at = _dies_with_one_part_committed(storage, export_id, (2,))
    calls: list[None] = []

    def late() -> None:
        calls.append(None)
        if len(calls) == 4:  # uploads, completion, parts; the next is the second completion
            calls.append(None)
            _put(storage, at, 3, b"c" * PART)

    # When
    with guarded(late):
        taken = _file(storage, "2-b", export_id, at).resume(clean=False)

    # Then
    assert [part.size for part in taken.parts] == [PART]
    with pytest.raises(StorageError):
        _put(storage, at, 4, b"late")


def test_a_replaced_part_is_never_sealed_in_the_place_of_the_committed_one(
    ruled: Ruled, storage_at: At, key: str
) -> None:
    """Most stores forget a part that is sent again; SeaweedFS may still have both."""
    # Given
    storage, export_id = storage_at(ruled("ceph").url), key.partition("/")[0]
    at = _dies_with_one_part_committed(storage, export_id, (1, 2))
    new = _file(storage, "2-b", export_id, at)

    # When
    try:
        new.resume(clean=False)
    except StorageError as error:
        assert "InvalidPart" in str(error)
        return

    # Then
    new.publish()
    assert storage.read(new.key) == b"a" * PART
