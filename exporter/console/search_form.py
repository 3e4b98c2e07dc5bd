"""The form of a new export: its fields as the body of a request, and a request as its fields.

Nothing is validated here: what a field does not say is left out, and everything else is passed to
`POST /v1/exports`, whose problems the form shows beside the fields.
"""

from __future__ import annotations

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from exporter.contracts.described import Filter

Form = Mapping[str, Sequence[str]]
"""The values of a form by the name of their field; those of a filter by its name after PREFIX."""

PREFIX = "f."
"""Beginning of the names of the fields of filters."""
REST = "query"
"""Field for the filters as JSON that no other field shows."""
_PLACE = ("city", "region", "country")
_RANGE = ("min", "max")
_TEXTS = ("source", "name", "format", "compression", "file_name", "webhook_url")
_NUMBERS = ("limit", "priority")
_FLAGS = ("csv_safe", "bom")


def body(form: Form, filters: Sequence[Filter]) -> dict[str, Any]:
    """Returns the body of the request that the form asks for.

    Wrong numbers and JSON are passed on as texts, so that the API refuses them.
    """
    asked: dict[str, Any] = {name: one for name in _TEXTS if (one := _one(form, name))}
    asked["query"] = query(form, filters)
    asked |= {name: _number(one) for name in _NUMBERS if (one := _one(form, name))}
    asked |= {name: True for name in _FLAGS if _one(form, name)}
    if columns := [one for one in form.get("columns", ()) if one]:
        asked["columns"] = columns
    if metadata := _pairs(_one(form, "metadata")):
        asked["metadata"] = metadata
    if asked.get("compression") == "none":
        del asked["compression"]
    if asked.get("priority") == 0:
        del asked["priority"]
    return asked


def query(form: Form, filters: Sequence[Filter]) -> Any:
    """Returns the query of the form; the filters as JSON count before the fields."""
    found = {
        one.name: value for one in filters if (value := _value(one, form)) not in (None, [], {})
    }
    rest = _one(form, REST)
    more = _parsed(rest) if rest else {}
    return {**found, **more} if isinstance(more, dict) else more


def fields(export: Mapping[str, Any], filters: Sequence[Filter]) -> dict[str, list[str]]:
    """Returns the form that asks again for an export, which is given as /v1 shows it."""
    pairs = (export.get("metadata") or {}).items()
    form = {
        **{name: [str(export.get(name) or "")] for name in (*_TEXTS, *_NUMBERS)},
        "file_name": [],
        "columns": export["columns"],
        "metadata": ["\n".join(f"{key}={value}" for key, value in pairs)],
        **{name: ["on"] if export[name] else [] for name in _FLAGS},
    }
    return {**form, **query_fields(export["query"] or {}, filters)}


def query_fields(query: Mapping[str, Any], filters: Sequence[Filter]) -> dict[str, list[str]]:
    """Returns the fields of a query; what no field can show is in the field REST, as JSON."""
    form: dict[str, list[str]] = {}
    rest = dict(query)
    for one in filters:
        shown = _shown(one, query[one.name]) if one.name in query else None
        if shown is not None:
            form |= {PREFIX + one.name + end: values for end, values in shown.items()}
            del rest[one.name]
    form[REST] = [json.dumps(rest, ensure_ascii=False, indent=2)] if rest else []
    return form


def is_given(form: Form, filter_name: str) -> bool:
    """True if a field of the filter has a value."""
    name = PREFIX + filter_name
    fields = (values for one, values in form.items() if one == name or one.startswith(f"{name}."))
    return any(text.strip() for values in fields for text in values)


def curl(body: Mapping[str, Any], url: str) -> str:
    """Returns the command that makes the same request; it reads the key from the variable KEY."""
    data = json.dumps(body, ensure_ascii=False)
    return "\n".join(
        [
            f"curl -sS {shlex.quote(url + '/v1/exports')} \\",
            '  -H "Authorization: Bearer $KEY" \\',
            "  -H 'Content-Type: application/json' \\",
            f"  -d {shlex.quote(data)}",
        ]
    )


def _value(one: Filter, form: Form) -> Any:
    name = PREFIX + one.name
    match one.kind:
        case "texts":
            lines = (line.strip() for text in form.get(name, ()) for line in text.splitlines())
            return [line for line in lines if line]
        case "places":
            place = {part: _one(form, f"{name}.{part}") for part in _PLACE}
            return (
                [given] if (given := {part: text for part, text in place.items() if text}) else []
            )
        case "range":
            ends = {end: _one(form, f"{name}.{end}") for end in _RANGE}
            return {end: _number(text) for end, text in ends.items() if text}
        case "flag":
            text = _one(form, name)
            return {"true": True, "false": False}.get(text, text or None)
        case "number":
            return _number(text) if (text := _one(form, name)) else None
        case "time":
            return _one(form, name).replace("T", " ") or None
        case "json":
            return _parsed(_one(form, name))
        case _:
            return _one(form, name) or None


def _shown(one: Filter, value: Any) -> dict[str, list[str]] | None:
    """Returns the fields of a filter by the end of their name; None if they cannot show it."""
    match one.kind:
        case "texts":
            return {"": [value] if isinstance(value, str) else [str(text) for text in value]}
        case "places":
            place = value[0] if isinstance(value, list) and len(value) == 1 else None
            if isinstance(place, dict) and place.keys() <= set(_PLACE):
                return {f".{part}": [str(text)] for part, text in place.items()}
            return None
        case "range":
            if isinstance(value, dict) and value.keys() <= set(_RANGE):
                return {f".{end}": [_plain(number)] for end, number in value.items()}
            return None
        case "flag":
            return {"": [str(value).lower()]}
        case "json":
            return {"": [json.dumps(value, ensure_ascii=False)]}
        case _:
            return {"": [_plain(value)]} if isinstance(value, str | int | float) else None


def _one(form: Form, name: str) -> str:
    values = form.get(name, ())
    return values[0].strip() if values else ""


def _number(text: str) -> int | float | str:
    """Returns the number of a text; a text that is no finite number stays one, to be refused."""
    for parse in (int, float):
        try:
            if math.isfinite(number := parse(text)):
                return number
        except (ValueError, OverflowError):
            continue
    return text


def _plain(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) and value.is_integer() else str(value)


def _parsed(text: str) -> Any:
    """Returns the value of a text of JSON; what JSON does not allow stays text, to be refused."""
    try:
        return json.loads(text, parse_constant=str, parse_float=_number) if text else None
    except (ValueError, RecursionError):
        return text


def _pairs(text: str) -> dict[str, str]:
    """Returns the pairs of lines `key=value`; a line without `=` is a key without a value."""
    pairs = (line.partition("=") for line in text.splitlines() if line.strip())
    return {key.strip(): value.strip() for key, _, value in pairs}
