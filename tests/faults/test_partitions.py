"""A cut export over fakes, hurt at every seam: crashes, sleepers, cancels, older workers."""

from __future__ import annotations

import contextvars
import itertools
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import msgspec
import pytest

from exporter.core.exports import Phase
from exporter.maintenance import cleaning
from exporter.run import run_slice
from exporter.run.run_slice import Ending
from exporter.run.slices import Slice
from exporter.sources.base import Page
from exporter.storage.s3 import multipart
from tests.faults.history import decompress
from tests.harness import LIMITS, Bench, Crash, all_sizes, postings, run_in_order

CUT = msgspec.structs.replace(LIMITS, partition_rows=60, partitions=4)
ROWS = postings(250)


@pytest.fixture(autouse=True)
def _each_run_makes_the_same_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    run_in_order(monkeypatch)


def _bench(**options: Any) -> Bench:
    options.setdefault("limits", CUT)
    bench = Bench(ROWS, **options)
    bench.listed.read_ahead = 2
    return bench


def _alone() -> bytes:
    """The file that one worker makes."""
    bench = Bench(ROWS)
    bench.run()
    return bench.file()


def _calls(**options: Any) -> list[str]:
    calm = _bench(**options)
    calm.run()
    # Withdrawals and sleepers between a page and the next seam differ in nothing.
    return [call for call in calm.seams.calls if call != "fetch"]


def _at(bench: Bench, place: int, action: Callable[[], object]) -> None:
    """Do something right before the call of that place, by the numbers of `_calls`."""
    before, places = bench.seams.before, itertools.count()

    def look(name: str, _key: str = "") -> None:
        before(name)
        if name != "fetch" and next(places) == place:
            action()

    bench.seams.before = bench.storage.before = look  # type: ignore[method-assign]


@pytest.mark.parametrize("compression", ["none", "gzip"])
@pytest.mark.parametrize("way", ["cancel", "delete"])
def test_an_export_withdrawn_at_any_seam_of_its_cutting_reading_and_composing_leaves_nothing(
    way: str, compression: str
) -> None:
    # Given
    options = {"seconds_a_page": 4, "compression": compression}
    if way == "cancel":
        options["storage"] = all_sizes
    calls = _calls(**options)
    ended = 0
    for place, call in enumerate(calls):
        bench = _bench(**options)
        store = bench.memory_store
        withdraw: Callable[[], object] = partial(store.delete, "e1", "u1")
        if way == "cancel":
            withdraw = partial(store.request_cancel, "e1", keep_record=CUT.keep_record)

        # When
        _at(bench, place, withdraw)
        while bench.slice() is not None:
            bench.clock.advance(1)
            store.sweep()

        # Then: it ends as withdrawn, unless its end was already on its way
        where = f"before call {place}, {call}"
        assert bench.claim() is None, where
        assert store.queue_counts().ready == (0,) * 10, where
        for export_id in store.deleted_exports():
            cleaning.purge(store, bench.storage, export_id)
        counters = store.counters()
        kept = [] if way == "delete" else [one.key for one in [bench.export.result] if one]
        assert bench.bucket() == kept, where
        ended += counters.get("exports_finished", 0)
        assert counters.get("exports_finished", 0) + counters["exports_canceled"] == 1, where
    assert 0 < ended < len(calls) / 4


def _outsleep(bench: Bench, left: list[list[str]], awake: threading.Event) -> None:
    """The lease of whoever makes this call runs out, and others do the rest before it goes on."""

    def others() -> None:
        bench.bury()
        bench.run()
        left.append(bench.bucket())

    try:
        # Without the guard that the sleeper's own requests are under.
        contextvars.Context().run(others)
    finally:
        awake.set()


@pytest.mark.parametrize(
    ("compression", "part_size"), [("none", 2_000), ("none", 500), ("gzip", 2_000), ("gzip", 250)]
)
def test_a_worker_that_sleeps_at_any_seam_of_a_cut_export_changes_nothing_when_it_wakes(
    compression: str, part_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given: with the smaller parts, a store that takes parts of several sizes
    options: dict[str, Any] = {"seconds_a_page": 4, "compression": compression}
    options["limits"] = msgspec.structs.replace(CUT, part_size=part_size)
    if part_size < 2_000:
        options["storage"] = all_sizes
        monkeypatch.setattr(multipart, "COPY_BYTES", 2 * part_size)
    calls = _calls(**options)
    expected = _alone()
    for place, call in enumerate(calls):
        bench = _bench(**options)
        left: list[list[str]] = []
        awake = threading.Event()
        _at(bench, place, partial(_outsleep, bench, left, awake))

        # When: others take over and finish before that call is made
        while not awake.is_set():
            if bench.slice() is None:
                bench.clock.advance(1)
                bench.memory_store.sweep()
        bench.run()

        # Then
        where = f"before call {place}, {call}"
        assert b"".join(decompress([bench.file()], compression)) == expected, where
        assert left == [[bench.export.result.key if bench.export.result else ""]], where
        assert bench.memory_store.counters()["exports_finished"] == 1, where


class _Doubtful:
    """A source that announces another total on one page for as long as the export is cut."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench
        self._inner = bench.source

    def fetch(self, query: dict[str, Any], cursor: Any) -> Page:
        page = self._inner.fetch(query, cursor)
        if cursor == 150 and self._bench.export.partitions:
            return msgspec.structs.replace(page, total=251)
        return page

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@pytest.mark.parametrize("die_after", [False, pytest.param(True, marks=pytest.mark.soak)])
def test_a_crash_at_any_seam_while_partitions_are_given_up_costs_time_and_no_row(
    die_after: bool,
) -> None:
    # Given
    def doubtful() -> Bench:
        bench = _bench(seconds_a_page=4)
        bench.source = _Doubtful(bench)  # type: ignore[assignment]
        return bench

    calm = doubtful()
    assert calm.run()[-1] is Ending.FINISHED
    calls, expected = calm.seams.calls, _alone()
    assert "rejoin" in calls
    for at, call in enumerate(calls):
        # When
        bench = doubtful()
        bench.seams.die_at, bench.seams.die_after = at, die_after
        with pytest.raises(Crash):
            bench.run()
        bench.bury()
        bench.run()

        # Then
        where = f"{'after' if die_after else 'before'} call {at}, {call}"
        assert bench.file() == expected, where
        assert bench.bucket() == [bench.export.result.key if bench.export.result else ""], where
        assert bench.memory_store.counters()["exports_rejoined"] <= 1, where


@pytest.mark.parametrize("part_size", [500, 2_000, 100_000])
def test_a_worker_that_knows_no_partitions_may_begin_to_read_what_is_to_be_composed(
    part_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given: all partitions are read, and a worker of an older version reads the export meanwhile
    bench = _bench(limits=msgspec.structs.replace(CUT, part_size=part_size), seconds_a_page=4)
    assert bench.slice() is Ending.CUT
    while bench.export.phase is not Phase.READY:
        bench.slice()
        bench.clock.advance(1)
    with monkeypatch.context() as older:
        older.setattr(run_slice, "_slice_class", lambda _: Slice)
        assert bench.slice() is Ending.HANDED_OVER
    assert bench.export.rows == 250

    # When
    bench.run()

    # Then
    assert bench.file() == _alone()
    assert bench.bucket() == [bench.export.result.key if bench.export.result else ""]
