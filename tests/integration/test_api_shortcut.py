"""Over the wire: the endpoints called most, as a service on one Redis serves them, by no thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, NamedTuple

import anyio
import httpx
import pytest
import uvicorn

from exporter.api import shortcut
from exporter.api.app import create_app
from exporter.api.surfaces.native import views
from exporter.clock import SystemClock
from exporter.config import Config
from exporter.core.checkpoints import RowCounts
from exporter.core.exports import Completeness, EndReason, Outcome, Result, State
from exporter.core.plans import Plan
from exporter.core.rates import Rate
from exporter.local import ports
from exporter.local.redis import RedisServer
from exporter.service.exports import ExportService
from exporter.settings import Settings
from exporter.sources.hirebase import HirebaseConfig
from exporter.storage.memory import MemoryStorage
from exporter.store.redis.api_keys import KeyRing
from exporter.store.redis.async_connection import AsyncConnection
from exporter.store.redis.store import RedisStore
from tests.integration.api_server import CREATED, LEASE, POLLED, PUBLIC_URL, captured_logs

DATABASE = 10
SURFACES = ("hirebase", "native")


class Quick(NamedTuple):
    """A service whose keys and records are in one Redis."""

    http: httpx.Client
    engine: ExportService
    keys: KeyRing
    bob: str


def engine_over(store: RedisStore, **settings: Any) -> ExportService:
    clock = SystemClock()
    board = HirebaseConfig(base_url="http://127.0.0.1:9", api_key="unused")
    return ExportService(
        settings=Settings(public_url=PUBLIC_URL, **settings),
        config=Config(sources={"board": board}),
        store=store,
        storage=MemoryStorage(clock),
        clock=clock,
    )


def serving(engine: ExportService, keys: KeyRing) -> Iterator[str]:
    """The URL of a server that starts and ends as `exporter api` does."""
    port = ports.find_free(1)[0]
    app = create_app(engine, keys)
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=port, log_level="critical", ws="none")
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()


@pytest.fixture(scope="module")
def engine(redis_server: RedisServer) -> Iterator[ExportService]:
    store = RedisStore.connect(redis_server.url.replace("/0", f"/{DATABASE}"), patient=False)
    store.client.flushdb()
    yield engine_over(store, hirebase_rate=Rate(1000, 60))
    store.client.close()


@pytest.fixture(scope="module")
def url(engine: ExportService) -> Iterator[str]:
    assert isinstance(engine.store, RedisStore)
    yield from serving(engine, KeyRing(engine.store.client))


@pytest.fixture
def api(engine: ExportService, url: str) -> Iterator[Quick]:
    assert isinstance(engine.store, RedisStore)
    engine.store.client.flushdb()
    keys = KeyRing(engine.store.client)
    with httpx.Client(base_url=url, headers={"X-API-Key": keys.create("ann")}) as http:
        yield Quick(http, engine, keys, keys.create("bob"))


def create(api: Quick, surface: str, **headers: str) -> httpx.Response:
    path, body = CREATED[surface]
    return api.http.post(path, json=body, headers=headers)


def finish(api: Quick) -> None:
    """Do a worker's part of the one export that waits for it."""
    claim = api.engine.store.claim("worker-test-1", lease=LEASE)
    assert claim is not None
    whole = Completeness(Outcome.COMPLETE, EndReason.TOTAL_REACHED, 1, 1, 0, 0, 1, 1)
    hour = timedelta(hours=1)
    assert api.engine.store.end(
        claim.export.id,
        claim.fence,
        State.FINISHED,
        result=Result("k.csv", 9, 1, whole, RowCounts(), 1),
        keep_file=hour,
        keep_record=hour,
    )


