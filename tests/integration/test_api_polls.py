"""Polls with an ETag, and creations that wait for the end, over the wire."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from tests.integration.api_server import CREATED, Service

PATH, BODY = CREATED["native"]


def make(api: Service, headers: dict[str, str] | None = None, **fields: Any) -> dict[str, Any]:
    answer = api.http.post(PATH, json=BODY | fields, headers=headers)
    assert answer.status_code in (200, 202), answer.text
    found: dict[str, Any] = answer.json()
    return found


def test_a_poll_of_an_unchanged_export_is_answered_without_a_body(api: Service) -> None:
    # Given
    place = f"{PATH}/{make(api)['id']}"
    tag = api.http.get(place).headers["ETag"]
    # When
    again = api.http.get(place, headers={"If-None-Match": f'"other", {tag}'})
    # Then
    assert (again.status_code, again.content) == (304, b"")
    assert again.headers["ETag"] == tag
    assert again.headers["Retry-After"] == "2"


def test_each_change_of_an_export_changes_its_etag(api: Service) -> None:
    # Given
    export_id = make(api)["id"]
    place, tags = f"{PATH}/{export_id}", []
    tags.append(api.http.get(place).headers["ETag"])
    # When
    api.finish(export_id)
    tags.append(api.http.get(place, headers={"If-None-Match": tags[0]}).headers["ETag"])
    api.clock.advance(8 * 86400)
    tags.append(api.http.get(place, headers={"If-None-Match": tags[1]}).headers["ETag"])
    # Then: the file is deleted at last
    assert len(set(tags)) == 3


def test_who_knows_a_finished_export_gets_a_new_link_before_the_old_one_expires(
    api: Service,
) -> None:
    # Given
    export_id = make(api)["id"]
    api.finish(export_id)
    place = f"{PATH}/{export_id}"
    life = api.engine.settings.link_ttl.total_seconds()
    tag, since = api.http.get(place).headers["ETag"], 0.0
    # When
    renewals = []
    for _ in range(20):
        api.clock.advance(life / 8)
        since += life / 8
        answer = api.http.get(place, headers={"If-None-Match": tag})
        if answer.status_code == 200:
            renewals.append(since)
            tag, since = answer.headers["ETag"], 0.0
    # Then
    assert renewals
    assert max(renewals) <= 5 / 8 * life


@pytest.mark.parametrize("prefer", ["respond-async, wait=20", "WAIT=20;x=1"])
def test_a_creation_that_prefers_to_wait_answers_with_the_file(api: Service, prefer: str) -> None:
    # Given
    answers = []

    def create() -> None:
        answers.append(api.http.post(PATH, json=BODY, headers={"Prefer": prefer}))

    # When
    caller = threading.Thread(target=create)
    caller.start()
    while not (waiting := api.http.get(PATH).json()["exports"]):
        time.sleep(0.01)
    api.finish(waiting[0]["id"])
    caller.join(10)
    # Then
    (answer,) = answers
    assert answer.status_code == 200
    assert answer.json()["state"] == "finished"
    assert answer.json()["result"]["download_url"]
    assert "wait=20" in answer.headers["Preference-Applied"]
    assert answer.headers["Location"].endswith(waiting[0]["id"])


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [
        ("respond-async", "respond-async"),
        ("respond-async, wait=0", "respond-async, wait=0"),
        ("wait=1", "wait=1"),
        ("wait=soon, handling=strict", None),
        ("", None),
    ],
)
def test_a_creation_that_does_not_end_in_time_is_answered_as_ever(
    api: Service, prefer: str, applied: str | None
) -> None:
    # When
    begin = time.monotonic()
    answer = api.http.post(PATH, json=BODY, headers={"Prefer": prefer})
    # Then
    assert answer.status_code == 202
    assert answer.json()["state"] == "queued"
    assert answer.headers.get("Preference-Applied") == applied
    assert (time.monotonic() - begin >= 1) == (applied == "wait=1")


def test_other_operations_name_the_preference_that_they_ignore(api: Service) -> None:
    # When
    answer = api.http.get(PATH, headers={"Prefer": "wait=3"})
    # Then
    assert answer.headers["X-Ignored-Parameters"] == "Prefer"


def test_the_file_is_one_redirect_away_and_the_activity_names_who_asked(api: Service) -> None:
    # Given
    export_id = make(api)["id"]
    place = f"{PATH}/{export_id}/file"
    early = api.http.get(place)
    api.finish(export_id)
    # When
    answer = api.http.get(place)
    # Then
    assert (early.status_code, early.json()["code"]) == (409, "no_file")
    assert answer.status_code == 302
    assert export_id in answer.headers["Location"]
    found = api.http.get(f"{PATH}/{export_id}/activity").json()["activity"]
    key = api.keys.find(api.ann)
    assert key is not None
    assert [one["what"] for one in found] == ["queued", "started", "published", "linked"]
    assert (found[0]["by"], found[-1]["by"]) == (key.id, key.id)
    assert found[1]["by"] == "worker-test-1"


def test_a_queued_export_says_how_many_are_ahead(api: Service) -> None:
    # Given
    first, second = make(api), make(api)
    # When
    shown = [api.http.get(f"{PATH}/{one['id']}").json() for one in (first, second)]
    # Then
    assert [one["queue_position"] for one in shown] == [0, 1]
    assert [one["eta_seconds"] for one in shown] == [None, None]
    assert [one["rows_per_second"] for one in shown] == [None, None]
