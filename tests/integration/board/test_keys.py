"""API keys: accepted headers, and 401 without a valid key."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from exporter.board import app
from tests.integration.board.desk import KEY


@pytest.mark.parametrize(
    "headers",
    [
        {"x-api-key": KEY},
        {"x-api-key": "other"},
        {"Authorization": f"Bearer {KEY}"},
        {"Authorization": f"ApiKey {KEY}"},
    ],
)
def test_a_key_is_accepted_in_every_header_that_clients_use(
    board: httpx.Client, headers: dict[str, str]
) -> None:
    # When
    response = httpx.get(f"{board.base_url}/v2/jobs/civil", headers=headers)
    # Then
    assert response.status_code == 200


@pytest.mark.parametrize(
    "headers",
    [{}, {"x-api-key": "wrong"}, {"Authorization": "Bearer"}, {"Authorization": f"Basic {KEY}"}],
)
@pytest.mark.parametrize("path", ["/v2/jobs/civil", "/nowhere"])
def test_a_request_without_a_valid_key_gets_401(
    board: httpx.Client, headers: dict[str, str], path: str
) -> None:
    # When
    response = httpx.get(f"{board.base_url}{path}", headers=headers)
    # Then
    assert response.status_code == 401
    assert "x-api-key" in response.json()["detail"]
    assert response.headers["x-request-id"]


def test_health_needs_no_key(board: httpx.Client) -> None:
    # When
    response = httpx.get(f"{board.base_url}/health")
    # Then
    assert (response.status_code, response.json()) == (200, {"status": "ok"})


def test_a_board_without_keys_is_refused(tmp_path: Path) -> None:
    # When
    with pytest.raises(ValueError, match="at least one API key") as caught:
        app.create_app(tmp_path / "board.db", [])
    # Then
    assert "empty" in str(caught.value)
