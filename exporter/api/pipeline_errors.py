"""Errors of the pipeline contract: one flat object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
from fastapi import Request

from exporter.api.refusal import Refusal
from exporter.api.state import service_of

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


def code(ours: str) -> str:
    """Returns the pipeline contract's code for an error code of this service."""
    return _CODES.get(ours, ours.upper())


def flat(request: Request, refusal: Refusal) -> Flat:
    """Returns the refusal in the error shape of the pipeline contract."""
    fields = [(".".join(map(str, one["loc"][1:])), one["msg"]) for one in refusal.problems]
    given = request.query_params
    return Flat(
        code=code(refusal.code),
        status=refusal.status,
        message=refusal.detail,
        details=dict(refusal.details),
        errors=[FlatEntry(name, text, given.get(name, "")[:100]) for name, text in fields],
        request_id=request.state.request_id,
        timestamp=f"{service_of(request).clock.now():%Y-%m-%dT%H:%M:%SZ}",
        api_version=API_VERSION,
    )
