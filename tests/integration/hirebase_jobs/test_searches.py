"""Searches through the API, on the wire."""

from __future__ import annotations

from typing import Any

import pytest

from exporter.board import hostile
from tests.integration.api_server import Service
from tests.integration.hirebase_jobs.desk import EVERYTHING, ROWS


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
    posting = next(iter(hostile.generate(1)))

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
