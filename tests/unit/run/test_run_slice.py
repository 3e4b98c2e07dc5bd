"""Tests of run_slice over fakes: the published file, its proof, crashes at every seam."""

from __future__ import annotations

import csv
import gc
import io
from datetime import timedelta
from typing import Any

import msgspec
import pytest

from exporter.core.exports import EndReason, Outcome, Phase, State
from exporter.errors import SourceRefused, SourceUnavailable, SourceUntrue
from exporter.run.run_slice import Ending
from exporter.run.slices import Slice
from exporter.sources.base import Page
from tests import fast
from tests.harness import LIMITS, Bench, Crash, postings

FORMATS = ("csv", "json")


def calm_file(rows: list[bytes], format: str) -> bytes:  # noqa: A002
    bench = Bench(rows, format=format)
    bench.run()
    return bench.file()


def test_a_calm_export_holds_every_row_and_says_how_that_is_known() -> None:
    # Given
    bench = Bench(postings(95))
    # When
    endings = bench.run()
    # Then
    assert endings == [Ending.FINISHED]
    table = list(csv.reader(io.StringIO(bench.file().decode(), newline="")))
    assert table[0] == ["_id", "title", "n"]
    assert [row[0] for row in table[1:]] == [f"{n:06d}" for n in range(95)]
    assert table[8] == ["000007", 'Engineer, "7"\nremote', "7.10"]
    export = bench.export
    assert (export.state, export.phase, export.progress) == (State.FINISHED, Phase.DONE, 1.0)
    assert export.result is not None
    proof = export.result.completeness
    assert (proof.outcome, proof.end_reason) == (Outcome.COMPLETE, EndReason.TOTAL_REACHED)
    assert (proof.exported, proof.expected) == (95, 95)
    assert bench.bucket() == [export.result.key]


@pytest.mark.parametrize(
    ("count", "limit", "outcome", "reason", "rows"),
    [
        (95, 40, Outcome.TRUNCATED, EndReason.LIMIT_REACHED, 40),
        (95, 43, Outcome.TRUNCATED, EndReason.LIMIT_REACHED, 43),
        (95, 95, Outcome.COMPLETE, EndReason.TOTAL_REACHED, 95),
        (95, 500, Outcome.COMPLETE, EndReason.TOTAL_REACHED, 95),
        (0, None, Outcome.EMPTY, EndReason.TOTAL_REACHED, 0),
        (10, None, Outcome.COMPLETE, EndReason.TOTAL_REACHED, 10),
    ],
)
def test_the_limit_is_the_number_of_rows_and_the_outcome_says_what_ended_it(
    count: int, limit: int | None, outcome: Outcome, reason: EndReason, rows: int
) -> None:
    # Given
    bench = Bench(postings(count), format="json", limit=limit)
    # When
    bench.run()
    # Then
    assert bench.file().count(b"\n") == rows
    assert bench.export.result is not None
    proof = bench.export.result.completeness
    assert (proof.outcome, proof.end_reason, proof.exported) == (outcome, reason, rows)


def test_a_source_without_totals_ends_by_its_null_cursor_alone() -> None:
    # Given
    bench = Bench(postings(35), announces=False)
    # When
    bench.run()
    # Then
    assert bench.export.result is not None
    proof = bench.export.result.completeness
    assert (proof.end_reason, proof.expected, proof.exported) == (EndReason.NULL_CURSOR, None, 35)


def slices() -> list[Slice]:
    """Returns those in memory: errors that other tests have kept may hold some."""
    return [one for one in gc.get_objects() if type(one) is Slice]


