"""Endpoints of webhooks over the wire: who is told, with which secret, and who may see it."""

from __future__ import annotations

import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from exporter.api import webhook_fields
from exporter.api.bodies import MAX_BODY_BYTES
from exporter.core.events import DEFAULT_EVENTS, EVENTS
from exporter.webhooks import signatures
from exporter.webhooks.endpoint_store import MAX_REGISTERED_ENDPOINTS
from tests.integration.api_server import PUBLIC_URL, captured_logs
from tests.integration.test_api_refusals import check_shape
from tests.integration.webhook_service import ENDPOINTS, OUTSIDE, URL, Hooked
from tests.unit.webhooks.test_addresses import HOSTILE

SECRET_URL = "https://hooks.example.com/T00/hidden?token=hidden"


def moment(text: str) -> datetime:
    assert text.endswith("Z")
    return datetime.fromisoformat(text)


# -- registering -------------------------------------------------------------------------------


def test_a_new_endpoint_is_shown_with_its_secret_and_what_was_not_said_has_its_default(
    desk: Hooked,
) -> None:
    # When
    answer = desk.http.post(ENDPOINTS, json={"url": URL})

    # Then
    assert answer.status_code == 201
    made = answer.json()
    assert answer.headers["Location"] == f"{PUBLIC_URL}{ENDPOINTS}/{made['id']}"
    assert answer.headers["Cache-Control"] == "no-store"
    assert len(signatures.decode_secret(made.pop("secret"))) == 32
    assert abs(moment(made.pop("created_at")) - datetime.now(UTC)) < timedelta(minutes=1)
    assert re.fullmatch(r"we_[0-9a-f]{24}", made.pop("id"))
    assert made == {
        "kind": "url",
        "ttl": None,
        "url": URL,
        "events": list(DEFAULT_EVENTS),
        "registered": True,
        "ordered": False,
        "include_download_url": False,
        "description": "",
        "enabled": True,
        "disabled_at": None,
        "disabled_because": None,
        "failing_since": None,
    }


def test_what_was_asked_of_an_endpoint_is_kept_and_shown_without_its_secret(desk: Hooked) -> None:
    # Given
    asked: dict[str, Any] = {
        "ordered": True,
        "include_download_url": True,
        "description": "warehouse – 🦊",
        "events": ["export.progress", "export.queued", "export.progress"],
    }

    # When
    made = desk.register(**asked)
    shown = desk.http.get(f"{ENDPOINTS}/{made['id']}").json()
    listed = desk.http.get(ENDPOINTS).json()

    # Then
    assert {**made, **asked, "events": ["export.queued", "export.progress"]} == made
    del made["secret"]
    assert shown == made
    assert listed == {"endpoints": [made]}


def test_all_endpoints_are_listed_oldest_first(desk: Hooked) -> None:
    # Given
    made = [desk.register(f"{URL}/{n}")["id"] for n in range(3)]

    # When
    listed = desk.http.get(ENDPOINTS).json()["endpoints"]

    # Then
    assert [one["id"] for one in listed] == made


def test_every_hostile_url_is_refused_with_its_rule_and_nothing_is_recorded(desk: Hooked) -> None:
    for url, said in HOSTILE:
        # When
        answer = desk.http.post(ENDPOINTS, json={"url": url})

        # Then
        error = check_shape("native", answer, 422)
        (entry,) = error["errors"]
        assert entry["pointer"] == "/url"
        assert said in entry["detail"], ascii(url)
        assert "hidden" not in answer.text
    assert desk.http.get(ENDPOINTS).json() == {"endpoints": []}


def test_a_name_that_leads_inside_is_refused_and_one_that_leads_nowhere_yet_is_not(
    desk: Hooked,
) -> None:
    # When
    inside = desk.http.post(ENDPOINTS, json={"url": "https://inside.example.com/"})
    nowhere = desk.http.post(ENDPOINTS, json={"url": "https://nowhere.example.com/"})

    # Then
    (entry,) = check_shape("native", inside, 422)["errors"]
    assert "10.0.0.0/8 (private)" in entry["detail"]
    assert nowhere.status_code == 201
    assert desk.asked == ["inside.example.com", "nowhere.example.com"]


