"""The Idempotency-Key header: however often a creation is tried, it takes effect once."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import structlog
from fastapi import Request
from pydantic import BaseModel

from exporter.api import errors
from exporter.api.refusal import Refusal
from exporter.core import canonical
from exporter.core.exports import Export
from exporter.store.base import Idempotency

log: structlog.stdlib.BoundLogger = structlog.get_logger()

MAX_KEY_CHARS = 255
_QUOTED = re.compile(r'"((?:[\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_BARE = re.compile(r"[\x21\x23-\x7e][\x21-\x7e]*")
_KEY_PATTERN = r'^("([\x21\x23-\x5b\x5d-\x7e]|\\["\\]){1,255}"|[\x21\x23-\x7e][\x21-\x7e]{0,254})$'

PARAMETER: Mapping[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "pattern": _KEY_PATTERN, "maxLength": 2 * MAX_KEY_CHARS + 2},
    "description": (
        'A new one for each creation that is meant, `"8e03978e-40d5"` or without quotes, 1 to 255'
        " visible ASCII characters. For 24 hours the same request with the same key answers with"
        " the export that the first one created, as it stands then, and `Idempotency-Replayed:"
        " true`. Keys of two users never meet."
    ),
}
"""For the OpenAPI document of each operation that creates."""


def read_key(request: Request, asked: BaseModel | None = None) -> Idempotency | None:
    """What marks this request and its repetitions; None without the header.

    Two requests are the same if path and parsed body are: a field that is left out equals its
    default, and order and blanks do not count. Raises Refusal for a key that is none.
    """
    given = request.headers.getlist("idempotency-key")
    if not given:
        return None
    value = given[0].strip()
    quoted = _QUOTED.fullmatch(value)
    key = ""
    if quoted:
        key = re.sub(r"\\(.)", r"\1", quoted[1])
    elif _BARE.fullmatch(value):
        key = value
    if len(given) > 1 or not 1 <= len(key) <= MAX_KEY_CHARS:
        raise _invalid(request)
    body = asked.model_dump(mode="json") if asked is not None else None
    return Idempotency(key, canonical.digest({"path": request.scope["path"], "body": body}))


def log_and_headers(export: Export, meant_id: str) -> Mapping[str, str]:
    """Log that an export was created under the id meant for it, or that an earlier try had done so;
    the headers that tell the caller which."""
    replayed = export.id != meant_id
    log.info(
        "export.replayed" if replayed else "export.created",
        export_id=export.id,
        user_id=export.user_id,
        surface=export.spec.surface,
        source=export.spec.source,
        format=export.spec.format,
    )
    return {"Idempotency-Replayed": "true"} if replayed else {}


def _invalid(request: Request) -> Refusal:
    detail = (
        f"Idempotency-Key should be one key of 1 to {MAX_KEY_CHARS} visible ASCII characters, "
        "best a UUID, in double quotes or without"
    )
    return Refusal(
        400 if errors.is_native(request.url.path) else 422,
        "idempotency_key_invalid",
        detail,
        problems=[
            {"loc": ("header", "idempotency-key"), "msg": detail, "type": "idempotency_key"},
        ],
    )
