"""The vendor's own clients, unmodified, beyond exports: searches, expired postings, usage, errors.

Each test has a key of its own, because requests are counted by key.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hirebase
import pytest
import redis
from hirebase.exceptions import (
    APIError,
    NotFoundError,
    PermissionError_,
    QuotaExceededError,
    RateLimitError,
)
from hirebase.models.usage import Meters

from exporter.board.hostile import generate
from exporter.core.plans import Plan
from exporter.local.stack import Addresses
from exporter.store.redis.api_keys import KeyRing
from tests.conftest import BOARD_ROWS

pytestmark = pytest.mark.stack

EVERYTHING = {"include_expired": True}
DAY = "2020-01-01"
INTERVAL = 0.2
Make = Callable[..., str]


@pytest.fixture(scope="module")
def postings() -> dict[str, dict[str, Any]]:
    """Each posting of the board by its id, from the generator and not by way of the service."""
    return {posting.id: json.loads(posting.json) for posting in generate(BOARD_ROWS)}


@pytest.fixture
def key(stack: Addresses) -> Make:
    """Makes keys, each with its features and balance."""

    def make(*features: str, balance: int | None = None) -> str:
        plan = Plan(key_id=None, features=frozenset(features) if features else None)
        with redis.Redis.from_url(stack.redis_url) as client:
            return KeyRing(client).create("local", plan=plan, balance=balance)

    return make


@pytest.fixture
def client(stack: Addresses, key: Make) -> hirebase.Client:
    return hirebase.Client(api_key=key(), base_url=stack.url)


def test_a_search_is_read_as_the_clients_own_postings(
    client: hirebase.Client, postings: dict[str, dict[str, Any]]
) -> None:
    # When
    result: Any = client.jobs.search(
        hirebase.JobQuery(job_types=["Full-time"], industry="design", include_expired=True),
        page=1,
        limit=100,
    )

    # Then
    assert result.total_count > 10
    assert len(result) == min(result.total_count, 100)
    assert (result.page, result.limit) == (1, 100)
    for job in result:
        assert job.job_title == postings[job.id]["job_title"]
        assert "Design" in postings[job.id]["company_data"]["industries"]


def test_a_page_past_the_end_is_empty_with_the_true_totals(client: hirebase.Client) -> None:
    # When
    result: Any = client.jobs.search(EVERYTHING, page=999)

    # Then
    assert (len(result), result.total_count) == (0, BOARD_ROWS)


def test_one_posting_comes_by_its_id(
    client: hirebase.Client, postings: dict[str, dict[str, Any]]
) -> None:
    # Given
    identity = next(iter(postings))

    # When / Then
    assert client.jobs.get(identity, return_type=dict) == postings[identity]
    with pytest.raises(NotFoundError, match="no-such-job"):
        client.jobs.get("no-such-job")


def test_an_estimate_is_the_price_of_the_export(client: hirebase.Client) -> None:
    # When / Then
    assert client.jobs.estimate(EVERYTHING) == BOARD_ROWS
    assert client.jobs.estimate(EVERYTHING, limit=70) == 70


def test_expired_postings_are_listed_and_exported_alike(
    client: hirebase.Client, postings: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    # Given
    gone = {identity for identity, posting in postings.items() if posting["expired"]}

    # When
    listed: Any = client.jobs.expired(DAY, page=1, limit=30)
    task: Any = client.jobs.export_expired(DAY)
    success, result = client.tasks.poll(task, interval=INTERVAL, timeout=120)
    some: Any = client.jobs.export_expired(DAY, limit=7)
    done, few = client.tasks.poll(some, interval=INTERVAL, timeout=120)

    # Then
    assert listed["total_count"] == len(gone) > 30
    assert len(listed["jobs"]) == 30
    assert success, result
    assert done, few
    assert isinstance(result, dict)
    assert isinstance(few, dict)
    path = client.stream_file(result["download_url"], file_path=str(tmp_path / "expired.json"))
    jobs: list[Any] = list(client.jobs.stream_file(path))
    assert result["record_count"] == len(jobs) == len(gone)
    assert {job.id for job in jobs} == gone
    assert few["record_count"] == len(list(client.jobs.stream_url(few["download_url"]))) == 7


def test_the_client_reads_what_is_left_of_a_quota(stack: Addresses, key: Make) -> None:
    # Given
    client = hirebase.Client(api_key=key(balance=100), base_url=stack.url)

    # When
    searched: Any = client.jobs.search(EVERYTHING, limit=30, return_meta=True)
    exported: Any = client.jobs.export({**EVERYTHING, "limit": 50}, return_meta=True)
    (_, after_search), (task, after_export) = searched, exported
    client.tasks.poll(task, interval=INTERVAL, timeout=120)
    summary: Any = client.usage.get()
    row: Any = client.usage.get(meter=Meters.EXPORTS)

    # Then
    assert after_search.usage.included_remaining == 70
    assert not after_search.usage.is_meter_mode
    assert after_export.usage.meter == Meters.EXPORTS.value
    assert after_export.usage.included_remaining == 20
    assert (row.used, row.included, row.remaining) == (80, 100, 20)
    assert summary.meter(Meters.JOBS_API).remaining == 20


def test_a_quota_and_a_rate_are_two_exceptions(stack: Addresses, key: Make) -> None:
    # Given
    poor = hirebase.Client(api_key=key(balance=5), base_url=stack.url)
    hasty = hirebase.Client(api_key=key(), base_url=stack.url)

    # When / Then
    with pytest.raises(QuotaExceededError) as quota:
        poor.jobs.search(EVERYTHING, limit=6)
    assert quota.value.usage.included_remaining == 5
    assert quota.value.retry_after is None
    with pytest.raises(QuotaExceededError):
        poor.jobs.export(EVERYTHING)
    with pytest.raises(RateLimitError) as rate:
        for _ in range(101):
            hasty.jobs.search(EVERYTHING, limit=1)
    assert not isinstance(rate.value, QuotaExceededError)
    assert rate.value.retry_after is not None
    assert 1 <= rate.value.retry_after <= 60


def test_other_refusals_are_the_clients_own_exceptions(
    stack: Addresses, client: hirebase.Client, key: Make
) -> None:
    # Given
    narrow = hirebase.Client(api_key=key("export"), base_url=stack.url)

    # When / Then
    with pytest.raises(PermissionError_, match="'search'"):
        narrow.jobs.search({})
    with pytest.raises(APIError, match=r"body\.limit: Limit cannot be greater than 100"):
        client.jobs.search({}, limit=101)
    with pytest.raises(APIError, match="did you mean 'Design'"):
        client.jobs.search({"industry": "Desing"})
    with pytest.raises(APIError, match=r"body\.notify: no e-mail is sent"):
        client.jobs.export_expired(DAY, notify=True)


def test_the_asynchronous_client_does_the_same(
    stack: Addresses, key: Make, postings: dict[str, dict[str, Any]]
) -> None:
    gone = {identity for identity, posting in postings.items() if posting["expired"]}
    identity = next(iter(postings))

    async def scenario() -> None:
        own = key(balance=1_000)
        async with hirebase.AsyncClient(api_key=own, base_url=stack.url) as client:
            # When
            found: Any = await client.jobs.search(EVERYTHING, limit=20)
            posting = await client.jobs.get(identity, return_type=dict)
            cost = await client.jobs.estimate(EVERYTHING)
            listed: Any = await client.jobs.expired(DAY)
            task: Any = await client.jobs.export_expired(DAY)
            success, result = await client.tasks.poll(task, interval=INTERVAL, timeout=120)
            usage: Any = await client.usage.get(meter=Meters.JOBS_API)

            # Then
            assert (len(found), found.total_count) == (20, BOARD_ROWS)
            assert posting == postings[identity]
            assert cost == BOARD_ROWS
            assert listed["total_count"] == len(gone)
            assert success, result
            assert isinstance(result, dict)
            jobs: list[Any] = [job async for job in client.jobs.stream_url(result["download_url"])]
            assert {job.id for job in jobs} == gone
            assert usage.remaining == 1_000 - 21
            with pytest.raises(APIError, match="Limit cannot be greater than 100"):
                await client.jobs.search({}, limit=101)

    asyncio.run(scenario())


def test_the_command_line_searches_and_shows_postings(
    stack: Addresses, key: Make, postings: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    # Given
    identity, posting = next(iter(postings.items()))
    own = key()

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = Path(sysconfig.get_path("scripts")) / "hirebase"
        env = {**os.environ, "HIREBASE_API_KEY": own, "HIREBASE_BASE_URL": stack.url}
        return subprocess.run(
            [str(command), *arguments],
            cwd=tmp_path,
            env={**env, "COLUMNS": "1000", "NO_COLOR": "1"},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    # When
    search = run("jobs", "search", "--include-expired", "--limit", "5", "--json")
    pages = run("jobs", "search", "--page", "1..2", "--limit", "3", "--json")
    table = run("search", "Nurse")
    one = run("jobs", "get", identity, "--json")
    by_slug = run("jobs", "get-by-slug", posting["company_slug"], posting["job_slug"], "--json")
    health = run("health", "--json")
    refused = run("jobs", "search", "--industry", "Desing")

    # Then
    for done in (search, pages, table, one, by_slug, health):
        assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(search.stdout)["total_count"] == BOARD_ROWS
    assert len(json.loads(search.stdout)["jobs"]) == 5
    assert len(json.loads(pages.stdout)["jobs"]) == 6
    assert json.loads(one.stdout) == posting
    assert json.loads(by_slug.stdout)["jobs"] == [posting]
    assert json.loads(health.stdout)["status"] == "ok"
    assert refused.returncode == 1
    assert "did you mean 'Design'" in refused.stdout + refused.stderr
