"""Bodies that are wrong in many places are refused in little time, while others are served."""

from __future__ import annotations

import threading
import time

import httpx
import pytest

from tests.integration.api_server import Service

IDS = "/v2/data_requests/job_base/ids"
FORM = "application/x-www-form-urlencoded"
JSON = "application/json"
MANY = 160_000
DIGITS = "9" * 900_000
X = '"x"'
PLACE = '{"a":1}'


def many(value: str, count: int = MANY) -> str:
    return f"[{','.join([value] * count)}]"


def keys(count: int = 90_000) -> str:
    return "{" + ",".join(f'"{number}":1' for number in range(count)) + "}"


def export(**fields: str) -> str:
    """Returns a request for an export with these fields, which are JSON."""
    fields = {"source": '"board"', "query": "{}", "format": '"csv"', **fields}
    return "{" + ",".join(f'"{name}":{value}' for name, value in fields.items()) + "}"


@pytest.mark.parametrize(
    ("path", "kind", "body"),
    [
        (IDS, JSON, f'{{"ids":{many(X)}}}'),
        (IDS, JSON, f'{{"ids":{many(X, 9_000)}}}'),
        (IDS, JSON, f'{{"ids":{many("[[]]")}}}'),
        (IDS, JSON, f'{{"ids":[1],"limit":{DIGITS}}}'),
        (IDS, FORM, "a=1&" * 200_000),
        (IDS, FORM, f"ids=1&limit={DIGITS}"),
        (IDS, FORM, f"ids={DIGITS}"),
        (IDS, FORM, "ids=" + "x," * 400_000),
        ("/v1/exports", JSON, export(columns=many("1"))),
        ("/v1/exports", JSON, export(columns=many("1", 9_000))),
        ("/v1/exports", JSON, export(webhook_events=many("1"))),
        ("/v1/exports", JSON, keys()),
        ("/v1/exports", JSON, export(limit=DIGITS)),
        ("/v1/exports", JSON, export(query=f'{{"locations":{many(PLACE, 100_000)}}}')),
        ("/v1/exports", JSON, export(query=f'{{"locations":{many(PLACE, 900)}}}')),
        ("/v1/exports", JSON, export(query=keys())),
        ("/v2/jobs/export", JSON, f'{{"format":"csv","search":{keys()}}}'),
        ("/v2/jobs/search", JSON, keys()),
        ("/v1/webhook-endpoints", JSON, f'{{"url":"https://a.b","events":{many("1")}}}'),
    ],
)
def test_a_body_with_many_wrong_values_is_refused_in_little_time(
    api: Service, path: str, kind: str, body: str
) -> None:
    # Given
    slowest, ended = [0.0], threading.Event()

    def others() -> None:
        with httpx.Client(base_url=api.http.base_url, headers={"X-API-Key": api.bob}) as client:
            while not ended.is_set():
                begun = time.monotonic()
                assert client.get("/v1/exports/none").status_code == 404
                slowest[0] = max(slowest[0], time.monotonic() - begun)

    other = threading.Thread(target=others)
    other.start()

    # When
    begun = time.monotonic()
    answer = api.http.post(path, content=body, headers={"Content-Type": kind})
    seconds = time.monotonic() - begun
    ended.set()
    other.join()

    # Then
    assert 400 <= answer.status_code < 500, answer.text[:300]
    assert len(answer.content) < 100_000
    assert seconds < 1.5
    assert slowest[0] < 1


@pytest.mark.parametrize("place", [0, 7_000])
def test_the_first_wrong_id_is_named(api: Service, place: int) -> None:
    # Given
    ids: list[object] = list(range(1, 9_000))
    ids[place] = "x1"

    # When
    answer = api.http.post(IDS, json={"ids": ids})

    # Then
    assert answer.status_code == 422
    assert "'x1' is not an id" in answer.json()["detail"]


@pytest.mark.parametrize(
    "path", ["/v1/exports", "/v1/exports/none", "/v2/tasks", "/v1/webhook-endpoints"]
)
def test_a_number_of_many_digits_in_a_query_string_is_refused(api: Service, path: str) -> None:
    # When
    answers = [
        api.http.get(f"{path}?{name}={'9' * digits}")
        for name in ("limit", "wait")
        for digits in (30, 5_000, 60_000)
    ]

    # Then
    assert all(answer.status_code < 500 for answer in answers)
