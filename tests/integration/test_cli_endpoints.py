"""The `exporter endpoints` commands as a shell runs them."""

from __future__ import annotations

import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from ipaddress import ip_network

import pytest
import redis

from exporter.clock import SystemClock
from exporter.core.events import DEFAULT_EVENTS
from exporter.local.redis import RedisServer
from exporter.store.redis.store import RedisStore
from exporter.webhooks import private
from exporter.webhooks.delivering import Deliverer
from exporter.webhooks.endpoint_store import Endpoints
from exporter.webhooks.endpoints import Endpoint
from exporter.webhooks.outbox import Outbox
from exporter.webhooks.sender import Sender
from tests.integration.test_cli import Run, one_error, run  # noqa: F401 - run is a fixture
from tests.webhook_receiver import receiving, status

DATABASE = 10
"""Of the test run's Redis."""
ANYWHERE = {"EXPORTER_WEBHOOK_ALLOW_PRIVATE": "127.0.0.0/8"}

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_server.url.removesuffix("/0") + f"/{DATABASE}") as client:
        client.flushdb()
        yield client


@pytest.fixture
def command(run: Run, redis_server: RedisServer, client: redis.Redis) -> Command:  # noqa: F811
    """`exporter endpoints` over an empty Redis, which may reach this machine."""
    assert client.dbsize() == 0
    url = redis_server.url.removesuffix("/0") + f"/{DATABASE}"

    def once(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return run("endpoints", *arguments, EXPORTER_REDIS_URL=url, **ANYWHERE, **variables)

    return once


def only(client: redis.Redis) -> Endpoint:
    """The one endpoint of ann's."""
    (endpoint,) = Endpoints(client).list("ann")
    return endpoint


def test_an_endpoint_is_made_shown_rotated_switched_and_deleted(
    command: Command, client: redis.Redis
) -> None:
    # When
    made = command(
        *("create", "--user", "ann", "http://127.0.0.1:9/hidden", "--description", "to [the] lake"),
        *("--event", "export.failed", "--event", "export.finished", "--ordered", "--download-url"),
    )

    # Then: one line, so that a script can take it
    assert made.returncode == 0, made
    endpoint_id, secret = made.stdout.split()
    endpoint = only(client)
    assert (endpoint.id, endpoint.secrets[0].value) == (endpoint_id, secret)
    assert endpoint.events == ("export.finished", "export.failed")
    assert (endpoint.ordered, endpoint.include_download_url) == (True, True)

    # When
    listed = command("list", "--user", "ann")
    narrow = command("list", "--user", "ann", COLUMNS="60")

    # Then
    for shown in (endpoint_id, "http://127.0.0.1:9/hidden", "enabled", "to [the] lake"):
        assert shown in listed.stdout
    assert secret not in listed.stdout
    first_cells = [line.split("│")[1].strip() for line in narrow.stdout.splitlines() if "│" in line]
    assert "".join(first_cells) == endpoint_id

    # When
    rotated = command("rotate", endpoint_id, "--grace", "60")

    # Then
    assert [one.value for one in only(client).secrets] == [rotated.stdout.strip(), secret]

    # When / Then
    assert command("disable", endpoint_id).returncode == 0
    assert not only(client).enabled
    assert "(owner)" in command("list", "--user", "ann").stdout
    assert command("enable", endpoint_id).returncode == 0
    assert only(client).enabled
    assert command("delete", endpoint_id).returncode == 0
    assert Endpoints(client).list("ann") == ()


def test_escape_sequences_of_an_owner_do_not_reach_the_terminal(
    command: Command, client: redis.Redis
) -> None:
    # Given
    hostile = "\x1b]0;owned\x07\x1b[2J"
    Endpoints(client).create("ann", f"http://127.0.0.1:9/{hostile}", description=hostile)

    # When
    listed = command("list", "--user", "ann", COLUMNS="250")

    # Then
    assert "\x1b" not in listed.stdout
    assert listed.stdout.count(r"\x1b]0;owned\x07\x1b[2J") == 2


def test_what_was_not_said_of_an_endpoint_has_its_default(
    command: Command, client: redis.Redis
) -> None:
    # When
    command("create", "--user", "ann", "http://127.0.0.1:9/")

    # Then
    endpoint = only(client)
    assert endpoint.events == DEFAULT_EVENTS
    assert (endpoint.ordered, endpoint.include_download_url) == (False, False)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create", "--user", "ann", "https://10.0.0.1/"), "10.0.0.0/8 (private)"),
        (("create", "--user", "ann", "nowhere"), "not a URL"),
        (
            ("create", "--user", "ann", "http://127.0.0.1:9/", "--event", "done"),
            "event done: give some of export.queued",
        ),
        (("rotate", "we_none"), "no endpoint has the id 'we_none'"),
        (("test", "we_none"), "no endpoint has the id 'we_none'"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line(
    command: Command, client: redis.Redis, arguments: tuple[str, ...], said: str
) -> None:
    # When
    done = command(*arguments)

    # Then
    assert said in one_error(done)
    assert Endpoints(client).list("ann") == ()


def sending(client: redis.Redis, ended: threading.Event) -> threading.Thread:
    """The part of the worker that sends, until told to end."""
    guard = private.guard([ip_network("127.0.0.0/8")], allow_http=False)
    clock = SystemClock()
    deliverer = Deliverer(
        outbox=Outbox(client),
        endpoints=Endpoints(client),
        store=RedisStore(client),
        sender=Sender(guard, clock, timeout=5),
        clock=clock,
        link=lambda _: None,
        public_url="https://exports.test",
        concurrency=2,
        timeout=timedelta(seconds=5),
    )

    def work() -> None:
        while not ended.is_set():
            deliverer.run(budget=timedelta(seconds=2), is_draining=ended.is_set)

    thread = threading.Thread(target=work)
    thread.start()
    return thread


def test_a_test_says_what_came_of_it(command: Command, client: redis.Redis) -> None:
    with receiving(status(204), status(500)) as receiver:
        # Given
        endpoint_id, _ = command("create", "--user", "ann", receiver.url).stdout.split()
        ended = threading.Event()
        thread = sending(client, ended)
        try:
            # When
            good = command("test", endpoint_id)
            bad = command("test", endpoint_id)
        finally:
            ended.set()
            thread.join()

    # Then
    assert good.returncode == 0, good
    assert re.fullmatch(
        rf"msg_test_\w+\.{endpoint_id} was delivered: 204 in [\d.]+ s\n", good.stdout
    )
    assert "answered 500, but only 2xx counts as delivered" in one_error(bad)
    assert len(receiver.received) == 2


def test_a_test_that_nobody_sends_says_what_is_missing(command: Command) -> None:
    # Given
    endpoint_id, _ = command("create", "--user", "ann", "http://127.0.0.1:9/").stdout.split()

    # When
    began = time.monotonic()
    done = command("test", endpoint_id, "--wait", "0.5")

    # Then
    assert "is pending after 0.5 s: see that `exporter webhooks` runs" in one_error(done)
    assert time.monotonic() - began < 30
