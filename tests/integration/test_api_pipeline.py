"""The pipeline contract over the wire: whose jobs, in which bytes, and how a broken file shows."""

from __future__ import annotations

import csv
import gzip
import http.client
import io
import json
import os
import socket
import sqlite3
import subprocess
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx
import psycopg
import pytest
import redis
import requests

from exporter import wiring
from exporter.api import streams
from exporter.api.app import create_app
from exporter.clock import FakeClock
from exporter.config import Config, SqlConfig
from exporter.engine import Engine
from exporter.errors import SourceUnavailable
from exporter.formats import registry as formats
from exporter.local import sample
from exporter.local.redis import RedisServer
from exporter.local.stack import Addresses
from exporter.pipeline import Ending, run_slice
from exporter.settings import Settings
from exporter.sources.sql import COLUMNS, SqlSource
from exporter.sources.sql_table import Table
from exporter.storage.memory import MemoryStorage
from exporter.store.keys import KeyRing
from exporter.store.memory import MemoryStore
from tests.integration.api_server import KEYS_DATABASE, PUBLIC_URL, Server, captured_logs
from tests.waiting import until

PATH = "/api/export"
HEADER = (
    "id,company_name,job_title,status,source,location,is_remote,job_url,salary_range_min,"
    "salary_range_max,ai_match_score,notes,tags,applied_at,interview_at,offer_at,rejected_at,"
    "created_at,updated_at"
)
HIDDEN = {"user_id", "ai_parsed_data", "last_synced_at", "deleted_at"}


class Service(NamedTuple):
    """An API over a table of jobs, with keys of two users."""

    http: httpx.Client
    """Sends ann's key."""
    engine: Engine
    keys: KeyRing
    ann: str
    file: Path
    app: Any

    def run(self, statement: str, *values: object) -> None:
        with closing(sqlite3.connect(self.file)) as connection, connection:
            connection.execute(statement, values)

    def fill(self, count: int) -> None:
        """Jobs of ann's."""
        with closing(sqlite3.connect(self.file)) as connection, connection:
            connection.executemany(
                "INSERT INTO jobs (id, user_id, company_name, job_title, status, source, is_remote,"
                " tags, job_description, created_at, updated_at) VALUES"
                " (?, 'ann', 'Acme', 'Engineer', 'saved', 'manual', 0, '[]', ?,"
                " '2026-02-01T00:00:00Z', '2026-02-01T00:00:00Z')",
                [(f"{number:08}", f"{number:08}" * 40) for number in range(count)],
            )

    @property
    def table(self) -> Table:
        source = self.engine.source("pipeline")
        assert isinstance(source, SqlSource)
        return source._table

    def idle(self) -> bool:
        """Whether nothing is held for any caller."""
        source = self.engine.source("pipeline")
        assert isinstance(source, SqlSource)
        pool: Any = source._database._engine.pool
        lanes: streams.Lanes = self.app.state.lanes
        return bool(pool.checkedout() == 0 and lanes.streams.borrowed_tokens == 0)


@pytest.fixture
def keys(redis_server: RedisServer) -> Iterator[KeyRing]:
    with redis.Redis.from_url(redis_server.url.replace("/0", f"/{KEYS_DATABASE}")) as client:
        client.flushdb()
        yield KeyRing(client)


Make = Callable[..., Service]


@pytest.fixture
def make(server: Server, keys: KeyRing, tmp_path: Path) -> Iterator[Make]:
    """A service whose table is the sample's, emptied."""
    made: list[Service] = []

    def service(rate: str = "10000/h", page_size: int = 100) -> Service:
        file = tmp_path / "jobs.sqlite"
        sample.create(file, "nobody")
        clock = FakeClock()
        config = SqlConfig(type="sql", url=f"sqlite:///{file}", page_size=page_size)
        engine = Engine(
            settings=Settings(public_url=PUBLIC_URL, pipeline_rate=rate),  # type: ignore[arg-type]
            config=Config(sources={"pipeline": config}),
            store=MemoryStore(clock),
            storage=MemoryStorage(clock),
            clock=clock,
        )
        ann = keys.create("ann")
        app = server.app = create_app(engine, keys)
        headers = {"Authorization": f"Bearer {ann}", "Accept-Encoding": "identity"}
        http_client = httpx.Client(base_url=server.url, headers=headers, timeout=30)
        made.append(Service(http_client, engine, keys, ann, file, app))
        made[-1].run("DELETE FROM jobs")
        return made[-1]

    yield service
    for one in made:
        one.http.close()
        one.engine.source("pipeline").close()


