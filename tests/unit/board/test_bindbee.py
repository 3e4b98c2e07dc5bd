"""Bindbee API of the board, tested over a real socket."""

from __future__ import annotations

import base64
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from exporter.board import bindbee, bindbee_jobs, database, synthetic
from exporter.board.profiles import Profile
from exporter.board.search import Condition
from tests import boards

JOBS = "/api/ats/v1/jobs"
BERLIN = {"city": "Berlin", "country": "Germany"}
POSTINGS: list[dict[str, Any]] = [
    {
        "_id": "civil",
        "job_title": "Site/Civil Engineer",
        "job_slug": "civil-1",
        "description": "Draw bridges.\n\ud83d\ude00",
        "application_link": "https://jobs.example.com/civil",
        "date_posted": "2025-06-01",
        "team": "Bridges",
        "contact_email": "hr@example.com",
        "locations": [{"city": "Richmond", "region": "Virginia"}, BERLIN],
        "skills": ["C++"],
        "salary_range": {"min": 1.10, "max": 2**70},
    },
    {
        "_id": "odd \ud83d\ude00",
        "job_title": "half \ud83d",
        "job_slug": "CIVIL-1",
        "locations": [BERLIN, BERLIN, {"address": "Büro Süd, Wien"}, {}, "nowhere"],
    },
    {"_id": "old", "job_title": 7, "expired": True, "team": " "},
    {"_id": "bare"},
]
IDS = [posting["_id"] for posting in POSTINGS]


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    path = tmp_path_factory.mktemp("board") / "board.db"
    boards.load(path, POSTINGS)
    with boards.client(path, bindbee_rate=10_000) as client:
        yield client


def answer(client: httpx.Client, **parameters: Any) -> dict[str, Any]:
    response = client.get(JOBS, params=parameters)
    assert response.status_code == 200, response.text
    body: dict[str, Any] = response.json()
    return body


