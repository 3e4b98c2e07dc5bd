"""Jobs that are exported later: by preference and natively, with the same bytes."""

from __future__ import annotations

import json

import pytest

from exporter import wiring
from exporter.clock import FakeClock
from exporter.formats import registry as formats
from exporter.run.run_slice import Ending, run_slice
from exporter.storage.memory import MemoryStorage
from tests.integration.api_server import PUBLIC_URL
from tests.integration.pipeline.desk import FULL, HIDDEN, PATH, Make, Service, insert


def work(api: Service) -> Ending:
    """What a worker does, until the export has ended."""
    engine = api.engine
    claimed_at = engine.clock.monotonic()
    claim = engine.store.claim("worker-test-1", lease=engine.settings.lease_seconds)
    assert claim is not None
    spec = claim.export.spec
    return run_slice(
        claim,
        source=engine.reader(claim.export),
        encoder=formats.make(spec.format, spec.dialect, spec.column_names),
        storage=engine.storage,
        store=engine.store,
        clock=engine.clock,
        limits=wiring.limits(engine.settings),
        claimed_at=claimed_at,
    )


@pytest.mark.parametrize("wanted", ["json", "csv"])
def test_a_caller_that_prefers_it_gets_an_export_with_the_same_jobs(
    make: Make, wanted: str
) -> None:
    # Given
    api = make(page_size=7)
    api.fill(100)
    insert(api)
    insert(api, id="zz", status="saved")
    insert(api, id="zzz", user_id="bob")
    params = {"format": wanted, "status": ["saved", "interview"]}
    direct = api.http.get(PATH, params=params)

    # When
    answer = api.http.get(PATH, params=params, headers={"Prefer": "wait=10, Respond-Async; x=1"})

    # Then
    assert answer.status_code == 202
    assert answer.headers["Preference-Applied"] == "respond-async"
    assert answer.headers["X-RateLimit-Limit"] == "10000"
    export_id = answer.json()["id"]
    assert answer.headers["Location"] == f"{PUBLIC_URL}/v1/exports/{export_id}"
    assert (answer.json()["state"], answer.json()["surface"]) == ("queued", "pipeline")

    # When
    assert work(api) is Ending.FINISHED

    # Then: on every surface, and the file is the one that would have been sent
    task = api.http.get(f"/v2/tasks/{export_id}").json()
    native = api.http.get(f"/v1/exports/{export_id}").json()
    assert task["state"] == native["state"] == "finished"
    assert native["result"]["completeness"]["outcome"] == "complete"
    assert native["result"]["record_count"] == 102
    assert native["result"]["file_name"] == f"pipeline-jobs-2026-01-01.{wanted}"
    storage = api.engine.storage
    assert isinstance(storage, MemoryStorage)
    _, headers, body = storage.fetch(native["result"]["download_url"])
    assert headers["content-type"] == direct.headers["Content-Type"]
    if wanted == "csv":
        assert body == direct.content
    else:
        assert list(json.loads(body)) == ["exported_at", "jobs", "total"]
        assert json.loads(body) == direct.json()


def test_the_file_of_an_export_says_the_time_of_the_request_whoever_writes_it(
    api: Service,
) -> None:
    # Given
    insert(api)
    created = api.http.get(PATH, headers={"Prefer": "respond-async"}).json()

    # When
    clock = api.engine.clock
    assert isinstance(clock, FakeClock)
    clock.advance(3_600)
    assert work(api) is Ending.FINISHED

    # Then
    storage = api.engine.storage
    assert isinstance(storage, MemoryStorage)
    native = api.http.get(f"/v1/exports/{created['id']}").json()
    _, _, body = storage.fetch(native["result"]["download_url"])
    assert json.loads(body)["exported_at"] == "2026-01-01T00:00:00Z"


def test_a_native_export_of_the_table_is_of_the_callers_jobs_only(api: Service) -> None:
    # Given
    insert(api)
    insert(api, id="2", user_id="bob")

    # When
    created = api.http.post(
        "/v1/exports", json={"source": "pipeline", "query": {}, "format": "json"}
    )
    foreign = api.http.post(
        "/v1/exports",
        json={"source": "pipeline", "query": {"user_id": "bob"}, "format": "json"},
    )
    assert work(api) is Ending.FINISHED

    # Then
    assert (created.status_code, foreign.status_code) == (202, 422)
    native = api.http.get(f"/v1/exports/{created.json()['id']}").json()
    storage = api.engine.storage
    assert isinstance(storage, MemoryStorage)
    _, _, body = storage.fetch(native["result"]["download_url"])
    (job,) = [json.loads(line) for line in body.splitlines()]
    assert job["id"] == FULL["id"]
    assert not HIDDEN & set(job)


def test_another_user_cannot_poll_it(api: Service) -> None:
    # Given
    created = api.http.get(PATH, headers={"Prefer": "respond-async"}).json()
    bob = {"Authorization": f"Bearer {api.keys.create('bob')}"}

    # When
    answers = [
        api.http.get(f"{path}/{created['id']}", headers=bob)
        for path in ("/v1/exports", "/v2/tasks")
    ]

    # Then
    assert [answer.status_code for answer in answers] == [404, 404]


@pytest.mark.parametrize("prefer", ["", "respond-async"])
def test_a_head_reads_no_row_and_creates_no_export(api: Service, prefer: str) -> None:
    # Given
    api.fill(50)

    # When
    head, is_idle = api.http.head(PATH, headers={"Prefer": prefer}), api.idle()
    get = api.http.get(PATH)

    # Then
    assert head.status_code == 200
    assert "content-length" not in head.headers
    assert head.headers["content-type"] == get.headers["content-type"]
    assert head.headers["content-disposition"] == get.headers["content-disposition"]
    assert is_idle
    assert not api.engine.store.list("ann", limit=1).exports
