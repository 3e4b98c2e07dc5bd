"""Contract of copies into a multipart upload, and of the guard."""

from __future__ import annotations

import pytest

from exporter.errors import LeaseLost, UploadGone
from exporter.storage.base import ObjectInfo, ObjectRange, Storage, guarded
from tests.contract.storage.given import CSV, PART
from tests.contract.uploads.given import UploadBench


def _object(storage: Storage, key: str, data: bytes) -> ObjectInfo:
    storage.put_small(key, data, CSV)
    info = storage.head(key)
    assert info is not None
    return info


def _lost() -> None:
    raise LeaseLost("somebody else owns it")


def test_a_sealed_object_goes_on_as_the_head_of_the_next_upload(bench: UploadBench) -> None:
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


def test_several_objects_are_composed_in_order(bench: UploadBench) -> None:
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


def test_a_span_of_an_object_is_copied_and_nothing_beside_it(bench: UploadBench) -> None:
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


def test_copying_into_a_dead_upload_is_refused(bench: UploadBench) -> None:
    # Given
    storage, key = bench.storage, bench.prefix + "new.csv"
    old = _object(storage, bench.prefix + "old.csv", b"a")
    upload_id = storage.begin(key, CSV)
    storage.abort(key, upload_id)

    # When, Then
    with pytest.raises(UploadGone):
        storage.copy_part(ObjectRange(old, range(1)), key, upload_id, 1)


def test_without_the_lease_no_upload_is_begun_changed_or_listed(bench: UploadBench) -> None:
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
            lambda: storage.abort(key, upload_id),
            lambda: list(storage.open_uploads(bench.prefix)),
        ):
            with pytest.raises(LeaseLost, match="somebody else owns it"):
                attempt()

    # Then
    assert [upload.upload_id for upload in storage.open_uploads(bench.prefix)] == [upload_id]
    assert [info.key for info in storage.objects(bench.prefix)] == [other]
    storage.complete(key, upload_id, [part])
    assert storage.read(key) == b"a"
