"""The pipeline contract's errors: one flat object."""

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
"""The contract's words for ours; all others are the same in capitals."""


class FlatEntry(msgspec.Struct):
    """One wrong parameter."""

    field: str
    message: str
    value: Annotated[str, msgspec.Meta(description="What was given; the first, if several were.")]


class Flat(msgspec.Struct, rename="camel"):
    """An error on the pipeline's paths. `code` is stable, texts are not."""

    code: str
    status: int
    message: str
    details: dict[str, Any]
    errors: list[FlatEntry]
    request_id: Annotated[str, msgspec.Meta(description="Also in X-Request-Id and in our logs.")]
    timestamp: str
    api_version: str


def flat(request: Request, refusal: Refusal) -> Flat:
    """The refusal as this contract writes it."""
    fields = [(".".join(map(str, one["loc"][1:])), one["msg"]) for one in refusal.problems]
    given = request.query_params
    return Flat(
        code=_CODES.get(refusal.code, refusal.code.upper()),
        status=refusal.status,
        message=refusal.detail,
        details=dict(refusal.details),
        errors=[FlatEntry(name, text, given.get(name, "")[:100]) for name, text in fields],
        request_id=request.state.request_id,
        timestamp=f"{service_of(request).clock.now():%Y-%m-%dT%H:%M:%SZ}",
        api_version=API_VERSION,
    )
