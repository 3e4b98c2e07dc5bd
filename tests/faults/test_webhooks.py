"""Real processes send webhooks and are killed meanwhile, as Redis is: every event arrives."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from standardwebhooks.webhooks import Webhook

from exporter.core.exports import State
from exporter.webhooks.deliveries import DeliveryState
from exporter.webhooks.delivery_store import Deliveries
from exporter.webhooks.endpoint_store import Endpoints
from exporter.webhooks.endpoints import Endpoint
from exporter.webhooks.outbox import Outbox
from tests.conftest import S3
from tests.contract.store.given import KEEP, spec
from tests.faults import fleet
from tests.faults.fleet import Fleet, until
from tests.webhook_receiver import Behaviour, Connection, Received, Receiver, receiving, status

pytestmark = [pytest.mark.stack, pytest.mark.timeout(600)]

SHORT_LEASE = """import datetime, exporter.webhooks.delivering as d
d.LEASE_MARGIN = datetime.timedelta(seconds=2)
"""
"""For the sender's process: what a dead one began is made again within 5 s, not 35."""


class Sender:
    """One `webhooks` worker: a process with two children."""

    def __init__(self, own: Fleet, patch: str = SHORT_LEASE) -> None:
        self._fleet = own
        self._patch = patch
        self.log = own.directory / "webhooks.log"
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        run = f"{self._patch}\nfrom workers.__main__ import main\nmain()"
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-c", run, "webhooks"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._fleet.env,
                start_new_session=True,
            )

    def ready(self) -> bool:
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        mark = f"{{exporter}}:senders:{socket.gethostname()}:{self.process.pid}"
        return bool(self._fleet.store.client.exists(mark))

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def restart(self) -> None:
        self.kill()
        self.process = self._start()

    def kill_children(self) -> int:
        """SIGKILL to the processes that send, as the kernel does when memory runs out."""
        children = psutil.Process(self.process.pid).children(recursive=True)
        for child in children:
            child.kill()
        return len(children)

    def lines(self, action: str) -> list[dict[str, Any]]:
        text = self.log.read_text("utf-8", errors="replace")
        found = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        return [line for line in found if line.get("action") == action]


class Office(NamedTuple):
    """A fleet with one sender of webhooks and no worker yet."""

    fleet: Fleet
    sender: Sender
    endpoints: Endpoints
    deliveries: Deliveries
    outbox: Outbox

    def unfinished(self, *endpoints: Endpoint) -> int:
        return sum(
            delivery.state is not DeliveryState.DELIVERED
            for endpoint in endpoints
            for delivery in self.deliveries.of_endpoint(endpoint.id, limit=5_000).deliveries
        )


@contextmanager
def office(directory: Path, s3: S3, **variables: str) -> Iterator[Office]:
    variables = {"WEBHOOK_ALLOW_PRIVATE": "127.0.0.0/8", "WEBHOOK_TIMEOUT": "2s"} | variables
    with fleet.running(directory, s3, **variables) as own:
        client = own.store.client
        sender = Sender(own)
        try:
            until(sender.ready, 60, "a sender that shows its presence")
            yield Office(own, sender, Endpoints(client), Deliveries(client), Outbox(client))
        finally:
            sender.kill()


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, s3_server: S3) -> Iterator[Office]:
    """An office with tries of 20 s, as by default. Each test has users or endpoints of its own."""
    directory = tmp_path_factory.mktemp("office")
    with office(directory, s3_server, WEBHOOK_TIMEOUT="20s") as own:
        yield own


def listen(receiver: Receiver, hear: Callable[[Received, Behaviour], Behaviour]) -> None:
    """Let `hear` see each request together with the answer that it will get, and choose another."""
    take = receiver.take
    receiver.take = lambda received: hear(received, take(received))  # type: ignore[method-assign]


def slowly(connection: Connection) -> None:
    connection.pause(0.02)
    status(204)(connection)


