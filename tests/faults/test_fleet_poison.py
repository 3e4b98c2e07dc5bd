"""An export that ruins each worker that touches it fails in the end, and ruins no other export."""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import psutil
import pytest

from exporter.core.exports import State
from tests.conftest import S3
from tests.faults.fleet import running, until

pytestmark = pytest.mark.stack


def test_an_export_that_kills_each_worker_fails_and_the_others_run_on(
    tmp_path: Path, s3_server: S3
) -> None:
    # Given
    with running(tmp_path, s3_server, MAX_ATTEMPTS="2", LEASE_SECONDS="2s") as fleet:
        worker = fleet.worker(2)
        poison = fleet.create("poison", 50)
        exports = {f"o{n}": fleet.create(f"o{n}", 25) for n in range(3)}
        killed: set[str] = set()

        def kill_whoever_reads_it() -> bool:
            for line in worker.log_lines("slice.started"):
                if line["export_id"] == poison and line["fence"] not in killed:
                    # The third claim is the one that fails it; it reads no page.
                    if len(killed) == 2:
                        continue
                    killed.add(line["fence"])
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(int(line["worker_id"].rpartition("-")[2]), signal.SIGKILL)
            return fleet.ended([poison])

        # When
        until(kill_whoever_reads_it, 60, "the end of the poison")
        # Then
        export = fleet.record(poison)
        assert export.state is State.FAILED
        assert export.error is not None
        assert export.error.startswith("gave up: 2 workers in a row were lost")
        assert len(killed) == 2
        until(lambda: fleet.ended(list(exports.values())), 30, "the others")
        fleet.assert_whole(exports)
        assert worker.alive


def test_a_slice_that_wants_too_much_memory_ends_alone_and_its_process_is_replaced(
    tmp_path: Path, s3_server: S3
) -> None:
    # Given: one page of 80 MB, which is within what a page may be
    with running(
        tmp_path,
        s3_server,
        MAX_ATTEMPTS="2",
        WORKER_MEMORY="280MiB",
        PART_SIZE="5MiB",
        LEASE_SECONDS="90s",
    ) as fleet:
        worker = fleet.worker(1)
        children = {child.pid for child in psutil.Process(worker.pid).children()}
        greedy = fleet.create("greedy", 1, filler=b"x" * 4_000_000)
        modest = fleet.create("modest", 20)
        # When: sooner than one lease would have run out
        until(lambda: fleet.ended([greedy, modest]), 60, "the end of both")
        # Then
        crashes = worker.log_lines("slice.crashed")
        assert [line["export_id"] for line in crashes] == [greedy] * 2
        assert all("MemoryError" in line["exception"] for line in crashes)
        export = fleet.record(greedy)
        assert export.state is State.FAILED
        assert export.error is not None
        assert "2 workers in a row were lost" in export.error
        fleet.assert_whole({"modest": modest})
        until(
            lambda: not children & {child.pid for child in psutil.Process(worker.pid).children()},
            10,
            "a new child",
        )
        assert worker.alive