@pytest.fixture
def api(make: Make) -> Service:
    return make()


FULL = {
    "id": "123e4567-e89b-12d3-a456-426614174000",
    "user_id": "ann",
    "company_name": 'Acme, "Inc"',
    "job_title": "Senior Backend Engineer",
    "status": "interview",
    "source": "linkedin",
    "location": "San Francisco, CA",
    "is_remote": 1,
    "job_url": "https://acme.example/careers/7",
    "job_description": "Build scalable APIs...",
    "salary_range_min": 180000,
    "salary_range_max": 250000,
    "ai_match_score": 87,
    "ai_reasoning": "Strong match",
    "ai_parsed_data": '{"secret": 1}',
    "notes": "Met recruiter\nat a conference",
    "tags": '["high-priority", "backend"]',
    "applied_at": "2026-03-01 10:30:00",
    "interview_at": "2026-03-10T14:00:00Z",
    "last_synced_at": "2026-03-02T00:00:00Z",
    "created_at": "2026-02-28T16:00:00+01:00",
    "updated_at": "2026-03-04T09:00:00Z",
}


def insert(api: Service, **changes: object) -> None:
    row = {**FULL, **changes}
    marks = ", ".join("?" * len(row))
    api.run(f"INSERT INTO jobs ({', '.join(row)}) VALUES ({marks})", *row.values())


# -- the file ----------------------------------------------------------------------------------


def test_the_json_is_the_callers_own_jobs_in_the_contracts_order(api: Service) -> None:
    # Given
    insert(api)
    insert(api, id="2", user_id="bob")
    insert(api, id="3", deleted_at="2026-03-02T00:00:00Z")

    # When
    answer = api.http.get(PATH)

    # Then
    assert answer.status_code == 200
    assert answer.headers["Content-Type"] == "application/json"
    assert (
        answer.headers["Content-Disposition"]
        == 'attachment; filename="pipeline-jobs-2026-01-01.json"'
    )
    assert "Content-Encoding" not in answer.headers
    assert list(answer.json()) == ["exported_at", "total", "jobs"]
    assert answer.json()["exported_at"] == "2026-01-01T00:00:00Z"
    assert answer.json()["total"] == 1
    (job,) = answer.json()["jobs"]
    assert tuple(job) == COLUMNS
    assert job == {
        **{name: value for name, value in FULL.items() if name not in HIDDEN},
        "is_remote": True,
        "tags": ["high-priority", "backend"],
        "applied_at": "2026-03-01T10:30:00Z",
        "created_at": "2026-02-28T15:00:00Z",
        "offer_at": None,
        "rejected_at": None,
        "scraped_at": None,
    }


def test_the_csv_has_the_contracts_columns_and_quotes_only_where_it_must(api: Service) -> None:
    # Given
    insert(api)
    insert(api, id="9", company_name="Acme", is_remote=0, tags="[]", notes=None, location="")

    # When
    answer = api.http.get(PATH, params={"format": "csv"})

    # Then
    assert answer.headers["Content-Type"] == "text/csv; charset=utf-8"
    assert answer.headers["Content-Disposition"].endswith('"pipeline-jobs-2026-01-01.csv"')
    assert answer.content.decode() == (
        HEADER + "\r\n"
        '123e4567-e89b-12d3-a456-426614174000,"Acme, ""Inc""",Senior Backend Engineer,interview,'
        'linkedin,"San Francisco, CA",true,https://acme.example/careers/7,180000,250000,87,'
        '"Met recruiter\nat a conference",high-priority; backend,2026-03-01T10:30:00Z,'
        "2026-03-10T14:00:00Z,,,2026-02-28T15:00:00Z,2026-03-04T09:00:00Z\r\n"
        '9,Acme,Senior Backend Engineer,interview,linkedin,"",false,'
        'https://acme.example/careers/7,180000,250000,87,,"",2026-03-01T10:30:00Z,'
        "2026-03-10T14:00:00Z,,,2026-02-28T15:00:00Z,2026-03-04T09:00:00Z\r\n"
    )


