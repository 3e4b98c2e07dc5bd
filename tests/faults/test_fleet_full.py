"""Workers wait for a full Redis: they stay alive, and the exports that are ready end."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.conftest import S3
from tests.faults.fleet import raw, running, until

pytestmark = pytest.mark.stack


def test_a_full_redis_ends_no_worker_and_no_export(tmp_path: Path, s3_server: S3) -> None:
    # Given a running export and queued exports
    with running(tmp_path, s3_server) as fleet:
        worker = fleet.worker(2)
        held = fleet.create("held", 60)
        until(lambda: fleet.upstream.asked["held", 5], 30, "five pages")
        queued = [fleet.create(f"queued{n}", 3) for n in range(4)]
        # When Redis, which is also the broker, has no memory left
        with raw(fleet.redis.url) as client:
            client.config_set("maxmemory", 1)
            # Then all of them end, and the worker is alive when there is memory again
            until(lambda: fleet.ended([held, *queued]), 60, "the exports")
            time.sleep(3)
            assert worker.alive, f"{worker.process.poll()}: {worker.text()[-3000:]}"
            client.config_set("maxmemory", 0)
        later = fleet.create("later", 3)
        until(lambda: fleet.ended([later]), 30, "an export created afterwards")
        names = {f"queued{n}": one for n, one in enumerate(queued)}
        fleet.assert_whole({"held": held, "later": later} | names)
        assert "Unrecoverable error" not in worker.text()
        assert worker.alive
