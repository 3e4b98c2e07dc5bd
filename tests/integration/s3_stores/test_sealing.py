"""Takeovers on a store that wants all parts of an upload in its completion, such as Ceph."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from exporter.core.checkpoints import Checkpoint
from exporter.errors import StorageError
from exporter.storage.base import guarded
from exporter.storage.export_file import File
from exporter.storage.s3.storage import S3Storage
from tests.store_rules import StoreRules

At = Callable[..., S3Storage]
Ruled = Callable[[str], StoreRules]
MIB = 1024**2
PART = 5 * MIB


def _file(storage: S3Storage, fence: str, export_id: str) -> File:
    return File(storage, export_id, fence, "postings.csv", "text/csv")


def _dies_with_one_part_committed(file: File, uncommitted: tuple[int, ...]) -> Checkpoint:
    """Returns the checkpoint of a worker that also sent the parts with these numbers."""
    at = file.with_upload(Checkpoint(cursor=None)).evolve(part_size=PART)
    at = at.evolve(parts=(file.put(at, 1, bytearray(b"a" * PART)),))
    for number in uncommitted:
        file.put(at, number, bytearray(b"b" * PART))
    return at


@pytest.mark.parametrize("profile", ["ceph", "r2", "b2"])
@pytest.mark.parametrize("uncommitted", [(), (2,), (3,), (2, 3)])
def test_a_file_goes_on_after_its_committed_parts_whatever_else_the_dead_worker_sent(
    ruled: Ruled, storage_at: At, key: str, profile: str, uncommitted: tuple[int, ...]
) -> None:
    # Given
    storage, export_id = storage_at(ruled(profile).url), key.partition("/")[0]
    old, new, third = (_file(storage, fence, export_id) for fence in ("1-a", "2-b", "3-c"))
    at = _dies_with_one_part_committed(old, uncommitted)

    # When: a first takeover dies before its commit, and another takes over
    assert new.take_over(at, PART) is not None
    taken = third.take_over(at, PART)
    assert taken is not None
    taken = taken.evolve(parts=(*taken.parts, third.put(taken, 2, bytearray(b"end"))))
    third.complete(taken)

    # Then
    assert storage.read(third.key) == b"a" * PART + b"end"


def test_parts_that_arrive_while_the_upload_is_sealed_are_sealed_too(
    ruled: Ruled, storage_at: At, key: str
) -> None:
    # Given: a worker that lost its lease and sends a part between the list and the completion
    storage, export_id = storage_at(ruled("ceph").url), key.partition("/")[0]
    old, new = _file(storage, "1-a", export_id), _file(storage, "2-b", export_id)
    at = _dies_with_one_part_committed(old, (2,))
    calls: list[None] = []

    def late() -> None:
        calls.append(None)
        if len(calls) == 4:  # uploads, completion, parts; the next is the second completion
            calls.append(None)
            old.put(at, 3, bytearray(b"c" * PART))

    # When
    with guarded(late):
        taken = new.take_over(at, PART)

    # Then
    assert taken is not None
    assert [part.size for part in taken.parts] == [PART]
    with pytest.raises(StorageError):
        old.put(at, 4, bytearray(b"late"))


def test_a_replaced_part_is_never_sealed_in_the_place_of_the_committed_one(
    ruled: Ruled, storage_at: At, key: str
) -> None:
    """Most stores forget a part that is sent again; SeaweedFS may still have both."""
    # Given
    storage, export_id = storage_at(ruled("ceph").url), key.partition("/")[0]
    old, new = _file(storage, "1-a", export_id), _file(storage, "2-b", export_id)
    at = _dies_with_one_part_committed(old, (1, 2))

    # When
    try:
        taken = new.take_over(at, PART)
    except StorageError as error:
        assert "InvalidPart" in str(error)
        return

    # Then
    assert taken is not None
    new.complete(taken)
    assert storage.read(new.key) == b"a" * PART
