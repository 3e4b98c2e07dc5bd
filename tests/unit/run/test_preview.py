"""The first rows of a running export: what is stored of them, and that nothing of it stays."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
import pytest

from exporter.core.exports import State
from exporter.errors import SourceUnavailable, StorageError
from exporter.formats import registry
from exporter.maintenance import cleaning
from exporter.run import preview
from exporter.run.run_slice import Ending
from exporter.sources.base import Page
from exporter.storage.base import FileHeaders
from exporter.storage.keys import preview_key
from tests.harness import LIMITS, Bench, Crash, all_sizes, postings

ROWS = postings(250)
SLOW = 14.0
"""Seconds for a page, so that each slice gets two of them."""
CUT = msgspec.structs.replace(LIMITS, partition_rows=60, partitions=4)
KEY = preview_key("e1")


def calm(**options: Any) -> Bench:
    bench = Bench(ROWS, **options)
    bench.run()
    return bench


@pytest.mark.parametrize("compression", registry.COMPRESSIONS)
@pytest.mark.parametrize("format", ["csv", "json"])
def test_the_first_rows_of_a_running_export_are_the_beginning_of_its_file(
    format: str,  # noqa: A002
    compression: str,
) -> None:
    # Given
    bench = Bench(ROWS, format=format, compression=compression, seconds_a_page=SLOW)
    # When
    ending = bench.slice()
    # Then
    assert ending is Ending.HANDED_OVER
    data = bench.storage.read(KEY)
    whole = calm(format=format).file()
    assert data == registry.FORMATS[format].first_rows(whole, bench.export.rows)
    assert 0 < bench.export.rows < 100
    # When
    bench.run()
    # Then
    assert bench.export.result is not None
    assert bench.bucket() == [bench.export.result.key]


@pytest.mark.parametrize(("page_size", "part_size", "rows"), [(60, 6_000, 100), (40, 3_000, 40)])
def test_at_most_a_hundred_rows_are_stored_and_none_that_the_first_checkpoint_does_not_name(
    page_size: int, part_size: int, rows: int
) -> None:
    # Given: the first checkpoint comes with the first part
    limits = msgspec.structs.replace(LIMITS, part_size=part_size)
    bench = Bench(ROWS, page_size=page_size, limits=limits, seconds_a_page=2.0)
    seen = []
    put = bench.storage.put_small

    def watched(key: str, data: bytes, headers: FileHeaders) -> None:
        seen.append((key, data, bench.export.rows))
        put(key, data, headers)

    bench.storage.put_small = watched  # type: ignore[method-assign, assignment]
    # When
    bench.run()
    # Then
    ((key, data, committed),) = seen
    assert (key, committed) == (KEY, 0)
    assert data == registry.FORMATS["csv"].first_rows(bench.file(), rows)
    assert bench.seams.calls.index("put_small") < bench.seams.calls.index("commit")
    assert bench.export.result is not None
    assert bench.bucket() == [bench.export.result.key]


@pytest.mark.parametrize(
    ("part_size", "seconds_a_page", "writes"),
    [(100_000, 5.0, 1), (1_000, 5.0, 0), (500, 0.5, 0)],
    ids=["whole", "last", "soon"],
)
def test_an_export_that_ends_soon_or_at_its_first_checkpoint_pays_nothing_for_its_first_rows(
    part_size: int, seconds_a_page: float, writes: int
) -> None:
    # Given
    limits = msgspec.structs.replace(LIMITS, part_size=part_size)
    rows, page_size = (postings(30), 29) if seconds_a_page > 1 else (postings(50), 20)
    bench = Bench(rows, page_size=page_size, limits=limits, seconds_a_page=seconds_a_page)
    # When
    bench.run()
    # Then: all that is written is the file, whole or in parts
    assert bench.seams.calls.count("put_small") == writes
    assert "delete" not in bench.seams.calls


def test_an_export_that_waits_for_its_source_has_the_rows_that_came_before() -> None:
    # Given: the source is away after two pages, at once
    bench = Bench(ROWS, format="json")
    fetch, answers = bench.listed.fetch, iter([True, True])

    def away(query: Any, cursor: Any) -> Page:
        if not next(answers, False):
            raise SourceUnavailable("away")
        return fetch(query, cursor)

    bench.listed.fetch = away  # type: ignore[method-assign]
    # When
    ending = bench.slice()
    # Then
    assert ending is Ending.WAITING
    assert bench.storage.read(KEY) == b"".join(row + b"\n" for row in ROWS[:20])


def test_large_rows_are_cut_between_two_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    # Given
    monkeypatch.setattr(preview, "MAX_BYTES", 1_000)
    bench = Bench(ROWS, format="json", seconds_a_page=SLOW)
    # When
    bench.slice()
    # Then
    data = bench.storage.read(KEY)
    assert data == b"".join(row + b"\n" for row in ROWS[: data.count(b"\n")])
    assert 900 < len(data) <= 1_000


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("format", registry.FORMATS)
def test_the_first_of_the_partitions_stores_the_first_rows_of_the_export(
    format: str,  # noqa: A002
    compression: str,
) -> None:
    # Given
    options: dict[str, Any] = {"format": format, "compression": compression}
    bench = Bench(ROWS, limits=CUT, read_ahead=2, storage=all_sizes, **options)
    stored: dict[str, bytes] = {}
    bench.storage.after = lambda name, key: stored.update(
        {key: bench.storage._objects[key].data} if name == "put_small" and key == KEY else {}
    )
    # When
    endings = bench.run()
    # Then
    assert endings[0] is Ending.CUT
    whole = calm(format=format)
    found = registry.FORMATS[format]
    rows = stored[KEY].count(b"Engineer")
    assert 0 < rows <= 70
    assert stored == {KEY: found.first_rows(whole.file(), rows)}
    assert bench.export.result is not None
    assert bench.bucket() == [bench.export.result.key]


@pytest.mark.parametrize("limits", [LIMITS, CUT], ids=["whole", "partitions"])
def test_a_worker_that_dies_at_any_call_leaves_no_first_rows_behind(limits: Any) -> None:
    # Given: the rows are other ones after each death
    rows = postings(130)
    calm_bench = Bench(rows, limits=limits, read_ahead=2, page_size=20, seconds_a_page=1.0)
    calm_bench.run()
    assert "put_small" in calm_bench.seams.calls
    for at in range(len(calm_bench.seams.calls)):
        for die_after in (False, True):
            bench = Bench(rows, limits=limits, read_ahead=2, page_size=20, seconds_a_page=1.0)
            bench.seams.die_at, bench.seams.die_after = at, die_after
            # When
            try:
                bench.run()
            except Crash:
                bench.bury()
                bench.run()
            bench.seams.die_at = None  # a run may make a call less than the calm one
            # Then
            assert bench.file() == calm_bench.file()
            assert bench.export.result is not None
            assert bench.bucket() == [bench.export.result.key], (at, die_after)


def test_rows_that_changed_before_the_first_checkpoint_replace_those_of_a_dead_worker() -> None:
    # Given: it died between the two
    bench = Bench(ROWS, format="json", seconds_a_page=SLOW)
    bench.seams.die_at = ("commit", 0)
    with pytest.raises(Crash):
        bench.slice()
    bench.bury()
    assert bench.storage.read(KEY).startswith(ROWS[0])
    # When
    bench.listed._rows = [row.replace(b"Engineer", b"Welder") for row in ROWS]
    bench.slice()
    # Then
    assert bench.storage.read(KEY).startswith(ROWS[0].replace(b"Engineer", b"Welder"))


def test_a_store_that_refuses_the_first_rows_costs_the_export_nothing() -> None:
    # Given
    bench = Bench(ROWS, seconds_a_page=1.0)
    refused = []

    def refuse(name: str, key: str) -> None:
        if key == KEY:
            refused.append(name)
            raise StorageError(f"{name} is refused")

    bench.storage.before = refuse
    # When
    endings = bench.run()
    # Then
    assert endings == [Ending.FINISHED]
    assert refused == ["put_small", "delete"]
    assert bench.file() == calm().file()


def test_a_canceled_export_leaves_no_first_rows() -> None:
    # Given
    bench = Bench(ROWS, seconds_a_page=SLOW)
    bench.slice()
    assert KEY in bench.bucket()
    # When
    bench.memory_store.request_cancel("e1", keep_record=timedelta(days=1))
    bench.run()
    # Then
    assert bench.export.state is State.CANCELED
    assert bench.bucket() == []


def test_an_upload_that_vanished_takes_the_first_rows_with_it() -> None:
    # Given
    bench = Bench(ROWS, seconds_a_page=3.0)
    bench.slice()
    assert KEY in bench.bucket()
    for upload in list(bench.storage.unfinished("")):
        bench.storage.discard(upload)
    # When
    bench.listed._rows = [row.replace(b"Engineer", b"Welder") for row in ROWS]
    bench.clock.advance(1)
    bench.slice()
    assert KEY not in bench.bucket()
    bench.run()
    # Then
    assert b"Engineer" not in bench.file()
    assert bench.export.result is not None
    assert bench.bucket() == [bench.export.result.key]


def test_first_rows_that_arrive_after_the_end_are_swept_as_strays() -> None:
    # Given: the request of a worker that was suspended
    bench = Bench(ROWS)
    bench.run()
    bench.storage.put_small(KEY, b"late", FileHeaders("text/csv", "late.csv"))
    # When
    cleaned = cleaning.clean(
        bench.memory_store, bench.storage, bench.clock, grace=timedelta(hours=1)
    )
    # Then
    assert cleaned.strays == 1
    assert bench.export.result is not None
    assert bench.bucket() == [bench.export.result.key]
