"""The console does nothing without a session, a token and a scope, and shows every text as text."""

from __future__ import annotations

import html
import json
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

import pytest
import redis

from exporter.console.app import pages
from exporter.console.sessions import Sessions
from exporter.console.visits import COOKIE
from tests.attack.conftest import Target, until_ended
from tests.attack.wire import Answer
from tests.webhook_receiver import receiving, status

pytestmark = pytest.mark.stack

FORM = ("Content-Type", "application/x-www-form-urlencoded")
OPEN = ("/sign-in", "/static/{name}")
"""Routes that need no session."""
STREAMS = ("/live", "/exports/{export_id:uuid}/live")
MARK = "MARK7"
PAYLOAD = f"\"'><img src=x onerror=alert(1)><script>alert(2)</script>{{{{7*7}}}}{MARK}"
"""HTML, an attribute's end, a script and a template, in any text that a user may give."""
ACTS: Mapping[str, Sequence[Mapping[str, str]]] = {
    "/exports/{export_id:uuid}": [{"act": act} for act in ("cancel", "retry", "delete")],
    "/exports/bulk": [
        {"act": act, "id": "{export_id}", "confirmed": confirmed}
        for act in ("cancel", "retry", "download")
        for confirmed in ("", "1")
    ],
    "/webhooks/{endpoint_id}": [
        {"act": act, "grace": "0", "since": f"{datetime.now(UTC):%Y-%m-%d}"}
        for act in ("test", "disable", "enable", "rotate", "recover", "delete")
    ],
    "/keys": [{"user": "eve", "scopes": "write"}],
    "/keys/{key_id}": [{"act": "revoke"}, {"act": "change", "credits": "1"}],
    "/exports/new": [{"do": "create", "source": "board", "format": "csv", "query": "{}"}],
    "/webhooks": [{"url": "http://127.0.0.1:9/x", "events": "export.finished"}],
}
"""Fields of forms that would change something, by route."""


class Place(NamedTuple):
    """A page, or the form that it takes."""

    method: str
    route: str


PLACES = [
    Place(method, one.path)  # type: ignore[attr-defined]
    for one in pages()
    if one.path not in OPEN  # type: ignore[attr-defined]
    for method in ("GET", "POST")
    if method in one.methods  # type: ignore[attr-defined]
]


@dataclass
class Desk:
    """A console with sessions of anybody."""

    target: Target
    sessions: Sessions

    def session(self, key: str) -> tuple[str, str]:
        """The token of a new session of a key, and the token of its forms."""
        found = self.target.keys.find(key)
        assert found is not None
        token = self.sessions.create(found.id)
        session = self.sessions.find(token)
        assert session is not None
        return token, session.csrf

    def path(self, route: str) -> str:
        """The route with ids of ann's."""
        ids = self.ids
        return re.sub(r"\{(\w+)(?::\w+)?\}", lambda one: quote(ids[one[1]], safe=""), route)

    @property
    def ids(self) -> dict[str, str]:
        ann = self.target.keys.find(self.target.ann)
        assert ann is not None
        own = {name: values[0] for name, values in self.target.ids.items()}
        return {**own, "key_id": ann.id, "name": "board", "rest": str(uuid.uuid4()).upper()}

    def ask(
        self, method: str, path: str, cookie: str = "", fields: Mapping[str, Any] | None = None
    ) -> Answer:
        headers = [("Cookie", f"{COOKIE}={cookie}")] if cookie else []
        if method == "GET":
            return self.target.wire.ask("GET", path, headers=headers)
        body = urlencode(fields or {}, doseq=True).encode()
        return self.target.wire.ask("POST", path, headers=[*headers, FORM], body=body)

    def forms(self, route: str) -> Iterator[dict[str, str]]:
        """The fields of each form of a route that would change something of ann's."""
        for fields in ACTS.get(route, [{}]):
            yield {name: value.format(**self.ids) if "{e" in value else value
                   for name, value in fields.items()}  # fmt: skip


@pytest.fixture(scope="module")
def desk(target: Target) -> Iterator[Desk]:
    with redis.Redis.from_url(target.addresses.redis_url) as client:
        yield Desk(target, Sessions(client))


def test_the_routes_are_those_of_the_console() -> None:
    # A form that is missing here is not attacked.
    posts = {place.route for place in PLACES if place.method == "POST"}
    assert set(ACTS) <= posts
    assert len(PLACES) > 20