@pytest.mark.parametrize("wanted", ["json", "csv"])
def test_nobody_without_jobs_gets_an_error(api: Service, wanted: str) -> None:
    # When
    answer = api.http.get(PATH, params={"format": wanted})

    # Then
    if wanted == "csv":
        assert answer.text == HEADER + "\r\n"
    else:
        assert answer.json() == {"exported_at": "2026-01-01T00:00:00Z", "total": 0, "jobs": []}


@pytest.mark.parametrize("wanted", ["json", "csv"])
def test_more_jobs_than_the_contracts_cap_are_all_there_once(make: Make, wanted: str) -> None:
    # Given
    api = make(page_size=1_000)
    api.fill(12_345)

    # When
    answer = api.http.get(PATH, params={"format": wanted})

    # Then
    if wanted == "csv":
        rows = list(csv.DictReader(io.StringIO(answer.text, newline="")))
    else:
        rows = answer.json()["jobs"]
        assert answer.json()["total"] == 12_345
    assert [int(row["id"]) for row in rows] == list(range(12_345))


@pytest.mark.parametrize("wanted", ["json", "csv"])
def test_a_table_of_postgresql_gives_the_same_file_as_one_of_sqlite(
    make: Make, postgres_url: str, wanted: str
) -> None:
    # Given: the same jobs, in the types that PostgreSQL has for them
    api = make(page_size=2)
    kinds = dict.fromkeys((*FULL, "offer_at", "rejected_at", "scraped_at", "deleted_at"), "TEXT")
    kinds |= {name: "TIMESTAMPTZ" for name in kinds if name.endswith("_at")}
    kinds |= {"id": "UUID PRIMARY KEY", "is_remote": "BOOLEAN", "tags": "TEXT[]"}
    kinds |= {"salary_range_min": "INTEGER", "salary_range_max": "INTEGER"}
    kinds |= {"ai_match_score": "NUMERIC", "ai_parsed_data": "JSONB"}
    with psycopg.connect(postgres_url, autocommit=True) as other:
        other.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public; SET timezone TO 'UTC'")
        columns = ", ".join(f"{name} {kind}" for name, kind in kinds.items())
        other.execute(f"CREATE TABLE jobs ({columns})".encode())
        for number, owner in enumerate(["ann", "ann", "bob", "ann", "ann", "ann"]):
            own = {"id": str(uuid.UUID(int=number)), "user_id": owner}
            insert(api, **own)
            row = {**FULL, **own, "is_remote": True, "tags": json.loads(str(FULL["tags"]))}
            marks = ", ".join(["%s"] * len(row))
            statement = f"INSERT INTO jobs ({', '.join(row)}) VALUES ({marks})"
            other.execute(statement.encode(), list(row.values()))
    params = {"format": wanted, "from": "2026-02-28T15:00:00Z", "status": "interview"}
    expected = api.http.get(PATH, params=params)

    # When
    config = SqlConfig(type="sql", url=postgres_url, page_size=2)
    api.engine.source("pipeline").close()
    api.engine._sources["pipeline"] = source = SqlSource(config, api.engine.clock)
    answer = api.http.get(PATH, params=params)
    source.close()

    # Then
    assert answer.status_code == 200
    if wanted == "csv":
        assert answer.content == expected.content
    else:
        assert answer.json() == expected.json()
    assert answer.content.count(b"Senior Backend Engineer") == 5


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"status": "saved"}, ["1"]),
        ({"status": ["saved", "offer"]}, ["1", "2"]),
        ({"source": "fuzu"}, ["2"]),
        ({"from": "2026-03-01"}, ["2"]),
        ({"from": "2026-02-28", "to": "2026-03-01"}, ["1"]),
        ({"status": "rejected"}, []),
    ],
)
def test_filters_choose_among_the_callers_jobs(
    api: Service, params: dict[str, Any], expected: list[str]
) -> None:
    # Given
    insert(api, id="1", status="saved", created_at="2026-02-28T23:59:59Z")
    insert(api, id="2", status="offer", source="fuzu", created_at="2026-03-01T00:00:00Z")

    # When
    answer = api.http.get(PATH, params=params)

    # Then
    assert [job["id"] for job in answer.json()["jobs"]] == expected
    assert answer.json()["total"] == len(expected)


