"""A board that accepts fault specs and is reset to no faults after each test."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from exporter.board import synthetic
from exporter.board.profiles import Profile
from tests import boards
from tests.integration.board_faults.desk import ROWS, order


@pytest.fixture(scope="package")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    path = tmp_path_factory.mktemp("board") / "board.db"
    synthetic.synthesize(path, ROWS, profile=Profile.HOSTILE)
    with boards.client(path, "") as client:
        yield client


@pytest.fixture
def board(served: httpx.Client) -> Iterator[httpx.Client]:
    yield served
    order(served, "")
