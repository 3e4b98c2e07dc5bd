"""What the board answers with: JSON, and errors in the shape of the vendor's framework."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from fastapi import Response


def reply(body: bytes, status: int = 200) -> Response:
    """A JSON answer from its text."""
    return Response(body, status, media_type="application/json")


def detail(status: int, what: object) -> Response:
    """An error, as one text or a list of wrong fields."""
    return reply(json.dumps({"detail": what}).encode(), status)


def refusal(problems: Sequence[tuple[Sequence[Any], str, str]]) -> Response:
    """422 with the place, text and type of each wrong field."""
    return detail(
        422, [{"loc": list(loc), "msg": msg, "type": kind} for loc, msg, kind in problems]
    )