@pytest.mark.parametrize(
    ("accepted", "compressed"),
    [
        ("gzip", True),
        ("deflate, GZIP ; q=0.5", True),
        ("*", True),
        ("gzip;q=0, *", False),
        ("br", False),
        ("identity", False),
        ("gzip;q=often", False),
    ],
)
def test_a_caller_that_takes_gzip_gets_one_member_of_it(
    api: Service, accepted: str, compressed: bool
) -> None:
    # Given
    api.fill(500)

    # When
    with api.http.stream("GET", PATH, headers={"Accept-Encoding": accepted}) as answer:
        raw = b"".join(answer.iter_raw())

    # Then
    assert "Accept-Encoding" in answer.headers["Vary"]
    assert ("Content-Encoding" in answer.headers) == compressed
    if compressed:
        member = zlib.decompressobj(31)
        text = member.decompress(raw) + member.flush()
        assert (member.eof, member.unused_data) == (True, b"")
        assert gzip.decompress(raw) == text
        raw, size = text, len(raw)
        assert size < len(raw) / 5
    assert len(json.loads(raw)["jobs"]) == 500


# -- what is refused ---------------------------------------------------------------------------


def flat(answer: httpx.Response) -> dict[str, Any]:
    """The error, if it has all that the contract shows, in its order."""
    body: dict[str, Any] = answer.json()
    assert list(body) == [
        "code", "status", "message", "details", "errors", "requestId", "timestamp", "apiVersion",
    ]  # fmt: skip
    assert body["status"] == answer.status_code
    assert body["requestId"] == answer.headers["X-Request-Id"]
    assert body["timestamp"] == "2026-01-01T00:00:00Z"
    assert body["apiVersion"] == "1.0"
    return body


@pytest.mark.parametrize(
    ("params", "field", "value", "said"),
    [
        ({"format": "xlsx"}, "format", "xlsx", "give json or csv"),
        ({"format": ""}, "format", "", "give json or csv"),
        ({"format": ["csv", "json"]}, "format", "json", "more than once"),
        ({"status": "hired"}, "status", "hired", "known: saved, applied"),
        ({"source": "indeed"}, "source", "indeed", "known: brightermonday"),
        ({"from": "soon"}, "from", "soon", "2026-03-01T12:00:00Z"),
        ({"from": "2026-03-02", "to": "2026-03-01"}, "to", "2026-03-01", "not later"),
        ({"stauts": "saved"}, "stauts", "saved", "unknown parameter; known: format, from, to,"),
    ],
)
@pytest.mark.parametrize("prefer", [{}, {"Prefer": "respond-async"}])
def test_a_wrong_parameter_is_a_400_that_names_it(
    api: Service,
    prefer: dict[str, str],
    params: dict[str, Any],
    field: str,
    value: str,
    said: str,
) -> None:
    # When
    answer = api.http.get(PATH, params=params, headers=prefer)

    # Then
    assert answer.status_code == 400
    body = flat(answer)
    assert body["code"] == "VALIDATION_ERROR"
    (entry,) = body["errors"]
    assert (entry["field"], entry["value"]) == (field, value)
    assert said in entry["message"]
    assert said in body["message"]


