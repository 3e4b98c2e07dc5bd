"""Who may import whom: the rules that keep each room replaceable."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import exporter
import workers

ROOT = Path(exporter.__file__).parent

CORE = (
    "exports", "admission", "checkpoints", "pipeline", "reading", "parts", "holding", "leases",
    "queries", "clock", "plans", "packing", "inputs", "errors", "cleaning", "sweeper",
    "retry_after", "slices", "partition_slices", "partitions", "composing", "endings", "limits",
    "outgoing", "prefetch", "threads", "compression",
    "formats/base", "formats/csv", "formats/envelope", "formats/json", "formats/registry",
    "sources/base", "sources/id_list", "sources/memory", "sources/numbered",
    "sources/numbered_pages", "sources/pages", "storage/base", "storage/memory",
    "store/base", "store/books", "store/cuts", "store/lines", "store/memory",
    "store/memory_accounts",
    "store/memory_outbox", "webhooks/addresses", "webhooks/deliveries", "webhooks/endpoints",
    "webhooks/messages", "webhooks/private", "webhooks/schedule", "webhooks/signatures",
)  # fmt: skip
CLIENTS = {"redis", "boto3", "botocore", "httpx", "fastapi", "starlette", "uvicorn"}


def imported(file: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.split(".")[0]


def test_what_an_export_is_never_imports_where_it_runs() -> None:
    # Given
    files = sorted(ROOT.rglob("*.py"))
    assert len(files) > 30
    # When
    guilty = [f.name for f in files if {"celery", "kombu", "workers"} & set(imported(f))]
    # Then
    assert guilty == []


@pytest.mark.parametrize("module", CORE)
def test_the_core_imports_no_client_of_any_server(module: str) -> None:
    # Given
    file = ROOT / f"{module}.py"
    # When
    clients = CLIENTS & set(imported(file))
    # Then
    assert clients == set()


def test_workers_hold_no_export_logic() -> None:
    # Given: what writes files, reads pages or encodes rows
    logic = {"exporter.parts", "exporter.sources", "exporter.storage", "exporter.checkpoints"}
    for file in Path(workers.__file__).parent.glob("*.py"):
        # When
        text = file.read_text("utf-8")
        # Then
        assert not [name for name in logic if f"from {name}" in text], file.name
