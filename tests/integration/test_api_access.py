"""Who may call, and what callers learn while Redis or S3 is away."""

from __future__ import annotations

import time
from collections.abc import Iterator

import httpx
import pytest

from exporter.api.app import create_app
from exporter.clock import FakeClock
from exporter.config import Config, Surfaces
from exporter.errors import StorageUnavailable
from exporter.local import ports
from exporter.service.exports import ExportService
from exporter.settings import Settings
from exporter.sources.hirebase import HirebaseConfig
from exporter.storage.memory import MemoryStorage
from exporter.store.memory.store import MemoryStore
from exporter.store.redis.api_keys import KeyRing
from exporter.store.redis.store import RedisStore
from tests.integration.api_server import (
    CREATED,
    POLLED,
    Server,
    Service,
    captured_logs,
    make_engine,
)

SURFACES = ("hirebase", "native")
CALLS = [
    ("POST", "/v2/jobs/export"),
    ("GET", "/v2/tasks"),
    ("GET", "/v2/tasks/some-id"),
    ("POST", "/v2/tasks/some-id/cancel"),
    ("POST", "/v1/exports"),
    ("GET", "/v1/exports"),
    ("GET", "/v1/exports/some-id"),
    ("POST", "/v1/exports/some-id/cancel"),
    ("POST", "/v1/exports/some-id/retry"),
    ("DELETE", "/v1/exports/some-id"),
    ("DELETE", "/v2/tasks/some-id"),
]


@pytest.fixture
def keyless(api: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=api.http.base_url) as client:
        yield client


@pytest.mark.parametrize(
    "header",
    [
        ("Authorization", "Bearer {key}"),
        ("authorization", "bearer  {key}"),
        ("Authorization", "ApiKey {key}"),
        ("Authorization", "APIKEY {key}"),
        ("X-API-Key", "{key}"),
        ("x-api-key", "{key}"),
    ],
    ids=lambda header: header[0] + " " + header[1].split("{")[0].strip(),
)
def test_a_key_is_taken_in_each_way_that_clients_send_one(
    api: Service, keyless: httpx.Client, header: tuple[str, str]
) -> None:
    # Given
    name, value = header

    # When
    answer = keyless.get("/v2/tasks", headers={name: value.format(key=api.ann)})

    # Then
    assert answer.status_code == 200


@pytest.mark.parametrize(("method", "path"), CALLS)
@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"X-API-Key": "exp_wrong"},
        {"X-API-Key": ""},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic YTpi"},
        {"Authorization": "Bearer cl\u00e9"},
    ],
    ids=["none", "wrong", "empty", "cut", "basic", "not-ascii"],
)
def test_no_call_works_without_a_right_key(
    keyless: httpx.Client, method: str, path: str, headers: dict[str, str]
) -> None:
    # When
    answer = keyless.request(method, path, headers=httpx.Headers(headers, encoding="utf-8"))

    # Then
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"].startswith("Bearer ")
    native = path.startswith("/v1")
    assert answer.headers["Content-Type"].startswith("application/problem+json") == native
    assert "exp_wrong" not in answer.text


def test_a_revoked_key_stops_working_at_once(api: Service) -> None:
    # Given
    assert api.http.get("/v2/tasks").status_code == 200
    (ann,) = (key for key in api.keys.list() if key.user_id == "ann")

    # When
    api.keys.revoke(ann.id)

    # Then
    assert api.http.get("/v2/tasks").status_code == 401


@pytest.mark.parametrize("path", POLLED.values())
def test_two_keys_that_differ_are_a_conflict_even_if_both_are_right(
    api: Service, keyless: httpx.Client, path: str
) -> None:
    # When
    conflict = keyless.get(
        path, headers={"Authorization": f"Bearer {api.ann}", "X-API-Key": api.bob}
    )
    agreement = keyless.get(
        path, headers={"Authorization": f"Bearer {api.ann}", "X-API-Key": api.ann}
    )
    behind_a_proxy = keyless.get(
        path, headers={"Authorization": "Basic YTpi", "X-API-Key": api.ann}
    )

    # Then
    assert conflict.status_code == 401
    assert "Authorization and X-API-Key" in conflict.json()["detail"]
    assert api.ann not in conflict.text
    assert (agreement.status_code, behind_a_proxy.status_code) == (200, 200)


@pytest.mark.parametrize(("method", "path"), CALLS)
def test_reading_needs_the_scope_read_and_the_rest_needs_write(
    api: Service, keyless: httpx.Client, method: str, path: str
) -> None:
    # Given
    needed, other = ("read", "write") if method == "GET" else ("write", "read")
    right, wrong = (api.keys.create("ann", [scope]) for scope in (needed, other))

    # When
    refused = keyless.request(method, path, headers={"X-API-Key": wrong})
    passed = keyless.request(method, path, headers={"X-API-Key": right})

    # Then
    assert refused.status_code == 403
    assert repr(needed) in refused.json()["detail"]
    assert f'scope="{needed}"' in refused.headers["WWW-Authenticate"]
    assert passed.status_code not in (401, 403)


