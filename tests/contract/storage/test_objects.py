"""Contract of objects: store, copy, read, list, delete, and the guard."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from exporter.errors import LeaseLost, ObjectExists, StorageError, UploadGone
from exporter.storage.base import ObjectInfo, ObjectRange, Storage, guarded
from tests.contract.conftest import Bench
from tests.contract.storage.given import CSV, PART


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


def test_a_sealed_object_goes_on_as_the_head_of_the_next_upload(bench: Bench) -> None:
    # Given
    storage, key = bench.storage, bench.prefix + "new.csv"
    old = _object(storage, bench.prefix + "old.csv", b"a" * PART + b"b" * PART + b"c")
    upload_id = storage.begin(key, CSV)

    # When
    halves = [range(PART), range(PART, 2 * PART)]
    parts = [
        storage.copy_part(ObjectRange(old, half), key, upload_id, number)
        for number, half in enumerate(halves, 1)
    ]
    last = storage.put_part(key, upload_id, 3, b"and more")
    storage.complete(key, upload_id, [*parts, last])

    # Then
    assert [part.size for part in parts] == [PART, PART]
    assert storage.read(key) == b"a" * PART + b"b" * PART + b"and more"


def test_several_objects_are_composed_in_order(bench: Bench) -> None:
    # Given
    storage, key = bench.storage, bench.prefix + "all.csv"
    pieces = [b"a" * PART, b"b" * PART, b"c"]
    sources = [_object(storage, f"{bench.prefix}{n}", data) for n, data in enumerate(pieces)]
    upload_id = storage.begin(key, CSV)

    # When
    parts = [
        storage.copy_part(ObjectRange(source, range(source.size)), key, upload_id, number)
        for number, source in enumerate(sources, 1)
    ]
    storage.complete(key, upload_id, parts)

    # Then
    assert storage.read(key) == b"".join(pieces)


def test_a_span_of_an_object_is_copied_and_nothing_beside_it(bench: Bench) -> None:
    # Given
    storage, key = bench.storage, bench.prefix + "cut.csv"
    old = _object(storage, bench.prefix + "old.csv", b"a" * 7 + b"b" * (2 * PART) + b"c")
    upload_id = storage.begin(key, CSV)

    # When
    part = storage.copy_part(ObjectRange(old, range(7, 7 + 2 * PART)), key, upload_id, 1)
    last = storage.put_part(key, upload_id, 2, b"end")
    storage.complete(key, upload_id, [part, last])

    # Then
    assert storage.read(key) == b"b" * (2 * PART) + b"end"


def test_copying_into_a_dead_upload_is_refused(bench: Bench) -> None:
    # Given
    storage, key = bench.storage, bench.prefix + "new.csv"
    old = _object(storage, bench.prefix + "old.csv", b"a")
    upload_id = storage.begin(key, CSV)
    storage.abort(key, upload_id)

    # When, Then
    with pytest.raises(UploadGone):
        storage.copy_part(ObjectRange(old, range(1)), key, upload_id, 1)


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
    storage, key, other = bench.storage, bench.prefix + "a.csv", bench.prefix + "b.csv"
    kept = _object(storage, other, b"kept")
    upload_id = storage.begin(key, CSV)
    part = storage.put_part(key, upload_id, 1, b"a")

    # When
    with guarded(_lost):
        for attempt in (
            lambda: storage.begin(key, CSV),
            lambda: storage.put_part(key, upload_id, 1, b"b"),
            lambda: storage.copy_part(ObjectRange(kept, range(4)), key, upload_id, 2),
            lambda: storage.complete(key, upload_id, [part]),
            lambda: storage.put_small(key, b"b", CSV),
            lambda: storage.read(other),
            lambda: storage.abort(key, upload_id),
            lambda: storage.head(other),
            lambda: storage.delete([other]),
            lambda: list(storage.objects(bench.prefix)),
            lambda: list(storage.open_uploads(bench.prefix)),
        ):
            with pytest.raises(LeaseLost, match="somebody else owns it"):
                attempt()

    # Then
    assert [upload.upload_id for upload in storage.open_uploads(bench.prefix)] == [upload_id]
    assert [info.key for info in storage.objects(bench.prefix)] == [other]
    storage.complete(key, upload_id, [part])
    assert storage.read(key) == b"a"


def test_a_link_needs_no_lease_for_it_writes_nothing(bench: Bench) -> None:
    # Given
    key = bench.prefix + "a.csv"
    bench.storage.put_small(key, b"a", CSV)

    # When
    with guarded(_lost):
        link = bench.storage.presign(key, 60)

    # Then
    assert bench.get(link)[2] == b"a"