@pytest.fixture
def threads(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What was given to threads."""
    given: list[object] = []
    real = anyio.to_thread.run_sync

    async def run_sync(work: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        given.append(work)
        return await real(work, *arguments, **options)

    monkeypatch.setattr(anyio.to_thread, "run_sync", run_sync)
    return given


@pytest.mark.parametrize("surface", SURFACES)
def test_creating_and_polling_take_no_thread(
    api: Quick, surface: str, threads: list[object]
) -> None:
    # When
    created = create(api, surface)
    queued = api.http.get(f"{POLLED[surface]}/{created.json()['id']}")
    finish(api)
    finished = api.http.get(f"{POLLED[surface]}/{created.json()['id']}")

    # Then
    assert (created.status_code, queued.status_code, finished.status_code) == (202, 200, 200)
    assert created.json()["id"] == queued.json()["id"]
    assert queued.json()["state"] == "queued"
    assert queued.headers["Retry-After"] == "2"
    assert created.headers["Location"].endswith(f"{POLLED[surface]}/{created.json()['id']}")
    assert finished.json()["result"]["download_url"]
    assert threads == []


@pytest.mark.parametrize("surface", SURFACES)
def test_a_request_with_a_query_string_is_answered_alike(api: Quick, surface: str) -> None:
    # Given
    place = f"{POLLED[surface]}/{create(api, surface).json()['id']}"

    # When
    own = {"native": {"wait": "0"}, "hirebase": {"a": "b"}}[surface]
    short, long = api.http.get(place), api.http.get(place, params=own)

    # Then
    ours = {"x-request-id", "date", "x-ignored-parameters"}
    assert short.json() == long.json()
    assert {k: v for k, v in short.headers.items() if k not in ours} == {
        k: v for k, v in long.headers.items() if k not in ours
    }


REQUESTS: list[tuple[str, str, dict[str, Any]]] = [
    ("GET", "/v1/exports/none", {}),
    ("GET", "/v2/tasks/none", {}),
    ("GET", "/v1/exports/none", {"headers": {"X-API-Key": "exp_wrong"}}),
    ("GET", "/v2/tasks/none", {"headers": {"Authorization": "Bearer other"}}),
    ("HEAD", "/v1/exports/none", {}),
    ("PUT", "/v2/tasks/none", {}),
    ("GET", "/v1/exports/", {}),
    ("GET", "/v1/exports/a/b", {}),
    ("GET", "/v1/exports/a%2Fb", {}),
    ("GET", "/v2/tasks/%F0%9F%A6%8A%00%0A", {}),
    ("POST", "/v1/exports", {"content": b"{"}),
    ("POST", "/v1/exports", {"content": b"[]"}),
    ("POST", "/v1/exports", {"json": {}}),
    ("POST", "/v1/exports", {"content": b"{}", "headers": {"Content-Type": "text/csv"}}),
    ("POST", "/v1/exports", {"content": b" " * 1_100_000}),
    ("POST", "/v1/exports", {"json": {"source": "moon", "query": {}, "format": "csv"}}),
    ("POST", "/v1/exports", {"json": CREATED["native"][1], "headers": {"Idempotency-Key": "a b"}}),
    ("POST", "/v2/jobs/export", {"json": {"search": {"nope": 1}, "format": "xml"}}),
    ("POST", "/v2/jobs/export", {"json": {"search": {}, "format": "csv", "priority": 17}}),
    ("POST", "/v2/jobs/export/", {"json": {}}),
]


@pytest.mark.parametrize(("method", "path", "options"), REQUESTS)
def test_what_is_refused_is_refused_as_the_framework_refuses_it(
    api: Quick, method: str, path: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    create(api, "native")  # the service has read the caller's key before
    fixed = {"X-Request-Id": "r-1", **options.get("headers", {})}

    def ask() -> httpx.Response:
        return api.http.request(method, path, **{**options, "headers": fixed})

    # When
    short = ask()
    monkeypatch.setattr(shortcut.Shortcut, "endpoint", lambda self, scope: None)
    long = ask()

    # Then
    assert short.status_code >= 400
    assert (short.status_code, short.content) == (long.status_code, long.content)
    counted = ("date", "x-ratelimit-remaining")
    assert [(k, v) for k, v in sorted(short.headers.items()) if k not in counted] == [
        (k, v) for k, v in sorted(long.headers.items()) if k not in counted
    ]


@pytest.mark.parametrize("surface", SURFACES)
def test_nobody_sees_anothers_export_and_a_revoked_key_sees_nothing(
    api: Quick, surface: str
) -> None:
    # Given
    place = f"{POLLED[surface]}/{create(api, surface).json()['id']}"
    mine = api.http.get(place).status_code

    # When
    theirs = api.http.get(place, headers={"X-API-Key": api.bob}).status_code
    for key in api.keys.list():
        api.keys.revoke(key.id)
    revoked = [api.http.get(place).status_code, create(api, surface).status_code]

    # Then
    assert (mine, theirs, revoked) == (200, 404, [401, 401])


@pytest.fixture
def trips(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """What was sent to Redis by the event loop, in the order of the round trips."""
    sent: list[object] = []
    real = AsyncConnection.execute

    async def execute(self: AsyncConnection, *commands: Any) -> list[Any]:
        sent.append(commands)
        return await real(self, *commands)

    monkeypatch.setattr(AsyncConnection, "execute", execute)
    return sent


@pytest.mark.parametrize("surface", SURFACES)
def test_a_creation_takes_one_round_trip_once_the_key_is_known(
    api: Quick, surface: str, trips: list[object]
) -> None:
    # Given
    create(api, surface)
    trips.clear()

    # When
    created = create(api, surface)

    # Then
    assert created.status_code == 202
    assert len(trips) == 1


@pytest.mark.parametrize("surface", SURFACES)
def test_a_creation_obeys_the_key_as_it_is_now_not_as_it_was_read_last(
    api: Quick, surface: str
) -> None:
    # Given
    created = create(api, surface)
    (key,) = (one for one in api.keys.list() if one.user_id == "ann")

    # When
    api.keys.set(key.id, features=["search"])
    narrowed = create(api, surface)
    api.keys.set(key.id, features=None, limits={"create_rate": Rate(1, 60)})
    limited = [create(api, surface).status_code for _ in range(2)]
    api.keys.set(key.id, limits={"create_rate": None})
    assert isinstance(api.engine.store, RedisStore)
    api.engine.store.client.hset(f"{{exporter}}:account:{key.id}", "left", "0")
    metered = create(api, surface)
    api.keys.revoke(key.id)
    revoked = create(api, surface)

    # Then
    assert (created.status_code, narrowed.status_code, limited) == (202, 403, [429, 429])
    # Only a metered export without a limit asks the source for its number of rows: nobody answers.
    assert metered.status_code == 503
    assert revoked.status_code == 401
    assert api.engine.store.counters()["exports_created"] == 1


@pytest.mark.parametrize("surface", SURFACES)
def test_wrong_requests_are_counted_like_others_and_refused_for_their_number_first(
    api: Quick, surface: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    few = api.engine.settings.model_copy(update={"create_rate": Rate(2, 60)})
    monkeypatch.setattr(api.engine, "settings", few)
    path, _ = CREATED[surface]

    # When
    answers = [create(api, surface), *(api.http.post(path, json={}) for _ in range(2))]

    # Then
    assert [answer.status_code for answer in answers] == [202, 422, 429]


@pytest.mark.parametrize("surface", SURFACES)
def test_the_same_request_with_the_same_key_is_one_export(api: Quick, surface: str) -> None:
    # When
    with captured_logs() as lines:
        first = create(api, surface, **{"Idempotency-Key": "k", "X-Request-Id": "r-1"})
        again = create(api, surface, **{"Idempotency-Key": "k"})

    # Then
    assert first.json() == again.json()
    assert again.headers["Idempotency-Replayed"] == "true"
    assert [line["event"] for line in lines] == ["export.created", "export.replayed"]
    assert lines[0]["request_id"] == first.headers["X-Request-Id"] == "r-1"
    assert lines[1]["request_id"] == again.headers["X-Request-Id"]
    assert len(again.headers["X-Request-Id"]) == 32


def test_requests_of_the_contract_are_counted_and_polls_are_not(
    api: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    few = api.engine.settings.model_copy(update={"hirebase_rate": Rate(2, 60)})
    monkeypatch.setattr(api.engine, "settings", few)

    # When
    created = [create(api, "hirebase") for _ in range(3)]
    polled = api.http.get(f"/v2/tasks/{created[0].json()['id']}")

    # Then
    assert [answer.status_code for answer in created] == [202, 202, 429]
    assert [answer.headers["X-RateLimit-Remaining"] for answer in created] == ["1", "0", "0"]
    assert int(created[2].headers["Retry-After"]) >= 1
    assert polled.status_code == 200
    assert "X-RateLimit-Limit" not in polled.headers


@pytest.mark.parametrize("surface", SURFACES)
@pytest.mark.parametrize(
    "changes",
    [
        {"webhook_url": "https://example.invalid/hook"},
        {"job_titles": ["x" * 900] * 20},
        {"industry": ["Software"]},
    ],
)
def test_what_may_wait_or_compute_for_long_is_done_by_a_thread(
    api: Quick, surface: str, changes: dict[str, Any], threads: list[object]
) -> None:
    # Given
    path, body = CREATED[surface]
    field = "query" if surface == "native" else "search"
    asked = {**body, **changes}
    if "webhook_url" not in changes:
        asked = {**body, field: {**body[field], **changes}}  # type: ignore[dict-item]

    # When
    answer = api.http.post(path, json=asked)

    # Then
    assert answer.status_code == 202
    assert threads


def test_a_metered_caller_pays_and_is_told_what_is_left(api: Quick) -> None:
    # Given
    path, body = CREATED["hirebase"]
    key = {"X-API-Key": api.keys.create("cleo", plan=Plan(None), balance=10)}
    asked = {**body, "search": {"limit": 4}}

    # When
    answers = [api.http.post(path, json=asked, headers=key) for _ in range(3)]

    # Then
    assert [answer.status_code for answer in answers] == [202, 202, 429]
    left = [answer.headers["Hirebase-Usage-Included-Remaining"] for answer in answers]
    assert left == ["6", "2", "2"]
    assert answers[2].headers["X-Billing-Code"] == "limit_exceeded"


def test_a_failure_of_ours_is_a_500_and_its_log_names_the_request(
    api: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("nobody expected this")

    export_id = create(api, "native").json()["id"]
    monkeypatch.setattr(views, "view", fail)

    # When
    with captured_logs() as lines:
        answer = api.http.get(f"/v1/exports/{export_id}")

    # Then
    assert answer.status_code == 500
    assert answer.json()["code"] == "internal"
    assert answer.json()["request_id"] == lines[-1]["request_id"]
    assert "nobody expected this" in lines[-1]["traceback"]
    assert "nobody" not in answer.text


@pytest.mark.parametrize("surface", SURFACES)
def test_while_redis_is_away_callers_are_asked_to_come_back(surface: str) -> None:
    # Given
    nowhere = RedisStore.connect(f"redis://127.0.0.1:{ports.find_free(1)[0]}/0", patient=False)
    path, body = CREATED[surface]

    for url in serving(engine_over(nowhere), KeyRing(nowhere.client)):
        with httpx.Client(base_url=url, headers={"X-API-Key": "exp_any"}) as http:
            # When
            started = time.monotonic()
            answers = [http.post(path, json=body), http.get(f"{POLLED[surface]}/some-id")]
            took = time.monotonic() - started

    # Then
    for answer in answers:
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) >= 1
        assert "127.0.0.1" not in answer.text
    assert took < 5
