"""Contract of objects: store, read, list, delete, and the guard."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from exporter.errors import LeaseLost, ObjectExists, StorageError
from exporter.storage.base import ObjectInfo, Storage, guarded
from tests.contract.conftest import Bench
from tests.contract.storage.given import CSV


def _object(storage: Storage, key: str, data: bytes) -> ObjectInfo:
    storage.put_small(key, data, CSV)
    info = storage.head(key)
    assert info is not None
    return info


def _lost() -> None:
    raise LeaseLost("somebody else owns it")


def test_a_small_object_never_replaces_another(bench: Bench) -> None:
    # Given
    storage, key = bench.storage, bench.prefix + "a.csv"
    storage.put_small(key, b"first", CSV)

    # When
    with pytest.raises(ObjectExists):
        storage.put_small(key, b"other", CSV)

    # Then
    assert storage.read(key) == b"first"


def test_storing_the_same_small_object_again_is_fine(bench: Bench) -> None:
    # Given
    storage, key = bench.storage, bench.prefix + "a.csv"
    storage.put_small(key, b"first", CSV)

    # When
    storage.put_small(key, bytearray(b"first"), CSV)

    # Then
    assert storage.read(key) == b"first"


def test_an_empty_object_can_be_stored(bench: Bench) -> None:
    # Given
    storage, key = bench.storage, bench.prefix + "a.csv"

    # When
    info = _object(storage, key, b"")

    # Then
    assert info.size == 0
    assert storage.read(key) == b""


def test_what_is_not_there_has_no_head_and_cannot_be_read(bench: Bench) -> None:
    # Given
    key = bench.prefix + "nothing"

    # When, Then
    assert bench.storage.head(key) is None
    with pytest.raises(StorageError, match="NoSuchKey"):
        bench.storage.read(key)


@pytest.mark.parametrize(("start", "end"), [(0, 1_000_000), (17, 18), (400_000, 1_000_000), (5, 5)])
def test_a_stretch_of_an_object_comes_exactly(bench: Bench, start: int, end: int) -> None:
    # Given
    data = bytes(range(250)) * 4_000
    bench.storage.put_small(bench.prefix + "a", data, CSV)

    # When
    pieces = list(bench.storage.stream(bench.prefix + "a", start, end))

    # Then
    assert b"".join(pieces) == data[start:end]


def test_a_stretch_of_nothing_is_refused_before_the_first_byte(bench: Bench) -> None:
    # When, Then
    with pytest.raises(StorageError, match="NoSuchKey"):
        bench.storage.stream(bench.prefix + "nothing", 0, 10)


def test_deleting_is_fine_whether_the_objects_are_there_or_not(bench: Bench) -> None:
    # Given
    storage, kept, gone = bench.storage, bench.prefix + "kept", bench.prefix + "gone"
    storage.put_small(kept, b"a", CSV)
    storage.put_small(gone, b"b", CSV)

    # When
    storage.delete([gone, bench.prefix + "never there"])
    storage.delete([gone])

    # Then
    assert [info.key for info in storage.objects(bench.prefix)] == [kept]


def test_objects_lists_every_object_under_the_prefix_and_no_other(bench: Bench) -> None:
    # Given more objects than one page of the list can hold
    storage, inside = bench.storage, bench.prefix + "in/"
    wanted = [f"{inside}{n:04}" for n in range(1003)]
    storage.put_small(bench.prefix + "outside", b"", CSV)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda key: storage.put_small(key, b"abc", CSV), wanted))

    # When
    found = list(storage.objects(inside))

    # Then
    etag = hashlib.md5(b"abc").hexdigest()
    assert found == [ObjectInfo(key, 3, etag) for key in wanted]


def test_without_the_lease_nothing_is_written_read_or_deleted(bench: Bench) -> None:
    # Given
    storage, other = bench.storage, bench.prefix + "b.csv"
    _object(storage, other, b"kept")

    # When
    with guarded(_lost):
        for attempt in (
            lambda: storage.put_small(bench.prefix + "a.csv", b"b", CSV),
            lambda: storage.read(other),
            lambda: storage.head(other),
            lambda: storage.delete([other]),
            lambda: storage.delete_all(bench.prefix),
            lambda: list(storage.objects(bench.prefix)),
            lambda: list(storage.unfinished(bench.prefix)),
        ):
            with pytest.raises(LeaseLost, match="somebody else owns it"):
                attempt()

    # Then
    assert [info.key for info in storage.objects(bench.prefix)] == [other]


def test_a_link_needs_no_lease_for_it_writes_nothing(bench: Bench) -> None:
    # Given
    key = bench.prefix + "a.csv"
    bench.storage.put_small(key, b"a", CSV)

    # When
    with guarded(_lost):
        link = bench.storage.presign(key, 60)

    # Then
    assert bench.get(link)[2] == b"a"
