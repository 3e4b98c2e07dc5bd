"""Bulk collection on the whole service, with the clients and readers that people have at hand."""

from __future__ import annotations

import gzip
import json
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pytest
import requests

from exporter.board import coresignal_records, hostile
from exporter.local.stack import Addresses
from tests.conftest import BOARD_ROWS

pytestmark = pytest.mark.stack

V1 = "/cdapi/v1/professional_network/job/bulk_collect"
V2 = "/cdapi/v2/data_requests/job_base"


@pytest.fixture(scope="module")
def records() -> dict[int, dict[str, Any]]:
    """The board's postings as records of the contract, by id."""
    found = {}
    for posting in hostile.generate(BOARD_ROWS):
        number = coresignal_records.record_id(posting.id)
        found[number] = json.loads(coresignal_records.record(number, posting.json, v1=False))
    return found


@pytest.fixture
def api(stack: Addresses) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stack.url, headers={"apikey": stack.api_key}, timeout=30) as client:
        yield client


def ready(api: httpx.Client, place: str) -> dict[str, Any]:
    """What is listed once the data request is ready; polls as a user's client does."""
    deadline = time.monotonic() + 60
    while True:
        answer = api.get(place)
        assert answer.status_code in (200, 202), answer.text
        listed: dict[str, Any] = answer.json()
        if listed["data_request_files"]:
            assert answer.status_code == 200
            return listed
        assert answer.json()["message"] == "Data request is still being processed"
        assert time.monotonic() < deadline
        time.sleep(0.1)


