"""Builds the board's JSON responses; errors have the shape `{"detail": …}` of FastAPI."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fastapi import Response


def json_response(body: bytes, status: int = 200) -> Response:
    """Returns a JSON response with this body."""
    return Response(body, status, media_type="application/json")


def error(status: int, detail: object) -> Response:
    """Returns an error response; `detail` is one text or a list of invalid fields."""
    return json_response(json.dumps({"detail": detail}).encode(), status)


def validation_error(problems: Sequence[tuple[Sequence[Any], str, str]]) -> Response:
    """Returns a 422 with the location, message and type of each invalid field."""
    return error(422, [{"loc": list(loc), "msg": msg, "type": kind} for loc, msg, kind in problems])
