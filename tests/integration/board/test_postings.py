"""Single postings, as they are served and as the official client reads them."""

from __future__ import annotations

import hirebase
import httpx
import pytest

from exporter.board import hostile
from tests.integration.board.desk import KEY


def test_a_posting_is_found_by_its_id_and_an_unknown_id_is_a_404_that_names_the_id(
    board: httpx.Client,
) -> None:
    # When
    found, missing = board.get("/v2/jobs/bare"), board.get("/v2/jobs/no:such/id")
    # Then
    assert found.json() == {"_id": "bare"}
    assert missing.status_code == 404
    assert missing.json() == {"detail": "There is no job with the id 'no:such/id'"}


def test_postings_are_served_byte_for_byte(large: httpx.Client) -> None:
    # Given
    texts = {posting.id: posting.json for posting in hostile.generate(30)}
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
            client.jobs.get("unknown")
    # Then
    assert result.total_count >= len(result) > 0
    assert all("engineer" in (job.job_title or "").casefold() for job in result)
    assert one.job_title == result[0].job_title
