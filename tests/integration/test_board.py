from __future__ import annotations

import gzip
import json
import math
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import hirebase
import httpx
import pytest
import uvicorn

from exporter.board import app, database, synthetic

KEY = "sk_test_board"
TODAY = datetime.now(UTC).date()

POSTINGS: list[dict[str, Any]] = [
    {
        "_id": "civil",
        "job_title": "Site/Civil Engineer",
        "company_name": "Company XYZ",
        "company_slug": "company-xyz",
        "job_slug": "civil-1",
        "job_board": "Lever",
        "description": "Draw bridges in C++ and démolish others.",
        "job_type": "Full-time",
        "location_type": "In-Person",
        "locations": [
            {
                "city": "Richmond",
                "region": "Virginia",
                "country": "United States",
                "coordinates": {"type": "Point", "coordinates": [-77.436, 37.5407]},
            }
        ],
        "date_posted": "2025-06-01",
        "salary_range": {"min": 90000, "max": 120000, "currency": "USD", "period": "year"},
        "yoe_range": {"min": 3, "max": 5},
        "experience_level": "Mid Level",
        "job_categories": ["Engineering"],
        "visa_sponsored": True,
        "company_data": {
            "industries": ["Design", "Construction"],
            "subindustries": ["Architecture"],
            "size_range": {"min": 11, "max": 50},
            "description_summary": "We span rivers.",
        },
    },
    {
        "_id": "senior",
        "job_title": "Senior Software Engineer",
        "company_name": "company xyz",
        "description": "Write C and Java.",
        "skills": ["machine learning"],
        "benefits": ["Dental plan"],
        "job_type": ["Contract", "Part Time"],
        "location_type": ["Remote"],
        "locations": [{"city": "Berlin", "country": "Germany"}],
        "date_posted": "2025-05-31",
        "salary_range": {"min": 500, "max": None, "currency": "EUR", "period": "day"},
        "yoe_range": {"min": 8},
        "experience_level": "Senior",
        "recruiter_agency": True,
    },
    {
        "_id": "nurse",
        "job_title": "Nurse, Night Shift",
        "company_name": "Klinik",
        "locations": [
            {"city": "San José", "region": "California"},
            {"city": "Oakland", "region": "CA", "country": "United States"},
        ],
        "date_posted": (TODAY - timedelta(days=2)).isoformat(),
        "description": "learning the machine by night",
        "technologies": ["machines"],
    },
    {
        "_id": "old",
        "job_title": "Engineer, Software (gone)",
        "company_name": "Zed",
        "expired": True,
        "date_posted": "2020-01-01",
        "description": "x",
    },
    {"_id": "bare"},
]


@contextmanager
def serving(path: Path) -> Iterator[httpx.Client]:
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(
        app.create_app(path, [KEY, "other"]), access_log=False, log_level="error", ws="none"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        base = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with httpx.Client(base_url=base, headers={"x-api-key": KEY}, timeout=60) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def lines(path: Path, found: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(posting) + "\n" for posting in found))
    return path


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("board")
    database.load(folder / "board.db", lines(folder / "postings.jsonl", POSTINGS))
    with serving(folder / "board.db") as client:
        yield client


ROWS = 1_500


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    path = tmp_path_factory.mktemp("large") / "board.db"
    synthetic.synthesize(path, ROWS)
    with serving(path) as client:
        yield client


@pytest.fixture(scope="module")
def generated() -> list[dict[str, Any]]:
    return [json.loads(posting.json) for posting in synthetic.generate(ROWS)]


def answer(client: httpx.Client, **search: Any) -> dict[str, Any]:
    response = client.post("/v2/jobs/search", json=search)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def ids(client: httpx.Client, **search: Any) -> list[str]:
    return [job["_id"] for job in answer(client, limit=100, **search)["jobs"]]


