"""The `webhook_url` of an export, on every surface that creates one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import httpx
import pytest

from exporter.core.events import DEFAULT_EXPORT_EVENTS, EXPORT_EVENTS
from exporter.core.exports import Export, Hook, State
from exporter.core.plans import Plan
from tests.integration.api_server import captured_logs
from tests.integration.webhook_service import ENDPOINTS, URL, Hooked
from tests.unit.webhooks.test_addresses import HOSTILE

Fields = dict[str, Any]


class Surface(NamedTuple):
    """How an export is asked for somewhere, and how a wrong field is told there."""

    create: Callable[[Hooked, Fields, dict[str, str]], httpx.Response]
    status: int
    """Of a refusal."""
    said: Callable[[httpx.Response], str]
    """What a refusal says, after a look at its shape."""
    blank: bool = False
    """Whether a blank URL is none."""


def _post(path: str, body: Fields) -> Callable[[Hooked, Fields, dict[str, str]], httpx.Response]:
    def create(desk: Hooked, fields: Fields, headers: dict[str, str]) -> httpx.Response:
        return desk.http.post(path, json={**body, **fields}, headers=headers)

    return create


def _form(desk: Hooked, fields: Fields, headers: dict[str, str]) -> httpx.Response:
    data = {
        name: value if isinstance(value, str) else ",".join(value) for name, value in fields.items()
    }
    return desk.http.post(
        "/v2/data_requests/job_base/id_file",
        files={"ids_file": ("ids.csv", b"1\n2\n", "text/csv")},
        data=data,
        headers=headers,
    )


def _query(desk: Hooked, fields: Fields, headers: dict[str, str]) -> httpx.Response:
    return desk.http.get(
        "/api/export", params=fields, headers={"Prefer": "respond-async", **headers}
    )


def _problem(answer: httpx.Response) -> str:
    (entry,) = answer.json()["errors"]
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert entry["pointer"].startswith("/webhook_")
    return str(entry["detail"])


def _list(answer: httpx.Response) -> str:
    (entry,) = answer.json()["detail"]
    assert entry["loc"][0] == "body"
    assert entry["loc"][1].startswith("webhook_")
    return str(entry["msg"])


def _text(answer: httpx.Response) -> str:
    assert list(answer.json()) == ["detail"]
    said = answer.json()["detail"]
    assert said.startswith("body.webhook_")
    return str(said)


def _flat(answer: httpx.Response) -> str:
    assert answer.json()["code"] == "VALIDATION_ERROR"
    (entry,) = answer.json()["errors"]
    assert entry["field"].startswith("webhook_")
    return str(entry["message"])


SEARCH = {"source": "board", "query": {}, "format": "csv"}
SURFACES = {
    "native": Surface(_post("/v1/exports", SEARCH), 422, _problem),
    "hirebase": Surface(_post("/v2/jobs/export", {"search": {}, "format": "csv"}), 422, _list),
    "hirebase-expired": Surface(
        _post("/v2/jobs/expired-jobs/export", {"since": "2026-03-01"}), 422, _list
    ),
    "coresignal": Surface(
        _post("/v2/data_requests/job_base/filter", {"filters": {}}), 422, _text, blank=True
    ),
    "coresignal-v1": Surface(
        _post("/cdapi/v1/professional_network/job/bulk_collect/filter", {"filters": {}}),
        422,
        _text,
        blank=True,
    ),
    "coresignal-ids": Surface(
        _post("/v2/data_requests/job_base/ids", {"ids": [1, 2]}), 422, _text, blank=True
    ),
    "coresignal-file": Surface(_form, 422, _text, blank=True),
    "pipeline": Surface(_query, 400, _flat),
}
EACH = pytest.mark.parametrize("surface", SURFACES.values(), ids=SURFACES)


def only_export(desk: Hooked) -> Export:
    """The one that ann has."""
    (export,) = desk.engine.store.list("ann", limit=2).exports
    return export


def made_for(desk: Hooked) -> dict[str, Any]:
    """The endpoint that was made for the URL."""
    (endpoint,) = desk.http.get(ENDPOINTS).json()["endpoints"]
    return dict(endpoint)


@EACH
def test_an_export_names_an_endpoint_of_its_own_that_its_owner_can_verify_with(
    desk: Hooked, surface: Surface
) -> None:
    # When
    answer = surface.create(desk, {"webhook_url": URL}, {})

    # Then
    assert answer.is_success, answer.text
    endpoint = made_for(desk)
    assert (endpoint["url"], endpoint["registered"], endpoint["events"]) == (URL, False, [])
    export = only_export(desk)
    assert export.spec.webhook == Hook(endpoint["id"], DEFAULT_EXPORT_EVENTS)
    assert desk.http.get(f"/v1/exports/{export.id}").json()["webhook"] == {
        "endpoint_id": endpoint["id"],
        "events": list(DEFAULT_EXPORT_EVENTS),
    }
    secret = desk.http.get(f"{ENDPOINTS}/{endpoint['id']}/secret").json()["secret"]
    assert secret.startswith("whsec_")


@EACH
def test_an_export_says_which_events_are_told(desk: Hooked, surface: Surface) -> None:
    # Given
    wanted = ["export.progress", "export.finished"]

    # When
    answer = surface.create(desk, {"webhook_url": URL, "webhook_events": wanted}, {})

    # Then
    assert answer.is_success, answer.text
    assert only_export(desk).spec.webhook == Hook(made_for(desk)["id"], tuple(wanted))


@EACH
def test_every_hostile_url_is_refused_with_its_rule_and_nothing_is_recorded(
    desk: Hooked, surface: Surface
) -> None:
    for url, said in HOSTILE:
        if not url.strip() and surface.blank:
            continue
        # When
        answer = surface.create(desk, {"webhook_url": url}, {})

        # Then
        assert answer.status_code == surface.status, ascii(url)
        told = surface.said(answer)
        assert said in told, ascii(url)
        assert "hidden" not in told
    assert desk.http.get(ENDPOINTS).json() == {"endpoints": []}
    assert not desk.engine.store.list("ann", limit=1).exports


@EACH
def test_a_name_that_leads_inside_is_refused(desk: Hooked, surface: Surface) -> None:
    # When
    answer = surface.create(desk, {"webhook_url": "https://inside.example.com/"}, {})

    # Then
    assert answer.status_code == surface.status
    assert "10.0.0.0/8 (private)" in surface.said(answer)


@EACH
@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"webhook_url": URL, "webhook_events": ["finished"]}, EXPORT_EVENTS),
        ({"webhook_url": URL, "webhook_events": ["endpoint.failing"]}, EXPORT_EVENTS),
        ({"webhook_events": ["export.finished"]}, ["give webhook_url, too"]),
    ],
    ids=["unknown", "of-endpoints", "no-url"],
)
def test_events_that_cannot_be_told_are_refused(
    desk: Hooked, surface: Surface, fields: Fields, said: list[str]
) -> None:
    # When
    answer = surface.create(desk, fields, {})

    # Then
    assert answer.status_code == surface.status
    told = surface.said(answer)
    assert all(one in told for one in said)
    assert desk.http.get(ENDPOINTS).json() == {"endpoints": []}


def test_exports_with_one_url_share_its_endpoint_and_two_users_do_not(desk: Hooked) -> None:
    # When
    first, second = desk.create(webhook_url=URL), desk.create(webhook_url=URL)
    desk.http.post(
        "/v1/exports", json={**SEARCH, "webhook_url": URL}, headers={"X-API-Key": desk.bob}
    )

    # Then
    hooks = {desk.engine.store.get(one).spec.webhook for one in (first, second)}  # type: ignore[union-attr]
    assert len(hooks) == 1
    bobs = desk.http.get(ENDPOINTS, headers={"X-API-Key": desk.bob}).json()["endpoints"]
    assert [one["id"] for one in bobs] != [made_for(desk)["id"]]


def test_a_url_that_is_registered_keeps_its_secret(desk: Hooked) -> None:
    # Given
    made = desk.register()

    # When
    desk.create(webhook_url=URL)

    # Then
    assert made_for(desk)["id"] == made["id"]


@pytest.mark.parametrize("name", [name for name in SURFACES if name != "pipeline"])
def test_a_key_that_came_with_another_url_is_refused_and_with_the_same_replayed(
    desk: Hooked, name: str
) -> None:
    # Given: a GET, as the pipeline contract's, takes no such key
    surface = SURFACES[name]
    key = {"Idempotency-Key": '"once"'}
    surface.create(desk, {"webhook_url": URL}, key)

    # When
    same = surface.create(desk, {"webhook_url": URL}, key)
    other_url = surface.create(desk, {"webhook_url": f"{URL}/other"}, key)
    other_events = surface.create(
        desk, {"webhook_url": URL, "webhook_events": ["export.failed"]}, key
    )
    none = surface.create(desk, {}, key)

    # Then
    assert same.headers["Idempotency-Replayed"] == "true"
    assert [answer.status_code for answer in (other_url, other_events, none)] == [422, 422, 422]
    assert only_export(desk).spec.webhook is not None


def test_a_refused_creation_leaves_no_endpoint(desk: Hooked) -> None:
    # Given
    poor = desk.keys.create("ann", plan=Plan(None, features=frozenset({"search"})))

    # When
    wrong = desk.http.post("/v1/exports", json={**SEARCH, "format": "xlsx", "webhook_url": URL})
    unpaid = desk.http.post(
        "/v1/exports", json={**SEARCH, "webhook_url": URL}, headers={"X-API-Key": poor}
    )

    # Then
    assert (wrong.status_code, unpaid.status_code) == (422, 403)
    assert desk.http.get(ENDPOINTS).json() == {"endpoints": []}


def test_an_export_that_is_retried_is_told_of_like_the_first(desk: Hooked) -> None:
    # Given
    export_id = desk.create(webhook_url=URL, webhook_events=["export.failed"])
    desk.http.post(f"/v1/exports/{export_id}/cancel")

    # When
    answer = desk.http.post(f"/v1/exports/{export_id}/retry")

    # Then
    again = desk.engine.store.get(answer.json()["id"])
    assert again is not None
    assert again.state is State.QUEUED
    assert again.spec.webhook == Hook(made_for(desk)["id"], ("export.failed",))


def test_the_pipelines_own_answer_takes_no_webhook(desk: Hooked) -> None:
    # When
    answer = desk.http.get("/api/export", params={"webhook_url": URL})

    # Then
    assert answer.status_code == 400
    assert "Prefer: respond-async" in _flat(answer)


def test_neither_url_nor_secret_of_an_export_is_logged(desk: Hooked) -> None:
    # Given
    url = "https://hooks.example.com/hidden?token=hidden"

    # When
    with captured_logs() as lines:
        for surface in SURFACES.values():
            assert surface.create(desk, {"webhook_url": url}, {}).is_success

    # Then
    assert lines
    assert "hidden" not in str(lines)
    assert "whsec_" not in str(lines)
