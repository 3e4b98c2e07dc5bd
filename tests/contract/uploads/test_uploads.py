"""Contract of multipart uploads, from begin to complete or abort."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from exporter.core.checkpoints import Part
from exporter.errors import ObjectExists, StorageError, UploadGone
from tests.contract.storage.given import CSV, PART
from tests.contract.uploads.given import UploadBench


def test_parts_become_one_object_in_the_order_of_their_numbers(bench: UploadBench) -> None:
    # Given
    storage, key = bench.storage, bench.prefix + "a.csv"
    first, second = b"a" * PART, bytearray(b"the end")
    upload_id = storage.begin(key, CSV)

    # When
    parts = [storage.put_part(key, upload_id, 1, first)]
    parts.append(storage.put_part(key, upload_id, 2, second))
    storage.complete(key, upload_id, parts)

    # Then
    assert [part.size for part in parts] == [PART, 7]
    assert parts[0].etag == hashlib.md5(first).hexdigest()
    assert storage.read(key) == first + second
    info = storage.head(key)
    assert info is not None
    assert (info.key, info.size) == (key, PART + 7)


def test_nothing_is_seen_of_an_upload_before_it_is_complete(bench: UploadBench) -> None:
    # Given
    storage, key = bench.storage, bench.prefix + "a.csv"

    # When
    upload_id = storage.begin(key, CSV)
    storage.put_part(key, upload_id, 1, b"a")

    # Then
    assert storage.head(key) is None
    assert list(storage.objects(bench.prefix)) == []
    storage.abort(key, upload_id)


def test_a_part_sent_again_is_one_part(bench: UploadBench) -> None:
    # Given
    storage, key = bench.storage, bench.prefix + "a.csv"
    upload_id = storage.begin(key, CSV)
    storage.put_part(key, upload_id, 1, b"sent, and its answer was lost")

    # When
    again = storage.put_part(key, upload_id, 1, b"sent again")
    storage.complete(key, upload_id, [again])

    # Then
    assert storage.read(key) == b"sent again"


def test_bytes_other_than_those_of_the_checkpoint_are_never_published(bench: UploadBench) -> None:
    # Given an upload whose part 1 was replaced after the checkpoint took its etag
    storage, key = bench.storage, bench.prefix + "a.csv"
    upload_id = storage.begin(key, CSV)
    committed = storage.put_part(key, upload_id, 1, b"committed")
    storage.put_part(key, upload_id, 1, b"by a sleeper")

    # When
    try:
        storage.complete(key, upload_id, [committed])
    except StorageError:
        published = None
    else:
        # Some stores keep every version of a part until the end and use the requested version.
        published = storage.read(key)

    # Then
    assert published in (None, b"committed")
    storage.abort(key, upload_id)


def test_a_part_that_was_never_sent_is_refused(bench: UploadBench) -> None:
    # Given
    storage, key = bench.storage, bench.prefix + "a.csv"
    upload_id = storage.begin(key, CSV)
    sent = storage.put_part(key, upload_id, 1, b"a" * PART)

    # When
    with pytest.raises(StorageError, match="InvalidPart"):
        storage.complete(key, upload_id, [sent, Part(hashlib.md5(b"b").hexdigest(), 1)])

    # Then
    assert storage.head(key) is None
    storage.abort(key, upload_id)


def test_a_part_below_5_mib_before_the_last_is_refused(bench: UploadBench) -> None:
    # Given
    storage, key = bench.storage, bench.prefix + "a.csv"
    upload_id = storage.begin(key, CSV)
    small = storage.put_part(key, upload_id, 1, b"a" * (PART - 1))
    last = storage.put_part(key, upload_id, 2, b"b")

    # When
    with pytest.raises(StorageError, match="EntityTooSmall"):
        storage.complete(key, upload_id, [small, last])

    # Then
    assert storage.head(key) is None
    storage.abort(key, upload_id)


def test_an_upload_that_was_completed_takes_no_more_parts(bench: UploadBench) -> None:
    # Given
    storage, key = bench.storage, bench.prefix + "a.csv"
    upload_id = storage.begin(key, CSV)
    storage.complete(key, upload_id, [storage.put_part(key, upload_id, 1, b"sealed")])

    # When
    with pytest.raises(UploadGone):
        storage.put_part(key, upload_id, 1, b"late")

    # Then
    assert storage.read(key) == b"sealed"


def test_an_upload_that_was_aborted_takes_no_more_parts_and_cannot_complete(
    bench: UploadBench,
) -> None:
    # Given
    storage, key = bench.storage, bench.prefix + "a.csv"
    upload_id = storage.begin(key, CSV)
    part = storage.put_part(key, upload_id, 1, b"a")

    # When
    storage.abort(key, upload_id)

    # Then
    with pytest.raises(UploadGone):
        storage.put_part(key, upload_id, 2, b"b")
    with pytest.raises(UploadGone):
        storage.complete(key, upload_id, [part])
    assert storage.head(key) is None


def test_aborting_twice_or_after_the_end_changes_nothing(bench: UploadBench) -> None:
    # Given
    storage, key, other = bench.storage, bench.prefix + "a.csv", bench.prefix + "b.csv"
    done = storage.begin(key, CSV)
    storage.complete(key, done, [storage.put_part(key, done, 1, b"kept")])
    dropped = storage.begin(other, CSV)

    # When
    storage.abort(key, done)
    storage.abort(other, dropped)
    storage.abort(other, dropped)

    # Then
    assert storage.read(key) == b"kept"
    assert storage.head(other) is None


def test_completing_twice_tells_so_and_leaves_the_object(bench: UploadBench) -> None:
    # Given
    storage, key = bench.storage, bench.prefix + "a.csv"
    upload_id = storage.begin(key, CSV)
    parts = [storage.put_part(key, upload_id, 1, b"once")]
    storage.complete(key, upload_id, parts)

    # When
    with pytest.raises((UploadGone, ObjectExists)):
        storage.complete(key, upload_id, parts)

    # Then
    assert storage.read(key) == b"once"


def test_completing_never_replaces_an_object(bench: UploadBench) -> None:
    # Given
    storage, key = bench.storage, bench.prefix + "a.csv"
    storage.put_small(key, b"first", CSV)
    upload_id = storage.begin(key, CSV)
    part = storage.put_part(key, upload_id, 1, b"second")

    # When
    with pytest.raises(ObjectExists):
        storage.complete(key, upload_id, [part])

    # Then
    assert storage.read(key) == b"first"
    storage.abort(key, upload_id)


def test_open_uploads_lists_every_upload_that_has_not_ended(bench: UploadBench) -> None:
    # Given more uploads than one page of the list can hold, two of one key, and some that ended
    storage, inside = bench.storage, bench.prefix + "in/"
    keys = [f"{inside}{n:04}" for n in range(1002)]
    with ThreadPoolExecutor(4) as pool:
        ids = list(pool.map(lambda key: storage.begin(key, CSV), keys))
    twin = storage.begin(keys[0], CSV)
    storage.abort(keys[1], ids[1])
    storage.complete(keys[2], ids[2], [storage.put_part(keys[2], ids[2], 1, b"a")])
    storage.begin(bench.prefix + "outside", CSV)

    # When
    found = list(storage.open_uploads(inside))

    # Then
    left = [*zip(keys, ids, strict=True), (keys[0], twin)]
    del left[1:3]
    assert sorted((upload.key, upload.upload_id) for upload in found) == sorted(left)
