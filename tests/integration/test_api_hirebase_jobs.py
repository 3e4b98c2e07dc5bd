"""Searching through the API, on the wire, with a real board behind it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from exporter.admission import Rate
from exporter.board import synthetic
from exporter.config import SourceConfig, Surfaces
from exporter.errors import StoreUnavailable
from exporter.plans import Plan
from exporter.store.accounts import Credits
from exporter.store.redis import RedisStore
from tests import boards
from tests.integration.api_server import Service
from tests.upstreams import reply, serving

ROWS = 120
EVERYTHING = {"include_expired": "true"}
DAY = "2020-01-01"


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a board with synthetic postings."""
    database: Path = tmp_path_factory.mktemp("board") / "board.sqlite"
    synthetic.synthesize(database, ROWS)
    with boards.serving(database) as url:
        yield url


@pytest.fixture(scope="module")
def postings() -> dict[str, dict[str, Any]]:
    """Each posting of the board by its id, from the generator and not by way of the service."""
    return {posting.id: json.loads(posting.json) for posting in synthetic.generate(ROWS)}


def behind(api: Service, url: str) -> Service:
    """The same service, its source at that address."""
    api.engine.config.sources["board"] = SourceConfig(
        type="hirebase", base_url=url, api_key=boards.KEY
    )
    return api


@pytest.fixture
def jobs(api: Service, board: str) -> Iterator[Service]:
    yield behind(api, board)
    api.engine.source("board").close()


def key_of(api: Service, balance: int | None = None, *features: str) -> dict[str, str]:
    """The header of a new key with such a plan."""
    plan = Plan(key_id=None, features=frozenset(features) if features else None)
    return {"X-API-Key": api.keys.create("ann", plan=plan, balance=balance)}


def left(api: Service) -> int | None:
    """What the newest key may still spend."""
    return Credits(api.keys.client).balance(api.keys.list()[-1].id).left


def usage(headers: Any) -> dict[str, str]:
    prefix = "hirebase-usage-"
    return {name[len(prefix) :]: headers[name] for name in headers if name.startswith(prefix)}


# -- searching ---------------------------------------------------------------------------------


def test_a_search_gives_ten_postings_as_the_source_wrote_them_and_the_true_totals(
    jobs: Service, postings: dict[str, dict[str, Any]]
) -> None:
    # When
    answer = jobs.http.post("/v2/jobs/search", json=EVERYTHING)

    # Then
    found = answer.json()
    assert answer.status_code == 200, answer.text
    assert answer.headers["Content-Type"] == "application/json"
    assert [posting == postings[posting["_id"]] for posting in found["jobs"]] == [True] * 10
    del found["jobs"]
    companies = found.pop("company_count")
    assert companies > 1
    assert found == {"total_count": ROWS, "page": 1, "limit": 10, "total_pages": 12}


def test_a_page_past_the_end_is_empty_and_tells_the_true_totals(jobs: Service) -> None:
    # When
    answer = jobs.http.post("/v2/jobs/search", json={**EVERYTHING, "page": 999, "limit": 100})

    # Then
    found = answer.json()
    assert (found["jobs"], found["total_count"], found["total_pages"]) == ([], ROWS, 2)


def test_the_pages_of_a_search_hold_every_posting_once(
    jobs: Service, postings: dict[str, dict[str, Any]]
) -> None:
    # When
    ids = []
    for page in range(1, 5):
        body = {**EVERYTHING, "page": page, "limit": 37}
        ids += [job["_id"] for job in jobs.http.post("/v2/jobs/search", json=body).json()["jobs"]]

    # Then
    assert sorted(ids) == sorted(postings)


