"""The OpenAPI document against itself and against what is really answered."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from exporter.api import errors, pipeline_errors
from exporter.api import responses as answers
from exporter.api.app import create_app
from exporter.api.openapi import error_answers
from exporter.api.openapi.operations import OPERATIONS
from exporter.api.surfaces.coresignal import data_requests, files
from exporter.api.surfaces.hirebase import searches, tasks, usage
from exporter.api.surfaces.native import estimate, exports
from exporter.api.surfaces.pipeline import export
from exporter.api.surfaces.webhooks import deliveries, endpoints, resends
from exporter.clock import FakeClock
from exporter.config import Config
from exporter.service.exports import ExportService
from exporter.settings import Settings
from exporter.sources.hirebase import HirebaseConfig
from exporter.storage.memory import MemoryStorage
from exporter.store.memory.store import MemoryStore
from exporter.store.redis.api_keys import KeyRing


def document() -> dict[str, Any]:
    clock = FakeClock()
    engine = ExportService(
        settings=Settings(),
        config=Config(sources={"board": HirebaseConfig(base_url="http://[::1]:9")}),
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
    """All operations; their responses are those that the document refers to."""
    whole = document()
    shared = whole["components"]["responses"]
    found = []
    for path, methods in whole["paths"].items():
        for method, operation in methods.items():
            for status, response in operation["responses"].items():
                if "$ref" in response:
                    operation["responses"][status] = shared[response["$ref"].rpartition("/")[2]]
            found.append((path, method, operation))
    return found


def test_every_reference_of_the_document_leads_to_a_schema() -> None:
    # When
    whole = document()

    # Then
    there = {
        f"#/components/{kind}/{name}"
        for kind, named in whole["components"].items()
        for name in named
    }
    assert references(whole)
    assert references(whole) <= there


def test_the_document_is_json_and_the_same_each_time() -> None:
    # When
    first, second = json.dumps(document()), json.dumps(document())

    # Then
    assert first == second


def test_every_operation_with_a_key_tells_its_errors_and_shows_an_example() -> None:
    for path, _, operation in operations():
        if path.startswith(("/health", "/v2/health", "/v2/jobs/data/")):
            assert "security" not in operation
            continue

        # When
        responses = operation["responses"]

        # Then
        assert operation["security"], path
        assert {"401", "403", "405", "500", "503"} <= set(responses), path
        for status, response in responses.items():
            if "content" not in response:
                assert status in ("204", "302", "304"), path
                continue
            (media_type, content), *_ = response["content"].items()
            if int(status) >= 400:
                problem = media_type == "application/problem+json"
                assert problem == errors.is_native(path), path
            elif media_type != "application/gzip":
                assert content["example"], path
        if "requestBody" in operation:
            assert {"413", "422"} <= set(responses)
            assert all(body["example"] for body in operation["requestBody"]["content"].values())


def test_every_operation_has_a_name_that_a_generated_client_can_keep() -> None:
    # When
    names = {f"{method.upper()} {path}": one["operationId"] for path, method, one in operations()}

    # Then
    assert names == {place: known.id for place, known in OPERATIONS.items()}
    assert len(set(names.values())) == len(names)
    assert all(re.fullmatch(r"[a-z]+([A-Z][a-z]*|V1)*", name) for name in names.values())


def test_every_part_of_the_document_says_what_it_is() -> None:
    # When
    told = {tag["name"] for tag in document()["tags"] if tag["description"]}

    # Then
    assert told == {tag for *_, operation in operations() for tag in operation["tags"]}


def test_every_answer_tells_under_which_id_it_is_logged_and_when_to_come_again() -> None:
    for path, _, operation in operations():
        for status, response in operation["responses"].items():
            # When
            headers = response["headers"]

            # Then
            assert "X-Request-Id" in headers, path
            assert ("Retry-After" in headers) or status not in ("429", "503"), path
            assert ("Location" in headers) or status not in ("201", "302"), path


def test_a_search_that_the_document_allows_has_no_blank_text() -> None:
    # Given
    schemas = document()["components"]["schemas"]

    # When
    text, several, _ = schemas["JobSearch"]["properties"]["job_titles"]["anyOf"]

    # Then
    for schema in (text, several["items"]):
        assert re.search(schema["pattern"], "Welder")
        assert not re.search(schema["pattern"], " \t")


SHAPES = {
    "#/components/schemas/Task": tasks.Task,
    "#/components/schemas/TaskPage": tasks.TaskPage,
    "#/components/schemas/Listing": searches.Listing,
    "#/components/schemas/ExpiredListing": searches.ExpiredListing,
    "#/components/schemas/Posting": searches.Posting,
    "#/components/schemas/Estimate": searches.Estimate,
    "#/components/schemas/Industries": searches.Industries,
    "#/components/schemas/Categories": searches.Categories,
    "#/components/schemas/UsageSummary": usage.UsageSummary,
    "#/components/schemas/Records": estimate.Records,
    "#/components/schemas/Export": exports.Export,
    "#/components/schemas/ExportPage": exports.ExportPage,
    "#/components/schemas/Deleted": answers.Deleted,
    "#/components/schemas/DataRequest": data_requests.DataRequest,
    "#/components/schemas/Files": files.Files,
    "#/components/schemas/Pending": files.Pending,
    "#/components/schemas/Jobs": export.Jobs,
    "#/components/schemas/WebhookEndpoint": endpoints.WebhookEndpoint,
    "#/components/schemas/WebhookEndpointMade": endpoints.WebhookEndpointMade,
    "#/components/schemas/WebhookEndpoints": endpoints.WebhookEndpoints,
    "#/components/schemas/WebhookSecret": endpoints.WebhookSecret,
    "#/components/schemas/WebhookDelivery": deliveries.WebhookDelivery,
    "#/components/schemas/WebhookDeliveries": deliveries.WebhookDeliveries,
    "#/components/schemas/Recovery": resends.Recovery,
}


def test_every_example_is_of_the_shape_that_is_answered() -> None:
    checked = 0
    for path, _, operation in operations():
        for status, response in operation["responses"].items():
            # Given
            content = response.get("content", {}).get("application/json", {})
            if "health" in path or int(status) >= 400 or "example" not in content:
                continue

            # When
            parsed: object = msgspec.convert(content["example"], SHAPES[content["schema"]["$ref"]])

            # Then
            assert msgspec.to_builtins(parsed) == content["example"], path
            checked += 1
    assert checked == 49


@pytest.mark.parametrize(
    ("path", "model"),
    [("/v2/jobs/export", tasks.TaskRequest), ("/v1/exports", exports.ExportRequest)],
)
def test_every_example_of_a_request_is_a_right_one(
    path: str, model: type[tasks.TaskRequest | exports.ExportRequest]
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
        ("/v1/bulk_collect/x/files", False),
        ("/v1/professional_network/job/bulk_collect/filter", False),
        ("/cdapi/v1/exports", False),
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


def test_every_error_has_a_short_example_of_its_own_shape_and_status() -> None:
    shapes = {"Problem": errors.Problem, "Detail": errors.Detail, "Flat": pipeline_errors.Flat}
    for path, _, operation in operations():
        for status, response in operation["responses"].items():
            # Given
            (content,) = response.get("content", {"": {}}).values() if int(status) >= 400 else [{}]
            if "$ref" not in content.get("schema", {}):
                continue

            # When
            shape = shapes[content["schema"]["$ref"].rpartition("/")[2]]
            parsed: object = msgspec.convert(content["example"], shape)

            # Then
            assert msgspec.to_builtins(parsed) == content["example"], path
            assert getattr(parsed, "status", int(status)) == int(status)
            assert len(json.dumps(content["example"])) < 400
            assert '"string"' not in json.dumps(content["example"])


def test_equal_error_answers_are_written_once() -> None:
    # When
    whole = document()
    errors_of = [
        response
        for path, methods in whole["paths"].items()
        for operation in methods.values()
        for status, response in operation["responses"].items()
        if int(status) >= 400 and "health" not in path
    ]
    shared = whole["components"]["responses"]

    # Then
    assert all(list(response) == ["$ref"] for response in errors_of)
    assert len(errors_of) > 5 * len(shared)
    assert len({json.dumps(one, sort_keys=True) for one in shared.values()}) == len(shared)


def test_the_page_shows_one_answer_for_all_errors_and_lists_their_statuses() -> None:
    # Given
    whole = document()
    before = json.dumps(whole)

    # When
    page = error_answers.fold(whole)

    # Then
    assert json.dumps(whole) == before
    for path, method, operation in operations():
        folded = page["paths"][path][method]["responses"]
        failed = [one for one in operation["responses"] if int(one) >= 400]
        assert operation["operationId"] == page["paths"][path][method]["operationId"]
        if "health" in path:
            assert "503" in folded or "503" not in failed
            continue
        assert [one for one in folded if one != "default"] == [
            one for one in operation["responses"] if int(one) < 400
        ]
        assert all(f"- `{status}` " in folded["default"]["description"] for status in failed)
        assert next(iter(folded["default"]["content"].values()))["example"]
        for response in folded.values():
            assert len(response.get("headers", {})) <= 7
            examples = [one.get("example", "") for one in response.get("content", {}).values()]
            assert ": null" not in json.dumps(examples)
    assert references(page) <= references(whole) | {
        f"#/components/schemas/{shape}" for shape in ("Problem", "Detail", "Flat")
    }


def test_the_codes_in_examples_of_errors_are_those_that_are_answered() -> None:
    # Given
    folder = Path(errors.__file__).parents[1]
    files = [*folder.glob("api/*.py"), *folder.glob("api/[fs]*/**/*.py"), *folder.glob("core/*.py")]
    sources = "".join(file.read_text("utf-8") for file in files)

    # When
    codes = {code for code, _ in error_answers._EXAMPLES.values()}

    # Then
    assert len(codes) == len(error_answers._EXAMPLES)
    assert not [code for code in codes if f'"{code}"' not in sources]
