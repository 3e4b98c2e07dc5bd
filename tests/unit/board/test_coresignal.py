"""Coresignal API of the board, tested over a real socket."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from exporter.board import coresignal_records, database, synthetic
from exporter.board.profiles import Profile
from tests import boards
from tests.boards import KEY

pytestmark = pytest.mark.external

SEARCH, DSL = "/v2/job_base/search/filter", "/v2/job_base/search/es_dsl"

POSTINGS: list[dict[str, Any]] = [
    {
        "_id": "civil",
        "job_title": "Site/Civil Engineer",
        "company_name": "Müller & Söhne, Inc",
        "company_slug": "mueller",
        "company_link": "https://www.Mueller.example/",
        "description": "Draw bridges in C++ and démolish others.",
        "job_type": "full time",
        "location_raw": "Richmond, Virginia",
        "locations": [{"city": "Richmond", "country": "United States"}],
        "date_posted": "2025-06-01",
        "salary_range": {"min": 90000, "max": 120000, "currency": "USD", "period": "year"},
        "experience_level": "Mid Level",
        "job_categories": ["Engineering"],
        "application_link": "https://jobs.example.com/civil",
        "company_data": {"industries": ["Design", "Construction"]},
    },
    {
        "_id": "senior",
        "job_title": "Senior Software Engineer",
        "company_name": "Company XYZ",
        "company_slug": "xyz",
        "contact_email": "jobs@xyz.example",
        "description": "others draw wind by turbines",
        "skills": ["machine learning"],
        "job_type": ["Contract", "Part-time"],
        "locations": [{"city": "Berlin", "country": "Germany"}, {"country": "United States"}],
        "date_posted": "2025-05-31",
        "company_data": {"industries": ["Construction"]},
    },
    {
        "_id": "old",
        "job_title": "Engineer, Software (gone)",
        "company_name": "Zed",
        "expired": True,
        "date_posted": "2020-01-01",
        "description": "learning wind turbines",
    },
    {"_id": "bare", "job_title": 5, "locations": "nowhere", "company_data": []},
]
NUMBER = {posting["_id"]: coresignal_records.record_id(posting["_id"]) for posting in POSTINGS}
NAME = {number: name for name, number in NUMBER.items()}
serving = partial(boards.client, prefix="/cdapi")


def load(directory: Path, postings: list[dict[str, Any]]) -> Path:
    boards.load(directory / "board.sqlite", postings)
    return directory / "board.sqlite"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Serves a board with POSTINGS."""
    with serving(load(tmp_path_factory.mktemp("small"), POSTINGS)) as client:
        yield client


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """Serves a board with 1,030 synthetic postings."""
    path = tmp_path_factory.mktemp("large") / "board.sqlite"
    synthetic.synthesize(path, 1_030, profile=Profile.HOSTILE)
    with serving(path) as client:
        yield client


def found(client: httpx.Client, filters: dict[str, Any]) -> set[str]:
    answer = client.post(SEARCH, json=filters)
    assert answer.status_code == 200, answer.text
    assert answer.headers["x-total-results"] == str(len(answer.json()))
    return {NAME[number] for number in answer.json()}


def chosen(client: httpx.Client, query: dict[str, Any]) -> set[str]:
    answer = client.post(DSL, json={"query": query})
    assert answer.status_code == 200, answer.text
    return {NAME[number] for number in answer.json()}


def refusal(answer: httpx.Response, status: int = 422) -> str:
    assert answer.status_code == status
    (detail,) = answer.json().values()
    assert isinstance(detail, str)
    return detail