def everything(client: httpx.Client, limit: int = 100, **search: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    page = 1
    while jobs := answer(client, page=page, limit=limit, **search)["jobs"]:
        found += jobs
        page += 1
    return found


LIVE = ["civil", "senior", "nurse", "bare"]


@pytest.mark.parametrize(
    ("search", "expected"),
    [
        ({}, LIVE),
        ({"include_expired": "true"}, ["civil", "senior", "nurse", "old", "bare"]),
        ({"include_expired": "false"}, LIVE),
        ({"job_titles": ["engineer software"]}, ["senior"]),
        ({"job_titles": ["Engineer Software"], "include_expired": True}, ["senior", "old"]),
        ({"job_titles": ['"software engineer"'], "include_expired": True}, ["senior"]),
        ({"job_titles": ["nurse", "civil"]}, ["civil", "nurse"]),
        ({"job_titles": ["engineer -senior"]}, ["civil"]),
        ({"job_titles": ["-engineer"]}, ["nurse", "bare"]),
        ({"job_titles": ["nurse", "engineer -senior"]}, ["civil", "nurse"]),
        ({"job_titles": ["engin"]}, []),
        ({"job_titles": ["!?"]}, []),
        ({"job_titles": ['" OR rowid > 0 --']}, []),
        ({"keywords": ["c++"]}, ["civil"]),
        ({"keywords": ["c"]}, ["senior"]),
        ({"keywords": ["DEMOLISH"]}, ["civil"]),
        ({"keywords": ["machine learning"]}, ["senior", "nurse"]),
        ({"keywords": ["dental", "machines"]}, ["senior", "nurse"]),
        ({"keywords": ["machine", "-java"]}, ["nurse"]),
        ({"keywords": ["bridges/others"]}, ["civil"]),
        ({"company_keywords": ["rivers"]}, ["civil"]),
        ({"company_name": "COMPANY  xyz"}, ["civil", "senior"]),
        ({"company_names": ["company xyz", "Klinik"]}, ["civil", "senior", "nurse"]),
        ({"company_name": "company"}, []),
        ({"company_slug": "company-xyz"}, ["civil"]),
        ({"company_slugs": ["company-xyz"]}, ["civil"]),
        ({"company_types": ["11-50"]}, ["civil"]),
        ({"company_types": ["51-200", "1000+"]}, []),
        ({"job_slug": "civil-1"}, ["civil"]),
        ({"job_board": "lever"}, ["civil"]),
        ({"job_board": ["Lever", "Workday"]}, ["civil"]),
        ({"locations": [{"city": "richmond"}]}, ["civil"]),
        ({"geo_locations": [{"city": "Richmond", "country": "Germany"}]}, []),
        ({"geo_locations": [{"city": "Oakland", "region": "California"}]}, []),
        ({"geo_locations": [{"country": "united states"}]}, ["civil", "nurse"]),
        ({"geo_locations": [{"city": "san josé"}, {"city": "BERLIN"}]}, ["senior", "nurse"]),
        ({"location_group": "Bay_Area"}, ["nurse"]),
        ({"location_types": ["On-site"]}, ["civil"]),
        ({"location_types": "in person"}, ["civil"]),
        ({"location_types": ["remote", "hybrid"]}, ["senior"]),
        ({"job_type": ["full_time"]}, ["civil"]),
        ({"job_types": ["part-time", "Full Time"]}, ["civil", "senior"]),
        ({"experience": ["Mid"]}, ["civil"]),
        ({"experience_levels": ["senior level"]}, ["senior"]),
        ({"experience": ["Mid", "Senior"], "experience_levels": ["Senior"]}, ["senior"]),
        ({"yoe": {"min": 5, "max": 8}}, ["civil", "senior"]),
        ({"yoe": {"min": 5.5}}, ["senior"]),
        ({"yoe": {"max": 3}}, ["civil"]),
        ({"yoe": {"max": 2}}, []),
        ({"yoe": {"max": 2}, "include_yoe": "true"}, ["nurse", "bare"]),
        ({"include_yoe": "true"}, LIVE),
        ({"salary": {"min": 120000}}, ["civil", "senior"]),
        ({"salary": {"max": 499}}, []),
        ({"salary": {"max": 500}, "include_no_salary": True}, ["senior", "nurse", "bare"]),
        ({"salary": {"min": 1}, "currency": "usd"}, ["civil"]),
        ({"currency": "EUR"}, ["senior"]),
        ({"salary": {"min": 1, "currency": "EUR", "period": "Day"}}, ["senior"]),
        ({"job_category": ["engineering"]}, ["civil"]),
        ({"industry": "construction"}, ["civil"]),
        ({"industry": ["Nothing", "Design"], "sub_industry": ["architecture"]}, ["civil"]),
        ({"sub_industry": ["arch"]}, []),
        ({"visa": "true"}, ["civil"]),
        ({"visa": "false"}, LIVE),
        ({"hide_recruiting_agencies": "true"}, ["civil", "nurse", "bare"]),
        ({"filter_incomplete_jobs": "true"}, ["civil", "senior", "nurse"]),
        ({"date_posted": "2025-06-01"}, ["civil", "nurse"]),
        ({"month": "2025-05"}, ["senior"]),
        ({"days_ago": 2}, ["nurse"]),
        ({"days_ago": 1}, []),
        ({"sort_by": "date_posted", "sort_order": "desc"}, ["nurse", "civil", "senior", "bare"]),
        ({"sort_by": "salary", "sort_order": "desc"}, ["civil", "senior", "bare", "nurse"]),
        ({"sort_by": "yoe"}, ["nurse", "bare", "civil", "senior"]),
        ({"sort_by": "company", "sort_order": "asc"}, ["bare", "civil", "senior", "nurse"]),
        ({"sort_order": "desc"}, ["bare", "nurse", "senior", "civil"]),
        ({"visa": True, "job_types": ["Contract"]}, []),
    ],
)
def test_every_filter_finds_exactly_what_it_says(
    board: httpx.Client, search: dict[str, Any], expected: list[str]
) -> None:
    # When
    found = ids(board, **search)
    # Then
    assert found == expected


WASHINGTON = {"coordinates": {"type": "Point", "coordinates": [-77.0369, 38.9072]}}


@pytest.mark.parametrize(
    ("location", "near", "expected"),
    [
        (WASHINGTON, {"radius": 90, "unit": "mi"}, []),
        (WASHINGTON, {"radius": 100, "unit": "mi"}, ["civil"]),
        (WASHINGTON, {"radius": 100, "unit": "km"}, []),
        (WASHINGTON, {"radius": 1.5, "unit": "degrees"}, ["civil"]),
        (WASHINGTON, {"radius": 100, "mode": "box"}, ["civil"]),
        ({"bbox": [-78, 37, -77, 38]}, {"mode": "box"}, ["civil"]),
        ({"bbox": [-77, 37, -76, 38]}, {"mode": "box"}, []),
        ({"city": "Berlin", **WASHINGTON}, {"radius": 100, "mode": "weak"}, ["civil", "senior"]),
        ({"city": "Berlin", **WASHINGTON}, {"radius": 100, "mode": "strict"}, []),
        ({"city": "Richmond", **WASHINGTON}, {"radius": 100, "mode": "strict"}, ["civil"]),
    ],
)
def test_a_location_with_coordinates_is_a_circle_or_a_box(
    board: httpx.Client, location: dict[str, Any], near: dict[str, Any], expected: list[str]
) -> None:
    # When
    found = ids(board, geo_locations=[location], geofilter_params=near)
    # Then
    assert found == expected


def test_the_answer_has_the_vendors_members_and_the_true_totals(board: httpx.Client) -> None:
    # When
    body = answer(board)
    # Then
    assert list(body) == [
        *("jobs", "total_count", "company_count", "page", "limit", "total_pages"),
    ]
    assert body["jobs"] == [posting for posting in POSTINGS if posting["_id"] != "old"]
    assert (body["total_count"], body["company_count"]) == (4, 2)
    assert (body["page"], body["limit"], body["total_pages"]) == (1, 10, 1)


@pytest.mark.parametrize("page", [3, 999, 10**30])
def test_a_page_past_the_end_is_empty_and_tells_the_true_totals(
    board: httpx.Client, page: int
) -> None:
    # When
    body = answer(board, page=page, limit=2)
    # Then
    assert body["jobs"] == []
    assert (body["total_count"], body["total_pages"], body["page"]) == (4, 2, page)


@pytest.mark.parametrize(
    ("search", "problem"),
    [
        (
            {"limit": 101},
            (["body", "limit"], "Limit cannot be greater than 100", "value_error"),
        ),
        ({"colour": 1}, (["body", "colour"], "Extra inputs are not permitted", "extra_forbidden")),
        (
            {"hide_seen_jobs": "true"},
            (
                ["body", "hide_seen_jobs"],
                "The board does not know who has seen which postings",
                "value_error",
            ),
        ),
        (
            {"company_types": ["large"]},
            (
                ["body", "company_types"],
                "A company size such as 11-50 or 1000+, not 'large'",
                "value_error",
            ),
        ),
    ],
)
def test_a_search_that_cannot_be_answered_is_refused_in_the_vendors_shape(
    board: httpx.Client, search: dict[str, Any], problem: tuple[list[str], str, str]
) -> None:
    # When
    response = board.post("/v2/jobs/search", json=search)
    # Then
    assert response.status_code == 422
    loc, msg, kind = problem
    assert response.json() == {"detail": [{"loc": loc, "msg": msg, "type": kind}]}
    assert response.headers["x-request-id"]


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'{"yoe":{"min":NaN}}', b'{"job_titles":["\\ud800"]}']
)
def test_a_body_that_is_no_search_is_refused_with_a_place_and_a_reason(
    board: httpx.Client, body: bytes
) -> None:
    # When
    response = board.post(
        "/v2/jobs/search", content=body, headers={"content-type": "application/json"}
    )
    # Then
    assert response.status_code == 422
    [problem] = response.json()["detail"]
    assert problem["loc"][0] == "body"
    assert set(problem) == {"loc", "msg", "type"}


