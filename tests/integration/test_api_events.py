"""Server-sent events over the wire: state, not change; each stream ends with the true state."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest

from exporter.api.events import feeds, streams
from exporter.core.exports import Export, State
from tests.integration.api_server import CREATED, LEASE, Service

PATH, BODY = CREATED["native"]


@pytest.fixture(autouse=True)
def _in_a_hurry(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feeds, "POLL_SECONDS", 0.02)


def make(api: Service, key: str | None = None, **fields: Any) -> str:
    headers = {"X-API-Key": key} if key else None
    answer = api.http.post(PATH, json=BODY | fields, headers=headers)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["id"])


class Heard:
    """What a stream has sent so far."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.iter_lines()

    def events(self) -> Iterator[dict[str, Any]]:
        """Yields each event: its name, id and data."""
        found: dict[str, Any] = {}
        for line in self._lines:
            name, _, value = line.partition(": ")
            if not line and "event" in found:
                yield found
                found = {}
            elif name in ("event", "id", "retry"):
                found[name] = value
            elif name == "data":
                found["data"] = json.loads(value)

    def next(self) -> dict[str, Any]:
        return next(self.events())


@contextmanager
def listening(api: Service, path: str, **headers: str) -> Iterator[Heard]:
    given = {name.replace("_", "-"): value for name, value in headers.items()}
    with api.http.stream("GET", path, headers=given, timeout=10) as response:
        assert response.status_code == 200, response.read()
        yield Heard(response)


def test_a_stream_has_the_state_at_once_and_each_change_until_the_end(api: Service) -> None:
    # Given
    export_id = make(api)
    # When
    with listening(api, f"{PATH}/{export_id}/events") as heard:
        first = heard.next()
        claim = api.engine.store.claim("w", lease=LEASE)
        assert claim is not None
        second = heard.next()
        api.engine.store.end(export_id, claim.fence, State.FAILED, error="busy", keep_record=LEASE)
        rest = list(heard.events())
    # Then: the body ended by itself
    assert [one["data"]["state"] for one in (first, second, *rest)] == [
        "queued", "processing", "failed",
    ]  # fmt: skip
    assert rest[0]["data"] == api.http.get(f"{PATH}/{export_id}").json()
    assert {one["event"] for one in (first, second, *rest)} == {"export.updated"}
    assert heard.response.headers["X-Accel-Buffering"] == "no"
    assert heard.response.headers["Cache-Control"] == "no-cache, no-transform"


def test_who_knows_the_end_is_told_not_to_come_back(api: Service) -> None:
    # Given
    export_id = make(api)
    api.http.post(f"{PATH}/{export_id}/cancel")
    place = f"{PATH}/{export_id}/events"
    with listening(api, place) as heard:
        (last,) = heard.events()
    # When
    again = api.http.get(place, headers={"Last-Event-ID": last["id"]})
    other = api.http.get(place, headers={"Last-Event-ID": "older"})
    # Then
    assert (again.status_code, again.content) == (204, b"")
    assert other.status_code == 200
    assert b"canceled" in other.content


def test_who_comes_back_does_not_get_the_same_state_again(api: Service) -> None:
    # Given
    export_id = make(api)
    place = f"{PATH}/{export_id}/events"
    with listening(api, place) as heard:
        known = heard.next()["id"]
    # When
    with listening(api, place, Last_Event_ID=known) as heard:
        threading.Timer(0.2, lambda: api.http.post(f"{PATH}/{export_id}/cancel")).start()
        rest = list(heard.events())
    # Then
    assert [one["data"]["state"] for one in rest] == ["canceled"]


def test_the_deletion_of_a_followed_export_ends_its_stream(api: Service) -> None:
    # Given
    export_id = make(api)
    # When
    with listening(api, f"{PATH}/{export_id}/events") as heard:
        heard.next()
        api.http.delete(f"{PATH}/{export_id}")
        rest = list(heard.events())
    # Then
    assert [(one["event"], one["data"]) for one in rest] == [("export.deleted", {"id": export_id})]


def test_a_users_stream_has_the_live_exports_and_all_that_follows(api: Service) -> None:
    # Given
    ended, queued = make(api), make(api)
    api.http.post(f"{PATH}/{ended}/cancel")
    make(api, api.bob)
    # When
    with listening(api, "/v1/events") as heard:
        first = heard.next()
        brief = make(api)
        api.http.post(f"{PATH}/{brief}/cancel")
        created = heard.next()
        while created["data"]["state"] != "canceled":
            created = heard.next()
        api.http.delete(f"{PATH}/{queued}")
        deleted = heard.next()
    # Then
    assert (first["data"]["id"], first["data"]["state"]) == (queued, "queued")
    assert created["data"]["id"] == brief
    assert (deleted["event"], deleted["data"]["id"]) == ("export.deleted", queued)


def test_a_users_stream_is_filtered(api: Service) -> None:
    # Given
    with listening(api, "/v1/events?metadata[team]=ops&state=queued,failed") as heard:
        # When
        make(api)
        mine = make(api, metadata={"team": "ops"})
        # Then
        assert heard.next()["data"]["id"] == mine


def test_who_comes_back_gets_what_has_ended_meanwhile(api: Service) -> None:
    # Given
    export_id = make(api)
    api.clock.advance(60)
    last = make(api)
    with listening(api, "/v1/events") as heard:
        known = [heard.next() for _ in range(2)][-1]
    assert known["data"]["id"] == last
    api.clock.advance(60)
    # When
    api.http.post(f"{PATH}/{export_id}/cancel")
    with listening(api, "/v1/events", Last_Event_ID=known["id"]) as heard:
        told = {}
        while export_id not in told:
            one = heard.next()["data"]
            told[one["id"]] = one["state"]
    # Then
    assert told[export_id] == "canceled"


