"""The vendor's own client, unmodified, against the whole service."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import hirebase
import pytest
from hirebase.exceptions import APIError, AuthenticationError, NotFoundError

from exporter.board.hostile import generate
from exporter.local.stack import Addresses
from tests.conftest import BOARD_ROWS

pytestmark = pytest.mark.stack

EVERYTHING = {"include_expired": True}
NURSES = {"job_titles": ["Registered Nurse"], "include_expired": True}
INTERVAL = 0.2


@pytest.fixture(scope="module")
def postings() -> dict[str, dict[str, Any]]:
    """Each posting of the board by its id, from the generator and not by way of the service."""
    return {posting.id: json.loads(posting.json) for posting in generate(BOARD_ROWS)}


@pytest.fixture
def client(stack: Addresses) -> hirebase.Client:
    return hirebase.Client(api_key=stack.api_key, base_url=stack.url)


def finished(client: hirebase.Client, query: dict[str, Any], format: str) -> dict[str, Any]:  # noqa: A002
    """The result of an export that the client made and polled to its end."""
    seen: list[float] = []
    task: Any = client.jobs.export(query, format=format)
    success, result = client.tasks.poll(
        task, interval=INTERVAL, timeout=120, on_progress=lambda task: seen.append(task.progress)
    )
    assert success, result
    assert seen == sorted(seen)
    assert seen[-1] == 1.0
    assert isinstance(result, dict)
    return result


def test_a_json_export_holds_every_posting_of_the_board_unchanged(
    client: hirebase.Client, postings: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    # Given
    result = finished(client, EVERYTHING, "json")

    # When
    path = client.stream_file(result["download_url"], file_path=str(tmp_path / "all.json"))
    rows: list[Any] = list(client.jobs.stream_file(path, return_type=dict))

    # Then
    assert result["record_count"] == len(rows) == len(postings)
    assert result["file_size"] == Path(path).stat().st_size
    assert result["completeness"]["outcome"] == "complete"
    assert {row["_id"]: row for row in rows} == postings


def test_the_clients_own_jobs_are_read_from_the_url_without_a_file(
    client: hirebase.Client, postings: dict[str, dict[str, Any]]
) -> None:
    # Given
    result = finished(client, EVERYTHING, "json")

    # When
    jobs: list[Any] = list(client.jobs.stream_url(result["download_url"]))

    # Then
    assert len(jobs) == len(postings)
    assert {job.id: job.job_title for job in jobs} == {
        identity: posting["job_title"] for identity, posting in postings.items()
    }


def test_a_csv_export_holds_every_posting_with_lists_as_json(
    client: hirebase.Client, postings: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    # Given
    result = finished(client, EVERYTHING, "csv")

    # When
    path = client.stream_file(result["download_url"], file_path=str(tmp_path / "all.csv"))
    rows: list[Any] = list(client.jobs.stream_file(path, return_type=dict))

    # Then
    assert result["record_count"] == len(rows) == len(postings)
    assert next(iter(rows[0])) == "_id"
    assert {row["_id"] for row in rows} == set(postings)
    for row in rows:
        posting = postings[row["_id"]]
        assert row["job_title"] == posting["job_title"]
        assert row["description"] == (posting.get("description") or "")
        listed = json.loads(row["skills"]) if row["skills"] else None
        assert listed == posting.get("skills")


def test_a_csv_export_is_read_as_the_clients_own_jobs(
    client: hirebase.Client, postings: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    # Given: a search without titles that are JSON themselves, which the client cannot read back
    wanted = {
        identity: posting
        for identity, posting in postings.items()
        if "Registered Nurse" in posting["job_title"]
    }
    result = finished(client, NURSES, "csv")

    # When
    path = client.stream_file(result["download_url"], file_path=str(tmp_path / "nurses.csv"))
    jobs: list[Any] = list(client.jobs.stream_file(path))

    # Then
    assert wanted
    assert {job.id for job in jobs} == set(wanted)
    for job in jobs:
        posting = wanted[job.id]
        assert job.job_title == posting["job_title"]
        assert job.skills == posting.get("skills")
        assert job.expired == posting["expired"]


def test_a_limit_is_the_number_of_records(client: hirebase.Client) -> None:
    # When
    result = finished(client, {**EVERYTHING, "limit": 150}, "json")

    # Then
    assert result["record_count"] == 150
    assert result["completeness"]["outcome"] == "truncated"
    assert len(list(client.jobs.stream_url(result["download_url"]))) == 150


def test_the_asynchronous_client_does_the_same(
    stack: Addresses, postings: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    async def scenario() -> tuple[set[Any], set[Any]]:
        async with hirebase.AsyncClient(api_key=stack.api_key, base_url=stack.url) as client:
            # Given
            results = {}
            for format_ in ("json", "csv"):
                task: Any = await client.jobs.export(EVERYTHING, format=format_)
                success, result = await client.tasks.poll(task, interval=INTERVAL, timeout=120)
                assert success, result
                assert isinstance(result, dict)
                results[format_] = result["download_url"]

            # When
            jobs: list[Any] = [job async for job in client.jobs.stream_url(results["json"])]
            path = await client.stream_file(results["csv"], file_path=str(tmp_path / "all.csv"))
            rows: list[Any] = list(client.jobs.stream_file(path, return_type=dict))
            return {job.id for job in jobs}, {row["_id"] for row in rows}

    streamed, stored = asyncio.run(scenario())

    # Then
    assert streamed == stored == set(postings)


def test_the_clients_exceptions_are_the_right_ones(
    stack: Addresses, client: hirebase.Client
) -> None:
    # Given
    stranger = hirebase.Client(api_key="exp_nobody", base_url=stack.url)

    # When / Then
    with pytest.raises(AuthenticationError):
        stranger.jobs.export({}, format="json")
    with pytest.raises(NotFoundError, match="no-such-task"):
        client.tasks.get("no-such-task")
    with pytest.raises(APIError, match=r"body\.search\.colour: ") as refused:
        client.jobs.export({"colour": "red"}, format="json")
    assert refused.value.status_code == 422