def test_no_page_and_no_form_is_reached_without_a_session(desk: Desk) -> None:
    # Given
    target, before = desk.target, desk.target.state()
    token, csrf = desk.session(target.ann)
    ended, _ = desk.session(target.ann)
    desk.sessions.end(ended)
    events = target.wire.ask(
        "POST",
        "/v1/tickets",
        key=target.ann,
        headers=[("Content-Type", "application/json")],
        body=b'{"for": "events"}',
    ).json()["ticket"]
    ann = target.keys.find(target.ann)
    assert ann is not None
    cookies = {
        "none": "",
        "forged": "x" * len(token),
        "ended": ended,
        "an API key": target.ann,
        "the id of a key": ann.id,
        "a ticket of streams": events,
        "a ticket to sign in": desk.sessions.create_ticket(ann.id),
        "a prefix": token[:-1],
        "one more": f"{token}x",
        "a glob": "*",
        "huge": "a" * 4_000,
    }

    # When
    opened = []
    for place in PLACES:
        for case, cookie in cookies.items():
            answer = desk.ask(place.method, desk.path(place.route), cookie, {"csrf": csrf})
            if answer.status != 303 or not answer.header("Location").startswith("/sign-in"):
                opened.append(f"{place} with {case}: {answer.status}")

    # Then
    assert not opened
    assert desk.ask("GET", "/", token).status == 200
    assert target.state() == before


def test_a_form_needs_the_token_of_its_own_session(desk: Desk) -> None:
    # Given
    before = desk.target.state()
    token, csrf = desk.session(desk.target.ann)
    _, of_eve = desk.session(desk.target.eve())
    _, of_another = desk.session(desk.target.ann)
    tokens = {"none": None, "empty": "", "of eve": of_eve, "of another session": of_another}
    tokens |= {"a prefix": csrf[:-1], "the cookie": token, "NUL": f"{csrf}\0"}

    # When
    accepted = []
    for place in PLACES:
        if place.method != "POST":
            continue
        for case, given in tokens.items():
            for fields in desk.forms(place.route):
                sent = fields if given is None else {**fields, "csrf": given}
                path = desk.path(place.route) + ("" if given else f"?csrf={csrf}")
                answer = desk.ask("POST", path, token, sent)
                if answer.status != 403:
                    accepted.append(f"{place} with {case}: {answer.status}")

    # Then: not even the session has ended
    assert not accepted
    assert desk.target.state() == before
    assert desk.ask("GET", "/", token).status == 200


def test_a_read_only_key_changes_nothing(desk: Desk) -> None:
    # Given: a key of ann's own
    ann = desk.target.keys.find(desk.target.ann)
    assert ann is not None
    token, csrf = desk.session(desk.target.keys.create(ann.user_id, ("read",)))
    before = desk.target.state()

    # When
    accepted = [
        f"{place}: {answer.status}"
        for place in PLACES
        if place.method == "POST" and place.route != "/sign-out"
        for fields in desk.forms(place.route)
        if (
            answer := desk.ask("POST", desk.path(place.route), token, {**fields, "csrf": csrf})
        ).status
        != 403
    ]

    # Then
    assert not accepted
    assert desk.target.state() == before


def test_a_user_finds_and_changes_nothing_of_another(desk: Desk) -> None:
    # Given
    target, before = desk.target, desk.target.state()
    token, csrf = desk.session(target.eve())
    hidden = target.secrets

    # When: with the ids of ann's, which the pages may repeat as they were sent
    told = []
    for place in PLACES:
        path = desk.path(place.route)
        if place.route in ("/live", "/sign-out"):
            continue
        forms = desk.forms(place.route) if place.method == "POST" else [{}]
        for fields in forms:
            answer = desk.ask(place.method, path, token, {**fields, "csrf": csrf})
            given = [path, *fields.values()]
            told += [
                f"{place} {fields}: {answer.status} {secret}"
                for secret in hidden
                if secret in answer.text and not any(secret in one for one in given)
            ]
            if "{e" in place.route and answer.status != 404:
                told.append(f"{place} {fields}: {answer.status}")

    # Then
    assert not told
    assert target.state() == before


