"""Read-only boards for the tests of this package: one with five postings and a large one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from exporter.board import database, hostile, synthetic
from exporter.board.profiles import Profile
from tests.integration.board.desk import POSTINGS, lines, serving

ROWS = 1_500


@pytest.fixture(scope="package")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("board")
    database.load(folder / "board.db", lines(folder / "postings.jsonl", POSTINGS))
    with serving(folder / "board.db") as client:
        yield client


@pytest.fixture(scope="package")
def large(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    path = tmp_path_factory.mktemp("large") / "board.db"
    synthetic.synthesize(path, ROWS, profile=Profile.HOSTILE)
    with serving(path) as client:
        yield client


@pytest.fixture(scope="package")
def generated() -> list[dict[str, Any]]:
    return [json.loads(posting.json) for posting in hostile.generate(ROWS)]