def test_a_search_with_a_thousand_alternatives_in_each_filter_is_answered(
    board: httpx.Client,
) -> None:
    # Given
    many = [f"word{number}" for number in range(999)]
    places = [{"city": word} for word in many]
    # When
    titles = ids(board, job_titles=[*many, "nurse"])
    labels = ids(board, job_types=[*many, "contract"], industry=None)
    cities = ids(board, locations=[*places, {"city": "Berlin"}])
    excluded = ids(board, keywords=[f"-{word}" for word in [*many, "java"]])
    # Then
    assert titles == ["nurse"]
    assert labels == ["senior"]
    assert cities == ["senior"]
    assert excluded == ["civil", "nurse", "bare"]


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": KEY},
        {"x-api-key": "other"},
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"ApiKey {KEY}"},
    ],
)
def test_a_key_opens_the_board_in_every_header_that_clients_use(
    board: httpx.Client, headers: dict[str, str]
) -> None:
    # When
    response = httpx.get(f"{board.base_url}/v2/jobs/civil", headers=headers)
    # Then
    assert response.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{}, {"x-api-key": "wrong"}, {"Authorization": "Bearer"}, {"Authorization": f"Basic {KEY}"}],
)
@pytest.mark.parametrize("path", ["/v2/jobs/civil", "/nowhere"])
def test_nothing_is_told_without_a_key(
    board: httpx.Client, headers: dict[str, str], path: str
) -> None:
    # When
    response = httpx.get(f"{board.base_url}{path}", headers=headers)
    # Then
    assert response.status_code == 401
    assert "x-api-key" in response.json()["detail"]
    assert response.headers["x-request-id"]


