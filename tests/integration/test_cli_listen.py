"""`exporter listen` against a service and a local server that misbehave."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from typer.testing import CliRunner

from exporter.cli.main import app
from exporter.core.events import EVENTS
from tests.upstreams import Answer, Asked, Reset, Upstream, reply, serving

BODY = '{"type":"export.finished","timestamp":"2026-03-02T09:15:04Z","data":{"id":"e1"}}'
TAKEN = {
    "id": "msg_e1_4.we_1",
    "lease": "aa",
    "type": "export.finished",
    "export_id": "e1",
    "headers": {"webhook-id": "msg_e1_4", "webhook-signature": "v1,x", "webhook-timestamp": "1"},
    "body": BODY,
}
GONE = reply(404, {"title": "No", "detail": "no listener", "code": "not_found"})


class Service:
    """A service whose takes have these answers in order; the last one repeats."""

    def __init__(self, *takes: Answer) -> None:
        self.takes = list(takes)
        self.made: list[dict[str, Any]] = []
        self.reports: list[dict[str, Any]] = []
        self.deleted: list[str] = []

    def answer(self, asked: Asked) -> Answer:
        method, path, _ = asked.line.split()
        if method == "DELETE":
            self.deleted.append(path)
            return reply(204, b"")
        if path.endswith("/ack"):
            self.reports.append(asked.json)
            is_ok = asked.json["status"] == 200
            return reply(
                200,
                {
                    "id": TAKEN["id"],
                    "state": "delivered" if is_ok else "pending",
                    "next_at": None if is_ok else "2026-03-02T09:20:04Z",
                },
            )
        if path.partition("?")[0].endswith("/take"):
            return self.takes.pop(0) if len(self.takes) > 1 else self.takes[0]
        self.made.append(asked.json)
        secret = f"whsec_{len(self.made)}"
        return reply(201, {"id": f"we_{len(self.made)}", "secret": secret, "events": ["a", "b"]})


def taken(*found: dict[str, Any]) -> bytes:
    return reply(200, {"deliveries": list(found)})


@contextmanager
def listening(service: Service, target: str, *more: str) -> Iterator[subprocess.Popen[str]]:
    with serving(service.answer) as upstream:
        kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
        own = {"NO_COLOR": "1", "COLUMNS": "80", "PYTHONPATH": os.pathsep.join(sys.path)}
        command = [sys.executable, "-m", "exporter.cli", "listen", "--forward-to", target]
        with subprocess.Popen(
            [*command, "--url", upstream.url, "--key", "exp_x", *more],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=kept | own,
        ) as process:
            try:
                yield process
            finally:
                process.kill()


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().rstrip()


def interrupted(process: subprocess.Popen[str]) -> str:
    """What a process printed on stderr, after Ctrl-C, which ended it well."""
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=10)
    assert process.returncode == 0, said
    return said


def address(receiver: Upstream) -> str:
    return f"{receiver.url.removeprefix('http://')}/hook"


def test_it_prints_the_secret_and_a_line_for_each_webhook() -> None:
    # Given
    service = Service(taken(TAKEN), taken(TAKEN), taken())
    with (
        serving(reply(200, "thanks"), reply(503, "busy", retry_after="7")) as receiver,
        listening(service, address(receiver), "--events", "*", "--header", "X-A: 1") as process,
    ):
        # When
        secret, start, delivered, failed = (line(process) for _ in range(4))
        said = interrupted(process)
    # Then
    assert secret == "secret whsec_1"
    assert start == f"forwarding a, b to {receiver.url}; Ctrl-C ends it"
    assert delivered.split()[1:3] == ["export.finished", "200"]
    assert delivered.endswith(" ms  e1")
    assert "503" in failed
    assert "; again at " in failed
    assert service.made[0]["events"] == list(EVENTS)
    assert service.deleted == ["/v1/webhook-endpoints/we_1"]
    assert said == ""
    # And: what was received is what was taken, and what was answered is what is reported
    for asked in receiver.asked:
        assert asked.body.decode() == BODY
        assert TAKEN["headers"].items() <= asked.headers.items()  # type: ignore[attr-defined]
        assert asked.headers["x-a"] == "1"
    first, second = service.reports
    assert (first["lease"], first["status"], first["excerpt"], first["error"]) == (
        *("aa", 200),
        *("thanks", ""),
    )
    assert (second["status"], second["retry_after"]) == (503, 7)
    assert first["ms"] > 0


def test_it_goes_on_when_the_service_restarts_and_makes_another_listener_if_its_own_is_gone() -> (
    None
):
    # Given
    service = Service([Reset()], reply(502, "<html>"), GONE, taken(TAKEN), taken())
    with (
        serving(reply(200)) as receiver,
        listening(service, address(receiver), "--json") as process,
    ):
        # When
        first, second, webhook = (json.loads(line(process)) for _ in range(3))
        said = interrupted(process)
    # Then
    assert (first["secret"], second["secret"]) == ("whsec_1", "whsec_2")
    assert (webhook["status"], webhook["state"]) == (200, "delivered")
    assert webhook["payload"] == json.loads(BODY)
    assert said.count("trying again until it answers") == 1
    assert "the service answers again" in said
    assert "has deleted the listener we_1" in said
    assert service.deleted == ["/v1/webhook-endpoints/we_2"]


def test_a_local_server_that_does_not_answer_is_a_failed_attempt() -> None:
    # Given: nothing listens there
    service = Service(taken(TAKEN), taken())
    with serving(reply(200)) as receiver:
        free = address(receiver)
    with listening(service, free) as process:
        # When
        failed = [line(process) for _ in range(3)][-1]
        interrupted(process)
    # Then
    assert "no answer" in failed
    assert service.reports[0]["status"] is None
    assert "could not be reached" in service.reports[0]["error"]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("localhost:1/x", "--events", "import.*"), "import.* matches no event"),
        (("localhost:1/x", "--header", "webhook-id: x"), "webhook-id cannot be set"),
        (("localhost:1/x", "--header", "a b: c"), "is not 'NAME: TEXT'"),
        (("ftp://localhost/x",), "begins with 'ftp'"),
        (("localhost:0/x",), "port 0"),
    ],
)
def test_a_wrong_option_is_named_before_a_listener_is_made(
    options: tuple[str, ...], said: str
) -> None:
    # When: there is no service, which nobody notices
    command = ["listen", "--url", "http://127.0.0.1:1", "--key", "exp_x", "--forward-to"]
    done = CliRunner().invoke(app, [*command, *options])
    # Then
    assert done.exit_code == 1
    assert said in " ".join(done.stderr.split())
