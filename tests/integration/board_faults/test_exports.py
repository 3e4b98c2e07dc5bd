"""Exports from a misbehaving board: the file is that of a calm board, row for row."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from exporter.core.checkpoints import RowCounts
from exporter.core.exports import Completeness, Outcome
from exporter.sources import registry
from tests.harness import Bench
from tests.integration.board_faults.desk import KEY, done, order

KINDS = ("hirebase", "qwestly")


def exported(board: httpx.Client, kind: str) -> tuple[list[Any], Completeness, RowCounts]:
    """Exports all postings of the board; waits take no time."""
    bench = Bench([], format="json")
    settings = {"base_url": str(board.base_url), "api_key": KEY, "page_size": 10}
    bench.source = source = registry.TYPES[kind].model_validate(settings).make(bench.clock)
    bench.run(slices=10_000)
    source.close()
    rows = [json.loads(line) for line in bench.file().splitlines()]
    assert bench.export.result is not None
    return rows, bench.export.result.completeness, bench.export.result.row_counts


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "spec",
    [
        "302=10%,401=10%,404=10%,seed=1",
        "403=20%,429=5%,502=10%,html=10%,seed=2",
        "coding=40%,latin1=30%,gzip=30%,seed=3",
    ],
)
def test_a_board_that_misbehaves_within_reason_is_exported_whole(
    board: httpx.Client, kind: str, spec: str
) -> None:
    # Given
    expected, _, _ = exported(board, kind)
    order(board, spec)
    # When
    rows, proof, counts = exported(board, kind)
    # Then
    assert len(done(board)) == spec.count("%")
    assert rows == expected
    assert proof.outcome is Outcome.COMPLETE
    assert proof.duplicates_removed == 0
    assert counts.replaced_characters == 0
    assert (counts.converted_rows > 0) is ("latin1" in spec)
