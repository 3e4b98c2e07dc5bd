"""One worker loses its broker in every way that a broker can be lost, and goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from exporter.maintenance import sweeper
from tests.conftest import S3
from tests.faults.fleet import Fleet, Proxy, Worker, raw, running, until
from workers.routing import QUEUE

pytestmark = pytest.mark.stack

RECOVERY = 15.0
"""Seconds within which a worker is back after its link went silent."""
PICK_UP = 6.0
"""Seconds within which an export whose doorbell vanished is heard of."""


class Links(NamedTuple):
    """A fleet of one worker, which reaches its broker and its store through proxies."""

    fleet: Fleet
    worker: Worker
    store: Proxy
    broker: Proxy


@pytest.fixture(scope="module")
def links(tmp_path_factory: pytest.TempPathFactory, s3_server: S3) -> Iterator[Links]:
    """One process for all tests here: whatever they do to it, it must stay the same one."""
    proxies: list[Proxy] = []

    def through(port: int) -> str:
        proxies.append(Proxy(port))
        return f"redis://127.0.0.1:{proxies[-1].port}/{len(proxies) - 1}"

    directory = tmp_path_factory.mktemp("broker")
    options = {"LEASE_SECONDS": "15s", "MAX_ATTEMPTS": "50"}
    with running(
        directory, s3_server, redis_through=through, broker_through=through, **options
    ) as fleet:
        worker = fleet.worker(2)
        yield Links(fleet, worker, *proxies)
        for proxy in proxies:
            proxy.close()


@pytest.fixture(autouse=True)
def _the_same_process(links: Links) -> Iterator[None]:
    yield
    assert links.worker.alive, links.worker.text()[-3000:]
    assert "Unrecoverable error" not in links.worker.text()


def _restart_under_load(fleet: Fleet, restarts: int) -> list[float]:
    """Kill Redis again and again; the seconds from each start to the next page asked for."""
    exports = {f"load{n}": fleet.create(f"load{n}", 20 * restarts) for n in range(2)}
    recoveries = []
    for n in range(restarts):
        asked = sum(fleet.upstream.asked.values())
        until(lambda asked=asked: sum(fleet.upstream.asked.values()) > asked + 5, 20, "load")  # type: ignore[misc]
        fleet.redis.kill()
        time.sleep(0.3)
        fleet.redis.start()
        name = f"restart{n}"
        exports[name] = fleet.create(name, 3)
        recoveries.append(until(lambda name=name: name in fleet.upstream.asked_at, 20, name))  # type: ignore[misc]
    until(lambda: fleet.ended(list(exports.values())), 60, "the end of all exports")
    fleet.assert_whole(exports)
    return recoveries


def test_a_worker_outlives_restarts_of_redis_under_load(links: Links) -> None:
    # When
    recoveries = _restart_under_load(links.fleet, 2)
    # Then
    assert max(recoveries) < RECOVERY, recoveries


@pytest.mark.soak
def test_a_worker_outlives_many_restarts_of_redis(links: Links) -> None:
    # When
    recoveries = _restart_under_load(links.fleet, 25)
    # Then
    assert max(recoveries) < RECOVERY, recoveries


def test_links_that_go_silent_cost_a_running_export_nothing_and_a_new_one_some_seconds(
    links: Links,
) -> None:
    # Given
    fleet = links.fleet
    held = fleet.create("held", 60)
    until(lambda: fleet.upstream.asked["held", 10], 30, "ten pages")
    # When: nothing passes on any open link, and to the store, for less than a lease, on no new one
    assert links.broker.drop() >= 2
    assert links.store.drop() >= 1
    links.store.accepting = False
    time.sleep(2)
    links.store.accepting = True
    new = fleet.create("new", 2)
    took = until(lambda: fleet.ended([new]), 30, "an export created in the silence")
    # Then
    assert took < RECOVERY, took
    until(lambda: fleet.ended([held]), 30, "the end of the one that ran")
    assert fleet.record(held).attempts == 0
    assert fleet.upstream.twice("held", "new") == {}
    fleet.assert_whole({"held": held, "new": new})


@pytest.mark.soak
def test_an_idle_worker_whose_broker_link_goes_silent_is_back_soon(links: Links) -> None:
    # Given: no doorbell is on its way any more
    fleet = links.fleet
    time.sleep(3)
    for n in range(5):
        # When
        links.broker.drop()
        export_id = fleet.create(f"silent{n}", 2)
        took = until(lambda one=export_id: fleet.ended([one]), 30, "an export in the silence")  # type: ignore[misc]
        # Then: Redis may have handed the doorbell to the dead link; the next sweep rings again
        assert took < RECOVERY + sweeper.INTERVAL_SECONDS, took
        time.sleep(3)


def test_doorbells_that_are_all_deleted_change_nothing(links: Links) -> None:
    # Given: both slots are busy, and more exports wait
    fleet = links.fleet
    with raw(fleet.broker_url) as broker:
        exports = {f"long{n}": fleet.create(f"long{n}", 20) for n in range(2)}
        until(lambda: fleet.upstream.asked["long0", 1] and fleet.upstream.asked["long1", 1], 20)
        exports |= {f"wait{n}": fleet.create(f"wait{n}", 3) for n in range(4)}
        until(lambda: any(True for _ in broker.scan_iter(f"*:{QUEUE}*")), 5, "a doorbell")
        # When
        broker.flushdb()
        until(lambda: fleet.ended(list(exports.values())), 40, "all after the deletion")
        # Then: nobody is told that the broker forgot, and an idle worker hears all the same
        broker.flushdb()
        exports["idle"] = fleet.create("idle", 2)
        broker.flushdb()
        took = until(lambda: "idle" in fleet.upstream.asked_at, 20, "the pick-up")
        assert took < PICK_UP, took
        until(lambda: fleet.ended([exports["idle"]]), 20, "the last one")
    assert fleet.upstream.twice("long", "wait", "idle") == {}
    fleet.assert_whole(exports)


def test_doorbells_that_come_five_times_double_nothing(links: Links) -> None:
    # Given
    fleet, done = links.fleet, threading.Event()
    copied = 0

    def multiply() -> None:
        nonlocal copied
        with raw(fleet.broker_url) as broker:
            while not done.wait(0.02):
                for key in broker.scan_iter(f"*:{QUEUE}*"):
                    for message in broker.lrange(key, 0, 3):
                        copied += broker.lpush(key, *[message] * 4) > 0

    thread = threading.Thread(target=multiply)
    thread.start()
    # When
    try:
        exports = {f"copy{n}": fleet.create(f"copy{n}", 5) for n in range(8)}
        until(lambda: fleet.ended(list(exports.values())), 40, "all in spite of copies")
    finally:
        done.set()
        thread.join()
        with raw(fleet.broker_url) as broker:
            broker.flushdb()
    # Then
    assert copied > 0
    assert fleet.upstream.twice("copy") == {}
    fleet.assert_whole(exports)
