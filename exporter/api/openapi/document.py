"""Completes the OpenAPI document with the parts that FastAPI does not know.

The handlers read and write bodies themselves, so FastAPI does not know the schemas of the bodies.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

import msgspec
from fastapi import FastAPI
from pydantic.json_schema import models_json_schema

from exporter.api import auth, errors, pipeline_errors
from exporter.api import responses as answers
from exporter.api.openapi import bounds, error_answers, operations
from exporter.api.surfaces.coresignal import data_requests, files
from exporter.api.surfaces.hirebase import searches, tasks, usage
from exporter.api.surfaces.native import estimate, exports
from exporter.api.surfaces.pipeline import export
from exporter.api.surfaces.webhooks import deliveries, endpoints, resends
from exporter.contracts.coresignal import JobFilters
from exporter.contracts.hirebase import JobSearch

_RESPONSE_TYPES = (
    tasks.Task,
    tasks.TaskPage,
    searches.Listing,
    searches.ExpiredListing,
    searches.Posting,
    searches.Estimate,
    searches.Industries,
    searches.Categories,
    usage.UsageSummary,
    exports.Export,
    exports.ExportPage,
    estimate.Records,
    answers.Deleted,
    data_requests.DataRequest,
    files.Files,
    files.Pending,
    export.Jobs,
    endpoints.WebhookEndpoint,
    endpoints.WebhookEndpointMade,
    endpoints.WebhookEndpoints,
    endpoints.WebhookSecret,
    deliveries.WebhookDelivery,
    deliveries.WebhookDeliveries,
    resends.Recovery,
    errors.Detail,
    pipeline_errors.Flat,
    errors.Problem,
)
_REQUEST_MODELS = (
    tasks.TaskRequest,
    searches.ExpiredRequest,
    exports.ExportRequest,
    estimate.EstimateRequest,
    data_requests.FilterRequest,
    data_requests.DslRequest,
    data_requests.IdsRequest,
    endpoints.EndpointRequest,
    endpoints.RotateRequest,
    resends.RecoverRequest,
    JobSearch,
    JobFilters,
)
_EXAMPLES = {
    **tasks.EXAMPLES,
    **searches.EXAMPLES,
    **usage.EXAMPLES,
    **exports.EXAMPLES,
    **export.EXAMPLES,
    **estimate.EXAMPLES,
    **files.EXAMPLES,
    **endpoints.EXAMPLES,
    **deliveries.EXAMPLES,
    **resends.EXAMPLES,
}
_KEYLESS = ("/health", "/v2/health", "/v2/jobs/data/")
"""Beginnings of the paths that need no API key."""
_GUIDE = resources.files("exporter.api.openapi").joinpath("guide.md")
"""What holds for all contracts; the description of the whole document."""


def complete(app: FastAPI) -> None:
    """Adds all schemas, examples, errors and security schemes to the app's OpenAPI document."""
    generated = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generated()
            components = document.setdefault("components", {})
            components["securitySchemes"] = auth.SCHEMES
            components["schemas"] = _schemas()
            document["info"]["description"] = _GUIDE.read_text("utf-8")
            _fix_operations(document["paths"])
            bounds.narrow(document)
            operations.describe(document)
            error_answers.share(document)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _schemas() -> dict[str, Any]:
    place = "#/components/schemas/{}"
    _, answered = msgspec.json.schema_components(
        _RESPONSE_TYPES, ref_template=place.format("{name}")
    )
    _, asked = models_json_schema(
        [(model, "validation") for model in _REQUEST_MODELS], ref_template=place.format("{model}")
    )
    schemas: dict[str, Any] = answered | asked["$defs"]
    search, filters = ({"$ref": place.format(model.__name__)} for model in (JobSearch, JobFilters))
    # The type of the source decides which schema applies; a SQL source accepts neither.
    either = {"anyOf": [search, filters, {"type": "object"}]}
    for request, name, known in (
        (tasks.TaskRequest, "search", {"allOf": [search]}),
        (exports.ExportRequest, "query", either),
        (estimate.EstimateRequest, "query", either),
        (data_requests.FilterRequest, "filters", {"allOf": [filters]}),
    ):
        properties = schemas[request.__name__]["properties"]
        properties[name] = {**known, "description": properties[name]["description"]}
    return schemas


def _fix_operations(paths: dict[str, Any]) -> None:
    for path, methods in paths.items():
        for operation in methods.values():
            if path.startswith(_KEYLESS):
                _document_keyless(operation["responses"])
            else:
                operation["security"] = [{scheme: []} for scheme in auth.SCHEMES]
            # Removes FastAPI's own 422, which it documents for every path with a parameter.
            if "HTTPValidationError" in str(operation["responses"].get("422")):
                del operation["responses"]["422"]
    # Added here, because FastAPI drops every null, and the nulls are part of the contract.
    for (path, method, status), example in _EXAMPLES.items():
        content = paths[path][method]["responses"][status]["content"]
        content["application/json"]["example"] = example


def _document_keyless(responses: dict[str, Any]) -> None:
    """Removes 401 and 403 from the documented answers of an operation that needs no API key.

    The statuses 405 and 500 are added, and answers without a schema get one. `responses` is changed
    in place.
    """
    common = errors.documented(errors.Detail)
    for status in (405, 500):
        responses.setdefault(str(status), common[status])
    for refused in ("401", "403"):
        responses.pop(refused, None)
    words = {"type": "object", "additionalProperties": {"type": "string"}}
    for response in responses.values():
        content = response["content"]["application/json"]
        if not content.get("schema"):
            content["schema"] = words
