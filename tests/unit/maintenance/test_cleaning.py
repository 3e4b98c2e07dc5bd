"""Tests of cleaning: deleted and kept objects, uploads and records."""

from __future__ import annotations

from datetime import timedelta

import msgspec
import pytest

from exporter.core.exports import State
from exporter.errors import StorageUnavailable
from exporter.maintenance import cleaning
from exporter.maintenance.cleaning import Cleaned, clean
from exporter.settings import Settings
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


def test_a_file_is_deleted_right_after_its_retention() -> None:
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
    monkeypatch.setattr(cleaning, "BATCH_SIZE", 2)
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
def test_an_upload_without_a_running_export_is_aborted_after_the_grace(owner: str) -> None:
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


def test_the_upload_of_a_running_export_is_kept() -> None:
    # Given: a running export whose next worker comes a day later
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


def test_objects_outside_the_prefix_of_exports_are_kept() -> None:
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


def test_only_the_objects_of_the_deleted_export_are_removed() -> None:
    # Given
    bench = finished()
    bench.spec = msgspec.structs.replace(bench.spec, id="e2")
    bench.memory_store.create(bench.spec)
    bench.run()
    kept = [name for name in bench.bucket() if "/e2/" in name]
    open_upload(bench, "e1")
    bench.memory_store.delete("e1", "u1")
    # When
    result = cleaned(bench)
    # Then
    assert result == Cleaned(files=0, uploads=0, deleted=1)
    assert bench.bucket() == kept
    assert cleaned(bench) == NOTHING


def test_objects_of_a_deleted_export_are_removed_by_the_next_cleaning_after_an_outage_of_s3() -> (
    None
):
    # Given
    bench = finished()
    bench.memory_store.delete("e1", "u1")

    def silent(operation: str, key: str) -> None:
        raise StorageUnavailable("S3 did not answer")

    bench.storage.before = silent
    with pytest.raises(StorageUnavailable):
        cleaned(bench)
    # When
    bench.storage.before = None
    # Then
    assert cleaned(bench).deleted == 1
    assert bench.bucket() == []


def stray(bench: Bench, owner: str, name: str = "late") -> None:
    bench.storage.put_small(f"exports/{owner}/0-ab/{name}", b"x", FileHeaders("text/csv", name))


def test_an_object_of_an_ended_export_that_is_not_its_file_is_deleted() -> None:
    # Given: a write of a stopped worker that reached S3 after the end
    bench = finished()
    file = bench.bucket()
    stray(bench, "e1")
    # When
    result = cleaned(bench)
    # Then
    assert result == Cleaned(files=0, uploads=0, strays=1)
    assert bench.bucket() == file
    assert bench.file()


def test_an_object_of_a_running_export_is_not_a_stray() -> None:
    # Given
    bench = Bench(postings(200), seconds_a_page=5)
    bench.slice()
    stray(bench, "e1")
    before = bench.bucket()
    # When / Then
    assert cleaned(bench) == NOTHING
    assert bench.bucket() == before


def test_objects_of_unknown_exports_are_kept_until_the_store_is_older_than_the_retention() -> None:
    # Given: a store that started empty, and a bucket with an object
    bench = Bench(postings(5))
    stray(bench, "e5")
    # When / Then
    bench.clock.advance(WEEK - 60)
    assert cleaned(bench) == NOTHING
    # When
    bench.clock.advance(61)
    # Then
    assert cleaned(bench) == Cleaned(files=0, uploads=0, strays=1)
    assert bench.bucket() == []


def test_the_check_of_a_large_bucket_continues_where_the_last_run_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given
    monkeypatch.setattr(cleaning, "BATCH_SIZE", 2)
    monkeypatch.setattr(cleaning, "MAX_OBJECTS_PER_RUN", 4)
    bench = finished()
    file = bench.bucket()
    for number in range(5):
        stray(bench, "e1", f"late-{number}")
        stray(bench, f"{number}f", "unknown")
    bench.clock.advance(WEEK - 60)
    # When
    strays = [cleaned(bench).strays for _ in range(5)]
    # Then: the five objects of unknown exports are skipped, then the five late objects are deleted,
    # then the check starts again. The late objects sort before the file, whose fence begins with 1
    assert strays == [0, 3, 2, 0, 0]
    assert set(file) < set(bench.bucket())
    assert len(bench.bucket()) == 6


def test_removed_items_are_counted() -> None:
    # Given
    bench = finished()
    stray(bench, "e1")
    open_upload(bench, "e1")
    bench.clock.advance(GRACE.total_seconds())
    cleaned(bench)
    bench.clock.advance(WEEK)
    # When
    cleaned(bench)
    # Then
    counters = bench.memory_store.counters()
    assert counters["files_cleaned"] == 1
    assert counters["uploads_cleaned"] == 1
    assert counters["strays_cleaned"] == 1


def test_a_file_may_not_be_kept_longer_than_its_record() -> None:
    with pytest.raises(ValueError, match="EXPORTER_RECORD_RETENTION 30d"):
        Settings(retention=timedelta(days=31))
    assert Settings(retention=timedelta(days=30)).retention == timedelta(days=30)
