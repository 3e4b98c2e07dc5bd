"""Tests of an export read by several workers: the file equals that of a single worker."""

from __future__ import annotations

import gzip
import itertools
import zlib
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from exporter.core.checkpoints import Row
from exporter.core.exports import EndReason, Outcome, Phase, State
from exporter.errors import SourceRefused
from exporter.formats import registry
from exporter.run.run_slice import Ending
from exporter.sources.base import Page
from exporter.storage.s3 import multipart
from tests import fast
from tests.harness import LIMITS, Bench, Crash, all_sizes, equal_sizes, postings, run_in_order

CUT = msgspec.structs.replace(LIMITS, partition_rows=60, partitions=4)
ROWS = postings(250)
FORMATS = [name for name, found in registry.FORMATS.items() if found.joinable]


def _bench(rows: Sequence[Row] = ROWS, **options: Any) -> Bench:
    options.setdefault("limits", CUT)
    bench = Bench(rows, **options)
    bench.listed.read_ahead = 2
    return bench


def _unpacked(data: bytes, compression: str) -> bytes:
    if compression == "gzip":
        # A single member: several programs read only the first.
        unpacker = zlib.decompressobj(31)
        whole = unpacker.decompress(data)
        assert unpacker.eof
        assert not unpacker.unused_data
        assert whole == gzip.decompress(data)
        return whole
    if compression == "zstd":
        reader = zstandard.ZstdDecompressor().stream_reader(data, read_across_frames=True)
        return reader.read()
    return data


def _serial(rows: Sequence[Row] = ROWS, **options: Any) -> Bench:
    bench = Bench(rows, **options)
    bench.run()
    return bench


@pytest.mark.parametrize("compression", ["none", "gzip", "zstd"])
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("limit", [None, 190, 250, 400])
def test_the_file_of_many_workers_is_that_of_one(
    format: str,  # noqa: A002
    compression: str,
    limit: int | None,
) -> None:
    # Given
    alone = _serial(format=format, compression=compression, limit=limit)

    # When
    bench = _bench(format=format, compression=compression, limit=limit)
    endings = bench.run()

    # Then
    assert endings[0] is Ending.CUT
    assert _unpacked(bench.file(), compression) == _unpacked(alone.file(), compression)
    assert bench.bucket() == [bench.export.result.key if bench.export.result else ""]
    result, expected = bench.export.result, alone.export.result
    assert result is not None
    assert expected is not None
    assert result.record_count == expected.record_count
    assert result.row_counts == expected.row_counts
    assert result.completeness.outcome is expected.completeness.outcome
    assert result.completeness.end_reason is expected.completeness.end_reason
    assert result.completeness.expected == expected.completeness.expected


@pytest.mark.parametrize("limit", [None, 150, 215, 300])
def test_an_offset_is_skipped_once_and_not_by_each_partition(limit: int | None) -> None:
    # Given: an export of the rows behind the first 35
    bench = _bench(limit=limit)
    bench.memory_store.delete("e1", "u1")
    bench.spec = msgspec.structs.replace(bench.spec, id="e2", offset=35)
    bench.memory_store.create(bench.spec)

    # When
    endings = bench.run()

    # Then
    assert endings[0] is Ending.CUT
    assert bench.file() == _serial(ROWS[35 : 35 + (limit or 250)]).file()
    result = bench.export.result
    assert result is not None
    assert result.completeness.total_at_end == 215
    end = EndReason.LIMIT_REACHED if limit == 150 else EndReason.TOTAL_REACHED
    assert result.completeness.end_reason is end


def test_partitions_are_read_by_several_workers_at_the_same_time() -> None:
    # Given: an export that was cut into four
    bench = _bench()
    assert bench.slice() is Ending.CUT

    # When: four workers ask for work at once
    claims = [bench.claim() for _ in range(5)]

    # Then: each has one partition, in order, and no worker has the export itself
    places = [claim.export.partition.place for claim in claims if claim and claim.export.partition]
    assert places == [0, 1, 2, 3]
    assert claims[4] is None
    for claim in reversed(claims[:4]):
        assert bench.slice(claim) is Ending.FINISHED
    assert bench.export.state is State.PROCESSING
    assert bench.slice() is Ending.FINISHED
    assert bench.file() == _serial().file()


