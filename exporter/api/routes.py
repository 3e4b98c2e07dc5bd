"""Makes the routes of the API from its surfaces."""

from __future__ import annotations

from functools import cache
from typing import Any

from fastapi import APIRouter

from exporter.api.surface import Body, Operation, Surface


@cache
def router(surface: Surface) -> APIRouter:
    """Returns the routes of all operations; the OpenAPI document leaves out their aliases.

    All apps of a process share the routes, because FastAPI takes milliseconds to analyse a handler.
    """
    made = APIRouter(tags=[surface.tag])
    for operation in surface.operations:
        for path in (operation.path, *operation.aliases):
            made.add_api_route(
                path,
                operation.handler,
                methods=[operation.method],
                summary=operation.summary,
                operation_id=operation.id,
                response_model=None,
                include_in_schema=path == operation.path,
                openapi_extra=_extra(operation),
            )
    return made


def _extra(operation: Operation) -> dict[str, Any]:
    extra: dict[str, Any] = {}
    if operation.parameters:
        extra["parameters"] = [dict(one) for one in operation.parameters]
    if operation.body is not None:
        extra["requestBody"] = _request_body(operation.body)
    return extra


def _request_body(body: Body) -> dict[str, Any]:
    schema = body.model
    if isinstance(schema, type):
        schema = {"$ref": f"#/components/schemas/{schema.__name__}"}
    return {
        "required": body.required,
        "content": {body.media_type: {"schema": schema, "example": body.example}},
    }