def test_health_needs_no_key(board: httpx.Client) -> None:
    # When
    response = httpx.get(f"{board.base_url}/health")
    # Then
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


def test_one_posting_is_found_by_its_id_and_a_missing_one_is_named(board: httpx.Client) -> None:
    # When
    found, missing = board.get("/v2/jobs/bare"), board.get("/v2/jobs/no:such/id")
    # Then
    assert found.json() == {"_id": "bare"}
    assert missing.status_code == 404
    assert missing.json() == {"detail": "There is no job with the id 'no:such/id'"}


def matches(posting: Mapping[str, Any], search: Mapping[str, Any]) -> bool:
    """The filters used below, said once more in plain Python."""
    years, salary = posting.get("yoe_range") or {}, posting.get("salary_range") or {}
    low, high = years.get("min"), years.get("max")
    checks: dict[str, Callable[[Any], Any]] = {
        "include_expired": lambda _: True,
        "visa": lambda _: posting["visa_sponsored"],
        "month": lambda month: (posting.get("date_posted") or "").startswith(month),
        "yoe": lambda asked: (
            low is not None and (high or math.inf) >= asked["min"] and low <= asked["max"]
        ),
        "currency": lambda currency: salary.get("currency") == currency,
        "locations": lambda asked: any(
            place["city"] == asked[0]["city"] for place in posting.get("locations") or []
        ),
        "keywords": lambda asked: asked[0] in (posting.get("skills") or []),
        "sort_by": lambda _: True,
        "sort_order": lambda _: True,
    }
    expired = posting["expired"] and "include_expired" not in search
    return not expired and all(checks[name](value) for name, value in search.items())