def test_an_operator_gets_and_changes_no_secret_of_a_user(desk: Desk) -> None:
    # Given: an operator sees the exports of all, but neither webhooks nor their secrets
    target, before = desk.target, desk.target.state()
    key = target.eve("read", "write", "operator")
    token, csrf = desk.session(key)

    # When
    answers = []
    for operation in target.operations:
        if "/webhook-" in operation.path and operation.own_ids:
            headers, body = operation.body()
            path = operation.at({name: target.ids[name][0] for name in operation.own_ids})
            found = target.wire.ask(operation.method, path, key=key, headers=headers, body=body)
            answers.append((operation.name, found))
    for place in PLACES:
        if "{endpoint_id}" in place.route or "{delivery_id}" in place.route:
            forms = desk.forms(place.route) if place.method == "POST" else [{}]
            answers += [
                (str(place), desk.ask(place.method, desk.path(place.route), token, sent))
                for fields in forms
                if (sent := {**fields, "csrf": csrf})
            ]
    listed = [desk.ask("GET", path, token) for path in ("/", "/keys", "/system", "/webhooks")]

    # Then
    assert len(answers) > 15
    assert [(name, one.status) for name, one in answers if one.status != 404] == []
    for one in (*listed, *(answer for _, answer in answers)):
        assert "whsec_" not in one.text
        assert target.ann not in one.text
    assert target.state() == before


def test_a_ticket_or_session_of_one_kind_is_none_of_another(desk: Desk) -> None:
    # Given
    target = desk.target
    ann = target.keys.find(target.ann)
    assert ann is not None
    token, csrf = desk.session(target.ann)
    to_sign_in = desk.sessions.create_ticket(ann.id)
    json_type = ("Content-Type", "application/json")
    made = target.wire.ask(
        "POST", "/v1/tickets", key=target.ann, headers=[json_type], body=b'{"for":"events"}'
    )

    # When
    streams = [
        target.wire.ask("GET", f"/v1/events?ticket={one}")
        for one in (to_sign_in, token, csrf, target.ann, "*")
    ]
    as_keys = [
        target.wire.ask("GET", "/v1/exports", key=one)
        for one in (to_sign_in, token, csrf, made.json()["ticket"], ann.id)
    ]
    signed_in = [
        desk.ask("POST", "/sign-in", "", fields)
        for fields in ({"ticket": made.json()["ticket"]}, {"ticket": token}, {"key": token})
    ]

    # Then
    assert {one.status for one in (*streams, *as_keys, *signed_in)} == {401}
    assert not [one for one in signed_in if one.header("Set-Cookie")]


def test_every_text_of_a_user_is_shown_as_text_on_every_page(desk: Desk) -> None:
    # Given: a user with HTML in all that may be named, and a receiver that answers with HTML
    target = desk.target
    key = target.keys.create(f"mallory {PAYLOAD}", ("read", "write"), PAYLOAD)
    token, _ = desk.session(key)
    operator, _ = desk.session(target.eve("read", "operator"))
    with receiving(status(500, PAYLOAD)) as receiver:
        endpoint, exports = _furnish(target, key, receiver.url)
        receiver.wait_for(1)
        until_ended(target, exports, key)
        asked = quote(PAYLOAD)
        own = [
            *("/", "/sources", "/keys", "/webhooks", f"/webhooks/{endpoint}"),
            *(f"/exports/{one}" for one in exports),
            *(f"/exports/{one}/rows" for one in exports),
            *(f"/exports/new?from={one}" for one in exports),
            f"/exports/new?source={asked}&name={asked}&query={asked}&f.job_titles={asked}",
            *(f"/?{name}={asked}" for name in ("name", "source", "state", "metadata", "user")),
            *(f"/?{name}={asked}" for name in ("cursor", "created_from", "order", "notice", "n")),
            f"/webhooks/{asked}",
            f"/exports/{asked}",
            f"/webhooks/{endpoint}?state={asked}&notice={asked}",
            f"/nothing/{asked}",
        ]
        # When
        shown = {path: desk.ask("GET", path, token) for path in own}
        shown |= {
            f"{path} as an operator": desk.ask("GET", path, operator)
            for path in ("/", "/keys", "/system", *(f"/exports/{one}" for one in exports))
        }
        shown["sign-in"] = desk.ask("GET", f"/sign-in?next={asked}&ticket={asked}")
        shown["static"] = desk.ask("GET", f"/static/{asked}")
    # Then
    wrong = []
    for path, answer in shown.items():
        assert answer.status < 500, path
        if answer.header("Content-Type").startswith("application/"):
            continue  # a path that the console does not have; no browser shows it as HTML
        assert answer.header("X-Content-Type-Options") == "nosniff", path
        if re.search(r"<img|<script>alert|49" + MARK, answer.text, re.IGNORECASE):
            wrong.append(path)
        assert "default-src 'none'" in answer.header("Content-Security-Policy"), path
        assert "Traceback" not in answer.text, path
    assert not wrong
    # And it was there to be shown
    for path in (
        *("/", "/keys", "/webhooks", f"/webhooks/{endpoint}", f"/exports/{exports[0]}"),
        *("/ as an operator", "/keys as an operator", "sign-in"),
    ):
        assert PAYLOAD in html.unescape(shown[path].text), path