@pytest.mark.parametrize(
    ("body", "loc", "message"),
    [
        ({"limit": 101}, ["body", "limit"], "Limit cannot be greater than 100"),
        ({"limit": 0}, ["body", "limit"], "greater than or equal to 1"),
        ({"page": 0}, ["body", "page"], "greater than or equal to 1"),
        ({"colour": "red"}, ["body", "colour"], "known: job_titles"),
        ({"visa": "perhaps"}, ["body", "visa"], '"true" or "false"'),
        (
            {"geo_locations": [{"city": "Rome", "coordinates": [12.5, 41.9]}]},
            ["body", "geo_locations", 0, "coordinates"],
            "Point",
        ),
        ({"industry": "Desing"}, ["body", "industry"], "did you mean 'Design'"),
        ({"sub_industry": ["Payment"]}, ["body", "sub_industry"], "did you mean 'Payments'"),
        ({"job_category": ["Nurssing"]}, ["body", "job_category"], "did you mean 'Nursing'"),
        ({"industry": ["Qqqqqq"]}, ["body", "industry"], "GET /v2/jobs/data/industries lists all"),
    ],
)
@pytest.mark.parametrize("path", ["/v2/jobs/search", "/v2/jobs/estimate", "/v2/jobs/export"])
def test_what_is_wrong_with_a_search_is_named_where_it_stands(
    jobs: Service, path: str, body: dict[str, Any], loc: list[Any], message: str
) -> None:
    # Given: in an export a limit is the number of records, and so it is in an estimate
    if body == {"limit": 101} and path != "/v2/jobs/search":
        pytest.skip("it is no page")
    sent, place = body, loc
    if path == "/v2/jobs/export":
        sent, place = {"search": body, "format": "json"}, ["body", "search", *loc[1:]]

    # When
    answer = jobs.http.post(path, json=sent)

    # Then
    assert answer.status_code == 422, answer.text
    (problem,) = answer.json()["detail"]
    assert problem["loc"][: len(place)] == place
    assert message in problem["msg"]


@pytest.mark.parametrize("industry", ["design", "DESIGN", ["Design "], "Design"])
def test_a_known_value_is_found_however_it_is_spelled(jobs: Service, industry: Any) -> None:
    # When
    body = {**EVERYTHING, "industry": industry}
    answer = jobs.http.post("/v2/jobs/search", json=body)

    # Then
    exact = jobs.http.post("/v2/jobs/search", json={**EVERYTHING, "industry": "Design"})
    assert answer.json() == exact.json()
    assert answer.json()["total_count"] > 0


def test_an_unknown_value_is_no_mistake_while_nobody_can_tell_which_are_known(api: Service) -> None:
    # Given: nobody listens there
    body = {"search": {"industry": "Desing"}, "format": "json"}

    # When
    answer = api.http.post("/v2/jobs/export", json=body)

    # Then
    assert answer.status_code == 202, answer.text


def test_one_posting_comes_by_its_id_byte_for_byte(jobs: Service) -> None:
    # Given
    posting = next(iter(synthetic.generate(1)))

    # When
    answer = jobs.http.get(f"/v2/jobs/{posting.id}")
    missing = jobs.http.get("/v2/jobs/no-such-job")

    # Then
    assert answer.content == posting.json
    assert missing.status_code == 404
    assert "no-such-job" in missing.json()["detail"]


def test_a_posting_comes_by_the_slugs_of_its_page(
    jobs: Service, postings: dict[str, dict[str, Any]]
) -> None:
    # Given
    posting = next(iter(postings.values()))

    # When
    path = f"/v2/hirebase/companies/{posting['company_slug']}/jobs/{posting['job_slug']}"
    answer = jobs.http.get(path)

    # Then
    assert answer.json()["jobs"] == [posting]


def test_an_estimate_is_what_matches_but_no_more_than_the_limit(jobs: Service) -> None:
    def cost(**more: Any) -> Any:
        answer = jobs.http.post("/v2/jobs/estimate", json={**EVERYTHING, **more})
        assert answer.status_code == 200, answer.text
        return answer.json()

    # When / Then
    assert cost() == {"cost": ROWS}
    assert cost(limit=50) == {"cost": 50}
    assert cost(limit=5_000) == {"cost": ROWS}
    assert cost(limit=100, page=2) == {"cost": ROWS - 100}
    assert cost(job_titles=['"no such title"']) == {"cost": 0}