def test_an_operator_hears_all_users_but_gets_no_link(api: Service) -> None:
    # Given
    key = api.keys.create("ops", ("read", "operator"))
    export_id = make(api, api.bob)
    # When
    with listening(api, "/v1/events", X_API_Key=key) as heard:
        heard.next()
        api.finish(export_id)
        last = heard.next()
        while last["data"]["state"] != "finished":
            last = heard.next()
    with listening(api, "/v1/events?user=bob", X_API_Key=api.bob) as heard:
        pass
    # Then
    assert last["data"]["user_id"] == "bob"
    assert last["data"]["result"]["download_url"] is None


def test_a_foreign_export_and_a_foreign_user_are_refused(api: Service) -> None:
    # Given
    export_id = make(api, api.bob)
    # When
    answers = [
        api.http.get(f"{PATH}/{export_id}/events"),
        api.http.get("/v1/events?user=bob"),
        api.http.get("/v1/events?stat=queued"),
        api.http.get("/v1/events?state=done"),
    ]
    # Then
    assert [one.status_code for one in answers] == [404, 403, 422, 422]


def test_a_ticket_opens_one_stream_without_a_key(api: Service) -> None:
    # Given
    export_id = make(api)
    api.http.post(f"{PATH}/{export_id}/cancel")
    made = api.http.post("/v1/tickets", json={"for": "events"})
    assert made.status_code == 200, made.text
    place = f"{PATH}/{export_id}/events?ticket={made.json()['ticket']}"
    # When
    with httpx.Client(base_url=str(api.http.base_url)) as browser:
        first, second = browser.get(place), browser.get(place)
    # Then
    assert first.status_code == 200
    assert b"canceled" in first.content
    assert second.status_code == 401
    assert "ticket" in second.json()["detail"]


@pytest.mark.parametrize("ticket", ["", "x", "%00", "0" * 200])
def test_a_forged_ticket_opens_nothing(api: Service, ticket: str) -> None:
    # When
    with httpx.Client(base_url=str(api.http.base_url)) as browser:
        answer = browser.get(f"/v1/events?ticket={ticket}")
    # Then
    assert answer.status_code == 401


def test_a_ticket_of_a_revoked_key_opens_nothing(api: Service) -> None:
    # Given
    key = api.keys.create("eve")
    headers = {"X-API-Key": key}
    ticket = api.http.post("/v1/tickets", json={"for": "events"}, headers=headers).json()["ticket"]
    found = api.keys.find(key)
    assert found is not None
    # When
    api.keys.revoke(found.id)
    # Then
    assert api.http.get(f"/v1/events?ticket={ticket}", headers={"X-API-Key": ""}).status_code == 401


def test_a_ticket_is_for_events_only(api: Service) -> None:
    # When
    answers = [
        api.http.post("/v1/tickets", json={"for": "exports"}),
        api.http.post("/v1/tickets", json={}),
        api.http.post("/v1/tickets", json={"for": "events"}, headers={"X-API-Key": "exp_no"}),
    ]
    # Then
    assert [one.status_code for one in answers] == [422, 422, 401]


def test_one_stream_too_many_is_refused(api: Service) -> None:
    # Given
    place = f"{PATH}/{make(api)}/events"
    opened = [listening(api, place) for _ in range(5)]
    heard = [one.__enter__() for one in opened]
    assert [one.next()["data"]["state"] for one in heard] == ["queued"] * 5
    # When
    refused = api.http.get(place)
    opened.pop().__exit__(None, None, None)
    deadline = time.monotonic() + 5
    again = 429
    while again == 429 and time.monotonic() < deadline:
        with api.http.stream("GET", place) as response:
            again = response.status_code
    # Then
    assert (refused.status_code, refused.json()["code"]) == (429, "too_many_event_streams")
    assert refused.headers["Retry-After"]
    assert again == 200
    for one in opened:
        one.__exit__(None, None, None)


def test_a_silent_stream_has_heartbeats_and_a_bounded_life(
    api: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    monkeypatch.setattr(streams, "HEARTBEAT_SECONDS", 0.1)
    monkeypatch.setattr(streams, "MAX_LIFE_SECONDS", 0.5)
    # When
    answer = api.http.get(f"{PATH}/{make(api)}/events")
    # Then: the body is whole, so the client comes back
    assert answer.content.startswith(b"retry: 3000\n\nevent: export.updated\n")
    assert answer.content.count(b"\n:\n\n") >= 2


def test_one_reading_serves_all_streams_of_an_export(
    api: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    export_id, reads = make(api), []
    show = api.engine.store.show

    def count(one: str) -> Export | None:
        reads.append(one)
        return show(one)

    monkeypatch.setattr(feeds, "POLL_SECONDS", 0.1)
    monkeypatch.setattr(api.engine.store, "show", count)
    monkeypatch.setattr(streams, "MAX_LIFE_SECONDS", 1.0)

    def follow() -> None:
        api.http.get(f"{PATH}/{export_id}/events")

    # When
    threads = [threading.Thread(target=follow) for _ in range(4)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    # Then: ten readings of the feed, and one for each stream
    assert len(reads) <= 4 + 14
