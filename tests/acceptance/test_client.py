"""The client library against the whole service."""

from __future__ import annotations

import asyncio
import csv
from pathlib import Path

import pytest

from exporter import client
from exporter.client import AsyncExporter, Exporter, InvalidRequest, NotFound
from exporter.local.stack import Addresses

pytestmark = pytest.mark.stack
SEARCH = {"job_titles": ["engineer"]}


def test_ten_lines_of_python_have_the_file_and_its_rows(stack: Addresses, tmp_path: Path) -> None:
    # When
    with Exporter(stack.url, stack.api_key) as exporter:
        made = exporter.create("board", SEARCH, columns=["_id", "job_title"], limit=150)
        export = exporter.wait(made.id, timeout=60)
        exporter.download(export, tmp_path / "engineers.csv")
        rows = list(exporter.rows(export))
        newest = next(exporter.list())
        exporter.delete(export.id)
        # Then
        with pytest.raises(NotFound):
            exporter.get(export.id)
    with (tmp_path / "engineers.csv").open(newline="", encoding="utf-8") as lines:
        assert rows == list(csv.DictReader(lines))
    assert export.result is not None
    assert len(rows) == export.result.record_count > 0
    assert newest.id == export.id


def test_the_example_of_the_documentation_runs(
    stack: Addresses, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given: the indented lines of the package's docstring, up to the webhooks
    text, _, _ = (client.__doc__ or "").partition("`AsyncExporter`")
    code = "\n".join(line[4:] for line in text.splitlines() if line.startswith("    "))
    code = code.replace("https://exports.example.com", stack.url).replace("exp_…", stack.api_key)
    monkeypatch.chdir(tmp_path)
    printed: list[str] = []
    # When
    exec(code, {"print": printed.append})
    # Then
    with (tmp_path / "engineers.csv").open(newline="", encoding="utf-8") as lines:
        assert printed == [row["job_title"] for row in csv.DictReader(lines)] != []


def test_the_asynchronous_client_does_the_same(stack: Addresses) -> None:
    # Given
    async def run() -> list[dict[str, object]]:
        async with AsyncExporter(stack.url, stack.api_key) as exporter:
            made = await exporter.create(
                "board", SEARCH, format="json", compression="gzip", limit=9
            )
            await exporter.wait(made.id, timeout=60)
            return [row async for row in exporter.rows(made.id)]

    # When
    rows = asyncio.run(run())
    # Then
    assert len({row["_id"] for row in rows}) == 9


def test_the_wrong_fields_of_a_request_are_named(stack: Addresses) -> None:
    # When
    with Exporter(stack.url, stack.api_key) as exporter, pytest.raises(InvalidRequest) as error:
        exporter.create("board", {"job_titel": ["engineer"]}, priority=11)
    # Then
    assert {one["pointer"] for one in error.value.problems} == {"/query/job_titel", "/priority"}