ALL = {"civil", "senior", "old", "bare"}


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({}, ALL),
        ({"title": None}, ALL),
        ({"title": "engineer"}, {"civil", "senior", "old"}),
        ({"title": "software engineer"}, {"senior", "old"}),
        ({"title": '"software engineer"'}, {"senior"}),
        ({"title": "civil OR gone"}, {"civil", "old"}),
        ({"title": "engineer AND (civil OR gone)"}, {"civil", "old"}),
        ({"title": "engineer AND nothing OR senior"}, {"senior"}),
        ({"title": "!!!"}, set()),
        ({"keyword_description": "turbines wind"}, {"senior", "old"}),
        ({"keyword_description": '"wind turbines"'}, {"old"}),
        ({"keyword_description": '"wind turbines" OR c++'}, {"old", "civil"}),
        ({"keyword_description": "demolish"}, {"civil"}),
        ({"keyword_description": '"AND DEMOLISH others"'}, {"civil"}),
        ({"keyword_description": '"machine learning"'}, {"senior"}),
        ({"employment_type": "Full-time"}, {"civil"}),
        ({"employment_type": "contract"}, {"senior"}),
        ({"employment_type": '"Full-time" OR "Contract"'}, {"civil", "senior"}),
        ({"employment_type": "contract AND part-time"}, {"senior"}),
        ({"employment_type": "time"}, set()),
        ({"location": "virginia"}, {"civil"}),
        ({"location": "Berlin OR Richmond"}, {"civil", "senior"}),
        ({"location": '"Virginia Richmond"'}, set()),
        ({"country": "united states"}, {"civil"}),
        ({"country": '"United States" OR germany'}, {"civil", "senior"}),
        ({"company_name": "muller"}, {"civil"}),
        ({"company_name": '"Söhne, Inc"'}, {"civil"}),
        ({"company_name": "company"}, {"senior"}),
        ({"company_domain": "mueller.example"}, {"civil"}),
        ({"company_domain": "http://www.xyz.example/about"}, {"senior"}),
        ({"company_domain": "xyz"}, set()),
        ({"company_exact_website": "https://mueller.example"}, {"civil"}),
        ({"company_exact_website": "https://mueller.example/about"}, set()),
        (
            {
                "company_professional_network_url": "https://www.professional-network.com/"
                "company/mueller/"
            },
            {"civil"},
        ),
        ({"industry": "construction"}, {"civil", "senior"}),
        ({"industry": "construction AND design"}, {"civil"}),
        ({"industry": '"design construction"'}, set()),
        ({"company_id": coresignal_records.company_id("zed")}, {"old"}),
        ({"company_id": 1}, set()),
        ({"deleted": True}, set()),
        ({"deleted": False}, ALL),
        ({"application_active": False}, {"old"}),
        ({"application_active": True}, {"civil", "senior", "bare"}),
        ({"created_at_gte": "2025-05-31 00:00:00"}, {"civil", "senior"}),
        ({"created_at_gte": "2025-05-31 00:00:01"}, {"civil"}),
        ({"created_at_lte": "2025-05-31 00:00:00"}, {"senior", "old"}),
        ({"created_at_lte": "2025-05-30 23:59:59"}, {"old"}),
        ({"last_updated_gte": "2025-06-01 00:00:00"}, {"civil"}),
        ({"last_updated_lte": "2020-01-01 00:00:00"}, {"old"}),
        ({"title": "engineer", "country": "germany", "application_active": True}, {"senior"}),
    ],
)
def test_a_search_finds_the_postings_that_meet_all_its_filters(
    small: httpx.Client, filters: dict[str, Any], names: set[str]
) -> None:
    # When
    names_found = found(small, filters)
    # Then
    assert names_found == names


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ({"match_all": {}}, ALL),
        ({"match": {"title": "civil gone"}}, {"civil", "old"}),
        ({"match": {"title": {"query": "software gone", "operator": "and"}}}, {"old"}),
        ({"match_phrase": {"title": "software engineer"}}, {"senior"}),
        ({"match_phrase": {"description": {"query": "wind turbines"}}}, {"old"}),
        ({"match": {"description": 'AND "or" bridges'}}, {"civil"}),
        ({"match": {"company_name": "muller zed"}}, {"civil", "old"}),
        ({"match": {"job_industry_collection.job_industry_list.industry": "design"}}, {"civil"}),
        ({"match": {"employment_type": "Full-time"}}, {"civil"}),
        ({"terms": {"employment_type": ["Full-time", "Contract"]}}, {"civil", "senior"}),
        ({"term": {"application_active": 0}}, {"old"}),
        ({"term": {"application_active": {"value": True}}}, {"civil", "senior", "bare"}),
        ({"term": {"deleted": 1}}, set()),
        ({"term": {"created": "2020-01-01"}}, {"old"}),
        ({"terms": {"id": [NUMBER["bare"], str(NUMBER["old"]), 3]}}, {"bare", "old"}),
        ({"terms": {"id": []}}, set()),
        ({"range": {"created": {"lte": "2025-05-31"}}}, {"senior", "old"}),
        ({"range": {"created": {"gt": "2025-05-31"}}}, {"civil"}),
        ({"range": {"last_updated": {"gte": "2020-01-01T00:00:00", "lt": "2025-06-01"}}},
         {"senior", "old"}),
        ({"bool": {}}, ALL),
        ({"bool": {"must_not": {"match": {"title": "engineer"}}}}, {"bare"}),
        ({"bool": {"must_not": [{"term": {"company_id": 3}}]}}, ALL),
        ({"bool": {"should": [{"match": {"title": "civil"}}, {"match": {"title": "gone"}}]}},
         {"civil", "old"}),
        ({"bool": {"filter": {"match": {"title": "software"}},
                   "should": [{"match": {"title": "gone"}}]}}, {"senior", "old"}),
        ({"bool": {"must": [{"match": {"title": "software"}}], "minimum_should_match": 1,
                   "should": [{"match": {"title": "gone"}}]}}, {"old"}),
    ],
)  # fmt: skip
def test_a_query_finds_the_postings_that_meet_all_its_clauses(
    small: httpx.Client, query: dict[str, Any], names: set[str]
) -> None:
    # When
    names_found = chosen(small, query)
    # Then
    assert names_found == names


