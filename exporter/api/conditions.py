"""Compares the ETags of a request with that of its answer (RFC 9110)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request

PARAMETER: Mapping[str, Any] = {
    "name": "If-None-Match",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "The ETag of an earlier answer: 304 without a body if it would be the same.",
}
"""OpenAPI parameter of the operations whose answers have an ETag."""


def is_known(request: Request, tag: str) -> bool:
    """True if If-None-Match names the ETag, or any; weak and strong ETags compare as equal."""
    given = request.headers.get("if-none-match")
    if given is None:
        return False
    opaque = tag.removeprefix("W/")
    return given.strip() == "*" or opaque in (
        one.strip().removeprefix("W/") for one in given.split(",")
    )
