"""A worker starts on a Redis that keeps exports, waits for one, and refuses any other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import S3
from tests.faults.fleet import raw, running, until

pytestmark = pytest.mark.stack

REFUSED = 78


@pytest.mark.parametrize(
    ("setting", "value", "mending"),
    [
        ("maxmemory-policy", "allkeys-lru", "redis-cli CONFIG SET maxmemory-policy noeviction"),
        ("appendonly", "no", "redis-cli CONFIG SET appendonly yes"),
    ],
)
def test_a_redis_that_would_lose_exports_is_refused_with_the_command_that_mends_it(
    tmp_path: Path, s3_server: S3, setting: str, value: str, mending: str
) -> None:
    # Given
    with running(tmp_path, s3_server) as fleet:
        with raw(fleet.redis.url) as client:
            client.config_set(setting, value)
        # When
        worker = fleet.worker(1, wait=False)
        # Then
        assert worker.process.wait(30) == REFUSED
        assert re.search(rf"^error: .*{mending}", worker.text(), re.MULTILINE)


def test_a_setting_that_cannot_work_is_refused_with_its_name(tmp_path: Path, s3_server: S3) -> None:
    # Given
    with running(tmp_path, s3_server) as fleet:
        # When
        worker = fleet.worker(1, wait=False, EXPORTER_LEASE_SECONDS="1s")
        # Then
        assert worker.process.wait(30) == REFUSED
        assert re.search(r"^error: EXPORTER_LEASE_SECONDS is 1s; .*2s", worker.text(), re.MULTILINE)


def test_a_redis_that_is_not_there_yet_is_waited_for(tmp_path: Path, s3_server: S3) -> None:
    # Given
    with running(tmp_path, s3_server) as fleet:
        fleet.redis.kill()
        worker = fleet.worker(1, wait=False)
        until(lambda: worker.log_lines("redis.silent"), 30, "a worker that tells what it waits for")
        # When
        fleet.redis.start()
        # Then
        until(worker.ready, 30, "the worker")
        export_id = fleet.create("late", 2)
        until(lambda: fleet.ended([export_id]), 20, "an export")
        fleet.assert_whole({"late": export_id})