DEEP: dict[str, Any] = {"match_all": {}}
for _ in range(30):
    DEEP = {"bool": {"must": [DEEP]}}


@pytest.mark.parametrize(
    ("body", "claim"),
    [
        ({}, "query is missing"),
        ([], "the body should be an object"),
        ({"query": {"match_all": {}}, "sort": ["_score"]}, "sort"),
        ({"query": {"match_all": {}}, "size": 5}, "'size'"),
        ({"query": {"query_string": {"query": "x"}}}, "query_string"),
        ({"query": {"match": {"title": "x"}, "term": {"id": 1}}}, "one member"),
        ({"query": {"match": {"nosuch": "x"}}}, "match of 'nosuch'"),
        ({"query": {"match": {"title": {"query": "x", "fuzziness": 2}}}}, "'fuzziness'"),
        ({"query": {"term": {"title": "x"}}}, "term of 'title'"),
        ({"query": {"range": {"title": {"gte": "x"}}}}, "range of 'title'"),
        ({"query": {"range": {"created": {"gte": "now-7d"}}}}, "not 'now-7d'"),
        ({"query": {"range": {"id": {"gte": 2**64}}}}, "whole number"),
        ({"query": {"bool": {"must": [], "boost": 2}}}, "'boost'"),
        ({"query": {"bool": {"should": [], "minimum_should_match": 2}}}, "minimum_should_match"),
        ({"query": DEEP}, "more than 20 deep"),
        ({"query": {"terms": {"id": [1] * 1_100}}}, "1024 clauses"),
        ({"query": {"match": {"title": "x" * 15_000}}}, "15000 characters"),
    ],
)
def test_an_unsupported_query_is_rejected_with_the_name_of_the_part(
    small: httpx.Client, body: Any, claim: str
) -> None:
    # When
    answer = small.post(DSL, json=body)
    # Then
    assert claim in refusal(answer)


def test_a_query_with_600_clauses_is_answered(small: httpx.Client) -> None:
    # Given
    clauses = [{"term": {"id": 1}}] * 600 + [{"term": {"id": NUMBER["old"]}}]
    # When
    names = chosen(small, {"bool": {"should": clauses}})
    # Then
    assert names == {"old"}


@pytest.mark.parametrize(
    ("filters", "claim"),
    [
        ({"titel": "x"}, "titel: Extra inputs are not permitted"),
        ({"created_at_gte": "2025-01-01"}, "created_at_gte: Input should be a time"),
        ({"deleted": 1}, "deleted: "),
        ([], "body: "),
        ({"title": "(" * 30 + "x"}, "20 deep"),
    ],
)
@pytest.mark.parametrize("path", [SEARCH, f"{SEARCH}/preview"])
def test_an_invalid_filter_is_named_in_the_error(
    small: httpx.Client, path: str, filters: Any, claim: str
) -> None:
    # When
    answer = small.post(path, json=filters)
    # Then
    assert claim in refusal(answer)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000])
def test_a_body_that_is_not_json_is_rejected(small: httpx.Client, body: bytes) -> None:
    # When
    answer = small.post(SEARCH, content=body)
    # Then
    assert "The body should be JSON" in refusal(answer)


@pytest.mark.parametrize(
    "parameters",
    [
        "items_per_page=0", "items_per_page=1001", "items_per_page=x", "items_per_page=",
        "after=x", "after=-1", "after=99999999999999999999",
    ],
)  # fmt: skip
def test_an_invalid_parameter_is_named_in_the_error(small: httpx.Client, parameters: str) -> None:
    # When
    answer = small.post(f"{SEARCH}?{parameters}", json={})
    # Then
    assert parameters.partition("=")[0] in refusal(answer)