def test_our_own_contract_estimates_as_well(jobs: Service) -> None:
    # When
    body = {"source": "board", "query": EVERYTHING}
    whole = jobs.http.post("/v1/exports/estimate", json=body)
    some = jobs.http.post("/v1/exports/estimate", json={**body, "limit": 7})
    wrong = jobs.http.post("/v1/exports/estimate", json={**body, "query": {"industry": "Desing"}})

    # Then
    assert (whole.json(), some.json()) == ({"records": ROWS}, {"records": 7})
    assert wrong.status_code == 422
    assert wrong.json()["errors"][0]["pointer"] == "/query/industry"


@pytest.mark.parametrize("name", ["industries", "categories"])
def test_what_can_be_searched_for_is_told_without_a_key(
    jobs: Service, postings: dict[str, dict[str, Any]], name: str
) -> None:
    # Given
    companies = [posting.get("company_data") or {} for posting in postings.values()]
    own = [posting.get("job_categories") for posting in postings.values()]
    expected = {
        "industries": {
            "industries": [company.get("industries") for company in companies],
            "sub_industries": [company.get("subindustries") for company in companies],
        },
        "categories": {"categories": own},
    }[name]

    # When
    answer = jobs.http.get(f"/v2/jobs/data/{name}", headers={"X-API-Key": ""})

    # Then
    assert answer.json() == {
        kind: sorted({label for some in lists for label in some or []})
        for kind, lists in expected.items()
    }


# -- what expired --------------------------------------------------------------------------------


def test_expired_postings_are_listed_by_their_ids_page_by_page(
    jobs: Service, postings: dict[str, dict[str, Any]]
) -> None:
    # Given
    gone = {identity for identity, posting in postings.items() if posting["expired"]}

    # When
    pages = [
        jobs.http.get("/v2/jobs/expired-jobs", params={"since": DAY, "page": page, "limit": 2})
        for page in range(1, len(gone) + 1)
    ]

    # Then
    rows = [row for page in pages for row in page.json()["jobs"]]
    assert len(gone) > 2
    assert sorted(row["_id"] for row in rows) == sorted(gone)
    assert {len(row) for row in rows} == {1}
    assert {page.json()["total_count"] for page in pages} == {len(gone)}


def test_nothing_has_expired_since_tomorrow(jobs: Service) -> None:
    # Given
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).isoformat()

    # When
    answer = jobs.http.get("/v2/jobs/expired-jobs", params={"since": tomorrow})

    # Then
    assert answer.json() == {
        "jobs": [],
        "total_count": 0,
        "page": 1,
        "limit": 100,
        "total_pages": 0,
    }


@pytest.mark.parametrize(
    ("query", "place"),
    [
        ({}, "since"),
        ({"since": "yesterday"}, "since"),
        ({"since": DAY, "limit": 101}, "limit"),
        ({"since": DAY, "page": 0}, "page"),
    ],
)
def test_a_wrong_question_for_the_expired_is_named(
    jobs: Service, query: dict[str, Any], place: str
) -> None:
    # When
    answer = jobs.http.get("/v2/jobs/expired-jobs", params=query)

    # Then
    assert answer.status_code == 422
    assert [problem["loc"] for problem in answer.json()["detail"]] == [["query", place]]


def test_an_export_of_the_expired_is_a_task_of_its_own_type(jobs: Service) -> None:
    # When
    body = {"since": "2026-01-01T02:00:00+02:00", "notify": False, "limit": 5}
    answer = jobs.http.post("/v2/jobs/expired-jobs/export", json=body)

    # Then
    task = answer.json()
    assert answer.status_code == 202, answer.text
    assert (task["type"], task["format"]) == ("export_expired_jobs", "json")
    assert task["input"]["query"] == {"since": "2026-01-01T00:00:00Z", "limit": 5}
    export = jobs.engine.find("ann", task["id"])
    assert export is not None
    assert export.spec.query == {"expired_since": "2026-01-01T00:00:00Z"}
    assert export.spec.limit == 5
    assert jobs.http.get(f"/v2/tasks/{task['id']}").json()["type"] == "export_expired_jobs"


