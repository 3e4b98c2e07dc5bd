"""`exporter listen`: webhooks on a machine that the service cannot reach."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from exporter.client import Exporter, webhooks
from exporter.local.stack import Addresses
from tests.waiting import until
from tests.webhook_receiver import Receiver, hang, receiving, status

pytestmark = pytest.mark.stack
SEARCH = {"job_titles": ["engineer"]}


class Listening:
    """A running `exporter listen --json`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.start = self.line()

    def line(self) -> dict[str, Any]:
        """The next line that it prints."""
        assert self._process.stdout is not None
        text = self._process.stdout.readline()
        assert text, "it has ended"
        return dict(json.loads(text))

    def end(self, how: signal.Signals) -> int:
        self._process.send_signal(how)
        return self._process.wait(timeout=10)


@contextmanager
def listening(stack: Addresses, receiver: Receiver, *more: str) -> Iterator[Listening]:
    events = "export.finished,export.failed"
    command = [sys.executable, "-m", "exporter.cli", "listen", "--forward-to", receiver.url]
    environment = os.environ | {
        "EXPORTER_PUBLIC_URL": stack.url,
        "EXPORTER_API_KEY": stack.api_key,
    }
    with subprocess.Popen(
        [*command, "--events", events, "--json", *more],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        try:
            yield Listening(process)
        finally:
            process.kill()


def endpoints(stack: Addresses) -> set[str]:
    answer = httpx.get(
        f"{stack.url}/v1/webhook-endpoints", headers={"x-api-key": stack.api_key}, timeout=10
    )
    return {one["id"] for one in answer.json()["endpoints"] if one["kind"] == "listener"}


def export(stack: Addresses) -> str:
    with Exporter(stack.url, stack.api_key) as exporter:
        return exporter.create("board", SEARCH, limit=5, name="for my laptop").id


def test_a_webhook_arrives_here_signed_and_its_failure_is_repeated(stack: Addresses) -> None:
    # Given
    with (
        receiving(status(500, "busy"), status(204)) as receiver,
        listening(stack, receiver, "--header", "x-team: jobs") as running,
    ):
        # When
        export_id = export(stack)
        failed, delivered = running.line(), running.line()
        # Then: the same message twice, each time signed with the secret that was printed
        assert endpoints(stack) == {running.start["listener"]}
        first, second = receiver.received
        events = [
            webhooks.verify(one.body, one.headers, running.start["secret"])
            for one in (first, second)
        ]
        assert [one.data["id"] for one in events] == [export_id] * 2
        assert first.headers["webhook-id"] == second.headers["webhook-id"]
        assert first.headers["x-team"] == "jobs"
        assert first.headers["user-agent"].startswith("exporter-webhooks/")
        assert (failed["status"], failed["state"]) == (500, "pending")
        assert failed["next_at"] is not None
        assert (delivered["status"], delivered["state"]) == (204, "delivered")
        assert delivered["payload"]["data"]["name"] == "for my laptop"
        # And when it is ended, nothing is left
        assert running.end(signal.SIGINT) == 0
    assert endpoints(stack) == set()


def test_what_a_killed_listener_had_taken_is_dropped_with_it_and_the_next_gets_the_rest(
    stack: Addresses,
) -> None:
    # Given: one that is killed in the middle of a delivery
    with receiving(hang) as receiver, listening(stack, receiver) as running:
        export(stack)
        until(lambda: receiver.received, what="the webhook")
        assert running.end(signal.SIGKILL) != 0
        killed = running.start["listener"]
    # When
    with receiving(status(200)) as receiver, listening(stack, receiver) as running:
        export_id = export(stack)
        line = running.line()
        # Then
        assert (line["export_id"], line["status"]) == (export_id, 200)
        running.end(signal.SIGTERM)
    assert endpoints(stack) == {killed}
    headers = {"x-api-key": stack.api_key}
    httpx.delete(f"{stack.url}/v1/webhook-endpoints/{killed}", headers=headers, timeout=10)
    dead = httpx.get(f"{stack.url}/v1/webhook-deliveries", headers=headers, timeout=10).json()
    assert not [one for one in dead["deliveries"] if one["endpoint_id"] == killed]