def pages(client: httpx.Client, per_page: int, path: str = SEARCH) -> list[list[int]]:
    listed, parameters = [], {"items_per_page": str(per_page)}
    while True:
        answer = client.post(path, params=parameters, json={})
        listed.append(answer.json())
        if "x-next-page-after" not in answer.headers:
            return listed
        parameters["after"] = answer.headers["x-next-page-after"]


def test_pages_contain_every_id_once_and_the_last_page_has_no_next(large: httpx.Client) -> None:
    # When
    listed = pages(large, 103)
    # Then
    numbers = [one for page in listed for one in page]
    assert [len(page) for page in listed] == [103] * 10
    assert numbers == sorted(set(numbers))
    assert len(numbers) == 1_030


def test_a_page_has_a_thousand_ids_by_default(large: httpx.Client) -> None:
    # When
    answer = large.post(SEARCH, json={})
    # Then
    assert len(answer.json()) == 1_000
    assert answer.headers["x-total-results"] == "1030"
    assert answer.headers["x-total-pages"] == "2"


def test_postings_that_stay_are_read_once_even_if_others_change_meanwhile(tmp_path: Path) -> None:
    # Given
    postings = [{"_id": str(number), "date_posted": "2025-01-01"} for number in range(40)]
    path = load(tmp_path, postings)
    with serving(path) as client:
        answer = client.post(SEARCH, params={"items_per_page": 20}, json={})
        begun = answer.json()
        # When: half of the postings are replaced by newer versions, and new postings are added
        newer = [{**one, "date_posted": "2026-01-01"} for one in postings[::2]]
        load(tmp_path, [*newer, *({"_id": f"new-{number}"} for number in range(10))])
        after = answer.headers["x-next-page-after"]
        rest = client.post(SEARCH, params={"after": after}, json={}).json()
    # Then
    staying = {coresignal_records.record_id(str(number)) for number in range(40)}
    assert staying <= {*begun, *rest}
    assert not {*begun} & {*rest}


def test_a_record_has_the_fields_that_the_vendor_documents(small: httpx.Client) -> None:
    # Given
    number, link = NUMBER["civil"], "https://jobs.example.com/civil"
    # When
    record = small.get(f"/v2/job_base/collect/{number}").json()
    # Then
    assert record == {
        "id": number,
        "created": "2025-06-01 00:00:00",
        "last_updated": "2025-06-01 00:00:00",
        "time_posted": "2025-06-01",
        "title": "Site/Civil Engineer",
        "description": "Draw bridges in C++ and démolish others.",
        "seniority": "Mid Level",
        "employment_type": "full time",
        "location": "Richmond, Virginia",
        "country": "United States",
        "url": link,
        "hash": hashlib.md5(link.encode()).hexdigest(),
        "company_id": coresignal_records.company_id("müller & söhne, inc"),
        "company_name": "Müller & Söhne, Inc",
        "company_url": "https://www.professional-network.com/company/mueller",
        "external_url": link,
        "application_active": 1,
        "deleted": 0,
        "salary": "90000 - 120000 USD per year",
        "applicants_count": None,
        "professional_network_job_id": number,
        "job_industry_collection": [
            {"job_industry_list": {"industry": "Design"}},
            {"job_industry_list": {"industry": "Construction"}},
        ],
        "job_functions_collection": [{"job_function_list": {"function": "Engineering"}}],
        "last_updated_ux": 1748736000,
        "redirected_url": None,
        "redirected_url_hash": None,
    }


def test_what_a_posting_does_not_say_is_null_in_its_record(small: httpx.Client) -> None:
    # When
    record = small.get(f"/v2/job_base/collect/{NUMBER['bare']}").json()
    # Then
    told = {name: value for name, value in record.items() if value not in (None, [])}
    assert told == {
        "id": NUMBER["bare"],
        "application_active": 1,
        "deleted": 0,
        "professional_network_job_id": NUMBER["bare"],
    }


def test_the_older_paths_give_the_same_and_records_of_the_older_shape(small: httpx.Client) -> None:
    # When
    old = small.post("/v1/professional_network/job/search/filter", json={"title": "civil"})
    record = small.get(f"/v1/professional_network/job/collect/{NUMBER['civil']}").json()
    # Then
    assert old.json() == [NUMBER["civil"]]
    assert record["linkedin_job_id"] == NUMBER["civil"]
    assert not {"professional_network_job_id", "last_updated_ux"} & set(record)


@pytest.mark.parametrize("name", ["1", "0", "-1", "x", "9" * 40])
def test_an_unknown_id_is_a_404_with_a_text(small: httpx.Client, name: str) -> None:
    # When
    answer = small.get(f"/v2/job_base/collect/{name}")
    # Then
    assert refusal(answer, 404) == f"There is no job with the id '{name}'"


