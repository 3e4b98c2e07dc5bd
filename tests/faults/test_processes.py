"""Real processes are killed, stopped and restarted under a few exports; the files do not change."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

import pytest

from exporter.maintenance.sweeper import INTERVAL_SECONDS
from tests.faults.cluster import LEASE, USERS, Cluster
from tests.faults.event_streams import audience, create
from tests.faults.history import History, ReferenceFile, export_references, request_kinds
from tests.faults.soak import upstream_faults
from tests.faults.takeovers import Takeovers

pytestmark = [pytest.mark.stack, pytest.mark.timeout(300)]

SIZES = (1_500, 4_000, 10_000)
SLACK = 5.0
"""Seconds: these tests share their machine."""
DRAIN = 5.0


class Stage(NamedTuple):
    """A cluster on which all is well, but for an upstream that fails now and then."""

    cluster: Cluster
    requests: Mapping[str, Mapping[str, Any]]
    calm: Mapping[str, ReferenceFile]


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    directory = tmp_path_factory.mktemp("cluster")
    requests = request_kinds(SIZES)
    with Cluster(directory, workers=3, rows=max(SIZES)) as cluster:
        calm = export_references(cluster, requests, directory)
        cluster.set_faults(upstream_faults(5, seed=7))
        yield Stage(cluster, requests, calm)


def _survives(stage: Stage, exports: int, hurt: Callable[[], None], seed: int = 1) -> None:
    """Whatever is hurt while they run: as many exports end, with the files of a calm run."""
    history = History(stage.cluster, stage.calm, stage.requests, seed=seed)
    # The largest first: there must be something left to hurt.
    names = sorted(stage.requests, key=lambda name: -stage.requests[name]["limit"])
    accepted = sum(history.post(names[(seed + n) % len(names)]) for n in range(exports))
    assert accepted == exports
    stop = threading.Event()
    clients = threading.Thread(target=history.work, args=(0, stop))
    clients.start()
    try:
        hurt()
        stage.cluster.settle()
    finally:
        stop.set()
        clients.join()
    history.settle(120)
    history.audit()
    assert history.violations() == {}, history.problems
    assert history.counts["finished"] == exports


def _elapse(cluster: Cluster, seconds: float) -> None:
    ends_at = time.monotonic() + seconds
    while time.monotonic() < ends_at:
        cluster.supervise()
        time.sleep(0.05)


def _holder(cluster: Cluster) -> int:
    """The number of a worker that holds an export, once there is one."""
    ends_at = time.monotonic() + 30
    while time.monotonic() < ends_at:
        cluster.supervise()
        for number in range(len(cluster.workers)):
            if cluster.has_lease(number):
                return number
        time.sleep(0.02)
    raise AssertionError("no worker took an export within 30 s")


def test_workers_killed_one_after_the_other_cost_time_and_no_row(stage: Stage) -> None:
    # Given
    cluster = stage.cluster
    takeovers = Takeovers(cluster.store.client)
    takeovers.start()

    def hurt() -> None:
        for _ in range(8):
            number = _holder(cluster)
            takeovers.kill_and_watch(cluster.pids(number), partial(cluster.kill_worker, number))
            _elapse(cluster, 1.5)

    # When / Then
    _survives(stage, 6, hurt)
    takeovers.stop()
    # Then: each was ready for another within a lease and a sweep; when one has time for it depends
    # on how soon killed workers are up again
    waits = [one.ready_after or 0 for one in takeovers.measured()]
    assert takeovers.waiting() == []
    assert len(waits) >= 3
    assert max(waits) < LEASE.total_seconds() + INTERVAL_SECONDS + SLACK, waits


def test_a_worker_stopped_for_longer_than_its_lease_changes_nothing_when_it_wakes(
    stage: Stage,
) -> None:
    # Given
    cluster = stage.cluster

    def hurt() -> None:
        for _ in range(2):
            number = _holder(cluster)
            cluster.pause_worker(number)
            _elapse(cluster, LEASE.total_seconds() * 2)
            cluster.continue_worker(number)

    # When / Then
    _survives(stage, 4, hurt, seed=2)


def test_a_redis_killed_under_load_costs_time_and_no_export(stage: Stage) -> None:
    # Given
    cluster = stage.cluster

    def hurt() -> None:
        for seconds in (0.2, 6.0):
            _holder(cluster)
            cluster.redis.kill()
            _elapse(cluster, seconds)
            cluster.redis.start()
            _elapse(cluster, 2)

    # When / Then
    _survives(stage, 4, hurt, seed=3)


def test_an_s3_killed_under_load_costs_time_and_no_part(stage: Stage) -> None:
    # Given
    cluster = stage.cluster

    def hurt() -> None:
        for seconds in (0.2, 6.0):
            _holder(cluster)
            cluster.s3.kill()
            _elapse(cluster, seconds)
            cluster.s3.start()
            _elapse(cluster, 1)

    # When / Then
    _survives(stage, 6, hurt, seed=4)


def test_what_was_accepted_ends_although_the_api_died_and_every_wake_up_was_lost(
    stage: Stage,
) -> None:
    # Given
    cluster = stage.cluster

    def hurt() -> None:
        cluster.kill_api()
        for _ in range(3):
            cluster.delete_messages()
            _elapse(cluster, 0.5)
        cluster.duplicate_messages()

    # When / Then
    _survives(stage, 3, hurt, seed=5)


def test_each_event_stream_ends_with_the_true_state_whatever_died(stage: Stage) -> None:
    # Given
    cluster = stage.cluster
    made = {user: create(cluster.clients[user], 2, format="csv", limit=5000) for user in USERS}
    heard = audience(cluster, made, 30, reconnect=0.5)
    # When
    with heard.listening():
        _elapse(cluster, 1)
        cluster.kill_api()
        _elapse(cluster, 2.5)
        cluster.redis.kill()
        cluster.redis.start()
        _elapse(cluster, 1)
        cluster.api.terminate()
        is_done = heard.wait(60, cluster.supervise)
    # Then
    assert is_done, heard.connections
    assert heard.connections["200"] > 30
    states = {one: cluster.store.show(one) for ids in made.values() for one in ids}
    assert heard.wrong(lambda one: str(found.state) if (found := states[one]) else "none") == []


@pytest.mark.soak
def test_a_rolling_deploy_ends_every_worker_in_order_and_soon(stage: Stage) -> None:
    # Given
    cluster = stage.cluster
    cluster.ended.clear()
    cluster.drains.clear()

    def hurt() -> None:
        for _ in range(len(cluster.workers)):
            number = _holder(cluster)
            cluster.term_worker(number)
            while cluster.is_terminating(number):
                _elapse(cluster, 0.1)

    # When / Then
    _survives(stage, 6, hurt, seed=0)
    assert cluster.ended == {"terminated": len(cluster.workers)}
    assert max(cluster.drains) < DRAIN, cluster.drains
