"""The OpenAPI document against itself and against what is really answered."""

from __future__ import annotations

import functools
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis

from exporter.api import error_shapes, errors
from exporter.api.app import create_app
from exporter.api.error_shapes import DETAIL, PROBLEM
from exporter.api.openapi import error_answers, webhooks
from exporter.api.surface import Operation, Surface
from exporter.api.surface import Surfaces as Contracts
from exporter.api.surfaces import registry
from exporter.clock import FakeClock
from exporter.config import Config, Surfaces
from exporter.core import events, limits
from exporter.core.exports import EndReason, Outcome, Phase, State
from exporter.service.exports import ExportService
from exporter.settings import Settings
from exporter.sources.hirebase import HirebaseConfig
from exporter.storage.memory import MemoryStorage
from exporter.store.memory.store import MemoryStore
from exporter.store.redis.api_keys import KeyRing
from exporter.webhooks.deliveries import DeliveryState
from exporter.webhooks.endpoints import DisableReason
from tests import orders_surface

SURFACES = (*registry.SURFACES, orders_surface.SURFACE)
"""All surfaces, and a new one."""
NAME_OF_CODE = re.compile(r"\bNone\b|\b[A-Z]{2,}_[A-Z]+|`(?!(export|webhook)\.)[A-Za-z]+\.[a-z_]+`")
"""What means something to readers of the code only."""


def document() -> dict[str, Any]:
    whole: dict[str, Any] = json.loads(written())
    return whole


@functools.cache
def written() -> str:
    return write()


def write() -> str:
    clock = FakeClock()
    engine = ExportService(
        settings=Settings(),
        config=Config(sources={"board": HirebaseConfig(base_url="http://[::1]:9")}),
        store=MemoryStore(clock),
        storage=MemoryStorage(clock),
        clock=clock,
    )
    # Redis is not asked before a request comes.
    return json.dumps(create_app(engine, KeyRing(redis.Redis()), SURFACES).openapi())


def schemas(node: object) -> Iterator[dict[str, Any]]:
    """All schemas within components, parameters and bodies, with those inside of them."""
    if isinstance(node, dict):
        if "type" in node or "enum" in node or "anyOf" in node:
            yield node
        inner = [value for name, value in node.items() if name not in ("example", "default")]
        yield from itertools.chain.from_iterable(map(schemas, inner))
    if isinstance(node, list):
        yield from itertools.chain.from_iterable(map(schemas, node))


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
    first, second = write(), write()

    # Then
    assert first == second


def test_every_operation_with_a_key_tells_its_errors_and_shows_an_example() -> None:
    for path, _, operation in operations():
        if path.startswith(("/health", "/v2/health", "/v2/jobs/data/")):
            assert operation["security"] == []
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
            if int(status) < 400 and media_type != "application/gzip":
                assert content["example"], path
        if "requestBody" in operation:
            assert {"413", "422"} <= set(responses)
            assert all(body["example"] for body in operation["requestBody"]["content"].values())


def test_every_operation_has_a_name_that_a_generated_client_can_keep() -> None:
    # When
    names = {f"{method.upper()} {path}": one["operationId"] for path, method, one in operations()}

    # Then
    assert names == {one.place: one.id for made in SURFACES for one in made.operations}
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


def operations_of_surfaces() -> list[Operation]:
    return [operation for surface in SURFACES for operation in surface.operations]


OPERATIONS = [
    pytest.param(surface, operation, id=operation.id)
    for surface in SURFACES
    for operation in surface.operations
]
"""Every operation of every surface; what is checked for them holds for a new surface as well."""


def documented(operation: Operation) -> dict[str, Any]:
    """The operation's entry in the document, with its responses instead of references to them."""
    whole = document()
    entry: dict[str, Any] = whole["paths"][operation.path][operation.method.lower()]
    shared = whole["components"]["responses"]
    for status, response in entry["responses"].items():
        if "$ref" in response:
            entry["responses"][status] = shared[response["$ref"].rpartition("/")[2]]
    return entry