def test_many_records_come_in_the_order_of_their_ids_without_the_unknown(
    small: httpx.Client,
) -> None:
    # When
    wanted = [NUMBER["old"], 1, NUMBER["civil"]]
    records = small.post("/v2/job_base/collect", json={"ids": wanted}).json()
    # Then
    assert [NAME[record["id"]] for record in records] == ["old", "civil"]
    assert records[1] == small.get(f"/v2/job_base/collect/{NUMBER['civil']}").json()
    assert small.post("/v2/job_base/collect", json={"ids": []}).json() == []


@pytest.mark.parametrize("ids", [[0], ["1"], [True], [2**63], list(range(1, 1_002)), None])
def test_invalid_ids_and_too_many_ids_are_rejected(small: httpx.Client, ids: Any) -> None:
    # When
    answer = small.post("/v2/job_base/collect", json={"ids": ids})
    # Then
    assert refusal(answer).startswith("ids")


@pytest.mark.parametrize(
    ("path", "body"),
    [(SEARCH, {"title": "engineer OR nurse"}), (DSL, {"query": {"match": {"title": "engineer"}}})],
)
def test_a_preview_holds_the_first_twenty_records(
    large: httpx.Client, path: str, body: dict[str, Any]
) -> None:
    # Given
    numbers = large.post(path, json=body).json()
    # When
    first = large.post(f"{path}/preview", json=body)
    second = large.post(f"{path}/preview", params={"page": 2}, json=body)
    # Then
    assert [record["id"] for record in first.json()] == numbers[:20]
    assert [record["id"] for record in second.json()] == numbers[20:40]
    assert first.headers["x-total-results"] == str(len(numbers))


@pytest.mark.parametrize(
    "headers",
    [{"apikey": KEY}, {"authorization": f"Bearer {KEY}"}, {"authorization": f"bearer  {KEY}"}],
)
def test_a_key_is_accepted_in_both_headers_of_the_vendor(
    small: httpx.Client, headers: dict[str, str]
) -> None:
    # When
    answer = httpx.post(f"{small.base_url}{SEARCH.lstrip('/')}", json={}, headers=headers)
    # Then
    assert answer.status_code == 200


def test_a_search_without_a_key_gets_401(small: httpx.Client) -> None:
    # When
    answer = httpx.post(f"{small.base_url}{SEARCH.lstrip('/')}", json={})
    # Then
    assert "apikey" in refusal(answer, 401)


def test_records_contain_values_that_fit_neither_a_column_nor_utf8(tmp_path: Path) -> None:
    # Given: half of a surrogate pair, and an integer of 401 digits
    odd = {
        "_id": "odd",
        "job_title": "half \ud83d",
        "company_name": "\ud83d",
        "location_raw": "at \ud83d",
        "salary_range": {"min": 10**400},
    }
    with serving(load(tmp_path, [odd])) as client:
        # When
        (number,) = client.post(SEARCH, json={"location": "at"}).json()
        record = client.get(f"/v2/job_base/collect/{number}").json()
        named = client.post(SEARCH, json={"company_id": record["company_id"]}).json()
    # Then
    assert record["title"] == "half \ud83d"
    assert record["salary"] == f"1{'0' * 400}"
    assert named == [number]


def test_a_replaced_posting_keeps_its_record_id_and_a_deleted_one_is_not_found(
    tmp_path: Path,
) -> None:
    # Given
    path = load(tmp_path, [{"_id": "a", "job_title": "before"}])
    number = coresignal_records.record_id("a")
    with serving(path) as client:
        # When
        load(tmp_path, [{"_id": "a", "job_title": "after"}])
        record = client.get(f"/v2/job_base/collect/{number}").json()
        with database.write_transaction(path) as connection:
            connection.execute("DELETE FROM postings")
            database.bump_version(connection)
        # Then
        assert record["title"] == "after"
        assert client.get(f"/v2/job_base/collect/{number}").status_code == 404
        assert client.post(SEARCH, json={}).json() == []


def test_two_postings_that_would_share_an_id_are_not_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    path = load(tmp_path, [{"_id": "a"}])
    taken = coresignal_records.record_id("a")
    monkeypatch.setattr(coresignal_records, "record_id", lambda _: taken)
    # When
    with pytest.raises(database.LoadError, match="two posting ids have the same record id"):
        load(tmp_path, [{"_id": "b"}])
    # Then
    with serving(path) as client:
        assert len(client.post(SEARCH, json={}).json()) == 1
