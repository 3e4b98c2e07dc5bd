"""Reads the Idempotency-Key header, with which a repeated request creates only one export."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import structlog
from fastapi import Request
from pydantic import BaseModel

from exporter.api.refusal import Refusal
from exporter.core import canonical, limits
from exporter.core.exports import Export
from exporter.errors import problem
from exporter.store.base import Idempotency

log: structlog.stdlib.BoundLogger = structlog.get_logger()

MAX_KEY_CHARS = limits.IDEMPOTENCY_KEY_CHARS.default
_QUOTED = re.compile(r'"((?:[\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"')
_BARE = re.compile(r"[\x21\x23-\x7e][\x21-\x7e]*")
_KEY_PATTERN = r'^("([\x21\x23-\x5b\x5d-\x7e]|\\["\\]){1,255}"|[\x21\x23-\x7e][\x21-\x7e]{0,254})$'

_NEWER_FIELDS: Mapping[str, Any] = {"bom": False, "file_name": None, "name": "", "metadata": {}}
"""Fields that are no part of a fingerprint unless they are given.

The fingerprint of a request is stored for a day, so it must not change when a version adds a field.
"""

PARAMETER: Mapping[str, Any] = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "schema": {"type": "string", "pattern": _KEY_PATTERN, "maxLength": 2 * MAX_KEY_CHARS + 2},
    "description": (
        'A new key for each new export, `"8e03978e-40d5"` with or without the quotes, 1 to 255'
        " visible ASCII characters. For 24 hours, the same request with the same key returns the"
        " export that the first request created, in its current state, with"
        " `Idempotency-Replayed: true`. The keys of different users are independent."
    ),
}
"""OpenAPI parameter of each operation that creates an export."""


def read_key(request: Request, asked: BaseModel | None = None) -> Idempotency | None:
    """Returns the idempotency key and the fingerprint of the request; None without the header.

    Two requests have the same fingerprint if their paths and their parsed bodies `asked` are equal.
    An omitted field equals its default, and the order of fields and whitespace make no difference.
    Raises Refusal for an invalid key or for several keys.
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
        raise _invalid()
    body = asked.model_dump(mode="json") if asked is not None else None
    for name, default in _NEWER_FIELDS.items():
        if body is not None and body.get(name) == default:
            body.pop(name, None)
    return Idempotency(key, canonical.digest({"path": request.scope["path"], "body": body}))


def log_and_headers(export: Export, meant_id: str) -> Mapping[str, str]:
    """Logs whether the export was created or replayed, and returns additional response headers.

    `meant_id` is the id that this request chose for a new export. If the export has another id, an
    earlier request with the same idempotency key created it (a replay), and the headers contain
    `Idempotency-Replayed: true`. Otherwise there are no additional headers.
    """
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


def _invalid() -> Refusal:
    detail = (
        f"Idempotency-Key should be one key of 1 to {MAX_KEY_CHARS} visible ASCII characters, "
        "preferably a UUID, with or without double quotes"
    )
    wrong = problem(("header", "idempotency-key"), detail, "idempotency_key")
    return Refusal(400, "idempotency_key_invalid", detail, problems=[wrong])