@pytest.mark.parametrize(("surface", "operation"), OPERATIONS)
def test_every_example_of_an_answer_has_the_shape_that_is_answered(
    surface: Surface, operation: Operation
) -> None:
    # Given
    responses = documented(operation)["responses"]

    for status, answer in operation.answers.items():
        if answer.shape is None:
            continue

        # When
        example = responses[str(status)]["content"]["application/json"]["example"]
        parsed: object = msgspec.convert(example, answer.shape)

        # Then
        assert example == answer.example
        assert msgspec.to_builtins(parsed) == example


@pytest.mark.parametrize(("surface", "operation"), OPERATIONS)
def test_every_error_has_the_shape_of_its_surface_and_a_short_example_of_its_status(
    surface: Surface, operation: Operation
) -> None:
    # Given
    responses = documented(operation)["responses"]
    common = {405, 500} if operation.is_public else {401, 403, 405, 500, 503}

    for status in {*operation.errors, *common} - operation.answers.keys():
        # When
        ((media_type, content),) = responses[str(status)]["content"].items()
        parsed: object = msgspec.convert(content["example"], surface.errors.schema)

        # Then
        assert media_type == surface.errors.media_type
        assert content["schema"]["$ref"].endswith(f"/{surface.errors.schema.__name__}")
        assert msgspec.to_builtins(parsed) == content["example"]
        assert getattr(parsed, "status", status) == status
        assert len(json.dumps(content["example"])) < 400
        assert '"string"' not in json.dumps(content["example"])
        if operation.body is None:
            assert "body" not in json.dumps(content["example"]), status


@pytest.mark.parametrize(("surface", "operation"), OPERATIONS)
def test_every_example_of_a_request_is_a_right_one(surface: Surface, operation: Operation) -> None:
    body = operation.body
    if body is None:
        assert "requestBody" not in documented(operation)
        return

    # When
    entry = documented(operation)["requestBody"]["content"][body.media_type]

    # Then
    assert entry["example"] == body.example
    assert {413, 422} <= set(operation.errors)
    if isinstance(body.model, type):
        body.model.model_validate(body.example)
        assert body.model.__name__ in document()["components"]["schemas"]


def test_the_sources_of_the_surfaces_are_those_of_the_configuration() -> None:
    # When
    defaults = {one.name: one.default_source for one in SURFACES if one.default_source}

    # Then
    assert Surfaces().model_dump() == defaults


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
    shape = Contracts(SURFACES, DETAIL).errors(path)

    # Then
    assert (shape is PROBLEM) == native_shape


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
    usual = {code for code, _ in error_answers._EXAMPLES.values()}
    others = {code for one in operations_of_surfaces() for code in one.codes.values()}
    codes = usual | others

    # Then
    assert others == set(error_answers._OTHERS)
    assert len(usual) == len(error_answers._EXAMPLES)
    assert not [code for code in codes if f'"{code}"' not in sources]


def test_a_field_that_may_be_left_out_of_a_body_is_optional_and_has_no_default() -> None:
    # When
    found = document()["components"]["schemas"]

    # Then
    assert not [name for name, one in found.items() if '"default":' in json.dumps(one)]
    assert found["ExportRequest"]["required"] == ["source", "query", "format"]
    assert found["ExportRequest"]["properties"]["compression"]["description"].endswith(
        'Default: `"none"`.'
    )
    assert "required" not in found["JobSearch"]


def test_a_field_of_an_answer_is_required_unless_it_may_be_absent() -> None:
    # When
    found = document()["components"]["schemas"]

    # Then
    for name in ("Export", "MeterUsage", "Filter", "ExportEvent"):
        assert set(found[name]["required"]) == set(found[name]["properties"]), name
    assert set(found["ExportEventData"]["properties"]) - set(
        found["ExportEventData"]["required"]
    ) == {"download_url"}
    assert set(found["Problem"]["properties"]) - set(found["Problem"]["required"]) == {"errors"}


