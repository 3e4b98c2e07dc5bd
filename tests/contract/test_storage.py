"""What every Storage promises, asked of each of them."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from exporter.checkpoints import Part
from exporter.errors import LeaseLost, ObjectExists, StorageError, UploadGone
from exporter.storage.base import FileHeaders, ObjectInfo, Storage, guarded
from tests.contract.conftest import Bench

MIB = 1024**2
CSV = FileHeaders("text/csv; charset=utf-8", "postings.csv")
PART = 5 * MIB
"""The smallest size of a part that is not the last."""


def _object(storage: Storage, key: str, data: bytes) -> ObjectInfo:
    storage.put_small(key, data, CSV)
    info = storage.head(key)
    assert info is not None
    return info


def _lost() -> None:
    raise LeaseLost("somebody else owns it")


def test_parts_become_one_object_in_the_order_of_their_numbers(bench: Bench) -> None:
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


def test_nothing_is_seen_of_an_upload_before_it_is_complete(bench: Bench) -> None:
    # Given
    storage, key = bench.storage, bench.prefix + "a.csv"

    # When
    upload_id = storage.begin(key, CSV)
    storage.put_part(key, upload_id, 1, b"a")

    # Then
    assert storage.head(key) is None
    assert list(storage.objects(bench.prefix)) == []
    storage.abort(key, upload_id)


def test_parts_may_arrive_in_any_order(bench: Bench) -> None:
    # Given
    storage, key = bench.storage, bench.prefix + "a.csv"
    upload_id = storage.begin(key, CSV)

    # When
    last = storage.put_part(key, upload_id, 3, b"c")
    first = storage.put_part(key, upload_id, 1, b"a" * PART)
    middle = storage.put_part(key, upload_id, 2, b"b" * PART)
    storage.complete(key, upload_id, [first, middle, last])

    # Then
    assert storage.read(key) == b"a" * PART + b"b" * PART + b"c"


def test_a_part_sent_again_is_one_part(bench: Bench) -> None:
    # Given
    storage, key = bench.storage, bench.prefix + "a.csv"
    upload_id = storage.begin(key, CSV)
    storage.put_part(key, upload_id, 1, b"sent, and its answer was lost")

    # When
    again = storage.put_part(key, upload_id, 1, b"sent again")
    storage.complete(key, upload_id, [again])

    # Then
    assert storage.read(key) == b"sent again"


def test_bytes_other_than_those_of_the_checkpoint_are_never_published(bench: Bench) -> None:
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
        # Some stores keep every version of a part until the end and take the one asked for.
        published = storage.read(key)

    # Then
    assert published in (None, b"committed")
    storage.abort(key, upload_id)


def test_a_part_that_was_never_sent_is_refused(bench: Bench) -> None:
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


def test_a_part_below_5_mib_before_the_last_is_refused(bench: Bench) -> None:
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


def test_an_upload_that_was_completed_takes_no_more_parts(bench: Bench) -> None:
    # Given
    storage, key = bench.storage, bench.prefix + "a.csv"
    upload_id = storage.begin(key, CSV)
    storage.complete(key, upload_id, [storage.put_part(key, upload_id, 1, b"sealed")])

    # When
    with pytest.raises(UploadGone):
        storage.put_part(key, upload_id, 1, b"late")

    # Then
    assert storage.read(key) == b"sealed"


def test_an_upload_that_was_aborted_takes_no_more_parts_and_cannot_complete(bench: Bench) -> None:
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


def test_aborting_twice_or_after_the_end_changes_nothing(bench: Bench) -> None:
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


def test_completing_twice_tells_so_and_leaves_the_object(bench: Bench) -> None:
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


def test_completing_never_replaces_an_object(bench: Bench) -> None:
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
    old = _object(storage, bench.prefix + "old.csv", b"a" * (2 * PART + 1))
    upload_id = storage.begin(key, CSV)

    # When
    parts = storage.copy_parts(old, key, upload_id, 1)
    last = storage.put_part(key, upload_id, len(parts) + 1, b"and more")
    storage.complete(key, upload_id, [*parts, last])

    # Then
    assert sum(part.size for part in parts) == old.size
    assert storage.read(key) == b"a" * (2 * PART + 1) + b"and more"


def test_several_objects_are_composed_in_order(bench: Bench) -> None:
    # Given
    storage, key = bench.storage, bench.prefix + "all.csv"
    pieces = [b"a" * PART, b"b" * (2 * PART), b"c"]
    sources = [_object(storage, f"{bench.prefix}{n}", data) for n, data in enumerate(pieces)]
    upload_id = storage.begin(key, CSV)

    # When
    parts: list[Part] = []
    for source in sources:
        parts.extend(storage.copy_parts(source, key, upload_id, len(parts) + 1))
    storage.complete(key, upload_id, parts)

    # Then
    assert storage.read(key) == b"".join(pieces)


def test_a_span_of_an_object_is_copied_and_nothing_beside_it(bench: Bench) -> None:
    # Given
    storage, key = bench.storage, bench.prefix + "cut.csv"
    old = _object(storage, bench.prefix + "old.csv", b"a" * 7 + b"b" * (2 * PART) + b"c")
    upload_id = storage.begin(key, CSV)

    # When
    parts = storage.copy_parts(old, key, upload_id, 1, range(7, 7 + 2 * PART))
    last = storage.put_part(key, upload_id, len(parts) + 1, b"end")
    storage.complete(key, upload_id, [*parts, last])

    # Then
    assert storage.read(key) == b"b" * (2 * PART) + b"end"


def test_copying_an_empty_object_yields_no_part(bench: Bench) -> None:
    # Given
    storage, key = bench.storage, bench.prefix + "new.csv"
    empty = _object(storage, bench.prefix + "old.csv", b"")
    upload_id = storage.begin(key, CSV)

    # When
    parts = storage.copy_parts(empty, key, upload_id, 1)

    # Then
    assert parts == ()
    storage.abort(key, upload_id)


def test_copying_into_a_dead_upload_is_refused(bench: Bench) -> None:
    # Given
    storage, key = bench.storage, bench.prefix + "new.csv"
    old = _object(storage, bench.prefix + "old.csv", b"a")
    upload_id = storage.begin(key, CSV)
    storage.abort(key, upload_id)

    # When, Then
    with pytest.raises(UploadGone):
        storage.copy_parts(old, key, upload_id, 1)


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


def test_open_uploads_lists_every_upload_that_has_not_ended(bench: Bench) -> None:
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


def test_an_open_upload_tells_when_it_was_started(bench: Bench) -> None:
    # Given
    started_at = bench.clock.now()
    bench.storage.begin(bench.prefix + "a.csv", CSV)

    # When
    (upload,) = bench.storage.open_uploads(bench.prefix)

    # Then
    assert abs(upload.started_at - started_at) < timedelta(seconds=10)


def test_a_link_gives_the_file_with_its_headers_to_a_bare_get(bench: Bench) -> None:
    # Given
    storage, small, large = bench.storage, bench.prefix + "small", bench.prefix + "large"
    storage.put_small(small, b"id\n1\n", CSV)
    upload_id = storage.begin(large, CSV)
    storage.complete(large, upload_id, [storage.put_part(large, upload_id, 1, b"id\n2\n")])

    for key, content in [(small, b"id\n1\n"), (large, b"id\n2\n")]:
        # When
        status, headers, body = bench.get(storage.presign(key, 60))

        # Then
        assert (status, body) == (200, content)
        assert headers["content-type"] == "text/csv; charset=utf-8"
        assert headers["content-disposition"] == 'attachment; filename="postings.csv"'
        assert headers["content-length"] == str(len(content))


def test_a_link_dies_at_its_expiry(bench: Bench) -> None:
    # Given
    key = bench.prefix + "a.csv"
    bench.storage.put_small(key, b"a", CSV)
    link = bench.storage.presign(key, 2)
    assert bench.get(link)[0] == 200

    # When
    bench.clock.sleep(3.1)

    # Then
    status, _, body = bench.get(link)
    assert status == 403
    assert b"expired" in body


def test_a_link_for_longer_than_a_store_signs_is_cut_and_works(bench: Bench) -> None:
    # Given
    key = bench.prefix + "a.csv"
    bench.storage.put_small(key, b"a", CSV)

    # When
    link = bench.storage.presign(key, 400 * 24 * 3600)

    # Then
    assert bench.get(link)[0] == 200


def test_a_link_made_for_one_object_opens_no_other(bench: Bench) -> None:
    # Given
    mine, theirs = bench.prefix + "mine", bench.prefix + "theirs"
    for key in mine, theirs:
        bench.storage.put_small(key, b"a", CSV)

    # When
    status, _, _ = bench.get(bench.storage.presign(mine, 60).replace("/mine?", "/theirs?"))

    # Then
    assert status == 403


def test_a_link_to_nothing_is_not_found(bench: Bench) -> None:
    # Given, When
    status, _, _ = bench.get(bench.storage.presign(bench.prefix + "nothing", 60))

    # Then
    assert status == 404


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ('a "b".csv', "attachment; filename=\"a _b_.csv\"; filename*=UTF-8''a%20%22b%22.csv"),
        (
            "çalışanlar 100%.csv",
            'attachment; filename="_al__anlar 100_.csv"; '
            "filename*=UTF-8''%C3%A7al%C4%B1%C5%9Fanlar%20100%25.csv",
        ),
        ("a\r\nSet-Cookie: b=c", 'attachment; filename="a__Set-Cookie: b=c"'),
        ("../../etc\\passwd\x00", 'attachment; filename=".._.._etc_passwd_"'),
        ("\ud800.csv", 'attachment; filename="_.csv"'),
    ],
    ids=["quotes", "unicode", "line breaks", "folders", "lone surrogate"],
)
def test_any_file_name_arrives_and_none_adds_a_header(
    bench: Bench, name: str, expected: str
) -> None:
    # Given
    key = bench.prefix + "a.csv"
    upload_id = bench.storage.begin(key, FileHeaders("text/csv", name))
    part = bench.storage.put_part(key, upload_id, 1, b"a")
    bench.storage.complete(key, upload_id, [part])

    # When
    status, headers, _ = bench.get(bench.storage.presign(key, 60))

    # Then
    assert status == 200
    assert headers["content-disposition"] == expected
    assert "set-cookie" not in headers


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
            lambda: storage.copy_parts(kept, key, upload_id, 2),
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