@pytest.mark.parametrize(
    "search",
    [
        {},
        {"include_expired": "true", "sort_by": "company"},
        {"visa": "true", "sort_by": "salary", "sort_order": "desc"},
        {"month": "2025-11"},
        {"yoe": {"min": 4, "max": 6}, "sort_by": "date_posted", "sort_order": "asc"},
        {"currency": "JPY", "sort_by": "yoe", "sort_order": "desc"},
        {"locations": [{"city": "東京"}]},
    ],
)
@pytest.mark.parametrize("limit", [37, 100])
def test_the_pages_of_a_search_hold_every_match_exactly_once(
    large: httpx.Client, generated: list[dict[str, Any]], search: dict[str, Any], limit: int
) -> None:
    # Given
    expected = {posting["_id"] for posting in generated if matches(posting, search)}
    # When
    found = [posting["_id"] for posting in everything(large, limit, **search)]
    # Then
    assert len(expected) > 0
    assert len(found) == len(set(found))
    assert set(found) == expected
    assert answer(large, **search)["total_count"] == len(expected)


def test_sorted_pages_are_in_order_from_the_first_to_the_last(large: httpx.Client) -> None:
    # When
    days = [
        posting.get("date_posted") or ""
        for posting in everything(large, sort_by="date_posted", sort_order="desc")
    ]
    # Then
    assert days == sorted(days, reverse=True)


def test_pages_read_backwards_are_the_pages_read_forwards(large: httpx.Client) -> None:
    # Given
    forwards = [answer(large, page=page, limit=50)["jobs"] for page in range(1, 20)]
    # When
    backwards = [answer(large, page=page, limit=50)["jobs"] for page in range(19, 0, -1)]
    # Then
    assert backwards[::-1] == forwards


def test_postings_are_served_as_their_very_bytes(large: httpx.Client) -> None:
    # Given
    texts = {posting.id: posting.json for posting in synthetic.generate(30)}
    # When
    served = {identity: large.get(f"/v2/jobs/{identity}").content for identity in texts}
    first = large.post("/v2/jobs/search", json={"limit": 30, "include_expired": True}).content
    # Then
    assert served == texts
    assert first.startswith(b'{"jobs":[' + b",".join(texts.values()) + b"],")


def test_the_official_client_searches_and_reads_the_board(large: httpx.Client) -> None:
    # Given
    base = str(large.base_url).rstrip("/")
    with hirebase.Client(api_key=KEY, base_url=base) as client:
        # When
        result = client.jobs.search(
            {"job_titles": ["Engineer"], "locations": [{"country": "Germany"}], "visa": True},
            page=1,
            limit=20,
        )
        assert isinstance(result, hirebase.JobSearchResult)
        one = client.jobs.get(result[0].id or "")
        assert isinstance(one, hirebase.Job)
        with pytest.raises(hirebase.NotFoundError):
            client.jobs.get("nobody")
    # Then
    assert result.total_count >= len(result) > 0
    assert all("engineer" in (job.job_title or "").casefold() for job in result)
    assert one.job_title == result[0].job_title


ORIGINAL = (
    '{"id": 18446744073709551617, "title":"A \\"b\\"\\u2028", "company": "Čapek & Sons",'
    ' "location": "Brno, Moravia, Czechia", "salary": {"min": 1.10, "max": 1E+2, "currency":'
    ' "CZK", "text": "Hourly"}, "posted_at": "2012-01-26T00:00:00.000", "url": null,'
    ' "is_remote": true, "tags": ["x", "\\ud83d"], "extra": [1.10, -0, 1e400,'
    ' 99999999999999999999], "\\u0061": "\u2028\u0085"  }'
)


