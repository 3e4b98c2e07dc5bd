"""Tests of the features of MemoryStorage beyond the Storage interface."""

from __future__ import annotations

import pytest

from exporter.clock import FakeClock
from exporter.errors import StorageError, StorageUnavailable
from exporter.storage.base import FileHeaders
from exporter.storage.memory import MemoryStorage

CSV = FileHeaders("text/csv", "postings.csv")


def _away(operation: str, key: str) -> None:
    raise StorageUnavailable(f"{operation} {key}")


def test_a_fault_before_an_operation_is_a_request_that_never_arrived() -> None:
    # Given
    storage = MemoryStorage(FakeClock())
    storage.before = _away

    # When
    with pytest.raises(StorageUnavailable, match=r"^put_small a$"):
        storage.put_small("a", b"1", CSV)

    # Then
    storage.before = None
    assert storage.head("a") is None


def test_a_fault_after_an_operation_is_an_answer_that_was_lost() -> None:
    # Given
    storage = MemoryStorage(FakeClock())
    storage.after = _away

    # When
    with pytest.raises(StorageUnavailable, match=r"^put_small a$"):
        storage.put_small("a", b"1", CSV)

    # Then
    storage.after = None
    assert storage.read("a") == b"1"


def test_a_hook_may_use_the_store_itself() -> None:
    # Given another worker that completes the upload while a part is on its way
    storage = MemoryStorage(FakeClock())
    upload_id = storage.begin("a", CSV)
    part = storage.put_part("a", upload_id, 1, b"1")

    def seal(operation: str, key: str) -> None:
        storage.before = None
        storage.complete("a", upload_id, [part])

    storage.before = seal

    # When
    with pytest.raises(StorageError, match="NoSuchUpload"):
        storage.put_part("a", upload_id, 1, b"2")

    # Then
    assert storage.read("a") == b"1"


@pytest.mark.parametrize("sizes", [[4, 3, 2], [4, 5, 2], [4, 4, 5], [4, 5]])
def test_parts_of_several_sizes_are_refused_as_by_cloudflare_r2(sizes: list[int]) -> None:
    # Given
    storage = MemoryStorage(FakeClock(), part_size_min=2)
    upload_id = storage.begin("a", CSV)
    parts = [
        storage.put_part("a", upload_id, number, b"a" * size)
        for number, size in enumerate(sizes, 1)
    ]

    # When, Then
    with pytest.raises(StorageError, match="must have the same length"):
        storage.complete("a", upload_id, parts)


def test_parts_of_several_sizes_are_taken_as_by_aws() -> None:
    # Given
    storage = MemoryStorage(FakeClock(), part_size_min=2, all_sizes=True)
    upload_id = storage.begin("a", CSV)
    parts = [storage.put_part("a", upload_id, n, b"a" * (6 - n)) for n in (1, 2, 3)]

    # When
    storage.complete("a", upload_id, parts)

    # Then
    assert storage.read("a") == b"a" * (5 + 4 + 3)


@pytest.mark.parametrize("number", [0, 10_001])
def test_part_numbers_are_bounded_as_in_s3(number: int) -> None:
    # Given
    storage = MemoryStorage(FakeClock())
    upload_id = storage.begin("a", CSV)

    # When, Then
    with pytest.raises(StorageError, match=str(number)):
        storage.put_part("a", upload_id, number, b"1")


def test_a_replaced_part_is_refused_as_by_the_strictest_store() -> None:
    # Given
    storage = MemoryStorage(FakeClock())
    upload_id = storage.begin("a", CSV)
    committed = storage.put_part("a", upload_id, 1, b"committed")
    storage.put_part("a", upload_id, 1, b"replaced")

    # When, Then
    with pytest.raises(StorageError, match="InvalidPart"):
        storage.complete("a", upload_id, [committed])