@pytest.mark.parametrize(
    ("body", "place", "message"),
    [
        ({"since": DAY, "notify": True}, "notify", "no e-mail is sent"),
        ({"since": "soon"}, "since", "no day and no moment"),
        ({}, "since", "required"),
        ({"since": DAY, "limit": 0}, "limit", "greater than or equal to 1"),
        ({"since": DAY, "format": "csv"}, "format", "unknown field"),
    ],
)
def test_a_wrong_export_of_the_expired_is_named(
    jobs: Service, body: dict[str, Any], place: str, message: str
) -> None:
    # When
    answer = jobs.http.post("/v2/jobs/expired-jobs/export", json=body)

    # Then
    assert answer.status_code == 422
    (problem,) = answer.json()["detail"]
    assert problem["loc"] == ["body", place]
    assert message in problem["msg"]


# -- how often, and for how much -----------------------------------------------------------------


def test_a_key_may_ask_so_often_and_then_learns_when_it_may_again(jobs: Service) -> None:
    # Given
    settings = jobs.engine.settings
    jobs.engine.settings = settings.model_copy(update={"hirebase_rate": Rate(3, 60)})

    # When
    answers = [jobs.http.post("/v2/jobs/search", json=EVERYTHING) for _ in range(5)]
    another = jobs.http.get("/v2/tasks", headers={"X-API-Key": jobs.bob})

    # Then
    assert [answer.status_code for answer in answers] == [200, 200, 200, 429, 429]
    assert [answer.headers["X-RateLimit-Remaining"] for answer in answers] == list("21000")
    assert {answer.headers["X-RateLimit-Limit"] for answer in answers} == {"3"}
    assert answers[3].json() == {"detail": "Rate limit exceeded"}
    assert 1 <= int(answers[3].headers["Retry-After"]) <= 60
    assert "X-Billing-Code" not in answers[3].headers
    assert another.status_code == 200
    assert another.headers["X-RateLimit-Remaining"] == "2"


def test_errors_count_and_tell_what_remains_as_answers_do(jobs: Service) -> None:
    # When
    answer = jobs.http.post("/v2/jobs/search", json={"limit": 101})

    # Then
    assert answer.status_code == 422
    assert answer.headers["X-RateLimit-Remaining"] == "99"


def test_polling_a_task_does_not_use_up_requests(jobs: Service) -> None:
    # Given
    settings = jobs.engine.settings
    jobs.engine.settings = settings.model_copy(update={"hirebase_rate": Rate(2, 60)})
    created = jobs.http.post("/v2/jobs/export", json={"search": {}, "format": "json"})
    path = f"/v2/tasks/{created.json()['id']}"

    # When
    polls = [jobs.http.get(path).status_code for _ in range(20)]
    after = jobs.http.get("/v2/tasks")

    # Then
    assert polls == [200] * 20
    assert after.headers["X-RateLimit-Remaining"] == "0"


def test_each_posting_is_paid_for_and_the_headers_tell_what_is_left(jobs: Service) -> None:
    # Given
    header = key_of(jobs, 100)

    # When
    answer = jobs.http.post("/v2/jobs/search", json={**EVERYTHING, "limit": 30}, headers=header)

    # Then
    told = usage(answer.headers)
    start = told.pop("period-start")
    assert datetime.fromisoformat(start) <= datetime.now(UTC)
    assert told == {
        "feature": "jobs_api",
        "meter": "m_jobs_api_calls",
        "unit": "jobs",
        "included-limit": "100",
        "included-used": "30",
        "included-remaining": "70",
        "overage-used": "0",
        "overage-mode": "block",
        "total-used": "30",
        "period-end": "9999-12-31T23:59:59Z",
    }
    assert left(jobs) == 70


