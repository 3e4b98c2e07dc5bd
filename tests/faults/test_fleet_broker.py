"""The fleet loses its broker in every way that a broker can be lost, and goes on."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tests.conftest import S3
from tests.faults.fleet import Fleet, Proxy, raw, running, until
from workers.routing import QUEUE

pytestmark = pytest.mark.stack

RECOVERY = 15.0
"""Seconds within which a worker is back after its link went silent."""
PICK_UP = 6.0
"""Seconds within which an export whose doorbell vanished is heard of."""


def _restart_under_load(fleet: Fleet, restarts: int) -> list[float]:
    """Kill Redis again and again; the seconds from each start to the next page asked for."""
    worker = fleet.worker(2)
    pid = worker.pid
    exports = {f"r{n}": fleet.create(f"r{n}", 60) for n in range(2)}
    recoveries = []
    for n in range(restarts):
        until(lambda: sum(fleet.upstream.asked.values()) > 5, 20, "load")
        time.sleep(0.3)
        fleet.redis.kill()
        time.sleep(0.3)
        fleet.redis.start()
        name = f"after{n}"
        exports[name] = fleet.create(name, 3)
        recoveries.append(until(lambda name=name: name in fleet.upstream.asked_at, 20, name))  # type: ignore[misc]
    until(lambda: fleet.ended(list(exports.values())), 60, "the end of all exports")
    assert worker.alive
    assert worker.pid == pid
    assert "Unrecoverable error" not in worker.text()
    fleet.assert_whole(exports)
    return recoveries


def test_a_worker_outlives_restarts_of_redis_under_load_as_the_same_process(
    tmp_path: Path, s3_server: S3
) -> None:
    # Given
    with running(tmp_path, s3_server) as fleet:
        # When / Then
        recoveries = _restart_under_load(fleet, 2)
    # Then
    assert max(recoveries) < RECOVERY, recoveries


@pytest.mark.soak
def test_a_worker_outlives_many_restarts_of_redis(tmp_path: Path, s3_server: S3) -> None:
    # Given
    with running(tmp_path, s3_server, MAX_ATTEMPTS="50") as fleet:
        # When / Then
        recoveries = _restart_under_load(fleet, 25)
    # Then
    assert max(recoveries) < RECOVERY, recoveries


def test_a_worker_whose_broker_link_goes_silent_is_back_soon(tmp_path: Path, s3_server: S3) -> None:
    # Given
    proxies: list[Proxy] = []

    def through(port: int) -> str:
        proxies.append(Proxy(port))
        return f"redis://127.0.0.1:{proxies[0].port}/1"

    with running(tmp_path, s3_server, broker_through=through) as fleet:
        worker = fleet.worker(2)
        first = fleet.create("first", 2)
        until(lambda: fleet.ended([first]), 20, "an export before the silence")
        # When
        assert proxies[0].drop() >= 2
        second = fleet.create("second", 2)
        took = until(lambda: fleet.ended([second]), 30, "an export created in the silence")
        # Then
        assert took < RECOVERY, took
        assert worker.alive
        fleet.assert_whole({"first": first, "second": second})
        proxies[0].close()


def test_a_silent_link_to_the_store_costs_a_running_export_nothing_but_time(
    tmp_path: Path, s3_server: S3
) -> None:
    # Given
    proxies: list[Proxy] = []

    def through(port: int) -> str:
        proxies.append(Proxy(port))
        return f"redis://127.0.0.1:{proxies[0].port}/0"

    with running(tmp_path, s3_server, redis_through=through, LEASE_SECONDS="15s") as fleet:
        fleet.worker(1)
        export_id = fleet.create("held", 60)
        until(lambda: fleet.upstream.asked["held", 10], 20, "ten pages")
        # When: first the links that are open, later new ones too, for less than a lease
        assert proxies[0].drop() >= 1
        time.sleep(1)
        proxies[0].drop()
        proxies[0].accepting = False
        time.sleep(3)
        proxies[0].accepting = True
        until(lambda: fleet.ended([export_id]), 40, "the end")
        # Then
        export = fleet.record(export_id)
        assert export.attempts == 0
        assert fleet.upstream.twice() == {}
        fleet.assert_whole({"held": export_id})
        proxies[0].close()


def test_doorbells_that_are_all_deleted_or_multiplied_change_nothing(
    tmp_path: Path, s3_server: S3
) -> None:
    # Given
    with running(tmp_path, s3_server) as fleet, raw(fleet.broker_url) as broker:
        worker = fleet.worker(2)
        exports = {f"long{n}": fleet.create(f"long{n}", 50, delay=0.1) for n in range(2)}
        until(lambda: len(fleet.upstream.asked_at) == 2, 20, "both slots busy")
        multiplied = threading.Event()

        def multiply() -> None:
            """Five copies of each doorbell, as often as any waits."""
            while not multiplied.wait(0.05):
                for key in broker.scan_iter(f"{QUEUE}*"):
                    for message in broker.lrange(key, 0, -1):
                        broker.lpush(key, *[message] * 5)
                        break

        # When: all is deleted while more wait
        exports |= {f"wait{n}": fleet.create(f"wait{n}", 5) for n in range(6)}
        until(lambda: any(True for _ in broker.scan_iter(f"{QUEUE}*")), 5, "a doorbell")
        broker.flushdb()
        until(lambda: fleet.ended(list(exports.values())), 40, "all after the deletion")
        # Then
        broker.flushdb()
        exports["idle"] = fleet.create("idle", 2)
        broker.flushdb()
        took = until(lambda: "idle" in fleet.upstream.asked_at, 20, "the pick-up")
        assert took < PICK_UP, took

        # When: all is multiplied
        thread = threading.Thread(target=multiply)
        thread.start()
        try:
            exports |= {f"copy{n}": fleet.create(f"copy{n}", 5) for n in range(6)}
            until(lambda: fleet.ended(list(exports.values())), 40, "all in spite of copies")
        finally:
            multiplied.set()
            thread.join()
        # Then
        assert worker.alive
        assert fleet.upstream.twice() == {}
        fleet.assert_whole(exports)