def test_an_export_that_is_not_worth_it_or_has_no_numbered_pages_is_not_cut() -> None:
    # Given
    small = _bench(postings(119))
    cursors = Bench(ROWS, limits=CUT)
    silent = _bench(announces=False)
    files = _bench(rows_per_file=100)

    # When, Then
    for bench in (small, cursors, silent, files):
        assert Ending.CUT not in bench.run()
        assert bench.export.state is State.FINISHED


def test_progress_is_that_of_all_partitions_and_never_goes_back() -> None:
    # Given
    bench = _bench()
    seen = [bench.export.progress]

    # When
    while not bench.export.terminal:
        bench.slice()
        seen.append(bench.export.progress)

    # Then
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert 0.2 < seen[2] < 0.3
    assert 0.9 < seen[-2] < 1.0


@pytest.mark.parametrize(
    ("format", "compression", "die_after", "takes_all_sizes"),
    [
        ("csv", "none", True, False),
        ("csv", "none", False, True),
        ("json_envelope", "gzip", False, False),
        pytest.param("json_envelope", "gzip", True, True, marks=pytest.mark.soak),
        pytest.param("csv", "none", False, False, marks=pytest.mark.soak),
        pytest.param("csv", "none", True, True, marks=pytest.mark.soak),
        pytest.param("csv", "zstd", True, False, marks=pytest.mark.soak),
        pytest.param("json", "zstd", False, True, marks=pytest.mark.soak),
    ],
)
def test_a_crash_at_any_seam_of_a_cut_export_then_another_run_yields_the_same_file(
    format: str,  # noqa: A002
    compression: str,
    die_after: bool,
    takes_all_sizes: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Given: the calls over the seams of a run without a crash; each run makes the same
    run_in_order(monkeypatch)
    part_size = 250 if compression != "none" else 700 if takes_all_sizes else 2_000
    monkeypatch.setattr(multipart, "COPY_BYTES", 2 * part_size)
    limits = msgspec.structs.replace(CUT, part_size=part_size)
    options: dict[str, Any] = {
        **({"storage": all_sizes} if takes_all_sizes else {}),
        "format": format,
        "compression": compression,
        "seconds_a_page": 4,
        "limits": limits,
    }
    calm = _bench(**options)
    calm.run()
    expected = _unpacked(calm.file(), compression)
    assert {"cut", "copy_part", "complete"} <= set(calm.seams.calls)
    calls = calm.seams.calls
    for at in fast.sample(range(len(calls))):
        # When: the process dies at that call, and other workers continue
        bench = _bench(**options)
        bench.seams.die_at, bench.seams.die_after = at, die_after
        bench.listed.is_cut = die_after
        with pytest.raises(Crash):
            bench.run()
        bench.bury()
        bench.run()
        # Then
        where = f"{'after' if die_after else 'before'} call {at}, {calls[at]}"
        assert _unpacked(bench.file(), compression) == expected, where
        assert bench.export.result is not None
        assert bench.bucket() == [bench.export.result.key], where
        assert bench.export.result.record_count == len(ROWS), where


def test_a_worker_that_slept_through_the_end_of_its_partition_changes_nothing() -> None:
    # Given: a worker that has a partition and does not wake up in time
    bench = _bench()
    bench.slice()
    asleep = bench.claim()
    bench.bury()
    bench.run()
    before = bench.file(), bench.bucket()

    # When
    ending = bench.slice(asleep)

    # Then
    assert ending is Ending.LOST
    assert (bench.file(), bench.bucket()) == before


def test_a_cancel_ends_all_partitions_and_leaves_nothing() -> None:
    # Given: two partitions are done, one is under way, one waits in line
    bench = _bench(seconds_a_page=4)
    for _ in range(4):
        bench.slice()
    running = bench.claim()

    # When
    bench.memory_store.request_cancel(bench.spec.id, keep_record=CUT.keep_record)
    assert bench.slice(running) is Ending.CANCELED
    bench.run()

    # Then
    assert bench.export.state is State.CANCELED
    assert bench.bucket() == []
    assert bench.claim() is None


class _Refusing:
    """Source that refuses every page from one row on."""

    def __init__(self, bench: Bench, place: int) -> None:
        self._place = place
        self._inner = bench.source

    def fetch(self, query: dict[str, Any], cursor: Any) -> Page:
        if cursor >= self._place:
            raise SourceRefused("memory answered 403: not for you")
        return self._inner.fetch(query, cursor)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def test_what_fails_one_partition_fails_the_export_with_its_words() -> None:
    # Given: a source that refuses its third partition
    bench = _bench()
    bench.source = _Refusing(bench, 150)  # type: ignore[assignment]

    # When
    endings = bench.run()

    # Then
    assert endings.count(Ending.FAILED) == 2
    assert bench.export.state is State.FAILED
    assert bench.export.error == "memory answered 403: not for you (after 10 rows)"
    assert bench.bucket() == []
    assert bench.claim() is None


def test_what_one_reader_cannot_write_fails_the_export_after_it_was_read_as_one() -> None:
    # Given
    bench = _bench([*postings(150), b"[1]", *postings(250)[151:]])

    # When
    bench.run()

    # Then
    assert bench.export.state is State.FAILED
    assert bench.export.partitions == 0
    assert "row 0 of the page (counted from 0) is not a JSON object" in (bench.export.error or "")
    assert bench.bucket() == []


class _Moving:
    """Source whose list gets a row at its head after a number of requested pages."""

    def __init__(self, bench: Bench, after: int, row: bytes) -> None:
        self._bench, self._after, self._row = bench, after, row
        self._pages = itertools.count()
        self._inner = bench.source

    def fetch(self, query: dict[str, Any], cursor: Any) -> Page:
        if next(self._pages) == self._after:
            self._bench.listed._rows = [self._row, *self._bench.listed._rows]
        return self._inner.fetch(query, cursor)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@given(st.integers(1, 60))
@settings(max_examples=12, deadline=None)
def test_a_list_that_moves_while_it_is_cut_is_read_once_more_as_one(after: int) -> None:
    # Given
    bench = _bench()
    bench.source = _Moving(bench, after, b'{"_id":"new","title":"x","n":1}')  # type: ignore[assignment]

    # When
    endings = bench.run()

    # Then: no row is missing that was there all the time, and none is there twice
    assert endings[0] is Ending.CUT
    ids = [line.partition(b",")[0] for line in bench.file().split(b"\r\n") if line[:6].isdigit()]
    assert sorted(ids) == [b"%06d" % n for n in range(250)]
    assert bench.export.result is not None
    assert bench.bucket() == [bench.export.result.key]


def _composed(**options: Any) -> Bench:
    """Returns a bench whose partitions are all read."""
    bench = _bench(**options)
    for _ in range(5):
        bench.slice()
    assert bench.export.phase is Phase.READY
    return bench


def _calls_of(bench: Bench, name: str) -> int:
    return bench.seams.calls.count(name)


def _drains_after(bench: Bench, copies: int) -> Callable[[], bool]:
    """Asks for a shutdown once so many more copies are made."""
    before = _calls_of(bench, "copy_part")
    return lambda: _calls_of(bench, "copy_part") >= before + copies


@pytest.mark.parametrize(
    "all_sizes_are_taken", [(False,) * 4, (True,) * 4, (True, False) * 2, (False, True) * 2]
)
def test_a_composition_is_handed_over_between_two_of_its_parts(
    all_sizes_are_taken: tuple[bool, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given: workers that make parts of one size or of several; the former may be of an older
    # version
    monkeypatch.setattr(multipart, "COPY_BYTES", 1_000)
    bench = _composed(
        storage=all_sizes if any(all_sizes_are_taken) else equal_sizes,
        limits=msgspec.structs.replace(CUT, part_size=500),
    )

    # When: each worker shuts down after a copy
    uploads, parts = set(), []
    for taken in all_sizes_are_taken[:3]:
        bench.storage._takes_all_sizes = taken
        bench.draining = _drains_after(bench, 1)
        assert bench.slice() is Ending.HANDED_OVER
        at = bench.export.checkpoint
        assert at is not None
        uploads.add(at.upload_id)
        parts.append(len(at.parts))
    bench.storage._takes_all_sizes = all_sizes_are_taken[3]
    bench.draining = lambda: False
    bench.run()

    # Then: they make one upload
    assert len(uploads) == 1
    assert parts == [1, 2, 3]
    assert bench.file() == _serial().file()


def test_a_composition_is_handed_over_before_its_first_part() -> None:
    # Given
    bench = _composed()

    # When
    bench.draining = lambda: True
    endings = [bench.slice() for _ in range(3)]
    bench.draining = lambda: False
    bench.run()

    # Then
    assert endings == [Ending.HANDED_OVER] * 3
    assert bench.file() == _serial().file()


def test_the_composition_of_a_lost_worker_is_begun_again_and_its_upload_is_dead() -> None:
    # Given: a worker that handed over, and one that was lost after some more copies
    bench = _composed(storage=all_sizes)
    bench.draining = _drains_after(bench, 4)
    assert bench.slice() is Ending.HANDED_OVER
    bench.draining = lambda: False
    before = bench.export.checkpoint
    assert before is not None
    assert before.parts
    late = bench.claim()
    assert late is not None
    bench.bury()

    # When
    bench.run()

    # Then
    assert bench.slice(late) is Ending.LOST
    assert bench.file() == _serial().file()
    result = bench.export.result
    assert result is not None
    assert result.key != before.key
    assert bench.bucket() == [result.key]


def test_partitions_are_copied_whole_and_committed_once_where_parts_may_differ_in_size() -> None:
    # Given
    limits = msgspec.structs.replace(CUT, part_size=1_000)
    bench = _composed(storage=all_sizes, limits=limits)
    bench.storage._takes_all_sizes = True
    bench.seams.calls.clear()

    # When
    bench.run()

    # Then: nothing is read, and only the end is committed
    assert [_calls_of(bench, name) for name in ("copy_part", "put_part", "read")] == [4, 0, 0]
    assert _calls_of(bench, "commit") == 1
    assert bench.file() == _serial().file()


def test_a_cut_export_says_how_its_end_is_known() -> None:
    # Given, When
    bench = _bench()
    bench.run()

    # Then
    result = bench.export.result
    assert result is not None
    assert result.completeness.outcome is Outcome.COMPLETE
    assert result.completeness.end_reason is EndReason.TOTAL_REACHED
    assert result.completeness.exported == result.completeness.expected == 250
    assert (result.completeness.total_at_start, result.completeness.total_at_end) == (250, 250)


class _Capped:
    """Source that announces fewer rows than it has, as an index that stops counting does.

    The announced last row is at the end of a page.
    """

    def __init__(self, bench: Bench, total: int) -> None:
        self._total = total
        self._inner = bench.source

    def fetch(self, query: dict[str, Any], cursor: Any) -> Page:
        return msgspec.structs.replace(self._inner.fetch(query, cursor), total=self._total)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def test_an_announced_total_is_no_end_while_the_source_has_more_rows() -> None:
    # Given
    bench = _bench()
    bench.source = _Capped(bench, 200)  # type: ignore[assignment]

    # When
    endings = bench.run()

    # Then: as one reader would have it
    assert endings[0] is Ending.CUT
    assert bench.export.state is State.FAILED
    assert "ended after 250 rows, its total says 200" in (bench.export.error or "")
    assert bench.bucket() == []


def test_a_user_with_one_slot_has_one_partition_read_at_a_time_and_the_file_in_the_end() -> None:
    # Given
    bench = _bench()
    held = 0

    # When: two workers ask whenever there is work
    while not bench.export.terminal:
        first, second = (
            bench.memory_store.claim(worker, lease=CUT.lease, tenant_slots=1) for worker in "ab"
        )
        assert first is not None
        assert second is None
        bench.slice(first)
        held += 1

    # Then
    assert held == 6
    assert bench.file() == _serial().file()


@pytest.mark.parametrize("partitions", [0, 4, 7])
def test_a_list_that_begins_again_is_never_published_by_one_worker_or_many(
    partitions: int,
) -> None:
    # Given: a source that sends 1,500 postings twice, and announces 3,000
    limits = msgspec.structs.replace(LIMITS, partition_rows=400, partitions=partitions)
    bench = _bench(postings(1_500) * 2, page_size=100, limits=limits)
    # When
    endings = bench.run()
    # Then
    assert (Ending.CUT in endings) is bool(partitions)
    assert bench.export.state is State.FAILED
    assert "page one repeats" in (bench.export.error or "")
    assert bench.bucket() == []