def test_common_names_become_the_vendors_and_every_original_value_is_kept(tmp_path: Path) -> None:
    # Given
    file = tmp_path / "postings.jsonl"
    file.write_bytes(ORIGINAL.encode() + b"\r\n")
    # When
    count = database.load(tmp_path / "board.db", file)
    with serving(tmp_path / "board.db") as client:
        text = client.get("/v2/jobs/18446744073709551617").text
        nearby = ids(client, locations=[{"city": "brno"}], location_types=["remote"])
    # Then
    assert count == (1, 0)
    assert text.endswith("," + ORIGINAL[1:])
    assert text.startswith('{"_id":"18446744073709551617",')
    assert '"salary_range":{"min":1.10,"max":1E+2,"currency":"CZK","period":"Hourly"}' in text
    served = json.loads(text)
    assert served["job_title"] == served["title"]
    assert served["company_name"] == "Čapek & Sons"
    assert served["company_slug"] == "čapek-sons"
    assert served["location_raw"] == "Brno, Moravia, Czechia"
    assert served["locations"] == [
        {
            "address": "Brno, Moravia, Czechia",
            "city": "Brno",
            "region": "Moravia",
            "country": "Czechia",
        }
    ]
    assert served["date_posted"] == "2012-01-26"
    assert served["application_link"] is None
    assert served["location_type"] == ["Remote"]
    assert served["skills"] == ["x", "\ud83d"]
    assert nearby == ["18446744073709551617"]


def test_a_member_that_has_the_vendors_name_is_never_changed_or_doubled(tmp_path: Path) -> None:
    # Given
    original = (
        '{"_id":"a","id":"b","title":"t","job_title":"j","date_posted":"soon","posted_at":'
        '"2025-01-01","skills":"one, two","tags":["x"],"expired":{}}'
    )
    file = tmp_path / "postings.jsonl"
    file.write_text(original)
    # When
    database.load(tmp_path / "board.db", file)
    with serving(tmp_path / "board.db") as client:
        served = client.get("/v2/jobs/a").text
    # Then
    assert served == original


def test_a_damaged_date_is_kept_and_is_no_date_posted(tmp_path: Path) -> None:
    # Given
    file = lines(tmp_path / "p.jsonl", [{"id": "a", "posted_at": "NYCHA has no rule."}])
    # When
    database.load(tmp_path / "board.db", file)
    with serving(tmp_path / "board.db") as client:
        served = client.get("/v2/jobs/a").json()
        dated = ids(client, date_posted="0001-01-01")
    # Then
    assert served == {
        "_id": "a",
        "date_posted": None,
        "id": "a",
        "posted_at": "NYCHA has no rule.",
    }
    assert dated == []


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "not JSON"),
        (b'{"id":NaN}', "NaN"),
        (b"[1]", "an object is needed"),
        (b'{"title":"x"}', "no id"),
        (b'{"id":null}', "no id"),
        (b'{"id":true}', "no id"),
        (b'{"id":"\\ud800"}', "surrogate"),
        (b'{"id":"\xff"}', "UTF-8"),
        (b'{"id":"a"} {"id":"b"}', "not JSON"),
        (b'{"id":"a","x":' + b"[" * 100_000 + b"]" * 100_000 + b"}", "nested too deeply"),
    ],
)
def test_one_bad_line_refuses_the_file_by_its_number_and_changes_nothing(
    tmp_path: Path, line: bytes, reason: str
) -> None:
    # Given
    path, file = tmp_path / "board.db", tmp_path / "p.jsonl"
    database.load(path, lines(tmp_path / "first.jsonl", [{"id": "kept", "v": 1}]))
    good = [b'{"id":"%d"}' % number for number in range(1_200)]
    file.write_bytes(b"\n".join([b'{"id":"kept","v":2}', b"", *good, line, b'{"id":"z"}']))
    # When
    with pytest.raises(database.LoadError, match=f"line 1203: .*{reason}"):
        database.load(path, file)
    # Then
    with serving(path) as client:
        assert answer(client)["jobs"] == [{"_id": "kept", "id": "kept", "v": 1}]