def test_what_is_free_takes_nothing_even_from_an_empty_balance(jobs: Service) -> None:
    # Given
    header = key_of(jobs, 0)
    free: list[tuple[str, str, dict[str, Any]]] = [
        ("POST", "/v2/jobs/estimate", {"json": EVERYTHING}),
        ("GET", "/v2/jobs/expired-jobs", {"params": {"since": DAY}}),
        ("POST", "/v2/jobs/expired-jobs/export", {"json": {"since": DAY}}),
        ("GET", "/v2/billing/usage/summary", {}),
        ("GET", "/v2/tasks", {}),
    ]

    # When
    answers = [
        jobs.http.request(method, path, headers=header, **more) for method, path, more in free
    ]

    # Then
    assert [answer.status_code for answer in answers] == [200, 200, 202, 200, 200]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/v2/jobs/search", {**EVERYTHING, "limit": 4}),
        ("POST", "/v2/jobs/export", {"search": {"limit": 4}, "format": "json"}),
    ],
)
def test_what_the_balance_does_not_hold_is_a_quota_and_no_rate(
    jobs: Service, method: str, path: str, body: dict[str, Any]
) -> None:
    # Given
    jobs.engine.store = RedisStore(jobs.keys.client)
    header = key_of(jobs, 3)

    # When
    answer = jobs.http.request(method, path, json=body, headers=header)

    # Then
    assert answer.status_code == 429, answer.text
    assert answer.headers["X-Billing-Code"] == "limit_exceeded"
    assert "Retry-After" not in answer.headers
    assert "needs 4" in answer.json()["detail"]
    assert usage(answer.headers)["included-remaining"] == "3"
    assert left(jobs) == 3


def test_an_empty_balance_is_refused_in_the_vendors_words(jobs: Service) -> None:
    # Given
    header = key_of(jobs, 2)
    body = {**EVERYTHING, "limit": 2}
    jobs.http.post("/v2/jobs/search", json=body, headers=header)

    # When
    answer = jobs.http.get("/v2/jobs/any", headers=header)

    # Then
    assert answer.status_code == 429
    assert answer.json() == {
        "detail": "You've reached your plan's included usage of 2 for this period."
    }


def test_a_posting_that_is_not_there_costs_nothing(jobs: Service) -> None:
    # Given
    header = key_of(jobs, 1)

    # When
    answer = jobs.http.get("/v2/jobs/no-such-job", headers=header)

    # Then
    assert answer.status_code == 404
    assert left(jobs) == 1


def test_an_export_sets_its_records_aside_and_says_so(jobs: Service) -> None:
    # Given
    jobs.engine.store = RedisStore(jobs.keys.client)
    header = key_of(jobs, 500)

    # When
    body = {"search": EVERYTHING, "format": "json"}
    answer = jobs.http.post("/v2/jobs/export", json=body, headers=header)

    # Then
    assert answer.status_code == 202, answer.text
    told = usage(answer.headers)
    assert (told["meter"], told["included-limit"]) == ("m_exports", "500")
    assert told["included-remaining"] == str(500 - ROWS)


def test_a_key_without_a_balance_is_told_of_no_usage(jobs: Service) -> None:
    # When
    answer = jobs.http.post("/v2/jobs/search", json=EVERYTHING)

    # Then
    assert usage(answer.headers) == {}


def test_the_summary_shows_the_whole_balance_on_each_meter(jobs: Service) -> None:
    # Given
    header = key_of(jobs, 50, "search", "export")
    jobs.http.post("/v2/jobs/search", json={**EVERYTHING, "limit": 20}, headers=header)

    # When
    answer = jobs.http.get("/v2/billing/usage/summary", headers=header)
    unlimited = jobs.http.get("/v2/billing/usage/summary")

    # Then
    summary = answer.json()
    assert summary["plan_lookup_keys"] == ["export", "search"]
    assert [
        (row["event_name"], row["used"], row["included"], row["remaining"])
        for row in summary["meters"]
    ] == [("m_jobs_api_calls", 20, 50, 30), ("m_exports", 20, 50, 30)]
    assert {row["remaining"] for row in unlimited.json()["meters"]} == {None}


@pytest.mark.parametrize(
    ("feature", "method", "path", "body"),
    [
        ("search", "POST", "/v2/jobs/search", {}),
        ("search", "GET", "/v2/jobs/any", None),
        ("search", "GET", "/v2/hirebase/companies/a/jobs/b", None),
        ("expired", "GET", f"/v2/jobs/expired-jobs?since={DAY}", None),
        ("expired", "POST", "/v2/jobs/expired-jobs/export", {"since": DAY}),
        ("export", "POST", "/v2/jobs/export", {"search": {}, "format": "csv"}),
    ],
)
def test_what_a_plan_leaves_out_is_403(
    jobs: Service, feature: str, method: str, path: str, body: dict[str, Any] | None
) -> None:
    # Given
    header = key_of(jobs, None, "bulk")

    # When
    answer = jobs.http.request(method, path, json=body, headers=header)

    # Then
    assert answer.status_code == 403, answer.text
    assert f"does not hold {feature!r}" in answer.json()["detail"]


