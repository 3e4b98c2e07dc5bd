"""A worker that has gone deaf ends, so that its supervisor restarts it; no other worker does."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.conftest import S3
from tests.faults.fleet import running, until

pytestmark = pytest.mark.stack

SOON = """from workers import watchdog
watchdog.INTERVAL_SECONDS = 0.3
watchdog.MAX_STUCK_SECONDS = 2.0
"""
DEAF = f"""{SOON}
from workers import doorbell
pass_on, passed_on = doorbell.Relay._pass_on, []
def once(self, wake):
    if not passed_on:
        passed_on.append(wake)
        pass_on(self, wake)
doorbell.Relay._pass_on = once
"""
"""A worker to which only its first doorbell comes through."""


def test_a_worker_that_hears_nothing_of_ready_work_exits_with_70_after_handing_over(
    tmp_path: Path, s3_server: S3
) -> None:
    # Given
    with running(tmp_path, s3_server, SLICE_SECONDS="60s") as fleet:
        deaf = fleet.worker(2, patch=DEAF)
        under = fleet.create("under", 60, delay=0.2)
        until(lambda: "under" in fleet.upstream.asked_at, 10, "an export under way")
        # When
        fleet.create("unheard", 3)
        code = deaf.process.wait(30)
        # Then
        assert code == 70
        [line] = deaf.log_lines("watchdog.stuck")
        assert line["seconds"] >= 2
        [handed_over] = deaf.log_lines("slice.released")
        assert handed_over["ending"] == "handed_over"
        assert fleet.record(under).checkpoint is not None
        assert fleet.record(under).attempts == 0


@pytest.mark.soak
def test_neither_an_idle_worker_nor_a_busy_one_is_taken_for_deaf(
    tmp_path: Path, s3_server: S3
) -> None:
    # Given
    with running(tmp_path, s3_server, SLICE_SECONDS="60s") as fleet:
        worker = fleet.worker(1, patch=SOON)
        # When: nothing to do, for longer than a deaf worker lives
        time.sleep(3)
        # Then
        assert worker.alive
        # When: its slot is busy for as long, while another export is ready
        exports = {f"b{n}": fleet.create(f"b{n}", 40, delay=0.1) for n in range(2)}
        until(lambda: fleet.ended(list(exports.values())), 40, "both, one after the other")
        # Then
        assert worker.alive
        assert not worker.log_lines("watchdog.stuck")
        fleet.assert_whole(exports)