def test_a_truncated_gzip_file_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    # Given
    text = "".join(f'{{"id":"{number}","v":{number**9}}}\n' for number in range(9_000))
    file = tmp_path / "p.gz"
    file.write_bytes(gzip.compress(text.encode())[:-2_000])
    # When
    with pytest.raises(database.LoadError, match="cannot be unpacked"):
        database.load(tmp_path / "board.db", file)
    # Then
    with serving(tmp_path / "board.db") as client:
        assert answer(client)["total_count"] == 0


def test_the_later_of_two_postings_with_one_id_wins_and_loading_twice_changes_nothing(
    tmp_path: Path,
) -> None:
    # Given
    path, file = tmp_path / "board.db", tmp_path / "p.gz"
    found = [{"id": str(number % 700), "v": number} for number in range(1_000)]
    file.write_bytes(gzip.compress("\n".join(map(json.dumps, found)).encode()))
    # When
    first = database.load(path, file)
    with serving(path) as client:
        before = everything(client)
        second = database.load(path, file)
        after = everything(client)
    # Then
    assert first == (1_000, 300)
    assert second == (1_000, 1_000)
    assert {job["_id"]: job["v"] for job in before} == {str(n % 700): n for n in range(1_000)}
    assert len(before) == 700
    assert sorted(before, key=lambda job: job["v"]) == sorted(after, key=lambda job: job["v"])


def test_a_replaced_posting_is_found_by_its_new_words_only(tmp_path: Path) -> None:
    # Given
    path = tmp_path / "board.db"
    old = [{"id": "a", "title": "Baker", "description": "bread"}]
    new = [{"id": "a", "title": "Fitter", "description": "pipes"}]
    database.load(path, lines(tmp_path / "1", old))
    with serving(path) as client:
        assert ids(client, job_titles=["baker"]) == ["a"]
        # When
        database.load(path, lines(tmp_path / "2", new))
        # Then
        assert ids(client, job_titles=["baker"]) == []
        assert ids(client, keywords=["bread"]) == []
        assert ids(client, job_titles=["fitter"], keywords=["pipes"]) == ["a"]


LOADER = """
import sys
from pathlib import Path
from exporter.board import database
database.load(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_a_reader_sees_the_board_before_or_after_a_load_and_never_half(tmp_path: Path) -> None:
    # Given
    path = tmp_path / "board.db"
    versions = [
        lines(
            tmp_path / f"{version}.jsonl",
            [{"id": f"{n}", "v": version, "title": "t"} for n in range(count)],
        )
        for version, count in ((1, 3_000), (2, 4_000))
    ]
    database.load(path, versions[0])
    seen = set()
    with serving(path) as client:
        # When
        loader = subprocess.Popen([sys.executable, "-c", LOADER, str(path), str(versions[1])])
        deadline = time.monotonic() + 60
        while (last := loader.poll()) is None and time.monotonic() < deadline:
            body = answer(client, page=2, limit=100)
            seen.add((body["total_count"], frozenset(job["v"] for job in body["jobs"])))
        body = answer(client, page=2, limit=100)
        seen.add((body["total_count"], frozenset(job["v"] for job in body["jobs"])))
    # Then
    assert last == 0
    before, after = (3_000, frozenset({1})), (4_000, frozenset({2}))
    assert seen == {before, after}


def test_a_board_starts_to_serve_while_another_process_is_loading(tmp_path: Path) -> None:
    # Given
    path = tmp_path / "board.db"
    database.load(path, lines(tmp_path / "p.jsonl", POSTINGS))
    with database.writing(path) as connection:
        connection.execute("DELETE FROM postings")
        # When
        with serving(path) as client:
            found = ids(client)
    # Then
    assert found == LIVE


def test_a_board_without_keys_is_refused(tmp_path: Path) -> None:
    # When
    with pytest.raises(ValueError, match="at least one API key") as caught:
        app.create_app(tmp_path / "board.db", [])
    # Then
    assert "empty" in str(caught.value)
