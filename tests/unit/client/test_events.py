"""The client follows event streams through lost connections, errors and restarts."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from exporter.client import NotFound, Unauthorized, events
from tests.unit.client.conftest import Twin
from tests.upstreams import Asked, reply, serving

pytestmark = pytest.mark.external
ID = "0b8c2c4e-6a57-4a2b-9a50-0e6a3a2f6b11"
Twins = Callable[..., Twin]


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "RECONNECT_SECONDS", 0.001)
    monkeypatch.setattr(events, "MAX_PAUSE_SECONDS", 0.001)


def event(state: str, number: int, *, name: str = "export.updated") -> str:
    data = json.dumps({"id": ID, "state": state})
    return f"event: {name}\nid: {number}\ndata: {data}\n\n"


def stream(*parts: str) -> bytes:
    return reply(200, "".join(parts).encode(), content_type="text/event-stream")


def answers(*found: bytes) -> Callable[[Asked], bytes]:
    left = list(found)
    return lambda _: left.pop(0)


def test_a_stream_that_ends_early_is_opened_again_after_its_last_event(twin: Twins) -> None:
    # Given
    given = answers(
        stream("retry: 3000\n\n", event("queued", 1), ":\n\n", event("processing", 2)),
        stream(event("finished", 3)[:-9]),  # an event that was cut off
        reply(503, {"detail": "restarting"}),
        stream(event("finished", 3)),
    )
    with serving(given) as one:
        # When
        found = twin(one.url).events(ID)
    # Then
    assert [export.state for export in found] == ["queued", "processing", "finished"]
    assert [asked.headers.get("last-event-id") for asked in one.asked] == [None, "2", "2", "2"]


def test_an_end_that_is_known_ends_the_iteration(twin: Twins) -> None:
    # Given
    with serving(answers(stream(event("processing", 1)), reply(204, b""))) as one:
        # When
        found = twin(one.url).events(ID)
    # Then
    assert [export.state for export in found] == ["processing"]


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (stream(event("x", 1, name="export.deleted")), NotFound),
        (reply(404, {"detail": "no export", "code": "not_found"}), NotFound),
        (reply(401, {"detail": "the key is wrong", "code": "unauthorized"}), Unauthorized),
    ],
)
def test_what_waiting_does_not_mend_is_an_error(
    twin: Twins, answer: bytes, error: type[Exception]
) -> None:
    # Given
    with serving(answers(answer)) as one, pytest.raises(error):
        # When
        twin(one.url).events(ID)


def test_the_events_of_a_user_are_filtered(twin: Twins) -> None:
    # Given
    given = answers(stream(event("queued", 7)), reply(403, {"detail": "no scope"}))
    with serving(given) as one, pytest.raises(Exception, match="no scope"):
        # When
        twin(one.url).events(state="queued", user="ann")
    # Then
    assert one.asked[0].line == "GET /v1/events?state=queued&user=ann HTTP/1.1"
    assert one.asked[1].headers["last-event-id"] == "7"