def walk(client: httpx.Client, **parameters: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    cursor: dict[str, str] = {}
    while True:
        body = answer(client, **parameters, **cursor)
        assert list(body) == ["cursor", "page_size", "items"]
        assert body["page_size"] == len(body["items"])
        found += body["items"]
        if body["cursor"] is None:
            return found
        cursor = {"cursor": body["cursor"]}


def remote_ids(jobs: list[dict[str, Any]]) -> list[str]:
    return sorted(job["remote_id"] for job in jobs)


@pytest.fixture(scope="module")
def jobs(board: httpx.Client) -> dict[str, dict[str, Any]]:
    """Returns all jobs, keyed by the id of their posting."""
    return {job["remote_id"]: job for job in walk(board)}


@pytest.mark.external
def test_a_posting_is_shown_as_the_vendors_job_object(jobs: dict[str, dict[str, Any]]) -> None:
    # When
    job = jobs["civil"]
    # Then
    relations = {"departments": 1, "offices": 2, "recruiters": 1}
    for name, count in relations.items():
        assert len({str(uuid.UUID(one)) for one in job[name]}) == count
    assert str(uuid.UUID(job["id"])) == job["id"]
    assert datetime.fromisoformat(job["modified_at"]) <= datetime.now(UTC)
    changing = ("id", "modified_at", "remote_updated_at", *relations)
    assert {name: value for name, value in job.items() if name not in changing} == {
        "remote_id": "civil",
        "custom_fields": None,
        "name": "Site/Civil Engineer",
        "description": "Draw bridges.\n\ud83d\ude00".encode("utf-16", "surrogatepass").decode(
            "utf-16"
        ),
        "code": "civil-1",
        "status": "OPEN",
        "job_posting_urls": [
            {"value": "https://jobs.example.com/civil", "url_type": "JOB_POSTING"}
        ],
        "remote_created_at": "2025-06-01T00:00:00Z",
        "confidential": False,
        "hiring_managers": None,
    }


def test_what_a_posting_does_not_say_is_null(jobs: dict[str, dict[str, Any]]) -> None:
    # When
    bare, old = jobs["bare"], jobs["old"]
    # Then
    said = ("id", "remote_id", "modified_at", "remote_updated_at", "status", "confidential")
    assert {name for name, value in bare.items() if value is not None} == set(said)
    assert (old["status"], old["name"], old["departments"]) == ("CLOSED", None, None)


def test_raw_data_and_custom_fields_come_only_when_asked_for(board: httpx.Client) -> None:
    # When
    plain = answer(board, remote_id="civil")["items"][0]
    whole = board.get(
        JOBS,
        params={"remote_id": "civil", "include_raw_data": True, "include_custom_fields": True},
    )
    # Then: the raw data are the posting with unchanged digits
    assert "raw_data" not in plain
    assert f'"max": {2**70}' in whole.text
    job = whole.json()["items"][0]
    assert job["raw_data"] == {**POSTINGS[0], "description": job["description"]}
    assert job["custom_fields"]["skills"] == ["C++"]


def test_expanded_relations_are_objects_and_a_null_one_stays_null(board: httpx.Client) -> None:
    # When
    expand = "departments,offices[id,name,location],hiring_managers,recruiters[email]"
    job = answer(board, remote_id="civil", expand=expand)["items"][0]
    # Then
    plain = answer(board, remote_id="civil")["items"][0]
    assert job["departments"] == [
        {
            "id": plain["departments"][0],
            "remote_id": None,
            "modified_at": job["modified_at"],
            "custom_fields": None,
            "name": "Bridges",
        }
    ]
    assert job["offices"] == [
        {"id": plain["offices"][0], "name": "Richmond", "location": "Richmond, Virginia"},
        {"id": plain["offices"][1], "name": "Berlin", "location": "Berlin, Germany"},
    ]
    assert (job["hiring_managers"], job["recruiters"]) == (None, [{"email": "hr@example.com"}])


def test_an_office_has_one_id_in_all_jobs_and_is_listed_once_per_job(
    jobs: dict[str, dict[str, Any]],
) -> None:
    # When
    odd, civil = jobs["odd \U0001f600"]["offices"], jobs["civil"]["offices"]
    # Then: places without a name are not offices
    assert len(odd) == 2
    assert odd[0] == civil[1]


def test_half_a_surrogate_pair_passes_unchanged(board: httpx.Client) -> None:
    # When
    text = board.get(JOBS, params={"code": "civil-1", "expand": "offices"}).text
    # Then
    assert '"name":"half \\ud83d"' in text


def chosen(jobs: dict[str, dict[str, Any]], *remote: str) -> str:
    return ",".join(jobs[one]["id"] for one in remote)


def test_filters_really_filter(board: httpx.Client, jobs: dict[str, dict[str, Any]]) -> None:
    # Given
    ids, odd = chosen(jobs, "civil", "old"), "odd \U0001f600"
    berlin, wien = jobs[odd]["offices"]
    strange = str(uuid.uuid4())
    for parameters, expected in (
        ({}, [posting["_id"] for posting in POSTINGS[2:]] + ["civil", odd]),
        ({"ids": ids}, ["civil", "old"]),
        ({"ids": f"{ids.upper()},{strange}"}, ["civil", "old"]),
        ({"ids": strange}, []),
        ({"remote_id": odd}, [odd]),
        ({"remote_id": "Civil"}, []),
        ({"remote_id": "half \ud83d".encode(errors="replace").decode()}, []),
        ({"code": "civil-1"}, ["civil", odd]),
        ({"code": "civil"}, []),
        ({"status": "OPEN"}, ["bare", "civil", odd]),
        ({"status": "CLOSED"}, ["old"]),
        ({"status": "-"}, []),
        ({"status": "open"}, []),
        ({"offices": berlin}, ["civil", odd]),
        ({"offices": f"{strange},{wien}"}, [odd]),
        ({"offices": strange}, []),
        ({"offices": berlin, "ids": ids}, ["civil"]),
        ({"status": "OPEN", "ids": ids}, ["civil"]),
        ({"modified_after": "2020-01-01"}, ["bare", "civil", odd, "old"]),
        ({"modified_after": "2999-01-01T00:00:00+02:00"}, []),
    ):
        # When / Then
        for page_size in (1, 50):
            found = walk(board, page_size=page_size, **parameters)
            assert remote_ids(found) == sorted(expected), parameters


@pytest.mark.external
def test_only_what_was_written_later_is_modified_after(tmp_path: Path) -> None:
    # Given
    path = tmp_path / "board.db"
    boards.load(path, [{"_id": "a"}, {"_id": "b"}])
    with boards.client(path) as board:
        before = {job["remote_id"]: job for job in walk(board)}
        moment = before["a"]["modified_at"]
        assert answer(board, modified_after=moment)["items"] == []
        # A time without a zone is in UTC.
        earlier = datetime.fromisoformat(moment) - timedelta(microseconds=1)
        assert len(walk(board, modified_after=earlier.replace(tzinfo=None).isoformat())) == 2
        # When: one changes, one stays, one is new
        boards.load(path, [{"_id": "a", "job_title": "changed"}, {"_id": "b"}, {"_id": "c"}])
        # Then
        assert remote_ids(walk(board, modified_after=moment)) == ["a", "c"]
        after = {job["remote_id"]: job for job in walk(board)}
    assert after["a"]["id"] == before["a"]["id"]
    assert after["a"]["modified_at"] > before["a"]["modified_at"]
    assert after["b"] == before["b"]


def test_pages_follow_each_other_by_cursor_until_it_is_null(
    board: httpx.Client, jobs: dict[str, dict[str, Any]]
) -> None:
    # When
    first = answer(board, page_size=3)
    second = answer(board, page_size=3, cursor=first["cursor"])
    # Then: the cursor is the last id, as in the vendor's example; a full last page has no cursor
    assert (len(first["items"]), len(second["items"])) == (3, 1)
    assert base64.b64decode(first["cursor"]).decode() == first["items"][-1]["id"]
    assert second["cursor"] is None
    assert answer(board, page_size=4)["cursor"] is None
    assert answer(board)["page_size"] == 4
    assert len(jobs) == len(POSTINGS)


@pytest.mark.external
def test_jobs_added_while_pages_are_read_neither_repeat_nor_hide_others(tmp_path: Path) -> None:
    # Given
    path = tmp_path / "board.db"
    boards.load(path, [{"_id": f"old-{number}"} for number in range(40)])
    with boards.client(path) as board:
        found: list[str] = []
        cursor: dict[str, str] = {}
        for turn in range(100):
            # When
            body = answer(board, page_size=3, **cursor)
            found += [job["remote_id"] for job in body["items"]]
            if body["cursor"] is None:
                break
            cursor = {"cursor": body["cursor"]}
            changed = {"_id": f"old-{turn % 40}", "job_title": str(turn)}
            boards.load(path, [changed, {"_id": f"new-{turn}"}])
    # Then
    assert len(found) == len(set(found))
    assert {one for one in found if one.startswith("old")} == {f"old-{n}" for n in range(40)}


def test_one_job_is_given_by_its_id(board: httpx.Client, jobs: dict[str, dict[str, Any]]) -> None:
    # When
    one = board.get(f"{JOBS}/{jobs['civil']['id']}", params={"expand": "offices[name]"})
    # Then
    expected = {**jobs["civil"], "offices": [{"name": "Richmond"}, {"name": "Berlin"}]}
    assert one.json() == expected
    assert board.get(f"{JOBS}/{uuid.uuid4()}").status_code == 404
    assert isinstance(board.get(f"{JOBS}/{uuid.uuid4()}").json()["detail"], str)
    assert board.get(f"{JOBS}/civil").status_code == 422


@pytest.mark.parametrize(
    ("parameters", "problem"),
    [
        (
            {"page_size": 201},
            ("page_size", "Input should be less than or equal to 200", "less_than_equal"),
        ),
        (
            {"page_size": 0},
            ("page_size", "Input should be greater than or equal to 1", "greater_than_equal"),
        ),
        ({"page_size": "x"}, ("page_size", None, "int_parsing")),
        ({"ids": "civil"}, ("ids", None, "uuid_parsing")),
        ({"ids": ""}, ("ids", None, "uuid_parsing")),
        ({"offices": f"{uuid.uuid4()}, {uuid.uuid4()}x"}, ("offices", None, "uuid_parsing")),
        ({"cursor": "abc"}, ("cursor", None, "value_error")),
        ({"cursor": "öö"}, ("cursor", None, "value_error")),
        ({"cursor": ""}, ("cursor", None, "value_error")),
        ({"modified_after": "yesterday"}, ("modified_after", None, "datetime_from_date_parsing")),
        (
            {"modified_after": "0001-01-01T00:00:00+10:00"},
            ("modified_after", None, "value_error"),
        ),
        ({"expand": "managers"}, ("expand", None, "value_error")),
        ({"expand": "offices[]"}, ("expand", None, "value_error")),
        ({"expand": "offices,"}, ("expand", None, "value_error")),
        ({"expand": ""}, ("expand", None, "value_error")),
        ({"include_raw_data": "perhaps"}, ("include_raw_data", None, "bool_parsing")),
    ],
)
def test_a_wrong_parameter_is_422_in_the_words_of_the_vendors_framework(
    board: httpx.Client, parameters: dict[str, Any], problem: tuple[str, str | None, str]
) -> None:
    # When
    response = board.get(JOBS, params=parameters)
    # Then
    assert response.status_code == 422
    (detail,) = response.json()["detail"]
    name, message, kind = problem
    assert detail == {
        "loc": ["query", name],
        "msg": message if message is not None else detail["msg"],
        "type": kind,
    }


def test_the_key_comes_as_a_bearer_and_the_connector_token_beside_it(board: httpx.Client) -> None:
    for headers, status in (
        ({"authorization": ""}, 401),
        ({"authorization": "Bearer nobody"}, 401),
        ({"authorization": "", "x-api-key": boards.KEY}, 401),
        ({"authorization": f"ApiKey {boards.KEY}"}, 401),
        ({"x-connector-token": "another"}, 403),
        ({"x-connector-token": ""}, 403),
        ({"authorization": f"bearer {boards.KEY}"}, 200),
    ):
        # When
        response = board.get(JOBS, headers=headers)
        # Then
        assert response.status_code == status, headers
        if status != 200:
            assert isinstance(response.json()["detail"], str)
        assert ("www-authenticate" in response.headers) == (status == 401)
        assert {"x-ratelimit-limit", "x-ratelimit-remaining", "x-ratelimit-reset"} <= set(
            response.headers
        )
        assert len(response.headers["x-request-id"]) == 32


@pytest.mark.external
def test_a_request_without_a_connector_token_gets_an_error_that_names_the_header(
    board: httpx.Client,
) -> None:
    # When
    response = httpx.get(
        f"{board.base_url}{JOBS}", headers={"authorization": f"Bearer {boards.KEY}"}
    )
    # Then
    assert response.status_code == 422
    (detail,) = response.json()["detail"]
    assert (detail["loc"], detail["type"]) == (["header", "x-connector-token"], "missing")


@pytest.mark.external
def test_connector_tokens_can_differ_from_the_keys(tmp_path: Path) -> None:
    # Given
    path = tmp_path / "board.db"
    database.prepare(path)
    with boards.client(path, connector_tokens=["customer-1"]) as board:
        # When
        own = board.get(JOBS, headers={"x-connector-token": "customer-1"})
        key = board.get(JOBS)
    # Then
    assert (own.status_code, key.status_code) == (200, 403)


@pytest.mark.external
def test_two_hundred_requests_a_minute_are_answered_and_no_more(tmp_path: Path) -> None:
    # Given
    path = tmp_path / "board.db"
    database.prepare(path)
    begun = time.time()
    with boards.client(path, connector_tokens=["a", "b"]) as board:
        board.headers["x-connector-token"] = "a"
        # When
        found = [board.get(JOBS) for _ in range(bindbee.MAX_REQUESTS_PER_MINUTE)]
        refused = board.get(JOBS)
        other = board.get(JOBS, headers={"x-connector-token": "b"})
    # Then
    assert {response.status_code for response in found} == {200}
    remaining = [int(response.headers["x-ratelimit-remaining"]) for response in found]
    assert remaining == list(range(bindbee.MAX_REQUESTS_PER_MINUTE - 1, -1, -1))
    assert (refused.status_code, refused.json()) == (429, {"detail": "Rate limit exceeded"})
    assert refused.headers["x-ratelimit-limit"] == "200"
    assert refused.headers["x-ratelimit-remaining"] == "0"
    resets_at = int(refused.headers["x-ratelimit-reset"])
    assert begun + 59 <= resets_at <= time.time() + 61
    assert 1 <= int(refused.headers["retry-after"]) <= 60
    assert len(refused.headers["x-request-id"]) == 32
    # Each connector token has its own limit.
    assert other.status_code == 200
    assert other.headers["x-ratelimit-remaining"] == "199"


def test_the_limit_is_reset_a_minute_after_the_first_request() -> None:
    # Given
    now = [1_000.0]
    answered: list[tuple[int, dict[str, str]]] = []

    async def inner(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            headers = {name.decode(): value.decode() for name, value in message["headers"]}
            answered.append((message["status"], headers))

    limiter = bindbee.RateLimiter(inner, ["a"], 2, now=lambda: now[0])
    scope = {"type": "http", "path": JOBS, "headers": [(b"x-connector-token", b"a")]}
    # When
    for moment in (1_000.0, 1_000.5, 1_059.9, 1_060.0):
        now[0] = moment
        coroutine = limiter(scope, None, send)  # type: ignore[arg-type]
        with pytest.raises(StopIteration):
            coroutine.send(None)
    # Then
    assert [status for status, _ in answered] == [200, 200, 429, 200]
    assert answered[2][1]["retry-after"] == "1"
    assert answered[3][1]["x-ratelimit-reset"] == "1120"


def test_a_page_costs_the_same_at_any_depth_and_reads_only_its_own_rows(tmp_path: Path) -> None:
    # Given
    path = tmp_path / "board.db"
    synthetic.synthesize(path, 2_000, profile=Profile.HOSTILE)
    connection = database.reader(path)

    def steps(condition: Condition, limit: int) -> tuple[int, list[bindbee_jobs.StoredPosting]]:
        done = 0

        def step() -> int:
            nonlocal done
            done += 1
            return 0

        connection.set_progress_handler(step, 1)
        found = bindbee_jobs.find(connection, condition, limit)
        connection.set_progress_handler(None, 1)
        return done, found

    # When
    whole, found = steps(Condition("1"), 2_000)
    first, _ = steps(Condition("1"), 20)
    deep, _ = steps(Condition("uuid > ?", (found[1_900].uuid,)), 20)
    one, _ = steps(Condition("uuid IN (?)", (found[1_900].uuid,)), 2)
    connection.close()
    # Then
    assert len(found) == 2_000
    assert first < whole / 50
    assert deep < first * 1.5
    assert one < first / 2


@pytest.mark.external
def test_faults_apply_to_searches(tmp_path: Path) -> None:
    # Given
    path = tmp_path / "board.db"
    boards.load(path, [{"_id": str(number)} for number in range(10)])
    with boards.client(path, "") as board:
        true = answer(board, page_size=4)
        following = answer(board, page_size=4, cursor=true["cursor"])
        seen: dict[str, dict[str, Any]] = {}
        for fault in ("empty", "short", "total", "cursor"):
            # When
            board.post("/faults", json={"spec": f"{fault}=100%"})
            seen[fault] = answer(board, page_size=4, cursor=true["cursor"])
        board.post("/faults", json={"spec": "429=100%"})
        slowed = board.get(JOBS)
        report = board.get("/faults").json()
    # Then
    assert (seen["empty"]["items"], seen["empty"]["page_size"]) == ([], 4)
    assert seen["short"]["items"] == following["items"][: len(seen["short"]["items"])]
    assert seen["short"]["page_size"] == 4 > len(seen["short"]["items"])
    assert seen["total"]["items"] == following["items"]
    assert seen["total"]["page_size"] != 4
    assert seen["cursor"] == {**following, "cursor": true["cursor"]}
    assert (slowed.status_code, "retry-after" in slowed.headers) == (429, True)
    assert "x-ratelimit-limit" in slowed.headers
    assert report["done"]["429"] == 1