@pytest.mark.parametrize("exports", [20, pytest.param(250, marks=pytest.mark.soak)])
def test_every_event_arrives_although_senders_and_redis_are_killed(
    tmp_path: Path, s3_server: S3, exports: int
) -> None:
    # Given: two events of each export, for two endpoints
    taken: Counter[tuple[str, str]] = Counter()
    with (
        office(tmp_path, s3_server) as own,
        receiving(slowly) as first,
        receiving(slowly) as second,
    ):
        endpoints = {
            one.url: own.endpoints.create("ann", one.url, ordered=one is second)
            for one in (first, second)
        }

        def hear(received: Received, answer: Behaviour) -> Behaviour:
            endpoint = endpoints[f"http://{received.headers['host']}{received.path}"]
            Webhook(endpoint.secrets[0].value).verify(received.body, received.headers)
            taken[endpoint.id, received.headers["webhook-id"]] += 1
            return answer

        for one in (first, second):
            listen(one, hear)
        own.sender.kill()
        for n in range(exports):
            own.fleet.store.create(spec(f"e{n}"))
            own.fleet.store.request_cancel(f"e{n}", keep_record=KEEP)
        expected = {
            (endpoint.id, f"msg_e{n}_{sequence}")
            for endpoint in endpoints.values()
            for n in range(exports)
            for sequence in (1, 2)
        }
        began = time.monotonic()
        own.sender.restart()

        def share(part: float) -> None:
            until(lambda: len(taken) >= part * len(expected), 120, f"{part:.0%} of all")

        # When
        share(0.1)
        own.sender.restart()
        share(0.35)
        own.fleet.redis.kill()
        time.sleep(1)
        own.fleet.redis.start()
        share(0.6)
        assert own.sender.kill_children() > 0
        share(0.8)
        own.fleet.redis.kill()
        own.sender.kill()
        own.fleet.redis.start()
        own.sender.restart()
        # Then
        until(lambda: len(taken) == len(expected), 120, "all of it")
        until(lambda: own.unfinished(*endpoints.values()) == 0, 60, "and all of it settled")
        assert set(taken) == expected
        assert own.outbox.peek() == ()
        assert own.fleet.store.client.hlen("{exporter}:delivering") == 0
        again = sum(taken.values()) - len(expected)
        sys.stdout.write(
            f"\n{len(expected)} deliveries, {again} of them twice, "
            f"in {time.monotonic() - began:.1f} s with four kills\n"
        )
        # ... and what came twice is what was under way when something was killed
        assert again <= 4 * 2 * 16


def test_a_receiver_that_asks_at_once_sees_what_it_was_told_or_more(shared: Office) -> None:
    # Given: real exports by real workers
    own = shared
    order = [State.QUEUED, State.PROCESSING, State.FINISHED]
    seen: list[tuple[str, State, State]] = []
    with receiving() as receiver:
        endpoint = own.endpoints.create("ann", receiver.url)

        def hear(received: Received, answer: Behaviour) -> Behaviour:
            message = json.loads(received.body)
            state = own.fleet.record(message["data"]["id"]).state
            seen.append((message["type"], State(message["data"]["state"]), state))
            return answer

        listen(receiver, hear)
        worker = own.fleet.worker()
        # When
        made = {f"s{n}": own.fleet.create(f"s{n}", 3, delay=0.02) for n in range(8)}
        receiver.wait_for(3 * len(made), 90)
        # Then
        own.fleet.assert_whole(made)
        worker.kill()
        own.endpoints.delete(endpoint.id, "ann")
    assert Counter(kind for kind, _, _ in seen) == {
        "export.queued": 8,
        "export.started": 8,
        "export.finished": 8,
    }
    assert [one for one in seen if order.index(one[2]) < order.index(one[1])] == []