def test_name_servers_that_say_nothing_hold_up_a_few_requests_and_no_more(
    desk: Hooked, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    monkeypatch.setattr(webhook_fields, "LOOKUP_SECONDS", 20.0)
    told = threading.Event()

    def silent(host: str, _port: int) -> list[str]:
        desk.asked.append(host)
        told.wait(20)
        return [OUTSIDE]

    desk.app.state.guard = replace(desk.guard, resolver=silent)

    def ask(host: str, key: str = desk.ann) -> int:
        asked = {"url": f"https://{host}/"}
        return desk.http.post(ENDPOINTS, json=asked, headers={"x-api-key": key}).status_code

    with ThreadPoolExecutor(webhook_fields.MAX_LOOKUP_THREADS) as pool:
        held = [
            pool.submit(ask, f"silent{n}.example.com")
            for n in range(webhook_fields.MAX_LOOKUP_THREADS)
        ]
        try:
            while len(desk.asked) < webhook_fields.MAX_LOOKUP_THREADS:
                assert not all(one.done() for one in held)
                time.sleep(0.01)

            # When: the first key has all its turns in use, another one asks
            status = ask("next.example.com", desk.bob)

            # Then: it did not wait, and each try of a webhook looks again
            assert status == 201
            assert not any(one.done() for one in held)
            assert "next.example.com" not in desk.asked
            assert ask("127.0.0.1", desk.bob) == 422
        finally:
            told.set()
        assert [one.result() for one in held] == [201] * webhook_fields.MAX_LOOKUP_THREADS


def test_networks_that_the_operator_allows_are_open_by_plain_http_too(desk: Hooked) -> None:
    # Given
    desk.allow("10.0.0.0/24")

    # When
    allowed = desk.http.post(ENDPOINTS, json={"url": "http://10.0.0.9:8080/hooks"})
    other = desk.http.post(ENDPOINTS, json={"url": "http://10.0.1.9:8080/hooks"})

    # Then
    assert allowed.status_code == 201
    check_shape("native", other, 422)


WRONG: list[tuple[dict[str, Any], str, str]] = [
    ({}, "/url", "required"),
    ({"url": 5}, "/url", "string"),
    ({"url": URL, "events": []}, "/events", "export.finished"),
    ({"url": URL, "events": ["export.done"]}, "/events", "export.done"),
    ({"url": URL, "events": "export.finished"}, "/events", "list"),
    ({"url": URL, "events": ["x" * 101]}, "/events/0", "100"),
    ({"url": URL, "events": ["export.failed"] * 51}, "/events", "50"),
    ({"url": URL, "events": ["webhook.test"]}, "/events", "webhook.test"),
    ({"url": URL, "ordered": "yes"}, "/ordered", "boolean"),
    ({"url": URL, "include_download_url": 1}, "/include_download_url", "boolean"),
    ({"url": URL, "description": "x" * 501}, "/description", "500"),
    ({"url": URL, "secret": "x"}, "/secret", "unknown field"),
]


@pytest.mark.parametrize(("body", "pointer", "said"), WRONG)
def test_a_wrong_field_is_named(
    desk: Hooked, body: dict[str, Any], pointer: str, said: str
) -> None:
    # When
    answer = desk.http.post(ENDPOINTS, json=body)

    # Then
    (entry,) = check_shape("native", answer, 422)["errors"]
    assert entry["pointer"] == pointer
    assert said in entry["detail"]
    assert desk.http.get(ENDPOINTS).json() == {"endpoints": []}


def test_an_unknown_event_is_answered_with_those_that_are_known(desk: Hooked) -> None:
    # When
    answer = desk.http.post(ENDPOINTS, json={"url": "https://10.0.0.1/", "events": ["finished"]})

    # Then: both wrong fields are named at once
    entries = check_shape("native", answer, 422)["errors"]
    assert [entry["pointer"] for entry in entries] == ["/url", "/events"]
    assert all(name in entries[1]["detail"] for name in EVENTS)


@pytest.mark.parametrize(
    ("content", "content_type", "status"),
    [
        (b'{"url": "' + b"x" * MAX_BODY_BYTES + b'"}', "application/json", 413),
        (b"{", "application/json", 400),
        (b"[]", "application/json", 422),
        (b"url=x", "application/x-www-form-urlencoded", 415),
        (b"", "application/json", 400),
    ],
    ids=["large", "cut", "list", "form", "empty"],
)
def test_what_is_no_json_object_of_a_sane_size_is_refused(
    desk: Hooked, content: bytes, content_type: str, status: int
) -> None:
    # When
    answer = desk.http.post(ENDPOINTS, content=content, headers={"Content-Type": content_type})

    # Then
    check_shape("native", answer, status)


def test_a_user_has_so_many_endpoints_and_no_more_until_one_is_deleted(desk: Hooked) -> None:
    # Given
    made = [desk.register(f"{URL}/{n}")["id"] for n in range(MAX_REGISTERED_ENDPOINTS)]

    # When
    full = desk.http.post(ENDPOINTS, json={"url": URL})

    # Then
    error = check_shape("native", full, 409)
    assert error["code"] == "too_many_endpoints"
    assert str(MAX_REGISTERED_ENDPOINTS) in error["detail"]

    # When
    desk.http.delete(f"{ENDPOINTS}/{made[0]}")

    # Then
    desk.register()


# -- secrets -----------------------------------------------------------------------------------


def test_the_secret_is_shown_again_to_who_may_write(desk: Hooked) -> None:
    # Given
    made = desk.register()

    # When
    answer = desk.http.get(f"{ENDPOINTS}/{made['id']}/secret")

    # Then
    assert answer.json() == {"secret": made["secret"], "replaced_until": []}
    assert answer.headers["Cache-Control"] == "no-store"


@pytest.mark.parametrize(
    ("body", "grace"),
    [
        (None, timedelta(hours=24)),
        ({}, timedelta(hours=24)),
        ({"grace_seconds": 60}, timedelta(seconds=60)),
        ({"grace_seconds": 7 * 86400}, timedelta(days=7)),
        ({"grace_seconds": 0}, None),
    ],
)
def test_a_rotated_secret_signs_beside_the_new_one_for_the_grace(
    desk: Hooked, body: dict[str, int] | None, grace: timedelta | None
) -> None:
    # Given
    made = desk.register()
    place = f"{ENDPOINTS}/{made['id']}"

    # When
    answer = (
        desk.http.post(f"{place}/rotate", json=body)
        if body is not None
        else desk.http.post(f"{place}/rotate")
    )

    # Then
    assert answer.status_code == 200
    rotated = answer.json()
    assert rotated["secret"] != made["secret"]
    assert desk.http.get(f"{place}/secret").json() == rotated
    endpoint = desk.endpoints.find(made["id"], "ann")
    assert endpoint is not None
    signing = [secret.value for secret in endpoint.secrets]
    if grace is None:
        assert rotated["replaced_until"] == []
        assert signing == [rotated["secret"]]
    else:
        (until,) = rotated["replaced_until"]
        assert abs(moment(until) - datetime.now(UTC) - grace) < timedelta(minutes=1)
        assert signing == [rotated["secret"], made["secret"]]


@pytest.mark.parametrize("grace", [-1, 7 * 86400 + 1, 1.5, "60", None])
def test_a_grace_that_is_none_is_refused_and_nothing_is_rotated(desk: Hooked, grace: Any) -> None:
    # Given
    made = desk.register()

    # When
    answer = desk.http.post(f"{ENDPOINTS}/{made['id']}/rotate", json={"grace_seconds": grace})

    # Then
    (entry,) = check_shape("native", answer, 422)["errors"]
    assert entry["pointer"] == "/grace_seconds"
    shown = desk.http.get(f"{ENDPOINTS}/{made['id']}/secret").json()
    assert shown["secret"] == made["secret"]


# -- switching ---------------------------------------------------------------------------------


def test_an_endpoint_is_disabled_enabled_and_deleted(desk: Hooked) -> None:
    # Given
    place = f"{ENDPOINTS}/{desk.register()['id']}"

    # When
    disabled = desk.http.post(f"{place}/disable").json()
    again = desk.http.post(f"{place}/disable").json()
    enabled = desk.http.post(f"{place}/enable").json()
    deleted = desk.http.delete(place)

    # Then
    assert (disabled["enabled"], disabled["disabled_because"]) == (False, "owner")
    assert again == disabled
    assert (enabled["enabled"], enabled["disabled_at"], enabled["disabled_because"]) == (
        True,
        None,
        None,
    )
    assert (deleted.status_code, deleted.content) == (204, b"")
    for method, path in (("GET", place), ("DELETE", place), ("POST", f"{place}/enable")):
        check_shape("native", desk.http.request(method, path), 404)
    assert desk.http.get(ENDPOINTS).json() == {"endpoints": []}


# -- who may -----------------------------------------------------------------------------------

OF_ENDPOINT = [
    ("GET", "", "read"),
    ("GET", "/secret", "write"),
    ("POST", "/rotate", "write"),
    ("POST", "/disable", "write"),
    ("POST", "/enable", "write"),
    ("POST", "/test", "write"),
    ("POST", "/recover", "write"),
    ("GET", "/deliveries", "read"),
    ("DELETE", "", "write"),
]


def body_of(path: str) -> dict[str, Any] | None:
    return {"since": datetime.now(UTC).isoformat()} if path == "/recover" else None


def test_anothers_endpoint_is_not_there_like_one_that_never_was(desk: Hooked) -> None:
    # Given
    made = desk.register()
    bob = {"X-API-Key": desk.bob}
    for method, path, _ in OF_ENDPOINT:
        # When
        theirs = desk.http.request(
            method, f"{ENDPOINTS}/{made['id']}{path}", headers=bob, json=body_of(path)
        )
        none = desk.http.request(
            method, f"{ENDPOINTS}/we_none{path}", headers=bob, json=body_of(path)
        )

        # Then
        error, other = (check_shape("native", answer, 404) for answer in (theirs, none))
        assert error["detail"].replace(made["id"], "we_none") == other["detail"]
    assert desk.http.get(ENDPOINTS, headers=bob).json() == {"endpoints": []}
    assert desk.http.get(f"{ENDPOINTS}/{made['id']}/secret").json()["secret"] == made["secret"]


def test_a_key_that_only_reads_sees_endpoints_and_deliveries_and_no_secret(desk: Hooked) -> None:
    # Given
    made = desk.register()
    reading = {"X-API-Key": desk.keys.create("ann", ["read"])}
    for method, path, scope in [*OF_ENDPOINT, ("POST", "create", "write")]:
        place = ENDPOINTS if path == "create" else f"{ENDPOINTS}/{made['id']}{path}"
        # When
        answer = desk.http.request(method, place, headers=reading, json=body_of(path))

        # Then
        if scope == "write":
            assert check_shape("native", answer, 403)["code"] == "scope_missing"
        else:
            assert answer.status_code == 200
        assert made["secret"] not in answer.text


def test_what_is_done_to_endpoints_is_logged_without_url_and_secret(desk: Hooked) -> None:
    # When
    with captured_logs() as lines:
        made = desk.register(SECRET_URL, description="hidden")
        place = f"{ENDPOINTS}/{made['id']}"
        new = desk.http.post(f"{place}/rotate").json()["secret"]
        for path in ("disable", "enable", "test", "secret"):
            desk.http.request("GET" if path == "secret" else "POST", f"{place}/{path}")
        desk.http.post(f"{place}/recover", json=body_of("/recover"))
        desk.http.delete(place)

    # Then
    told = [(line["event"], line["endpoint_id"], line["user_id"]) for line in lines]
    assert told == [
        (f"endpoint.{what}", made["id"], "ann")
        for what in (
            "created", "rotated", "disabled", "enabled", "tested", "recovered", "deleted",
        )
    ]  # fmt: skip
    for secret in ("hidden", "whsec_", made["secret"], new):
        assert secret not in str(lines)
