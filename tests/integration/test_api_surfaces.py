"""Both surfaces over the wire: create, poll, list, cancel."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import hirebase
import httpx
import pytest

from exporter.core.exports import Phase, State
from tests.integration.api_server import (
    CREATED,
    LEASE,
    POLLED,
    PUBLIC_URL,
    Service,
    captured_logs,
)

# The vendor's documented order.
# fmt: off
TASK_FIELDS = [
    "id", "type", "state", "progress", "created_at", "updated_at", "started_at", "completed_at",
    "user_id", "error", "worker_id", "priority", "input", "result", "format",
]
# fmt: on
SURFACES = ("hirebase", "native")


def create(api: Service, surface: str, **changes: Any) -> httpx.Response:
    path, body = CREATED[surface]
    return api.http.post(path, json={**body, **changes})


def test_a_created_task_has_every_documented_field_in_the_documented_order(api: Service) -> None:
    # Given
    search = {"job_titles": ["Welder"], "yoe": {"min": 1, "max": 6}, "visa": "true", "limit": 10}

    # When
    answer = api.http.post("/v2/jobs/export", json={"search": search, "format": "json"})

    # Then
    task = answer.json()
    assert answer.status_code == 202
    assert list(task) == TASK_FIELDS
    assert task["type"] == "export_job_data"
    assert (task["state"], task["progress"], task["priority"]) == ("queued", 0.0, 0)
    assert isinstance(task["progress"], float)
    assert (task["user_id"], task["format"]) == ("ann", "json")
    assert task["input"]["format"] == "json"
    query = task["input"]["query"]
    assert list(query)[:3] == ["job_titles", "keywords", "location_group"]
    assert len(query) == 31
    assert {name: query[name] for name in search} == search
    assert query["keywords"] is None
    for empty in ("started_at", "completed_at", "error", "worker_id", "result"):
        assert task[empty] is None


def test_times_are_naive_with_six_digits_for_the_vendors_clients_and_zoned_for_ours(
    api: Service,
) -> None:
    # Given
    export_id = create(api, "hirebase").json()["id"]

    # When
    task = api.http.get(f"/v2/tasks/{export_id}").json()
    export = api.http.get(f"/v1/exports/{export_id}").json()

    # Then
    assert task["created_at"] == "2026-01-01T00:00:00.000000"
    assert export["created_at"] == "2026-01-01T00:00:00.000000Z"


@pytest.mark.parametrize("surface", SURFACES)
def test_create_says_where_to_poll_and_when(api: Service, surface: str) -> None:
    # When
    answer = create(api, surface)

    # Then
    assert answer.status_code == 202
    location = answer.headers["Location"]
    assert location == f"{PUBLIC_URL}{POLLED[surface]}/{answer.json()['id']}"
    assert int(answer.headers["Retry-After"]) >= 1
    polled = api.http.get(urlsplit(location).path)
    assert polled.status_code == 200
    assert polled.json() | {"queue_position": None} == answer.json() | {"queue_position": None}


def test_every_option_of_a_request_reaches_the_record(api: Service) -> None:
    # Given
    options = {"priority": 7, "columns": ["_id", "job_title"], "csv_safe": True}

    # When
    from_hirebase = create(api, "hirebase", **options).json()["id"]
    from_native = create(api, "native", **options, limit=12).json()["id"]

    # Then
    for export_id, limit, surface in (
        (from_hirebase, None, "hirebase"),
        (from_native, 12, "native"),
    ):
        export = api.http.get(f"/v1/exports/{export_id}").json()
        assert {name: export[name] for name in options} == options
        assert (export["limit"], export["surface"], export["source"]) == (limit, surface, "board")
        assert api.http.get(f"/v2/tasks/{export_id}").json()["priority"] == 7


@pytest.mark.parametrize("surface", SURFACES)
def test_files_for_machines_are_not_guarded_unless_asked(api: Service, surface: str) -> None:
    # When
    export_id = create(api, surface).json()["id"]

    # Then
    assert api.http.get(f"/v1/exports/{export_id}").json()["csv_safe"] is False


def test_an_export_is_polled_on_either_surface_by_its_owner_and_by_nobody_else(
    api: Service,
) -> None:
    # Given
    made = [create(api, surface).json()["id"] for surface in SURFACES]

    for export_id in made:
        for path in POLLED.values():
            # When
            by_owner = api.http.get(f"{path}/{export_id}")
            by_other = api.http.get(f"{path}/{export_id}", headers={"X-API-Key": api.bob})
            of_nobody = api.http.get(f"{path}/no-such-id", headers={"X-API-Key": api.bob})

            # Then
            assert by_owner.json()["id"] == export_id
            assert by_other.status_code == of_nobody.status_code == 404
            other, nobody = by_other.json(), of_nobody.json()
            assert other["detail"].replace(export_id, "no-such-id") == nobody["detail"]


def test_another_users_export_is_neither_listed_nor_canceled(api: Service) -> None:
    # Given
    export_id = create(api, "native").json()["id"]
    as_bob = {"X-API-Key": api.bob}

    # When
    canceled = [
        api.http.post(f"{path}/{export_id}/cancel", headers=as_bob).status_code
        for path in POLLED.values()
    ]
    listed = api.http.get("/v2/tasks", headers=as_bob).json()

    # Then
    assert canceled == [404, 404]
    assert listed == {"tasks": [], "next_cursor": None}
    assert api.http.get(f"/v2/tasks/{export_id}").json()["state"] == "queued"


def test_a_finished_export_has_a_link_that_downloads_the_file_with_a_bare_get(
    api: Service,
) -> None:
    # Given
    export_id = create(api, "hirebase").json()["id"]
    api.finish(export_id, b"_id\r\n1\r\n")

    # When
    polled = api.http.get(f"/v2/tasks/{export_id}")

    # Then
    task = polled.json()
    assert "Retry-After" not in polled.headers
    assert (task["state"], task["progress"]) == ("finished", 1.0)
    result = task["result"]
    assert list(result)[:4] == ["download_url", "file_size", "record_count", "expiry_time"]
    assert (result["file_size"], result["record_count"]) == (8, 1)
    assert result["expiry_time"] == "2026-01-02T00:00:00.000000"
    assert result["completeness"]["outcome"] == "complete"
    assert (result["guarded_cells"], result["unmapped_fields"]) == (2, {"extra": 1})
    status, _, body = api.storage.fetch(result["download_url"])
    assert (status, body) == (200, b"_id\r\n1\r\n")
    native = api.http.get(f"/v1/exports/{export_id}").json()
    assert native["record_count"] == 1
    assert native["result"]["expiry_time"] == "2026-01-02T00:00:00.000000Z"


def test_each_poll_signs_the_link_anew_so_that_no_poll_gives_a_dead_one(api: Service) -> None:
    # Given
    export_id = create(api, "hirebase").json()["id"]
    api.finish(export_id)
    first = api.http.get(f"/v2/tasks/{export_id}").json()["result"]

    # When
    api.clock.advance(timedelta(hours=25).total_seconds())

    # Then
    assert api.storage.fetch(first["download_url"])[0] == 403
    second = api.http.get(f"/v2/tasks/{export_id}").json()["result"]
    assert api.storage.fetch(second["download_url"])[0] == 200


@pytest.mark.parametrize("surface", SURFACES)
def test_after_its_retention_a_file_is_described_without_a_link(api: Service, surface: str) -> None:
    # Given
    export_id = create(api, surface).json()["id"]
    api.finish(export_id)

    # When
    api.clock.advance(timedelta(days=8).total_seconds())
    result = api.http.get(f"{POLLED[surface]}/{export_id}").json()["result"]

    # Then
    assert result["download_url"] is None
    assert (result["file_size"], result["record_count"]) == (8, 1)
    assert (
        datetime.fromisoformat(result["expiry_time"]).date()
        == datetime(2026, 1, 8, tzinfo=UTC).date()
    )


def test_a_failed_export_says_why_and_a_waiting_one_is_no_failure(api: Service) -> None:
    # Given
    store = api.engine.store
    export_id = create(api, "hirebase").json()["id"]
    claim = store.claim("worker-test-1", lease=LEASE)
    assert claim is not None
    store.release(
        export_id, claim.fence, clean=True, retry_in=timedelta(seconds=12), reason="429 upstream"
    )

    # When
    waiting = api.http.get(f"/v2/tasks/{export_id}")
    native = api.http.get(f"/v1/exports/{export_id}").json()
    api.clock.advance(13)
    store.sweep()
    claim = store.claim("worker-test-1", lease=LEASE)
    assert claim is not None
    store.end(export_id, claim.fence, State.FAILED, error="gone", keep_record=timedelta(days=1))
    failed = api.http.get(f"/v2/tasks/{export_id}").json()

    # Then
    assert waiting.json()["error"] is None
    assert waiting.json()["state"] == "processing"
    assert int(waiting.headers["Retry-After"]) == 13
    assert native["phase"] == Phase.WAITING
    assert (native["waiting_for"], native["error"]) == ("429 upstream", None)
    assert native["retry_at"] == "2026-01-01T00:00:12.000000Z"
    assert native["retry_in_seconds"] == 12
    added = {name: waiting.json()[name] for name in ("waiting_for", "retry_at", "retry_in_seconds")}
    assert list(added.values()) == ["429 upstream", "2026-01-01T00:00:12.000000", 12]
    assert not added.keys() & failed.keys()
    assert (failed["state"], failed["error"], failed["result"]) == ("failed", "gone", None)


@pytest.mark.parametrize("surface", SURFACES)
def test_canceling_ends_a_queued_export_and_asks_a_running_one(api: Service, surface: str) -> None:
    # Given
    path = POLLED[surface]
    running = create(api, surface).json()["id"]
    claim = api.engine.store.claim("worker-test-1", lease=LEASE)
    assert claim is not None
    queued = create(api, surface).json()["id"]

    # When
    asked = api.http.post(f"{path}/{running}/cancel")
    ended = api.http.post(f"{path}/{queued}/cancel")
    again = api.http.post(f"{path}/{queued}/cancel")

    # Then
    assert (asked.status_code, asked.json()["state"]) == (202, "processing")
    assert (ended.status_code, ended.json()["state"]) == (200, "canceled")
    assert "Retry-After" in asked.headers
    assert "Retry-After" not in ended.headers
    assert (again.status_code, again.json()) == (200, ended.json())
    assert api.http.get(f"/v1/exports/{running}").json()["cancel_requested"] is True


@pytest.mark.parametrize(
    ("surface", "entries"), [("hirebase", "tasks"), ("native", "exports")], ids=SURFACES
)
def test_a_list_walked_by_its_links_shows_each_export_once_newest_first(
    api: Service, surface: str, entries: str
) -> None:
    # Given
    made = []
    for _ in range(7):
        made.append(create(api, surface).json()["id"])
        api.clock.advance(1)

    # When
    seen: list[str] = []
    pages = 0
    target: str | None = f"{POLLED[surface]}?limit=3"
    while target:
        page = api.http.get(target)
        pages += 1
        seen += [entry["id"] for entry in page.json()[entries]]
        link = page.links.get("next")
        assert (link is None) == (page.json()["next_cursor"] is None)
        target = link["url"].removeprefix(PUBLIC_URL) if link else None

    # Then
    assert seen == made[::-1]
    assert pages == 3


def test_a_list_gives_twenty_and_never_more_than_a_hundred(api: Service) -> None:
    # Given
    for _ in range(101):
        create(api, "native")

    # When
    default = api.http.get("/v2/tasks").json()["tasks"]
    greedy = api.http.get("/v2/tasks?limit=100000").json()["tasks"]

    # Then
    assert (len(default), len(greedy)) == (20, 100)


def test_creating_and_canceling_are_logged_without_keys_or_links(api: Service) -> None:
    # When
    with captured_logs() as lines:
        export_id = create(api, "native").json()["id"]
        api.http.post(f"/v2/tasks/{export_id}/cancel")

    # Then
    events = {line["event"]: line for line in lines}
    assert set(events) == {"export.created", "export.cancel_requested"}
    assert all(line["export_id"] == export_id for line in events.values())
    assert all(line["request_id"] for line in events.values())
    assert api.ann not in str(lines)


def test_the_official_clients_models_take_every_state_of_a_task(api: Service) -> None:
    # Given
    states: list[str] = []
    queued = create(api, "hirebase").json()["id"]

    def parse() -> hirebase.Task:
        task = hirebase.Task.model_validate(api.http.get(f"/v2/tasks/{queued}").json())
        states.append(task.state.value)
        return task

    # When
    parse()
    api.finish(queued)
    finished = parse()
    api.clock.advance(timedelta(days=8).total_seconds())
    expired = parse()

    # Then
    assert states == ["queued", "finished", "finished"]
    assert finished.download_url is not None
    assert expired.download_url is None


def test_a_byte_order_mark_is_for_csv_files_of_our_own_contract(api: Service) -> None:
    # Given
    (path, body), (foreign, task) = CREATED["native"], CREATED["hirebase"]

    # When
    csv = api.http.post(path, json={**body, "format": "csv", "bom": True})
    json = api.http.post(path, json={**body, "format": "json", "bom": True})
    other = api.http.post(foreign, json={**task, "bom": True})
    again = api.http.post(f"{path}/{csv.json()['id']}/cancel")
    retried = api.http.post(f"{path}/{csv.json()['id']}/retry")

    # Then
    assert csv.json()["bom"] is True
    assert json.status_code == 422
    assert json.json()["errors"][0]["pointer"] == "/bom"
    assert other.status_code == 422
    assert again.status_code == 200
    assert retried.json()["bom"] is True
