"""Workers come and go by order, and clocks are wrong: no export notices."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import S3
from tests.faults.fleet import Worker, running, until

pytestmark = pytest.mark.stack

EXIT = 8.0
"""Seconds from SIGTERM to the end of a worker: 3 to 5 on a busy machine, and its last page."""
PAGE_SECONDS = 0.2
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


def test_rolling_restarts_read_no_page_twice_but_those_under_way_and_take_nothing_over(
    tmp_path: Path, s3_server: S3
) -> None:
    # Given
    with running(tmp_path, s3_server, SLICE_SECONDS="30s") as fleet:
        workers = [fleet.worker(2, wait=False) for _ in range(4)]
        for one in workers:
            until(one.ready, 60, "a worker that shows its presence")
        exports = {f"d{n}": fleet.create(f"d{n}", 45, delay=PAGE_SECONDS) for n in range(2)}
        until(lambda: len(fleet.upstream.asked_at) == 2, 20, "both exports under way")

        def works(worker: Worker) -> bool:
            """Whether some export is with this worker now."""
            own = {line["fence"]: line["export_id"] for line in worker.log_lines("slice.started")}
            gone = {line["fence"] for line in worker.log_lines("slice.released")}
            return worker.alive and any(fence not in gone for fence in own)

        # When: three times the worker that works is told to end
        for _ in range(3):
            until(lambda: any(map(works, workers)), 20, "a worker that works")
            working = next(filter(works, workers))
            assert not fleet.ended(list(exports.values()))
            took = working.terminate()
            # Then
            assert took < EXIT + PAGE_SECONDS, took
        until(lambda: fleet.ended(list(exports.values())), 60, "the end")
        slices = [line for one in workers for line in one.log_lines("slice.started")]
        assert len(slices) >= 2 + 3, "each restart handed an export over"
        assert all(line["clean"] for line in slices)
        assert not any(one.log_lines("sweep.leases_expired") for one in workers)
        # A page that was asked for ahead is left behind by a worker that has to go.
        twice = fleet.upstream.twice()
        assert len(twice) <= 2 * 3, twice
        assert all(times == 2 for times in twice.values()), twice
        fleet.assert_whole(exports)


@pytest.mark.skipif(FAKETIME is None, reason="needs the Debian package libfaketime")
@pytest.mark.parametrize("offset", ["+10m", pytest.param("-10m", marks=pytest.mark.soak)])
def test_a_worker_whose_wall_clock_is_off_by_many_leases_disturbs_nobody(
    tmp_path: Path, s3_server: S3, offset: str
) -> None:
    # Given: leases of 4 s, and no more than S3 tolerates, which refuses a signature that seems to
    # be over 15 minutes old
    with running(tmp_path, s3_server, SLICE_SECONDS="1s") as fleet:
        skewed = fleet.worker(
            1,
            wait=False,
            LD_PRELOAD=str(FAKETIME),
            FAKETIME=offset,
            # Only the wall clock is wrong; nobody can set the monotonic one.
            FAKETIME_DONT_FAKE_MONOTONIC="1",
            DONT_FAKE_MONOTONIC="1",
        )
        right = fleet.worker(1)
        until(skewed.ready, 60, "the worker with the wrong clock")
        # When
        exports = {f"s{n}": fleet.create(f"s{n}", 20, delay=0.1) for n in range(2)}
        until(lambda: fleet.ended(list(exports.values())), 60, "the end")
        # Then
        for one in (skewed, right):
            assert one.log_lines("slice.started"), "both took part"
            assert not one.log_lines("slice.lost")
            assert not one.log_lines("sweep.leases_expired")
        fleet.assert_whole(exports)
        assert fleet.upstream.twice() == {}
