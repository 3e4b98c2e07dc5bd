"""The file of jobs: whose they are, and in which bytes."""

from __future__ import annotations

import csv
import gzip
import io
import json
import uuid
import zlib
from typing import Any

import httpx
import psycopg
import pytest

from exporter.contracts.pipeline import COLUMNS
from exporter.local import sample
from exporter.local.stack import Addresses
from exporter.sources.sql.config import SqlConfig
from exporter.sources.sql.source import SqlSource
from tests.integration.pipeline.desk import FULL, HIDDEN, PATH, Make, Service, insert

HEADER = (
    "id,company_name,job_title,status,source,location,is_remote,job_url,salary_range_min,"
    "salary_range_max,ai_match_score,notes,tags,applied_at,interview_at,offer_at,rejected_at,"
    "created_at,updated_at"
)


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


def test_a_csv_that_is_asked_to_be_safe_has_no_formulas(api: Service) -> None:
    # Given
    insert(api, company_name="=HYPERLINK(0)", notes="@SUM(1)")
    wanted = {"format": "csv", "csv_safe": "true"}

    # When
    safe = api.http.get(PATH, params=wanted)
    later = api.http.get(PATH, params=wanted, headers={"Prefer": "respond-async"})

    # Then
    assert safe.status_code == 200, safe.text
    (row,) = csv.DictReader(io.StringIO(safe.text))
    assert (row["company_name"], row["notes"]) == ("'=HYPERLINK(0)", "'@SUM(1)")
    assert later.json()["csv_safe"] is True
    (plain,) = csv.DictReader(io.StringIO(api.http.get(PATH, params={"format": "csv"}).text))
    assert plain["company_name"] == "=HYPERLINK(0)"
    refused = api.http.get(PATH, params={"csv_safe": "maybe"})
    assert refused.status_code == 400
    assert refused.json()["errors"][0]["field"] == "csv_safe"


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
    config = SqlConfig(url=postgres_url, page_size=2)
    api.engine.source("pipeline").close()
    api.engine.sources.opened["pipeline"] = source = SqlSource(config, api.engine.clock)
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


def test_the_local_stack_has_jobs_to_export(stack: Addresses) -> None:
    # When
    answer = httpx.get(
        f"{stack.url}{PATH}", headers={"Authorization": f"Bearer {stack.api_key}"}, timeout=30
    )

    # Then
    assert answer.status_code == 200
    assert 250 < answer.json()["total"] == len(answer.json()["jobs"]) < sample.JOB_COUNT
