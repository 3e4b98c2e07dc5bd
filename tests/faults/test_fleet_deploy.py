"""Workers come and go by order, and clocks are wrong: no export notices."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import S3
from tests.faults.fleet import running, until

pytestmark = pytest.mark.stack

EXIT = 5.0
"""Seconds from SIGTERM to the end of a worker, beside the page under way."""
PAGE_SECONDS = 0.2
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)


def test_rolling_restarts_read_no_page_twice_and_take_nothing_over(
    tmp_path: Path, s3_server: S3
) -> None:
    # Given
    with running(tmp_path, s3_server, SLICE_SECONDS="30s") as fleet:
        worker = fleet.worker(2)
        exports = {f"d{n}": fleet.create(f"d{n}", 60, delay=PAGE_SECONDS) for n in range(2)}
        until(lambda: len(fleet.upstream.asked_at) == 2, 20, "both exports under way")
        workers = [worker]
        # When
        for _ in range(3):
            successor = fleet.worker(2)
            assert not fleet.ended(list(exports.values()))
            took = worker.terminate()
            # Then
            assert took < EXIT + PAGE_SECONDS, took
            workers.append(successor)
            worker = successor
        until(lambda: fleet.ended(list(exports.values())), 60, "the end")
        # Then
        slices = [line for one in workers for line in one.said("slice.started")]
        assert len(slices) >= 8, "each restart handed both exports over"
        assert all(line["clean"] for line in slices)
        assert not any(one.said("sweep.leases_expired") for one in workers)
        assert fleet.upstream.twice() == {}
        fleet.assert_whole(exports)


@pytest.mark.skipif(FAKETIME is None, reason="needs the Debian package libfaketime")
@pytest.mark.parametrize("offset", ["-2h", "+2h"])
def test_a_worker_whose_wall_clock_is_hours_off_disturbs_nobody(
    tmp_path: Path, s3_server: S3, offset: str
) -> None:
    # Given
    with running(tmp_path, s3_server, SLICE_SECONDS="1s") as fleet:
        skewed = fleet.worker(
            1,
            LD_PRELOAD=str(FAKETIME),
            FAKETIME=offset,
            # Only the wall clock is wrong; nobody can set the monotonic one.
            FAKETIME_DONT_FAKE_MONOTONIC="1",
            DONT_FAKE_MONOTONIC="1",
        )
        right = fleet.worker(1)
        # When
        exports = {f"s{n}": fleet.create(f"s{n}", 30, delay=0.1) for n in range(2)}
        until(lambda: fleet.ended(list(exports.values())), 60, "the end")
        # Then
        for one in (skewed, right):
            assert one.said("slice.started"), "both took part"
            assert not one.said("slice.lost")
            assert not one.said("sweep.leases_expired")
        fleet.assert_whole(exports)
        assert fleet.upstream.twice() == {}
