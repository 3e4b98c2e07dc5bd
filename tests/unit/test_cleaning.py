"""What is deleted, and what is not."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from exporter import cleaning
from exporter.cleaning import Cleaned, clean
from exporter.errors import StorageUnavailable
from exporter.exports import State
from exporter.storage.base import FileHeaders
from tests.harness import Bench, postings

GRACE = timedelta(hours=1)
WEEK = timedelta(days=7).total_seconds()
NOTHING = Cleaned(files=0, uploads=0)


def cleaned(bench: Bench) -> Cleaned:
    return clean(bench.memory_store, bench.storage, bench.clock, grace=GRACE)


def finished() -> Bench:
    bench = Bench(postings(25))
    bench.run()
    assert bench.export.state is State.FINISHED
    return bench


def open_upload(bench: Bench, owner: str) -> None:
    bench.storage.begin(f"exports/{owner}/1-ab/jobs.csv", FileHeaders("text/csv", "jobs.csv"))


def test_a_file_is_kept_for_its_retention_and_not_a_moment_longer() -> None:
    # Given
    bench = finished()
    bench.clock.advance(WEEK - 60)
    # When / Then
    assert cleaned(bench) == NOTHING
    assert bench.file()
    # When
    bench.clock.advance(61)
    # Then
    assert cleaned(bench) == Cleaned(files=1, uploads=0)
    assert bench.bucket() == []


def test_the_record_outlives_its_file() -> None:
    # Given
    bench = finished()
    bench.clock.advance(WEEK + 1)
    # When
    cleaned(bench)
    # Then
    assert bench.export.state is State.FINISHED
    assert bench.export.result is not None


def test_cleaning_twice_cleans_once() -> None:
    # Given
    bench = finished()
    bench.clock.advance(WEEK + 1)
    cleaned(bench)
    # When
    again = cleaned(bench)
    # Then
    assert again == NOTHING


def test_more_files_than_a_batch_are_all_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given
    monkeypatch.setattr(cleaning, "BATCH", 2)
    bench = finished()
    for number in range(2, 6):
        bench.spec = msgspec.structs.replace(bench.spec, id=f"e{number}")
        bench.memory_store.create(bench.spec)
        bench.run()
    bench.clock.advance(WEEK + 1)
    # When
    result = cleaned(bench)
    # Then
    assert result.files == 5
    assert bench.bucket() == []


def test_a_file_that_could_not_be_deleted_is_deleted_the_next_time() -> None:
    # Given
    bench = finished()
    bench.clock.advance(WEEK + 1)

    def silent(operation: str, key: str) -> None:
        raise StorageUnavailable("S3 did not answer")

    bench.storage.before = silent
    with pytest.raises(StorageUnavailable):
        cleaned(bench)
    # When
    bench.storage.before = None
    result = cleaned(bench)
    # Then
    assert result == Cleaned(files=1, uploads=0)
    assert bench.bucket() == []


@pytest.mark.parametrize("owner", ["gone", "e1"], ids=["never recorded", "ended"])
def test_an_upload_whose_export_lives_no_more_is_aborted_after_its_grace(owner: str) -> None:
    # Given
    bench = finished()
    file = bench.bucket()
    open_upload(bench, owner)
    # When / Then
    bench.clock.advance(GRACE.total_seconds() - 1)
    assert cleaned(bench) == NOTHING
    # When
    bench.clock.advance(1)
    # Then
    assert cleaned(bench) == Cleaned(files=0, uploads=1)
    assert bench.bucket() == file


def test_the_upload_of_a_living_export_is_never_touched() -> None:
    # Given: an export on its way, whose next worker is late by a day
    bench = Bench(postings(200), seconds_a_page=5)
    bench.slice()
    before = bench.bucket()
    assert any(name.startswith("open:") for name in before)
    bench.clock.advance(86_400)
    # When
    result = cleaned(bench)
    # Then
    assert result == NOTHING
    assert bench.bucket() == before
    bench.run()
    assert bench.export.state is State.FINISHED


def test_what_others_keep_in_the_bucket_is_not_ours_to_delete() -> None:
    # Given
    bench = finished()
    headers = FileHeaders("text/plain", "theirs.txt")
    bench.storage.put_small("backups/theirs.txt", b"x", headers)
    bench.storage.begin("backups/more.txt", headers)
    bench.clock.advance(WEEK + 1)
    # When
    cleaned(bench)
    # Then
    assert bench.bucket() == ["backups/theirs.txt", "open:backups/more.txt"]
