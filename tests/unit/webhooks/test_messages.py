"""What webhooks say: the state that the event names, thin, small, and nothing that opens a file."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from exporter.core import events
from exporter.core.events import EVENTS, EXPORT_EVENTS, STATES, Event
from exporter.core.exports import Export, Phase, Spec, State
from exporter.webhooks import messages
from exporter.webhooks.endpoints import DisableReason, Endpoint, Secret
from tests.contract.store import given

AT = datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC)


def export(state: State = State.PROCESSING, *, error: str | None = None, **spec: Any) -> Export:
    is_finished = state is State.FINISHED
    return Export(
        spec=msgspec.structs.replace(given.spec("e-1"), **spec),
        state=state,
        phase=Phase.DONE if state is not State.PROCESSING else Phase.READING,
        progress=0.9,
        created_at=AT,
        updated_at=AT,
        error=error,
        result=given.result(42) if is_finished else None,
        file_expires_at=AT + timedelta(days=7) if is_finished else None,
    )


def event(kind: str, progress: float = 0.25, rows: int = 10, subject: str = "e-1") -> Event:
    return Event(kind, AT, 3, progress, rows, subject)


def told(kind: str, of: Export, url: str = "https://exports.example.com") -> dict[str, Any]:
    message: dict[str, Any] = msgspec.json.decode(messages.export_body(event(kind), of, url))
    return message


def test_a_message_names_type_time_and_thin_data() -> None:
    # When
    body = messages.export_body(
        event("export.started"), export(), public_url="https://exports.example.com/"
    )
    # Then: also byte for byte, for that is what is signed
    assert body == (
        b'{"type":"export.started","timestamp":"2026-01-02T03:04:05.000678Z","data":{"id":"e-1",'
        b'"name":"","metadata":{},"state":"processing","outcome":null,"sequence":3,"progress":0.25,"record_count":10,'
        b'"result":null,"error":null,"links":{"self":"https://exports.example.com/v1/exports/e-1"}}}'
    )


def test_a_message_tells_the_state_of_its_event_although_the_export_has_gone_on() -> None:
    # Given
    finished = export(State.FINISHED)
    # When
    queued = told("export.queued", finished)["data"]
    progress = told("export.progress", finished)["data"]
    # Then
    assert (queued["state"], queued["result"]) == ("queued", None)
    assert (progress["state"], progress["progress"], progress["record_count"]) == (
        "processing",
        0.25,
        10,
    )


@pytest.mark.parametrize("kind", ["export.finished", "export.expired"])
def test_a_finished_export_is_told_with_its_result_but_no_way_to_the_file(kind: str) -> None:
    # When
    message = told(kind, export(State.FINISHED))
    # Then
    data = message["data"]
    assert (data["state"], data["outcome"], data["record_count"]) == ("finished", "complete", 42)
    assert data["result"] == {
        "record_count": 42,
        "file_size": 7,
        "expiry_time": "2026-01-09T03:04:05.000678Z",
    }
    assert "url" not in str(message)
    assert "exports/e/1" not in str(message)


def test_a_failed_export_is_told_with_its_reason() -> None:
    # Given: a worker that waits has an error, too, which is none of the export
    waiting, failed = export(error="429"), export(State.FAILED, error="the source lied 🦊")
    # When / Then
    assert told("export.failed", failed)["data"]["error"] == "the source lied 🦊"
    assert told("export.progress", waiting)["data"]["error"] is None


@pytest.mark.parametrize("text", ["x" * 10**6, '"\\\x00' * 10**5, "🦊" * 10**5, "\u2028" * 10**5])
def test_no_message_is_longer_than_receivers_take(text: str) -> None:
    # When
    body = messages.export_body(
        event("export.failed"), export(State.FAILED, error=text), "https://exports.example.com"
    )
    # Then
    assert len(body) < 20_000
    assert msgspec.json.decode(body)["data"]["id"] == "e-1"


def test_a_download_url_is_added_when_it_is_asked_for() -> None:
    # Given
    body = messages.export_body(event("export.finished"), export(State.FINISHED), "https://e")
    # When
    open_file = msgspec.json.decode(messages.with_download_url(body, "https://s3/x?y=1&z=é"))
    gone = msgspec.json.decode(messages.with_download_url(body, None))
    # Then
    assert open_file["data"]["download_url"] == "https://s3/x?y=1&z=é"
    assert gone["data"]["download_url"] is None
    assert list(open_file["data"])[:-1] == list(msgspec.json.decode(body)["data"])


def test_what_is_told_of_an_endpoint_does_not_give_its_address_away() -> None:
    # Given
    endpoint = Endpoint(
        id="we_1",
        user_id="ann",
        url="https://hooks.example.com:8443/secret/path?token=1",
        events=(),
        secrets=(Secret("whsec_x"),),
        registered=True,
        created_at=AT,
        failing_since=AT,
        disabled_reason=DisableReason.FAILING,
        description="the warehouse",
    )
    # When
    body = messages.endpoint_body(event(events.DISABLED, subject="we_1"), endpoint)
    # Then
    assert msgspec.json.decode(body)["data"] == {
        "id": "we_1",
        "sequence": 3,
        "host": "hooks.example.com",
        "description": "the warehouse",
        "failing_since": "2026-01-02T03:04:05.000678Z",
        "disabled_because": "failing",
    }


def test_each_event_of_an_export_names_one_of_its_five_states() -> None:
    # When / Then
    assert set(STATES.values()) == set(State)
    assert set(EXPORT_EVENTS) < set(EVENTS)
    assert all(event(kind).of_export == kind.startswith("export.") for kind in EVENTS)


def test_events_are_put_in_order_and_unknown_ones_refused() -> None:
    # When / Then
    names = ["export.failed", "export.queued", "export.failed"]
    assert events.check_events(names) == ("export.queued", "export.failed")
    with pytest.raises(ValueError, match=r"event endpoint\.disabled: give some of"):
        events.check_events(["endpoint.disabled"], EXPORT_EVENTS)
    with pytest.raises(ValueError, match="event missing"):
        events.check_events([])


def test_a_message_s_id_has_no_dot_for_dots_separate_what_is_signed() -> None:
    # When / Then
    assert event("export.queued").message_id == "msg_e-1_3"


def test_a_record_from_before_there_were_webhooks_has_none() -> None:
    # Given
    old = msgspec.json.decode(msgspec.json.encode(given.spec("e")))
    del old["webhook"]
    # When / Then
    assert msgspec.convert(old, Spec).webhook is None
