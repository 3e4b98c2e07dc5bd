"""Generators of clients read the OpenAPI document, and what they make works."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.integration.api_server import Service
from tests.openapi import generators


@pytest.fixture(scope="module", autouse=True)
def _generators() -> None:
    generators.fetch()


@pytest.fixture
def document(api: Service) -> dict[str, Any]:
    found: dict[str, Any] = api.http.get("/openapi.json").json()
    return found


def test_the_document_has_no_error_of_redocly_lint(
    document: dict[str, Any], tmp_path: Path
) -> None:
    # Given
    (tmp_path / "openapi.json").write_text(json.dumps(document))

    # When
    lint = generators.NPM / ".bin" / "redocly"
    said = generators.run(
        *(lint, "lint", "openapi.json", "--format=json", "--extends=recommended"),
        cwd=tmp_path,
        # Otherwise it sends to its makers what was called.
        env={"REDOCLY_TELEMETRY": "off"},
    )

    # Then
    report = json.loads(said)
    rules = {one["ruleId"] for one in report["problems"]}
    assert report["totals"]["errors"] == 0
    assert rules <= {"operation-2xx-response"}, "GET …/file answers with a redirect only"


def test_typescript_accepts_the_requests_of_readme_and_guide_and_refuses_wrong_ones(
    document: dict[str, Any], tmp_path: Path
) -> None:
    # Given
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    (tmp_path / "guide.ts").write_text(generators.program_of_guide())
    source = (generators.HERE / "requests.ts").read_text("utf-8")
    types = generators.NPM / ".bin" / "openapi-typescript"
    generators.run(types, "openapi.json", "-o", "exports.ts", cwd=tmp_path)

    # When
    made = generators.compile_typescript(tmp_path, "requests", source, "guide.ts")

    # Then
    assert made.exists()


def test_a_generated_python_client_creates_and_polls_an_export(
    api: Service, document: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given
    (tmp_path / "openapi.json").write_text(json.dumps(document))
    generators.run(
        *(sys.executable, "-m", "openapi_python_client", "generate", "--meta=none"),
        *("--path=openapi.json", "--output-path=generated_exports", "--fail-on-warning"),
        cwd=tmp_path,
        env={
            "PYTHONPATH": str(generators.PYTHON),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        },
    )
    monkeypatch.syspath_prepend(tmp_path)
    package = importlib.import_module("generated_exports")
    models = importlib.import_module("generated_exports.models")
    of_exports = "generated_exports.api.exports"
    create = importlib.import_module(f"{of_exports}.create_export")
    get = importlib.import_module(f"{of_exports}.get_export")

    # When
    with package.AuthenticatedClient(base_url=str(api.http.base_url), token=api.ann) as client:
        asked = models.ExportRequest(
            source="board",
            query=models.JobSearch(job_titles=["Welder"]),
            format_=models.ExportRequestFormat.CSV,
        )
        made = create.sync(client=client, body=asked)
        api.finish(made.id)
        export = get.sync(made.id, client=client)
        refused = get.sync("none", client=client)

    # Then
    assert (made.state, export.state) == (models.State.QUEUED, models.State.FINISHED)
    assert export.result.completeness.outcome == models.Outcome.COMPLETE
    assert export.completed_at >= made.created_at
    assert (refused.status, refused.code) == (404, "not_found")
