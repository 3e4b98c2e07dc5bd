"""The OpenAPI document: what FastAPI cannot know, because bodies are read and written by us."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from exporter.api import answers, auth, errors, hirebase, native
from exporter.queries import JobSearch

_ANSWERED = (
    hirebase.Task,
    hirebase.TaskPage,
    native.Export,
    native.ExportPage,
    answers.Deleted,
    errors.Detail,
    errors.Problem,
)
_ASKED = (hirebase.TaskRequest, native.ExportRequest, JobSearch)
_EXAMPLES = {**hirebase.EXAMPLES, **native.EXAMPLES}


def complete(app: FastAPI) -> None:
    """Make the app's document whole: all schemas, examples, errors and the two ways of a key."""
    generated = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generated()
            components = document.setdefault("components", {})
            components["securitySchemes"] = auth.SCHEMES
            components["schemas"] = _schemas()
            _mend(document["paths"])
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _schemas() -> dict[str, Any]:
    place = "#/components/schemas/{}"
    _, answered = msgspec.json.schema_components(_ANSWERED, ref_template=place.format("{name}"))
    _, asked = models_json_schema(
        [(model, "validation") for model in _ASKED], ref_template=place.format("{model}")
    )
    schemas: dict[str, Any] = answered | asked["$defs"]
    for request, filters in ((hirebase.TaskRequest, "search"), (native.ExportRequest, "query")):
        properties = schemas[request.__name__]["properties"]
        properties[filters] = {
            "allOf": [{"$ref": place.format(JobSearch.__name__)}],
            "description": properties[filters]["description"],
        }
    return schemas


def _mend(paths: dict[str, Any]) -> None:
    for path, operations in paths.items():
        for operation in operations.values():
            if not path.startswith("/health"):
                operation["security"] = [{scheme: []} for scheme in auth.SCHEMES]
            # FastAPI's own 422, which it documents for every path with a parameter.
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
    # Not given to FastAPI, because it drops every null, and the nulls are part of the contract.
    for (path, method, status), example in _EXAMPLES.items():
        content = paths[path][method]["responses"][status]["content"]
        content["application/json"]["example"] = example
