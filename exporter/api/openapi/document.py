"""Makes the OpenAPI document of the surfaces, with the parts that FastAPI does not know.

The handlers read and write bodies themselves, so FastAPI knows only their query parameters.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

from exporter.api import auth, headers
from exporter.api.openapi import bounds, error_answers, schemas, webhooks
from exporter.api.surface import Answer, Body, ErrorShape, Header, Operation, Surfaces

_GUIDE = resources.files("exporter.api.openapi").joinpath("guide.md")
"""Description of the whole document: the rules of all contracts."""
_EVENTS = "webhooks"
"""Tag of the operations about webhooks, and of the webhooks themselves."""
_PATH_PARAMETERS = {
    "export_id": "Id of an export.",
    "task_id": "Id of a task, which is that of its export.",
    "request_id": "Id of a data request, which is that of its export.",
    "file_name": "Name of a file in the list of files.",
    "endpoint_id": "Id of a webhook endpoint.",
    "delivery_id": "Id of a delivery.",
    "name": "Name of a source.",
    "job_id": "Id of a posting.",
    "job_slug": "The `job_slug` of a posting.",
    "company_slug": "The `company_slug` of a posting.",
}
_ON_EVERY_ANSWER = (headers.REQUEST_ID, headers.IGNORED)
_ON_ERRORS: Mapping[int, tuple[Header, ...]] = {
    401: (headers.WWW_AUTHENTICATE,),
    403: (headers.WWW_AUTHENTICATE,),
    405: (headers.ALLOW,),
    429: (headers.RETRY_AFTER, headers.RETRY_AFTER_MS, headers.BILLING_CODE),
    503: (headers.RETRY_AFTER, headers.RETRY_AFTER_MS),
}
_ERRORS_WITHOUT_KEY = (405, 500)
_ERRORS_WITH_KEY = (401, 403, 405, 500, 503)
"""Statuses of errors that every operation may answer, which needs no API key or needs one."""
_UNMETERED = (401, 405)
"""Statuses of answers without headers about a rate limit."""


def complete(app: FastAPI, surfaces: Surfaces, url: str) -> None:
    """Adds all that FastAPI does not know to the app's OpenAPI document.

    `url` is the public address of the API.
    """
    generated = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = generated()
            document["info"]["description"] = _GUIDE.read_text("utf-8")
            document["info"]["license"] = {"name": "MIT", "identifier": "MIT"}
            document["servers"] = [{"url": url.rstrip("/")}]
            document["tags"] = [
                {"name": one.tag, "description": one.description} for one in surfaces
            ]
            for operation in _operations(surfaces):
                entry = document["paths"][operation.path][operation.method.lower()]
                entry["responses"] = _responses(operation, surfaces.errors(operation.path))
                schemes = () if operation.is_public else auth.SCHEMES
                entry["security"] = [{scheme: []} for scheme in schemes]
                for parameter in entry.get("parameters", ()):
                    _describe(parameter)
            document["webhooks"] = webhooks.entries(_EVENTS)
            document["components"] = {
                "securitySchemes": auth.SCHEMES,
                "schemas": _schemas(surfaces),
                "headers": _headers(surfaces),
            }
            bounds.remove_titles(document)
            error_answers.share(document)
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _describe(parameter: dict[str, Any]) -> None:
    """Mends the entry of a parameter, which FastAPI made."""
    parameter["schema"] = schemas.of_parameter(parameter["schema"])
    if parameter["in"] == "path" and parameter["name"] in _PATH_PARAMETERS:
        parameter["description"] = _PATH_PARAMETERS[parameter["name"]]


def _operations(surfaces: Surfaces) -> Iterable[Operation]:
    return (operation for surface in surfaces for operation in surface.operations)


def error_statuses(operation: Operation) -> set[int]:
    """Returns the statuses of all errors of an operation that have the surface's shape."""
    common = _ERRORS_WITHOUT_KEY if operation.is_public else _ERRORS_WITH_KEY
    return {*operation.errors, *common} - operation.answers.keys()


def _responses(operation: Operation, shape: ErrorShape) -> dict[str, Any]:
    found = {status: _answer(answer) for status, answer in operation.answers.items()}
    for status in sorted(error_statuses(operation)):
        found[status] = error_answers.answer(shape, status, operation)
    for status, response in found.items():
        response["headers"] = {
            one.name: {"$ref": f"#/components/headers/{one.name}"}
            for one in _headers_of(operation, status)
        }
    return {str(status): response for status, response in found.items()}


def _answer(answer: Answer) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if answer.shape is not None:
        schema = {"$ref": schemas.REFERENCE.format(answer.shape.__name__)}
        content["application/json"] = {"schema": schema, "example": answer.example}
    content |= {media_type: dict(entry) for media_type, entry in answer.content.items()}
    return {"description": answer.description, **({"content": content} if content else {})}


def _headers_of(operation: Operation, status: int) -> list[Header]:
    found = [*_ON_EVERY_ANSWER, *_ON_ERRORS.get(status, ())]
    if status >= 400:
        found.append(headers.SHOULD_RETRY)
    if status in operation.answers:
        found += operation.answers[status].headers
    elif isinstance(operation.errors, Mapping):
        found += operation.errors.get(status, ())
    if status not in _UNMETERED:
        found += operation.limit_headers
    return found


def _headers(surfaces: Surfaces) -> dict[str, Any]:
    return {
        one.name: {
            "description": one.description,
            "schema": dict(one.schema),
            "required": one is headers.REQUEST_ID,
        }
        for operation in _operations(surfaces)
        for status in (*operation.answers, *error_statuses(operation))
        for one in _headers_of(operation, status)
    }


def _schemas(surfaces: Surfaces) -> dict[str, Any]:
    operations = list(_operations(surfaces))
    answered = {
        one.shape
        for operation in operations
        for one in operation.answers.values()
        if one.shape is not None
    }
    shapes = {surfaces.errors(operation.path).schema for operation in operations}
    asked = {
        model
        for operation in operations
        if operation.body is not None
        for model in _models(operation.body)
    }
    of_answers = schemas.of_answers({*answered, *shapes, *webhooks.BODIES})
    return of_answers | schemas.of_requests(asked)


def _models(body: Body) -> list[type[BaseModel]]:
    return [*([body.model] if isinstance(body.model, type) else []), *body.nested]