def _furnish(target: Target, key: str, url: str) -> tuple[str, list[str]]:
    """Makes an endpoint and exports with hostile texts; returns their ids."""

    def post(path: str, body: Mapping[str, Any]) -> Answer:
        return target.wire.ask(
            "POST",
            path,
            key=key,
            headers=[("Content-Type", "application/json")],
            body=json.dumps(body).encode(),
        )

    made = post("/v1/webhook-endpoints", {"url": url, "description": PAYLOAD})
    assert made.status == 201, made.text
    listener = post("/v1/webhook-endpoints", {"kind": "listener", "description": PAYLOAD})
    assert listener.status == 201, listener.text
    body = {
        "source": "board",
        "format": "csv",
        "limit": 3,
        "name": PAYLOAD[:100],
        "metadata": {f"k{n}": PAYLOAD for n in range(2)} | {PAYLOAD[:40]: "x"},
    }
    exports = []
    for query in ({}, {"keywords": [PAYLOAD]}, {"job_titles": [PAYLOAD, PAYLOAD]}):
        answer = post("/v1/exports", {**body, "query": query})
        assert answer.status == 202, answer.text
        exports.append(answer.json()["id"])
    return made.json()["id"], exports


NAMES: Mapping[str, Any] = {
    "long": "x" * 10_000,
    "long HTML": "<b>" * 3_334,
    "a number": 1,
    "a list": ["x"],
}
METADATA: Mapping[str, Any] = {
    "a text": "x",
    "a list": [["a", "b"]],
    "a number as value": {"a": 1},
    "null as value": {"a": None},
    "a list as value": {"a": ["b"]},
    "nested": {"a": {"b": "c"}},
    "a long key": {"k" * 10_000: "x"},
    "a long value": {"a": "x" * 10_000},
    "many": {f"k{n}": "x" for n in range(200)},
    "an empty key": {"": "x"},
}


@pytest.mark.parametrize(
    ("field", "case"),
    [*(("name", case) for case in NAMES), *(("metadata", case) for case in METADATA)],
)
def test_a_name_or_metadata_of_the_wrong_shape_is_named_and_nothing_is_made(
    target: Target, field: str, case: str
) -> None:
    # Given
    key = target.eve()
    value = NAMES[case] if field == "name" else METADATA[case]
    body = {"source": "board", "query": {}, "format": "csv", field: value}

    # When
    answer = target.wire.ask(
        "POST",
        "/v1/exports",
        key=key,
        headers=[("Content-Type", "application/json")],
        body=json.dumps(body).encode(),
    )

    # Then
    assert answer.status == 422, answer.text[:300]
    assert len(answer.text) < 20_000
    assert [one["pointer"].split("/")[1] for one in answer.json()["errors"]] == [field] * len(
        answer.json()["errors"]
    )
    listed = target.wire.ask("GET", "/v1/exports", key=key).json()
    assert listed["exports"] == []


def test_a_form_with_long_names_is_refused_beside_its_field(desk: Desk) -> None:
    # Given
    key = desk.target.eve()
    token, csrf = desk.session(key)
    fields = {**ACTS["/exports/new"][0], "csrf": csrf}

    # When
    answers = {
        str(more)[:30]: desk.ask("POST", "/exports/new", token, {**fields, **more})
        for more in (
            {"name": "<b>" * 3_334},
            {"metadata": f"{'k' * 5_000}=x"},
            {"query": "[" * 5_000},
            {"query": '{"a": '},
            {"query": '{"days_ago": NaN}'},
            {"query": '{"days_ago": 1e999}'},
            {"limit": "9" * 400},
            {"limit": "8" * 5_000},
            {"limit": "nan"},
            {"limit": "infinity"},
            {"priority": "<b>"},
        )
    }

    # Then
    wrong = {one: answer.status for one, answer in answers.items()}
    assert not {one: status for one, status in wrong.items() if status not in (400, 422)}
    assert not [one for one, answer in answers.items() if "<b>" in answer.text]
    listed = desk.target.wire.ask("GET", "/v1/exports", key=key).json()
    assert listed["exports"] == []