def test_exports_and_webhooks_are_worked_by_workers_of_their_own(shared: Office) -> None:
    # Given: no worker for webhooks at first
    own = shared
    with receiving() as receiver:
        endpoint = own.endpoints.create("ann", receiver.url)
        own.sender.kill()
        worker = own.fleet.worker()
        export_id = own.fleet.create("first", 2)
        until(lambda: own.fleet.ended([export_id]), 60, "an export without a sender")
        time.sleep(2)
        # Then
        assert receiver.received == []
        assert len(own.outbox.peek()) == 3
        # When: now none for exports
        worker.terminate()
        own.sender.restart()
        receiver.wait_for(3, 60)
        second = own.fleet.create("second", 2)
        receiver.wait_for(4, 60)
        time.sleep(2)
        # Then
        assert own.fleet.record(second).state is State.QUEUED
        own.endpoints.delete(endpoint.id, "ann")
        own.fleet.store.delete(second, "ann")


def test_an_endpoint_that_hangs_delays_no_other(shared: Office) -> None:
    # Given: one with a backlog, which hangs for the full timeout of 20 s each time
    own = shared

    def hang(connection: Connection) -> None:
        connection.pause(25)

    with receiving(hang) as hanging, receiving() as quick:
        slow = own.endpoints.create("slow", hanging.url)
        own.endpoints.create("quick", quick.url)
        for n in range(50):
            own.fleet.store.create(spec(f"slow-{n}", "slow"))
        hanging.wait_for(1, 30)
        # When
        waits = []
        for n in range(40):
            began = time.monotonic()
            own.fleet.store.create(spec(f"quick-{n}", "quick"))
            quick.wait_for(n + 1, 30)
            waits.append(time.monotonic() - began)
            time.sleep(0.05)
        # Then
        sys.stdout.write(
            f"\nbeside an endpoint that hangs: median {sorted(waits)[20]:.3f} s, "
            f"worst {max(waits):.3f} s\n"
        )
        own.endpoints.delete(slow.id, "slow")
        assert max(waits) < 2, waits


def test_a_sender_that_is_told_to_end_ends_the_tries_under_way_and_no_others(
    shared: Office,
) -> None:
    # Given
    own = shared
    answering, events = threading.Event(), 60

    def linger(connection: Connection) -> None:
        answering.set()
        connection.pause(0.5)
        status(204)(connection)

    with receiving(linger) as receiver:
        endpoint = own.endpoints.create("patient", receiver.url)
        for n in range(events):
            own.fleet.store.create(spec(f"patient-{n}", "patient"))
        assert answering.wait(30)
        # When
        began = time.monotonic()
        own.sender.process.terminate()
        code = own.sender.process.wait(30)
        took = time.monotonic() - began
        states = Counter(
            one.state for one in own.deliveries.of_endpoint(endpoint.id, limit=99).deliveries
        )
        own.sender.restart()
        # Then
        assert code == 0
        assert took < 10
        assert states[DeliveryState.DELIVERED] == len(receiver.received)
        assert states[DeliveryState.DELIVERING] == 0
        assert states[DeliveryState.PENDING] > 0
        # ... and its successor does the rest, each once
        receiver.wait_for(events, 60)
        ids = [received.headers["webhook-id"] for received in receiver.received]
        assert len(set(ids)) == len(ids) == events


def test_no_log_line_tells_a_secret_or_where_exactly_webhooks_go(shared: Office) -> None:
    # Given
    own = shared
    with receiving(status(500), status(410)) as receiver:
        endpoint = own.endpoints.create("log", f"{receiver.url}/s3cr3t?token=t0k3n")
        delivery_id = f"msg_log_1.{endpoint.id}"

        def lines(action: str) -> list[dict[str, Any]]:
            return [one for one in own.sender.lines(action) if one["delivery_id"] == delivery_id]

        # When
        own.fleet.store.create(spec("log", "log"))
        receiver.wait_for(2, 60)
        until(lambda: lines("endpoint.disabled"), 10)
        # Then
        (failed,), (dead,) = lines("webhook.failed"), lines("webhook.dead")
        assert (failed["status"], failed["tries"], failed["export_id"]) == (500, 1, "log")
        assert (dead["status"], dead["endpoint_id"]) == (410, endpoint.id)
        text = own.sender.log.read_text()
        for word in ("s3cr3t", "t0k3n", endpoint.secrets[0].value, "whsec_"):
            assert word not in text