def curl(stack: Addresses, *arguments: str, directory: Path) -> subprocess.CompletedProcess[str]:
    headers = ["-H", f"Authorization: Bearer {stack.api_key}"]
    return subprocess.run(
        ["curl", "--silent", "--show-error", "--fail-with-body", *headers, *arguments],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_all_postings_that_match_are_read_alike_by_three_readers(
    stack: Addresses,
    api: httpx.Client,
    records: dict[int, dict[str, Any]],
    tmp_path: Path,
) -> None:
    # Given
    wanted = {
        number: record for number, record in records.items() if record["country"] == "Germany"
    }
    assert 10 < len(wanted) < BOARD_ROWS

    # When
    created = api.post(f"{V2}/filter", json={"filters": {"country": "Germany"}})
    place = created.headers["Location"]
    (name,) = ready(api, place)["data_request_files"]
    file = f"{stack.url}{place}/{name}"
    path = tmp_path / name
    # requests would unpack it by itself, if we declared a Content-Encoding
    with requests.get(file, headers={"apikey": stack.api_key}, timeout=30, stream=True) as answer:
        path.write_bytes(b"".join(answer.iter_content(10_000)))

    # Then: line by line
    with gzip.open(path, "rt", encoding="utf-8", newline="\n") as lines:
        found = [json.loads(line) for line in lines]
    assert {record["id"]: record for record in found} == wanted
    assert len(found) == len(wanted)
    # Then: by gzip itself, which tells of anything left over behind the end
    checked = subprocess.run(["gzip", "--test", path], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, "")
    # Then: and by DuckDB
    table = duckdb.read_json(str(path), format="newline_delimited", compression="gzip")
    ((count, titles),) = table.aggregate("count(DISTINCT id), list(title ORDER BY id)").fetchall()
    assert count == len(wanted)
    assert titles == [wanted[number]["title"] for number in sorted(wanted)]


def test_a_file_of_ids_sent_by_curl_comes_back_in_its_order(
    stack: Addresses, records: dict[int, dict[str, Any]], api: httpx.Client, tmp_path: Path
) -> None:
    # Given
    numbers = list(records)
    listed = [*numbers[:700], 1, *reversed(numbers[700:]), 2]
    (tmp_path / "ids.csv").write_text("".join(f"{number}\r\n" for number in listed))

    # When
    sent = curl(
        stack,
        *("-F", "ids_file=@ids.csv;type=text/csv", "-F", "data_format=json", "-F", "webhook_url="),
        f"{stack.url}{V1}/id_file",
        directory=tmp_path,
    )
    assert sent.returncode == 0, sent.stdout + sent.stderr
    place = f"/v1/bulk_collect/{json.loads(sent.stdout)['request_id']}/files"
    answer = ready(api, place)
    for name in (*answer["data_request_files"], answer["unknown_ids_file"]):
        got = curl(stack, "-O", f"{stack.url}{place}/{name}", directory=tmp_path)
        assert got.returncode == 0, got.stdout + got.stderr

    # Then
    (name,) = answer["data_request_files"]
    with gzip.open(tmp_path / name, "rt", encoding="utf-8", newline="\n") as lines:
        found = [json.loads(line)["id"] for line in lines]
    assert found == [number for number in listed if number > 2]
    unknown = gzip.decompress((tmp_path / answer["unknown_ids_file"]).read_bytes())
    assert unknown == b"1\n2\n"


def test_a_download_that_was_cut_off_is_gone_on_with_by_curl(
    stack: Addresses, api: httpx.Client, tmp_path: Path
) -> None:
    # Given
    place = api.post(f"{V2}/filter", json={"filters": {}, "limit": 1_500}).headers["Location"]
    (name,) = ready(api, place)["data_request_files"]
    whole = api.get(f"{place}/{name}").content
    (tmp_path / "some.gz").write_bytes(whole[:12_345])

    # When
    rest = curl(stack, "-C", "-", "-o", "some.gz", f"{stack.url}{place}/{name}", directory=tmp_path)

    # Then
    assert rest.returncode == 0, rest.stderr
    assert (tmp_path / "some.gz").read_bytes() == whole
    assert gzip.decompress(whole).count(b"\n") == 1_500


def test_a_redirect_to_the_file_store_gives_the_same_bytes_and_no_encoding(
    stack: Addresses, api: httpx.Client
) -> None:
    # Given
    place = api.post(f"{V2}/filter", json={"filters": {}, "limit": 100}).headers["Location"]
    (name,) = ready(api, place)["data_request_files"]

    # When
    redirected = api.get(f"{place}/{name}?redirect=true")
    answer = httpx.get(redirected.headers["Location"])

    # Then
    assert redirected.status_code == 302
    assert answer.headers["Content-Type"] == "application/gzip"
    assert "Content-Encoding" not in answer.headers
    assert answer.content == api.get(f"{place}/{name}").content


def test_a_search_under_way_is_not_started_twice_and_may_be_repeated_afterwards(
    api: httpx.Client,
) -> None:
    # Given
    body = {"filters": {"title": "Engineer"}, "limit": 50}

    # When
    with ThreadPoolExecutor(16) as threads:
        answers = list(threads.map(lambda _: api.post(f"{V2}/filter", json=body), range(16)))
    created = {answer.json()["request_id"] for answer in answers if answer.status_code == 201}
    for request_id in created:
        ready(api, f"/v2/data_requests/{request_id}/files")
    afterwards = api.post(f"{V2}/filter", json=body)

    # Then: a worker may be done before the last has asked, but most meet the first one
    refused = [answer for answer in answers if answer.status_code == 409]
    assert len(created) + len(refused) == 16
    assert len(created) < 8
    for answer in refused:
        assert answer.json() == {"detail": "Identical data request is already in progress."}
        assert answer.headers["X-Data-Request-Id"] in created
    assert afterwards.status_code == 201
    assert afterwards.json()["request_id"] not in created


def test_an_elasticsearch_query_is_answered_by_the_source(
    api: httpx.Client, records: dict[int, dict[str, Any]]
) -> None:
    # Given
    wanted = [
        number
        for number, record in records.items()
        if not record["deleted"] and "engineer" in record["title"].lower().split()
    ]

    # When
    query = {"bool": {"must": [{"match": {"title": "engineer"}}, {"term": {"deleted": 0}}]}}
    asked = api.post(f"{V2}/es_dsl", json={"es_dsl_query": {"query": query}})
    assert asked.status_code == 201, asked.text
    place = asked.headers["Location"]
    names = ready(api, place)["data_request_files"]

    # Then
    lines = gzip.decompress(api.get(f"{place}/{names[0]}").content).splitlines()
    assert wanted
    assert sorted(json.loads(line)["id"] for line in lines) == sorted(wanted)