def test_on_every_operation_the_key_is_checked_before_the_request(
    api: Service, keyless: httpx.Client
) -> None:
    # Given: all operations that need a key, and a request with which everything is wrong
    wrong = {"limit": "x", "wait": "x", "page": "x", "redirect": "x", "cursor": "!" * 2_000}
    paths = keyless.get("/openapi.json").json()["paths"]
    operations = [
        (method.upper(), path.replace("{", "").replace("}", ""))
        for path, methods in paths.items()
        for method, operation in methods.items()
        if "401" in operation["responses"]
    ]
    assert len(operations) > 30

    # When
    answers = {
        operation: keyless.request(
            *operation, params=wrong, content=None if operation[0] == "GET" else b"{"
        ).status_code
        for operation in operations
    }

    # Then
    assert set(answers.values()) == {401}, answers
    refused = api.http.get("/v2/jobs/expired-jobs", params={"limit": "x"})
    assert refused.status_code == 422


@pytest.mark.parametrize("away", ["keys", "store"])
@pytest.mark.parametrize("surface", SURFACES)
def test_while_redis_is_away_callers_are_asked_to_come_back(
    api: Service, server: Server, surface: str, away: str
) -> None:
    # Given
    nowhere = RedisStore.connect(f"redis://127.0.0.1:{ports.find_free(1)[0]}/0")
    if away == "keys":
        server.app = create_app(api.engine, KeyRing(nowhere.client))
    else:
        engine = make_engine(api.clock, nowhere, api.storage)
        server.app = create_app(engine, api.keys)
    path, body = CREATED[surface]

    for method, target, sent in (
        ("POST", path, body),
        ("GET", f"{POLLED[surface]}/some-id", None),
        ("GET", POLLED[surface], None),
    ):
        # When
        started = time.monotonic()
        answer = api.http.request(method, target, json=sent)
        took = time.monotonic() - started

        # Then
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) >= 1
        assert "127.0.0.1" not in answer.text
        assert ("code" in answer.json()) == (surface == "native")
        assert took < 5


def test_the_service_is_well_when_redis_and_s3_answer(keyless: httpx.Client) -> None:
    # When
    health, live = keyless.get("/health"), keyless.get("/health/live")

    # Then
    assert (health.status_code, live.status_code) == (200, 200)
    assert health.json() == {"status": "ok", "redis": "ok", "s3": "ok"}


def test_health_names_the_dependency_that_is_away_and_the_process_still_lives(
    api: Service, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    def away(key: str) -> None:
        raise StorageUnavailable("http://10.0.0.9:8333 does not answer")

    monkeypatch.setattr(api.storage, "head", away)
    nowhere = RedisStore.connect(f"redis://127.0.0.1:{ports.find_free(1)[0]}/0")
    server.app = create_app(make_engine(api.clock, nowhere, api.storage), api.keys)

    # When
    with captured_logs() as lines:
        health, live = api.http.get("/health"), api.http.get("/health/live")

    # Then
    assert health.status_code == 503
    assert health.json()["status"] == "unavailable"
    assert health.json()["s3"] == "unavailable"
    assert health.json()["redis"] != "ok"
    assert "10.0.0.9" not in health.text
    assert "10.0.0.9" in str(lines)
    assert live.status_code == 200


def test_health_answers_in_time_although_s3_hangs(
    api: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    monkeypatch.setattr(api.storage, "head", lambda key: time.sleep(4))

    # When
    started = time.monotonic()
    answer = api.http.get("/health")
    took = time.monotonic() - started

    # Then
    assert answer.status_code == 503
    assert "no answer" in answer.json()["s3"]
    assert answer.json()["redis"] == "ok"
    assert took < 3.5


def test_a_surface_without_a_source_fails_as_our_fault_not_the_callers(
    api: Service, server: Server
) -> None:
    # Given
    clock = FakeClock()
    board = HirebaseConfig(base_url="http://127.0.0.1:9")
    engine = ExportService(
        settings=Settings(),
        config=Config(sources={"board": board}, surfaces=Surfaces(hirebase="moon")),
        store=MemoryStore(clock),
        storage=MemoryStorage(clock),
        clock=clock,
    )
    server.app = create_app(engine, api.keys)
    path, body = CREATED["hirebase"]

    # When
    with captured_logs() as lines:
        answer = api.http.post(path, json=body)

    # Then
    assert answer.status_code == 500
    assert "[surfaces] hirebase = 'moon'" in lines[-1]["traceback"]