def test_the_memory_of_a_slice_is_free_as_soon_as_it_has_ended() -> None:
    # Given
    bench = Bench(postings(95), compression="gzip")
    gc.collect()
    gc.disable()
    others = slices()
    try:
        # When
        ending = bench.slice()
        left = slices()
    finally:
        gc.enable()
    # Then
    assert ending is Ending.FINISHED
    assert len(left) == len(others)


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_of_many_slices_has_the_bytes_of_a_calm_one(format: str) -> None:  # noqa: A002
    # Given: a page takes so long that each slice gets two of them, less than a part
    rows = postings(150)
    bench = Bench(rows, format=format, seconds_a_page=14.0)
    # When
    endings = bench.run()
    # Then
    assert endings.count(Ending.HANDED_OVER) > 3
    assert bench.file() == calm_file(rows, format)
    assert len(bench.bucket()) == 1


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("die_after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("seconds_a_page", [0.3, 14.0], ids=["fast", "with-tails"])
def test_a_crash_at_any_seam_then_another_run_yields_the_bytes_of_a_calm_run(
    format: str,  # noqa: A002
    die_after: bool,
    seconds_a_page: float,
) -> None:
    # Given: the number of calls over the seams of a run without a crash
    rows = postings(300)
    calm = Bench(rows, format=format, seconds_a_page=seconds_a_page)
    calm.run()
    expected, calls = calm.file(), len(calm.seams.calls)
    assert calls > 60
    for at in fast.sample(range(calls)):
        # When: the process dies at that call, and other workers continue
        bench = Bench(rows, format=format, seconds_a_page=seconds_a_page)
        bench.seams.die_at, bench.seams.die_after = at, die_after
        bench.listed.is_cut = die_after
        with pytest.raises(Crash):
            bench.run()
        bench.bury()
        bench.run()
        # Then
        where = f"{'after' if die_after else 'before'} call {at}, {calm.seams.calls[at]}"
        assert bench.file() == expected, where
        assert bench.export.result is not None
        assert bench.bucket() == [bench.export.result.key], where
        assert bench.export.result.record_count == len(rows), where


def test_two_crashes_in_a_row_cost_no_row_either() -> None:
    # Given
    rows = postings(120)
    calm = Bench(rows)
    calm.run()
    expected, calls = calm.file(), len(calm.seams.calls)
    for first in fast.sample(range(0, calls, 3)):
        for second in range(0, 25, 4):
            # When: the next worker dies too, possibly in the middle of the takeover
            bench = Bench(rows)
            bench.seams.die_at = first
            with pytest.raises(Crash):
                bench.run()
            bench.bury()
            bench.seams.calls.clear()
            bench.seams.die_at = second
            try:
                bench.run()
            except Crash:
                bench.bury()
                bench.run()
            bench.seams.die_at = None
            # Then
            assert bench.file() == expected, (first, second)
            assert len(bench.bucket()) == 1, (first, second)


def test_progress_never_goes_back_and_is_whole_only_when_finished() -> None:
    # Given
    bench = Bench(postings(300), seconds_a_page=0.3)
    seen: list[tuple[float, bool]] = []

    def look(name: str, _key: str = "") -> None:
        bench.seams.calls.append(name)
        seen.append((bench.export.progress, bench.export.state is State.FINISHED))

    bench.storage.before = look
    # When
    bench.seams.die_at = 60
    with pytest.raises(Crash):
        bench.run()
    bench.bury()
    bench.run()
    # Then
    assert seen == sorted(seen)
    assert len({progress for progress, _ in seen}) > 5
    assert all((progress == 1.0) == finished for progress, finished in seen)
    assert bench.export.progress == 1.0


def test_a_worker_that_slept_through_its_lease_changes_nothing() -> None:
    # Given: a worker stopped in the middle of its upload, while another took over and finished
    rows = postings(300)
    bench = Bench(rows)
    expected = calm_file(rows, "csv")
    first = bench.claim()
    assert first is not None
    real, slept = bench.listed.fetch, False

    def sleeps_at_page_20(query: object, cursor: int) -> Page:
        nonlocal slept
        if cursor == 200 and not slept:
            slept = True
            bench.bury()
            assert bench.run()[-1] is Ending.FINISHED
            bench.seams.calls.clear()
        return real({}, cursor)

    bench.listed.fetch = sleeps_at_page_20  # type: ignore[method-assign]
    # When: it wakes up
    ending = bench.slice(first)
    # Then: it lost, and nothing it did reached the store or the bucket
    assert ending is Ending.LOST
    assert bench.file() == expected
    assert len(bench.bucket()) == 1
    assert not {"put_part", "complete", "put_small", "delete", "abort"} & set(bench.seams.calls)


def test_a_cancel_ends_a_running_export_within_a_page_and_leaves_nothing() -> None:
    # Given
    bench = Bench(postings(300), seconds_a_page=0.3)
    real = bench.listed.fetch

    def canceled_at_page_20(query: object, cursor: int) -> Page:
        if cursor == 200:
            bench.memory_store.request_cancel("e1", keep_record=timedelta(days=1))
        assert cursor <= 200, "a page was read after the cancel"
        return real({}, cursor)

    bench.listed.fetch = canceled_at_page_20  # type: ignore[method-assign]
    # When
    endings = bench.run()
    # Then
    assert endings == [Ending.CANCELED]
    assert bench.export.state is State.CANCELED
    assert bench.bucket() == []


def test_a_canceled_export_whose_worker_died_is_cleaned_by_the_next_worker() -> None:
    # Given
    bench = Bench(postings(300))
    bench.seams.die_at = 40
    with pytest.raises(Crash):
        bench.run()
    bench.memory_store.request_cancel("e1", keep_record=timedelta(days=1))
    # When
    bench.bury()
    bench.run()
    # Then
    assert bench.export.state is State.CANCELED
    assert bench.bucket() == []


def test_an_export_that_kills_its_worker_each_time_ends_as_failed() -> None:
    # Given: a page that no worker survives
    bench = Bench(postings(300))
    real = bench.listed.fetch

    def deadly(query: object, cursor: int) -> Page:
        if cursor == 100:
            raise Crash("out of memory")
        return real({}, cursor)

    bench.listed.fetch = deadly  # type: ignore[method-assign]
    # When
    deaths = 0
    while not bench.export.terminal:
        try:
            bench.run()
        except Crash:
            deaths += 1
            bench.bury()
    # Then
    assert bench.export.state is State.FAILED
    assert deaths <= LIMITS.max_attempts + 1
    assert "workers in a row were lost" in (bench.export.error or "")
    assert bench.bucket() == []


@pytest.mark.parametrize("page", [0, 10, 29])
@pytest.mark.parametrize("error", [SourceRefused("401: bad key"), SourceUntrue("HTML")])
def test_what_the_source_refuses_fails_the_export_with_its_words_and_leaves_nothing(
    page: int, error: Exception
) -> None:
    # Given
    bench = Bench(postings(300))
    real = bench.listed.fetch

    def refuses(query: object, cursor: int) -> Page:
        if cursor == page * 10:
            raise error
        return real({}, cursor)

    bench.listed.fetch = refuses  # type: ignore[method-assign]
    # When
    bench.run()
    # Then
    assert bench.export.state is State.FAILED
    seen = f" (after {page * 10} rows)" if page else ""
    assert bench.export.error == f"{error}{seen}"
    assert bench.bucket() == []


def test_an_end_before_the_announced_total_is_never_published() -> None:
    # Given: a source that says "no more" in the middle
    bench = Bench(postings(300))
    real = bench.listed.fetch

    def stops_short(query: object, cursor: int) -> Page:
        page = real({}, cursor)
        return msgspec.structs.replace(page, next=None) if cursor == 150 else page

    bench.listed.fetch = stops_short  # type: ignore[method-assign]
    # When
    bench.run()
    # Then
    assert bench.export.state is State.FAILED
    assert bench.export.error is not None
    assert "160 rows" in bench.export.error
    assert "300" in bench.export.error
    assert bench.bucket() == []


def test_an_upstream_that_is_away_makes_the_export_wait_without_a_worker_and_go_on() -> None:
    # Given: an upstream that is away for an hour, after 12 pages
    rows = postings(300)
    bench = Bench(rows, seconds_a_page=0.3)
    real = bench.listed.fetch
    back_at = bench.clock.monotonic() + 3600

    def away(query: object, cursor: int) -> Page:
        if cursor == 120 and bench.clock.monotonic() < back_at:
            raise SourceUnavailable("503: maintenance", retry_after=30)
        return real({}, cursor)

    bench.listed.fetch = away  # type: ignore[method-assign]
    # When
    assert bench.slice() is Ending.WAITING
    waiting = bench.export
    endings = bench.run(slices=10_000)
    # Then
    assert (waiting.state, waiting.phase) == (State.PROCESSING, Phase.WAITING)
    assert waiting.error == "503: maintenance"
    assert waiting.retry_at is not None
    assert (waiting.retry_at - waiting.updated_at).total_seconds() >= 30
    assert set(endings[:-1]) == {Ending.WAITING}
    assert bench.file() == calm_file(rows, "csv")


def test_an_upstream_that_stays_away_fails_the_export_when_patience_ends() -> None:
    # Given
    bench = Bench(postings(30))

    def away(query: object, cursor: int) -> Page:
        raise SourceUnavailable("connection refused")

    bench.listed.fetch = away  # type: ignore[method-assign]
    # When
    bench.run(slices=10_000)
    # Then
    assert bench.export.state is State.FAILED
    assert "connection refused" in (bench.export.error or "")
    waited = bench.export.updated_at - bench.export.created_at
    assert timedelta(hours=6) < waited < timedelta(hours=6, minutes=5)


def test_an_export_ends_as_failed_when_its_deadline_passes_however_slow_its_source() -> None:
    # Given: 30 pages of 20 seconds each, and five minutes for all of it
    limits = msgspec.structs.replace(LIMITS, deadline=timedelta(minutes=5))
    bench = Bench(postings(300), limits=limits, seconds_a_page=20.0)
    # When
    bench.run(slices=10_000)
    # Then
    assert bench.export.state is State.FAILED
    assert "0:05:00" in (bench.export.error or "")
    assert bench.bucket() == []


def test_an_upload_that_vanished_from_the_store_is_written_anew() -> None:
    # Given: the bucket's own rules abort the upload while the export waits its turn
    rows = postings(300)
    bench = Bench(rows, seconds_a_page=2.0)
    assert bench.slice() is Ending.HANDED_OVER
    for upload in bench.storage.open_uploads(""):
        bench.storage.abort(upload.key, upload.upload_id)
    # When
    bench.run()
    # Then
    assert bench.file() == calm_file(rows, "csv")
    assert len(bench.bucket()) == 1


def test_a_worker_that_shuts_down_hands_over_at_its_next_page() -> None:
    # Given
    rows = postings(300)
    bench = Bench(rows, seconds_a_page=0.3)
    pages = 0

    def asked() -> bool:
        nonlocal pages
        pages += 1
        return pages == 8

    bench.draining = asked
    # When
    ending = bench.slice()
    fetched = bench.listed.fetched
    bench.run()
    # Then: seven pages were read, and none of them again
    assert ending is Ending.HANDED_OVER
    assert fetched == 7
    assert bench.listed.fetched == 30
    assert bench.file() == calm_file(rows, "csv")


@pytest.mark.parametrize(("charge", "paid"), [(True, 200), (False, 0)])
def test_the_rows_read_for_a_canceled_export_are_charged_if_the_setting_says_so(
    charge: bool, paid: int
) -> None:
    """Given an export of 300 rows, when its owner cancels it at row 200, then 200 or no credits are
    charged.
    """
    bench = Bench(
        postings(300),
        limits=msgspec.structs.replace(LIMITS, charge_canceled=charge),
        seconds_a_page=0.3,
    )
    real, end, seen = bench.listed.fetch, bench.memory_store.end, []

    def canceled_at_page_20(query: object, cursor: int) -> Page:
        if cursor == 200:
            bench.memory_store.request_cancel("e1", keep_record=timedelta(days=1))
        return real({}, cursor)

    def watched(*arguments: Any, charged: int | None = None, **rest: Any) -> bool:
        seen.append(charged)
        return end(*arguments, charged=charged, **rest)

    bench.listed.fetch = canceled_at_page_20  # type: ignore[method-assign]
    bench.memory_store.end = watched  # type: ignore[method-assign]
    assert bench.run() == [Ending.CANCELED]
    assert len(seen) == 1
    assert (seen[0] or 0) >= paid
    assert (seen[0] is None) == (not charge)
