"""The OpenAPI document against itself and against what is really answered."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
import redis

from exporter.api import answers, errors, hirebase, native
from exporter.api.app import create_app
from exporter.clock import FakeClock
from exporter.engine import Engine
from exporter.settings import Config, Settings, SourceConfig
from exporter.storage.memory import MemoryStorage
from exporter.store.keys import KeyRing
from exporter.store.memory import MemoryStore


def document() -> dict[str, Any]:
    clock = FakeClock()
    engine = Engine(
        settings=Settings(),
        config=Config(sources={"board": SourceConfig(type="hirebase", base_url="http://[::1]:9")}),
        store=MemoryStore(clock),
        storage=MemoryStorage(clock),
        clock=clock,
    )
    # Redis is not asked before a request comes.
    return create_app(engine, KeyRing(redis.Redis())).openapi()


def references(node: object) -> set[str]:
    """All that a document refers to."""
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*map(references, node.values()))
    if isinstance(node, list):
        return set().union(*map(references, node))
    return set()


def operations() -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (path, method, operation)
        for path, methods in document()["paths"].items()
        for method, operation in methods.items()
    ]


def test_every_reference_of_the_document_leads_to_a_schema() -> None:
    # When
    whole = document()

    # Then
    schemas = {f"#/components/schemas/{name}" for name in whole["components"]["schemas"]}
    assert references(whole)
    assert references(whole) <= schemas


def test_the_document_is_json_and_the_same_each_time() -> None:
    # When
    first, second = json.dumps(document()), json.dumps(document())

    # Then
    assert first == second


def test_every_operation_with_a_key_tells_its_errors_and_shows_an_example() -> None:
    for path, method, operation in operations():
        if path.startswith("/health"):
            continue

        # When
        responses = operation["responses"]

        # Then
        assert operation["security"], path
        assert {"401", "403", "405", "500", "503"} <= set(responses), path
        for status, response in responses.items():
            (media_type, content), *_ = response["content"].items()
            if int(status) < 400:
                assert content["example"], path
            else:
                problem = media_type == "application/problem+json"
                assert problem == path.startswith("/v1"), path
        if method == "post" and not path.endswith(("cancel", "retry")):
            assert {"413", "422"} <= set(responses)
            assert operation["requestBody"]["content"]["application/json"]["example"]


SHAPES = {
    "#/components/schemas/Task": hirebase.Task,
    "#/components/schemas/TaskPage": hirebase.TaskPage,
    "#/components/schemas/Export": native.Export,
    "#/components/schemas/ExportPage": native.ExportPage,
    "#/components/schemas/Deleted": answers.Deleted,
}


def test_every_example_is_of_the_shape_that_is_answered() -> None:
    checked = 0
    for path, _, operation in operations():
        for response in operation["responses"].values():
            # Given
            content = response["content"].get("application/json", {})
            if path.startswith("/health") or "example" not in content:
                continue

            # When
            parsed: object = msgspec.convert(content["example"], SHAPES[content["schema"]["$ref"]])

            # Then
            assert msgspec.to_builtins(parsed) == content["example"], path
            checked += 1
    assert checked == 13


@pytest.mark.parametrize(
    ("path", "model"),
    [("/v2/jobs/export", hirebase.TaskRequest), ("/v1/exports", native.ExportRequest)],
)
def test_every_example_of_a_request_is_a_right_one(
    path: str, model: type[hirebase.TaskRequest | native.ExportRequest]
) -> None:
    # Given
    body = document()["paths"][path]["post"]["requestBody"]["content"]["application/json"]

    # When
    parsed = model.model_validate(body["example"])

    # Then
    assert parsed.format in ("csv", "json")


@pytest.mark.parametrize(
    ("path", "native_shape"),
    [
        ("/v1", True),
        ("/v1/", True),
        ("/v1/exports/x", True),
        ("/v10/exports", False),
        ("/v2/tasks", False),
        ("/", False),
    ],
)
def test_the_shape_of_an_error_follows_from_the_first_step_of_the_path(
    path: str, native_shape: bool
) -> None:
    # When
    decided = errors.is_native(path)

    # Then
    assert decided == native_shape
