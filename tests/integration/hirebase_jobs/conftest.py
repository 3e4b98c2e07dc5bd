"""Fixtures: a service with a real board as its source, and the postings of that board."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exporter.board import hostile, synthetic
from exporter.board.profiles import Profile
from tests import boards
from tests.integration.api_server import Service
from tests.integration.hirebase_jobs.desk import ROWS, behind


@pytest.fixture(scope="package")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Starts a board with synthetic postings and yields its URL."""
    database: Path = tmp_path_factory.mktemp("board") / "board.sqlite"
    synthetic.synthesize(database, ROWS, profile=Profile.HOSTILE)
    with boards.serving(database) as url:
        yield url


@pytest.fixture(scope="package")
def postings() -> dict[str, dict[str, Any]]:
    """Returns the board's postings by id, from the generator and not through the service."""
    return {posting.id: json.loads(posting.json) for posting in hostile.generate(ROWS)}


@pytest.fixture
def jobs(api: Service, board: str) -> Iterator[Service]:
    yield behind(api, board)
    api.engine.source("board").close()
