"""Errors of the pipeline contract: one flat object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec

from exporter.api.refusal import Refusal
from exporter.api.surface import Asked, ErrorShape
from exporter.errors import problem

API_VERSION = "1.0"
_CODES: Mapping[str, str] = {
    "invalid_request": "VALIDATION_ERROR",
    "internal": "INTERNAL_ERROR",
    "scope_missing": "FORBIDDEN",
    "store_unavailable": "SERVICE_UNAVAILABLE",
    "storage_unavailable": "SERVICE_UNAVAILABLE",
}
"""Maps this service's error codes to those of the pipeline contract.

An error code that is missing here is only converted to upper case.
"""


class FlatEntry(msgspec.Struct):
    """A wrong parameter of the query string."""

    field: str
    message: str
    value: Annotated[
        str,
        msgspec.Meta(description="The given value; the last one if there were several."),
    ]


class Flat(msgspec.Struct, rename="camel"):
    """An error on the paths of the pipeline contract. `code` is stable, texts may change."""

    code: str
    status: int
    message: str
    details: dict[str, Any]
    errors: list[FlatEntry]
    request_id: Annotated[
        str, msgspec.Meta(description="Also in X-Request-Id and in the service's logs.")
    ]
    timestamp: str
    api_version: str


def _flat(refusal: Refusal, asked: Asked) -> Flat:
    fields = [(".".join(map(str, one["loc"][1:])), one["msg"]) for one in refusal.problems]
    return Flat(
        code=_CODES.get(refusal.code, refusal.code.upper()),
        status=refusal.status,
        message=refusal.detail,
        details=dict(refusal.details),
        errors=[FlatEntry(name, text, asked.query.get(name, "")[:100]) for name, text in fields],
        request_id=asked.request_id,
        timestamp=f"{asked.now:%Y-%m-%dT%H:%M:%SZ}",
        api_version=API_VERSION,
    )


FLAT = ErrorShape(
    Flat,
    _flat,
    examples={
        400: Refusal(
            400,
            "validation_error",
            "query.format: choose csv or json",
            problems=[problem(("query", "format"), "choose csv or json")],
        )
    },
)
"""One flat object."""
