"""Invalid searches are rejected with a 422."""

from __future__ import annotations

from typing import Any

import httpx
import pytest


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
def test_an_unsupported_search_is_rejected_in_the_vendors_shape(
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
def test_an_invalid_body_is_rejected_with_a_location_and_a_reason(
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
