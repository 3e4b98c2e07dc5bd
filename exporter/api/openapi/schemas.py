"""Writes the JSON Schemas of bodies so that generators of clients read them rightly.

A generator takes a property with a default as one that is always there. So no schema has defaults:
a field of a request that may be left out is optional, and its description says what applies then.
A field of an answer is required, unless it may be absent.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from enum import Enum
from itertools import pairwise
from typing import Any

import msgspec
from msgspec import inspect as types
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

REFERENCE = "#/components/schemas/{}"

Schemas = dict[str, Any]


def of_answers(shapes: Iterable[type[msgspec.Struct]]) -> Schemas:
    """Returns the schemas of the structs and of all structs in them, by name."""
    wanted = sorted(shapes, key=lambda shape: shape.__name__)
    _, found = msgspec.json.schema_components(wanted, ref_template=REFERENCE.format("{name}"))
    for one in _classes(types.multi_type_info(wanted), set()):
        schema = found[one.__name__]
        _document(one, schema)
        if issubclass(one, Enum):
            continue
        if not one.__struct_config__.omit_defaults:
            optional = {field.encode_name for field in msgspec.structs.fields(one) if _unset(field)}
            schema["required"] = [name for name in schema["properties"] if name not in optional]
        if hasattr(one, "has_more_fields"):
            schema["additionalProperties"] = True
    for schema in found.values():
        for field in schema.get("properties", {}).values():
            field.pop("default", None)
        _complete(schema)
    return found


def of_requests(models: Iterable[type[BaseModel]]) -> Schemas:
    """Returns the schemas of the models and of all models in them, by name."""
    _, made = models_json_schema(
        [(model, "validation") for model in models], ref_template=REFERENCE.format("{model}")
    )
    found: Schemas = made["$defs"]
    for schema in found.values():
        for field in schema.get("properties", {}).values():
            # pydantic makes it of the name of the field.
            field.pop("title", None)
            default = field.pop("default", None)
            if default not in (None, "", {}):
                text = field.get("description", "")
                field["description"] = f"{text} Default: `{json.dumps(default)}`.".strip()
        _complete(schema)
    return found


def of_parameter(schema: dict[str, Any]) -> dict[str, Any]:
    """Returns the schema of a parameter without null, which no query string can say."""
    options = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    plain = {name: value for name, value in schema.items() if name not in ("anyOf", "title")}
    if len(options) == 1:
        return {**options[0], **plain}
    return {**plain, **({"anyOf": options} if options else {})}


def _complete(node: Any) -> None:
    """Adds what JSON Schema implies: objects without fields take any, and enums have a type."""
    if isinstance(node, dict):
        if node.get("type") == "object" and not {"properties", "additionalProperties"} & set(node):
            node["additionalProperties"] = True
        if "enum" in node and all(isinstance(value, str) for value in node["enum"]):
            node["type"] = "string"
        node = list(node.values())
    if isinstance(node, list):
        for inner in node:
            _complete(inner)


def _classes(node: object, seen: set[type[object]]) -> Iterator[type[msgspec.Struct] | type[Enum]]:
    """Yields the structs and the enumerations in a description of types."""
    if isinstance(node, types.StructType | types.EnumType):
        if node.cls in seen:
            return
        seen.add(node.cls)
        yield node.cls
    if isinstance(node, msgspec.Struct):
        node = [getattr(node, name) for name in node.__struct_fields__]
    if isinstance(node, list | tuple):
        for inner in node:
            yield from _classes(inner, seen)


def _document(described: type[object], schema: dict[str, Any]) -> None:
    """Adds the docstrings of the members of a class to its schema."""
    schema["description"] = _for_json(schema["description"])
    for one in reversed(described.__mro__):
        for name, text in _docstrings(one).items():
            if issubclass(described, Enum):
                schema["description"] += f"\n\n`{described[name].value}`: {text}"
            elif name in schema.get("properties", {}):
                field = schema["properties"][name]
                schema["properties"][name] = {"description": text, **field}


def _docstrings(described: type[object]) -> Mapping[str, str]:
    """Returns the first paragraph of the docstring after each member of our own classes."""
    if not described.__module__.startswith("exporter."):
        return {}
    (definition,) = ast.parse(inspect.getsource(described)).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for member, text in pairwise(definition.body):
        match member, text:
            case (
                ast.AnnAssign(target=ast.Name(id=name)) | ast.Assign(targets=[ast.Name(id=name)]),
                ast.Expr(value=ast.Constant(value=str(docstring))),
            ):
                paragraph = inspect.cleandoc(docstring).partition("\n\n")[0]
                found[name] = _for_json(" ".join(paragraph.split()))
    return found


def _for_json(text: str) -> str:
    return re.sub(r"\bNone\b", "null", text)


def _unset(field: msgspec.structs.FieldInfo) -> bool:
    return field.default is msgspec.UNSET
