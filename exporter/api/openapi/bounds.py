"""Bounds of request fields in the OpenAPI document, as far as JSON Schema can express them.

The validators enforce the bounds, with messages that say what to do. The document repeats the
bounds for authors and generators of clients, and for tests that compare both. They are the
`json_schema_extra` of fields.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from pydantic import BaseModel

from exporter.core import exports
from exporter.formats import registry
from exporter.webhooks.addresses import MAX_URL_CHARS

COUNT: dict[str, Any] = {"minimum": 1}
DAY_OR_MOMENT: dict[str, Any] = {
    "anyOf": [{"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}]
}
PRIORITY: dict[str, Any] = {"minimum": exports.PRIORITIES[0], "maximum": exports.PRIORITIES[-1]}
COLUMNS: dict[str, Any] = {"items": {"minLength": 1}, "minItems": 1, "uniqueItems": True}
WEBHOOK: dict[str, Any] = {"pattern": r"^https?://[!-~]+$", "maxLength": MAX_URL_CHARS}


_EXACT = "x-exact"
"""Marks a schema to which no title is added."""


def one_of(found: registry.Described) -> Callable[[dict[str, Any]], None]:
    """Returns the `json_schema_extra` of a field with the name of a format or a compression."""

    def describe(generated: dict[str, Any]) -> None:
        generated["description"] = f"{registry.list_of(found)}."
        generated["enum"] = list(found)

    return describe


def only(schema: Mapping[str, Any]) -> Callable[[dict[str, Any]], None]:
    """Returns the `json_schema_extra` that replaces the schema of a field or a parameter."""

    def replace(generated: dict[str, Any]) -> None:
        generated.clear()
        generated.update({**schema, _EXACT: True})

    return replace


def objects(*models: type[BaseModel], or_other: bool = False) -> Callable[[dict[str, Any]], None]:
    """Returns the `json_schema_extra` of a field with an object of one of the models.

    The field itself has any object, because its source validates it. The models must be among the
    `nested` models of the body.
    """
    known: list[dict[str, Any]] = [
        {"$ref": f"#/components/schemas/{model.__name__}"} for model in models
    ]
    schema = {"anyOf": [*known, {"type": "object"}]} if or_other else {"allOf": known}

    def replace(generated: dict[str, Any]) -> None:
        only({**schema, "description": generated["description"]})(generated)

    return replace


def remove_titles(node: Any) -> None:
    """Removes the titles that were added to schemas of `only`, anywhere in a document."""
    if isinstance(node, dict):
        if node.pop(_EXACT, False):
            node.pop("title", None)
        node = list(node.values())
    if isinstance(node, list):
        for inner in node:
            remove_titles(inner)