def test_objects_of_any_fields_and_the_types_of_enumerations_are_written_out() -> None:
    # When
    whole = document()
    found = [*schemas(whole["components"]), *schemas(whole["paths"]), *schemas(whole["webhooks"])]

    # Then
    for schema in found:
        if schema.get("type") == "object":
            assert {"properties", "additionalProperties"} & set(schema), schema
        assert "type" in schema or "enum" not in schema, schema
    assert whole["components"]["schemas"]["Posting"]["additionalProperties"] is True


def test_no_parameter_of_a_query_may_be_null() -> None:
    for path, _, operation in operations():
        for parameter in operation.get("parameters", ()):
            assert '"null"' not in json.dumps(parameter["schema"]), (path, parameter["name"])


def test_every_event_is_a_webhook_with_a_schema_and_an_example_of_it() -> None:
    # When
    whole = document()
    found = whole["webhooks"]

    # Then
    assert tuple(found) == (*events.EVENTS, events.TEST)
    shapes = {shape.__name__: shape for shape in webhooks.BODIES}
    for name, entry in found.items():
        content = entry["post"]["requestBody"]["content"]["application/json"]
        example = content["example"]
        shape = content["schema"]["$ref"].rpartition("/")[2]
        parsed: object = msgspec.convert(example, shapes[shape])
        assert msgspec.to_builtins(parsed) == example
        assert example["type"] == name
        kinds = whole["components"]["schemas"][shape]["properties"]["type"]["enum"]
        assert name in kinds
        if name in events.STATES:
            assert example["data"]["state"] == events.STATES[name]


def test_the_document_names_the_public_address_of_the_service() -> None:
    assert document()["servers"] == [{"url": Settings().public_url}]


def test_the_guide_lists_the_codes_of_all_errors_of_the_native_contract() -> None:
    # Given
    folder = Path(errors.__file__).parent
    parts = ("*.py", "events/*.py", "surfaces/native/*.py", "surfaces/webhooks/*.py")
    sources = [file.read_text("utf-8") for part in parts for file in folder.glob(part)]
    pattern = r'(?:Refusal|_plain|_unavailable|_wrong_key)\(\s*(?:[0-9]{3},\s*)?"([a-z_]+)"'
    raised = {code for source in sources for code in re.findall(pattern, source)}
    assigned = set(re.findall(r'status, code = \d+, "([a-z_]+)"', "".join(sources)))
    bounds = [one for one in vars(limits).values() if isinstance(one, limits.Limit)]
    reached = {one.code for one in bounds if one.status is not None and one.code}
    # Codes of other contracts, and that of an error that the framework itself raises.
    others = {"too_many_streams", "too_many_downloads", "service_unavailable", "http_error"}

    # When
    guide = document()["info"]["description"]
    table = guide.partition("| status | `code` |")[2].partition("\n\n")[0]

    # Then
    listed = set(re.findall("`([a-z_]+)`", table))
    known = (raised | assigned | reached | {error_shapes.INVALID}) - others
    assert listed == known, "exporter/api/openapi/guide.md lists the codes under Errors"


def test_values_and_fields_are_described_as_in_the_code_but_without_its_names() -> None:
    # When
    found = document()["components"]["schemas"]

    # Then
    for kind in (State, Phase, Outcome, EndReason, DeliveryState, DisableReason):
        text = found[kind.__name__]["description"]
        assert all(f"\n\n`{value}`: " in text for value in kind), kind
    for name in ("Completeness", "System"):
        fields = found[name]["properties"].values()
        missing = [one for one in fields if "description" not in one and "$ref" not in one]
        assert len(missing) <= 2 * (name == "System"), "running and waiting"
    for name, schema in found.items():
        for field, one in schema.get("properties", {}).items():
            assert not NAME_OF_CODE.search(one.get("description", "")), (name, field)
        assert not NAME_OF_CODE.search(schema.get("description", "")), name
