"""Contract of checksums: a store that knows them checks each part and the whole file."""

from __future__ import annotations

from unittest import mock

import pytest

from exporter.errors import StorageError
from exporter.native import library
from exporter.storage.s3 import checksums
from tests.contract.storage.given import CSV, PART, writer
from tests.contract.uploads.given import UploadBench

pytestmark = pytest.mark.skipif(not checksums.is_available(), reason="no compiled library")
PIECES = (b"a" * PART, b"the end")


def test_an_upload_with_checksums_becomes_one_object(bench: UploadBench) -> None:
    # Given
    storage, key = bench.storage, bench.prefix + "a.csv"
    upload_id, has_checksums = storage.begin_checked(key, CSV)
    checks = [checksums.of(piece) for piece in PIECES] if has_checksums else ["", ""]

    # When
    parts = [
        storage.put_part(key, upload_id, number, piece, check)
        for number, (piece, check) in enumerate(zip(PIECES, checks, strict=True), 1)
    ]
    storage.complete(key, upload_id, parts, checks if has_checksums else ())

    # Then
    assert storage.read(key) == b"".join(PIECES)


def test_a_completion_with_a_wrong_checksum_publishes_nothing(bench: UploadBench) -> None:
    # Given
    storage, key = bench.storage, bench.prefix + "a.csv"
    upload_id, has_checksums = storage.begin_checked(key, CSV)
    if not has_checksums:
        pytest.skip("the store knows no checksums")
    part = storage.put_part(key, upload_id, 1, b"sent", checksums.of(b"sent"))

    # When
    with pytest.raises(StorageError, match=r"InvalidPart|BadDigest"):
        storage.complete(key, upload_id, [part], [checksums.of(b"counted")])

    # Then
    assert storage.head(key) is None
    storage.abort(key, upload_id)


def test_the_state_of_a_file_has_the_checksums_of_its_committed_pieces(bench: UploadBench) -> None:
    # Given
    first = writer(bench.storage, bench.prefix, "1-a")
    stores = [first.append(bytearray(piece)) for piece in PIECES]
    for store in reversed(stores):
        store()

    # When
    state = first.state(PART)
    if state.checksums is None:
        pytest.skip("the store knows no checksums")

    # Then: the next worker goes on with them, and a takeover seals with them
    assert state.checksums == (checksums.of(PIECES[0]),)
    second = writer(bench.storage, bench.prefix, "1-a", state)
    second.append(bytearray(b"other end"))()
    assert second.state(PART + 9).checksums == (*state.checksums, checksums.of(b"other end"))
    third = writer(bench.storage, bench.prefix, "3-c", state)
    assert third.resume(clean=False).uploaded == PART
    third.append(bytearray(b"the end"))()
    third.publish()
    assert bench.storage.read(third.key) == b"".join(PIECES)


def test_a_worker_without_the_library_goes_on_with_a_file_that_has_checksums(
    bench: UploadBench,
) -> None:
    # Given
    first = writer(bench.storage, bench.prefix, "1-a")
    first.append(bytearray(PIECES[0]))()
    state = first.pause(PART, bytearray(b"the "))

    # When: even the way back to a worker with the library
    with mock.patch.object(library, "find", return_value=(None, "no compiler")):
        second = writer(bench.storage, bench.prefix, "2-b", state)
        taken = second.resume(clean=True)
        second.append(bytearray(PIECES[0]))()
        taken = second.pause(2 * PART, second.read_rest())
    third = writer(bench.storage, bench.prefix, "3-c", taken)
    assert third.resume(clean=True) == taken
    third.append(third.read_rest() + b"end")()
    third.publish()

    # Then
    assert bench.storage.read(third.key) == PIECES[0] * 2 + b"the end"


def test_an_upload_that_began_without_checksums_goes_on_without(bench: UploadBench) -> None:
    # Given: the state of a worker of version 0.2.0, or of one without the compiled library
    storage, file = bench.storage, writer(bench.storage, bench.prefix, "1-a")
    upload_id = storage.begin(file.key, CSV)
    part = storage.put_part(file.key, upload_id, 1, PIECES[0])
    state = type(file.state(0))(file.key, upload_id, (part,), PART)

    # When
    second = writer(storage, bench.prefix, "2-b", state)
    second.append(bytearray(b"the end"))()
    second.publish()

    # Then
    assert second.state(PART + 7).checksums is None
    assert storage.read(second.key) == b"".join(PIECES)
