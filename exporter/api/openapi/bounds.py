"""Bounds of request fields in the OpenAPI document, as far as JSON Schema can express them.

The validators enforce the bounds, with messages that say what to do. The document repeats the
bounds for authors and generators of clients, and for tests that compare both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from exporter.api.files import uploads
from exporter.contracts.filters import MAX_TEXT_CHARS
from exporter.core import exports
from exporter.formats import registry
from exporter.webhooks.addresses import MAX_URL_CHARS

_COUNT = {"minimum": 1}
_DAY_OR_MOMENT = {
    "anyOf": [{"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}]
}
_FORMAT = {"enum": list(registry.NAMES)}
_PRIORITY = {"minimum": exports.PRIORITIES[0], "maximum": exports.PRIORITIES[-1]}
_COLUMNS = {"items": {"minLength": 1}, "minItems": 1, "uniqueItems": True}
_WEBHOOK = {"pattern": r"^https?://[!-~]+$", "maxLength": MAX_URL_CHARS}
_BLANK_OR_WEBHOOK = {"pattern": r"^(\s*|https?://[!-~]+)$", "maxLength": MAX_URL_CHARS}
"""A blank URL means no webhook, because the vendor's templates leave the field blank."""
_ID = {
    "anyOf": [
        {"type": "integer", "minimum": 0, "maximum": 10**uploads.MAX_ID_DIGITS - 1},
        {"type": "string", "pattern": f"^[0-9]{{1,{uploads.MAX_ID_DIGITS}}}$"},
    ]
}
_IDS = {"items": _ID, "minItems": 1, "uniqueItems": True}
_VENDOR_MOMENT = {
    "pattern": "^[12][0-9]{3}-(0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])"
    " ([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]$"
}

FIELDS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "ExportRequest": {
        "format": _FORMAT,
        "columns": _COLUMNS,
        "limit": _COUNT,
        "compression": {"enum": list(registry.COMPRESSIONS)},
        "priority": _PRIORITY,
        "webhook_url": _WEBHOOK,
    },
    "EndpointRequest": {"url": _WEBHOOK},
    "RecoverRequest": {"since": _DAY_OR_MOMENT},
    "EstimateRequest": {"limit": _COUNT},
    "TaskRequest": {
        "format": _FORMAT,
        "columns": _COLUMNS,
        "priority": _PRIORITY,
        "webhook_url": _WEBHOOK,
    },
    "ExpiredRequest": {"since": _DAY_OR_MOMENT, "notify": {"const": False}, "limit": _COUNT},
    "FilterRequest": {"webhook_url": _BLANK_OR_WEBHOOK, "limit": _COUNT},
    "DslRequest": {"webhook_url": _BLANK_OR_WEBHOOK, "limit": _COUNT},
    "IdsRequest": {"ids": _IDS, "webhook_url": _BLANK_OR_WEBHOOK, "limit": _COUNT},
    "JobSearch": {
        "date_posted": {"format": "date"},
        "month": {"pattern": "^[12][0-9]{3}-(0[1-9]|1[0-2])$"},
        "page": _COUNT,
        "limit": _COUNT,
    },
    "JobFilters": {
        f"{moment}_{bound}": _VENDOR_MOMENT
        for moment in ("created_at", "last_updated")
        for bound in ("gte", "lte")
    },
}
"""Maps schema names to property names, and these to the JSON Schema keywords to add."""

# The rule "at least one of these fields" is not expressed field by field: client generators would
# make a choice between objects of it, each without the other fields.
SCHEMAS: Mapping[str, Mapping[str, Any]] = {
    "DslRequest": {"minProperties": 1},
    "Location": {"minProperties": 1},
}
"""Maps schema names to the JSON Schema keywords to add to the schema itself."""

PARAMETERS: Mapping[str, Mapping[str, Any]] = dict.fromkeys(("from", "to", "since"), _DAY_OR_MOMENT)
"""Maps names of query string parameters to the schemas that replace FastAPI's."""

_FILTERS = ("JobSearch", "JobFilters", "Location", "Salary")
"""Names of the schemas in which every free text must contain more than whitespace."""


def narrow(document: dict[str, Any]) -> None:
    """Adds all bounds of this module to an OpenAPI document, which is changed in place."""
    schemas = document["components"]["schemas"]
    for name in _FILTERS:
        for text in _texts(schemas[name]):
            text |= {"pattern": r"\S", "maxLength": MAX_TEXT_CHARS}
    for name, fields in FIELDS.items():
        for field, bounds in fields.items():
            schemas[name]["properties"][field] |= bounds
    for name, bounds in SCHEMAS.items():
        schemas[name] |= bounds
    for operations in document["paths"].values():
        for operation in operations.values():
            for parameter in operation.get("parameters", ()):
                if parameter["in"] == "query" and parameter["name"] in PARAMETERS:
                    parameter["schema"] = PARAMETERS[parameter["name"]]


def _texts(schema: Any) -> Iterator[dict[str, Any]]:
    """Yields all string schemas within a schema, at any depth, except enums and constants."""
    if isinstance(schema, dict):
        if schema.get("type") == "string" and not schema.keys() & {"enum", "const"}:
            yield schema
        schema = list(schema.values())
    if isinstance(schema, list):
        for inner in schema:
            yield from _texts(inner)