# -- an upstream in trouble ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "status", "header"),
    [
        (reply(429, {"detail": "slow"}, retry_after="120"), 429, ("Retry-After", "120")),
        (
            reply(429, {"detail": "plan used up"}, x_billing_code="limit_exceeded"),
            429,
            ("X-Billing-Code", "limit_exceeded"),
        ),
        (reply(503, {"detail": "away"}, retry_after="60"), 503, ("Retry-After", "60")),
        (reply(502, {"detail": "gateway"}), 503, ("Retry-After", "5")),
        (reply(401, {"detail": "who are you"}), 502, None),
        (reply(422, {"detail": "hide_seen_jobs cannot be done"}), 422, None),
        (reply(200, {"jobs": [], "total_count": 7}), 502, None),
    ],
)
@pytest.mark.parametrize("path", ["/v2/jobs/search", "/v2/jobs/estimate"])
def test_what_an_upstream_does_is_told_in_its_own_terms(
    api: Service, path: str, said: bytes, status: int, header: tuple[str, str] | None
) -> None:
    # Given
    with serving(said) as upstream:
        behind(api, upstream.url)

        # When
        answer = api.http.post(path, json={})
        api.engine.source("board").close()

    # Then
    if path.endswith("estimate") and b"total_count" in said:
        # A count past the end may well be empty.
        assert answer.json() == {"cost": 7}
        return
    assert answer.status_code == status, answer.text
    assert answer.headers.get("Retry-After") == (
        header[1] if header and header[0] == "Retry-After" else None
    )
    assert answer.headers.get("X-Billing-Code") == (
        header[1] if header and header[0] == "X-Billing-Code" else None
    )
    assert boards.KEY not in answer.text


def test_a_search_of_a_source_that_has_none_is_404(api: Service) -> None:
    # Given
    rows = SourceConfig(type="coresignal", base_url="http://127.0.0.1:9", api_key="unused")
    config = api.engine.config.model_copy(update={"surfaces": Surfaces(hirebase="rows")})
    api.engine.config = config
    config.sources["rows"] = rows

    # When
    answers = [
        api.http.post("/v2/jobs/search", json={}),
        api.http.get("/v2/jobs/data/industries"),
        api.http.get("/v2/jobs/expired-jobs", params={"since": DAY}),
        api.http.post("/v2/jobs/expired-jobs/export", json={"since": DAY}),
    ]

    # Then
    assert [answer.status_code for answer in answers] == [404] * 4
    assert "only exported from the source 'rows'" in answers[0].json()["detail"]


def test_while_an_upstream_hangs_tasks_are_polled_all_the_same(api: Service) -> None:
    # Given
    polled = threading.Event()

    def hangs(_: Any) -> bytes:
        polled.wait(20)
        return reply(200, {"jobs": [], "total_count": 0})

    created = api.http.post("/v2/jobs/export", json={"search": {}, "format": "json"}).json()
    with serving(hangs) as upstream, ThreadPoolExecutor(60) as callers:
        behind(api, upstream.url)
        api.engine._sources.clear()
        waiting = [
            callers.submit(api.http.post, "/v2/jobs/search", json={}, timeout=60) for _ in range(60)
        ]
        time.sleep(0.5)

        # When
        begin = time.monotonic()
        poll = api.http.get(f"/v2/tasks/{created['id']}")
        took = time.monotonic() - begin
        polled.set()
        for one in waiting:
            one.cancel()
        api.engine.source("board").close()

    # Then
    assert poll.status_code == 200
    assert took < 2


def test_while_redis_is_away_searches_are_503(
    jobs: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    def away(*_: Any) -> None:
        raise StoreUnavailable("gone")

    monkeypatch.setattr("exporter.store.limits.RateLimits.hit", away)

    # When
    answer = jobs.http.post("/v2/jobs/search", json={})

    # Then
    assert answer.status_code == 503