@pytest.mark.parametrize("headers", [{}, {"Authorization": "Bearer exp_wrong"}])
def test_nobody_gets_jobs_without_a_key(api: Service, headers: dict[str, str]) -> None:
    # When
    answer = httpx.get(api.http.base_url.join(PATH), headers=headers)

    # Then
    assert answer.status_code == 401
    assert flat(answer)["code"] == "UNAUTHORIZED"


def test_the_usual_refusals_are_flat_as_well(api: Service) -> None:
    # Given
    reader = api.keys.create("ann", scopes=("read",))
    writer = api.keys.create("ann", scopes=("write",))

    # When
    wrong_method = api.http.post(PATH)
    nowhere = api.http.get("/api/exports")
    read_only = api.http.get(
        PATH, headers={"Authorization": f"Bearer {reader}", "Prefer": "respond-async"}
    )
    write_only = api.http.get(PATH, headers={"Authorization": f"Bearer {writer}"})

    # Then
    assert (wrong_method.status_code, flat(wrong_method)["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert (nowhere.status_code, flat(nowhere)["code"]) == (404, "NOT_FOUND")
    assert (read_only.status_code, flat(read_only)["code"]) == (403, "FORBIDDEN")
    assert (write_only.status_code, flat(write_only)["code"]) == (403, "FORBIDDEN")


def test_a_plan_without_the_feature_is_a_403(api: Service) -> None:
    # Given
    (key,) = api.keys.list()
    api.keys.set(key.id, features=["export"])

    # When
    answer = api.http.get(PATH)

    # Then
    assert (answer.status_code, flat(answer)["code"]) == (403, "NOT_IN_PLAN")


def test_the_eleventh_export_within_an_hour_is_refused_with_when_the_next_may_come(
    make: Make,
) -> None:
    # Given
    api = make("10/h")
    before = time.time()

    # When: a request that is refused counts, too
    answers = [api.http.get(PATH, params={"format": "csv"}) for _ in range(9)]
    answers.append(api.http.get(PATH, params={"format": "pdf"}))
    refused = api.http.get(PATH)
    other = api.http.get(PATH, headers={"Authorization": f"Bearer {api.keys.create('bob')}"})

    # Then
    assert [answer.status_code for answer in answers] == [200] * 9 + [400]
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == [
        str(left) for left in range(9, -1, -1)
    ]
    for answer in (*answers, refused, other):
        assert answer.headers["X-RateLimit-Limit"] == "10"
        resets = int(answer.headers["X-RateLimit-Reset"]) / 1000
        assert before + 3500 < resets < time.time() + 3700
    assert refused.status_code == 429
    body = flat(refused)
    assert body["code"] == "RATE_LIMIT_EXCEEDED"
    assert set(body["details"]) == {"retryAfter", "limit", "remaining", "resetAt"}
    assert (body["details"]["limit"], body["details"]["remaining"]) == (10, 0)
    assert 3500 < body["details"]["retryAfter"] <= 3600
    assert refused.headers["Retry-After"] == str(body["details"]["retryAfter"])
    assert other.status_code == 200


def test_a_database_that_fails_before_the_first_byte_is_a_500_that_tells_nothing(
    api: Service,
) -> None:
    # Given
    api.file.rename(api.file.with_name("elsewhere"))

    # When
    with captured_logs() as lines:
        answer = api.http.get(PATH)

    # Then
    assert answer.status_code == 500
    body = flat(answer)
    assert body["code"] == "INTERNAL_ERROR"
    assert "sqlite" not in answer.text
    assert "X-RateLimit-Limit" in answer.headers
    (line,) = [line for line in lines if line["event"] == "pipeline.failed"]
    assert "unable to open database file" in line["reason"]
    assert api.idle()


def test_a_caller_of_http_1_0_is_refused_because_no_end_could_be_told(api: Service) -> None:
    # Given
    host, port = api.http.base_url.host, api.http.base_url.port
    head = f"GET {PATH} HTTP/1.0\r\nHost: {host}\r\nAuthorization: Bearer {api.ann}\r\n\r\n"

    # When
    with socket.create_connection((host, port or 80), timeout=10) as connection:
        connection.sendall(head.encode())
        answer = b"".join(iter(lambda: connection.recv(65_536), b""))

    # Then
    assert b" 505 " in answer.split(b"\r\n", 1)[0]
    assert b"proxy_http_version 1.1" in answer


# -- while it is sent --------------------------------------------------------------------------


def by_http_client(url: str, key: str, encoding: str) -> None:
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    headers = {"Authorization": f"Bearer {key}", "Accept-Encoding": encoding}
    connection.request("GET", f"{parts.path}?{parts.query}", headers=headers)
    try:
        with connection.getresponse() as answer:
            assert answer.status == 200
            answer.read()
    finally:
        connection.close()


def by_httpx(url: str, key: str, encoding: str) -> None:
    headers = {"Authorization": f"Bearer {key}", "Accept-Encoding": encoding}
    httpx.get(url, headers=headers, timeout=20).raise_for_status()


def by_requests(url: str, key: str, encoding: str) -> None:
    headers = {"Authorization": f"Bearer {key}", "Accept-Encoding": encoding}
    requests.get(url, headers=headers, timeout=20).raise_for_status()


def by_curl(url: str, key: str, encoding: str) -> None:
    headers = ["-H", f"Authorization: Bearer {key}", "-H", f"Accept-Encoding: {encoding}"]
    subprocess.run(
        ["curl", "-sS", "--fail", "--max-time", "20", *headers, "-o", os.devnull, url],
        check=True,
        capture_output=True,
    )


@pytest.mark.parametrize("get", [by_http_client, by_httpx, by_requests, by_curl])
@pytest.mark.parametrize("encoding", ["identity", "gzip"])
@pytest.mark.parametrize("fault", ["fails", "gives less"])
@pytest.mark.parametrize("wanted", ["csv", "json"])
def test_every_client_notices_that_a_file_is_not_whole(
    api: Service,
    monkeypatch: pytest.MonkeyPatch,
    get: Callable[[str, str, str], None],
    encoding: str,
    fault: str,
    wanted: str,
) -> None:
    # Given
    api.fill(1_000)
    url = f"{str(api.http.base_url).rstrip('/')}{PATH}?format={wanted}"
    get(url, api.ann, encoding)
    whole, pages = api.table.page, 0

    def faulty(*args: Any, **options: Any) -> Any:
        nonlocal pages
        pages += 1
        if fault == "fails" and pages == 7:
            raise SourceUnavailable("the database went away")
        rows, after = whole(*args, **options)
        return (rows, None) if pages == 7 else (rows, after)

    monkeypatch.setattr(api.table, "page", faulty)

    # When / Then
    failures = (
        http.client.IncompleteRead,
        httpx.RemoteProtocolError,
        requests.exceptions.ChunkedEncodingError,
        subprocess.CalledProcessError,
    )
    with pytest.raises(failures):
        get(url, api.ann, encoding)
    assert pages == 7
    until(api.idle)


def test_the_first_byte_leaves_before_the_first_job_is_read(
    api: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    api.fill(10)
    whole, go_on = api.table.page, threading.Event()

    def late(*args: Any, **options: Any) -> Any:
        assert go_on.wait(20)
        return whole(*args, **options)

    monkeypatch.setattr(api.table, "page", late)

    for encoding in ("identity", "gzip"):
        go_on.clear()
        # When
        with api.http.stream("GET", PATH, headers={"Accept-Encoding": encoding}) as answer:
            pieces = answer.iter_bytes()
            begin = next(pieces)
            go_on.set()
            rest = b"".join(pieces)
        # Then
        assert begin == b'{"exported_at":"2026-01-01T00:00:00Z","total":10,"jobs":['
        assert len(json.loads(begin + rest)["jobs"]) == 10


def test_a_caller_that_leaves_ends_the_reading_and_frees_the_connection(api: Service) -> None:
    # Given
    api.fill(30_000)

    # When
    with api.http.stream("GET", PATH) as answer:
        read = answer.iter_raw()
        next(read)
        assert not api.idle()

    # Then
    until(api.idle)


def test_a_caller_that_took_all_of_it_is_not_said_to_have_left(api: Service) -> None:
    # Given
    api.fill(250)

    # When
    with captured_logs() as lines:
        api.http.get(PATH)
        until(api.idle)
        api.http.get("/health/live")

    # Then
    assert [line["event"] for line in lines] == ["pipeline.exported"]
    assert (lines[0]["rows"], lines[0]["user_id"]) == (250, "ann")


def test_a_caller_that_leaves_while_jobs_are_counted_ends_the_counting(api: Service) -> None:
    # Given: a table whose counting takes minutes
    nothing = ", ".join(f"NULL AS {name}" for name in COLUMNS[1:])
    api.run("DROP TABLE jobs")
    api.run(
        "CREATE VIEW jobs AS WITH RECURSIVE n(i) AS"
        " (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 1000000000)"
        f" SELECT i AS id, 'ann' AS user_id, {nothing} FROM n"
    )

    # When
    with pytest.raises(httpx.ReadTimeout):
        api.http.get(PATH, timeout=1)

    # Then
    until(api.idle)


def test_a_caller_that_reads_slowly_holds_neither_pages_nor_threads(
    api: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given: 20 MB, of which the caller takes a piece
    api.fill(20_000)
    whole, pages = api.table.page, 0

    def counted(*args: Any, **options: Any) -> Any:
        nonlocal pages
        pages += 1
        return whole(*args, **options)

    monkeypatch.setattr(api.table, "page", counted)

    # When
    with api.http.stream("GET", PATH) as answer:
        read = answer.iter_raw()
        taken = len(next(read))
        settled = -1
        while settled != pages:
            settled = pages
            time.sleep(0.5)

        # Then: what was read ahead is what the sockets' buffers hold
        assert 0 < pages < 150
        assert api.app.state.lanes.threads.borrowed_tokens == 0
        taken += sum(len(piece) for piece in read)
    assert pages == 200
    assert taken > 6_000_000


def test_a_caller_that_takes_nothing_for_long_is_cut_off(
    api: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    monkeypatch.setattr(streams, "STALL_SECONDS", 0.3)
    api.fill(30_000)

    # When
    with captured_logs() as lines, api.http.stream("GET", PATH) as answer:
        read = answer.iter_raw()
        next(read)
        until(api.idle)
        # Then
        with pytest.raises(httpx.RemoteProtocolError):
            list(read)
    assert "stream.stalled" in [line["event"] for line in lines]


def test_more_streams_than_a_process_sends_at_once_are_asked_to_come_again(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    monkeypatch.setattr(streams, "STREAMS", 1)
    api = make()
    whole, go_on = api.table.page, threading.Event()

    def late(*args: Any, **options: Any) -> Any:
        assert go_on.wait(20)
        return whole(*args, **options)

    monkeypatch.setattr(api.table, "page", late)

    # When
    with api.http.stream("GET", PATH) as first:
        busy = api.http.get(PATH)
        go_on.set()
        first.read()
    until(api.idle)
    free = api.http.get(PATH)

    # Then
    assert (busy.status_code, flat(busy)["code"]) == (503, "SERVICE_UNAVAILABLE")
    assert int(busy.headers["Retry-After"]) > 0
    assert free.status_code == 200


# -- later -------------------------------------------------------------------------------------


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
        encoder=formats.make(spec.format, spec.dialect, spec.columns),
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


def test_the_local_stack_has_jobs_to_export(stack: Addresses) -> None:
    # When
    answer = httpx.get(
        f"{stack.url}{PATH}", headers={"Authorization": f"Bearer {stack.api_key}"}, timeout=30
    )

    # Then
    assert answer.status_code == 200
    assert 250 < answer.json()["total"] == len(answer.json()["jobs"]) < sample.JOBS
