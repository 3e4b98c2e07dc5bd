"""Texts of pydantic's errors, for the operator who wrote the wrong setting or key."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from exporter.environment.urls import shown

_NOT_A: Mapping[str, str] = {
    "int_": "is not a whole number",
    "float_": "is not a number",
    "finite_number": "is not a number",
    "bool_": "is neither true nor false: write true or false",
    "byte_size": "is not a size: write a number of bytes, or a size such as 8MiB",
    "string_": "is not a text: write it in quotes",
    "path_": "is not the path of a file",
    "tuple_": 'is not a list: write it like ["one", "two"]',
    "list_": 'is not a list: write it like ["one", "two"]',
    "dict_": "is not a table: write its keys below a [heading]",
    "model_": "is not a table: write its keys below a [heading]",
    "dataclass_": "is not a rate: write 100/60s, 5/s or 1000/h",
    "is_instance_of": "is not a rate: write 100/60s, 5/s or 1000/h",
    "time_delta": "is not a duration: write 90, 90s, 15m, 24h or 7d",
}
_BOUNDS: Mapping[str, tuple[str, str]] = {
    "greater_than_equal": ("greater than or equal to", "ge"),
    "greater_than": ("greater than", "gt"),
    "less_than_equal": ("less than or equal to", "le"),
    "less_than": ("less than", "lt"),
}


def problem_text(problem: Mapping[str, Any], *, secret: bool = False) -> str:
    """Returns what is wrong, with the wrong value unless it is `secret`, and the right form."""
    kind = str(problem["type"])
    context = problem.get("ctx") or {}
    value = "the value" if secret else shown(problem.get("input"))
    if kind == "missing":
        return "Field required: add this key"
    if kind in _BOUNDS:
        words, key = _BOUNDS[kind]
        return f"{value} is not {words} {context[key]}: write a number that is"
    if kind in ("too_short", "string_too_short", "string_pattern_mismatch"):
        return f"{value} is empty: write a name"
    for prefix, words in _NOT_A.items():
        if kind.startswith(prefix):
            return f"{value} {words}"
    return str(problem["msg"]).removeprefix("Value error, ")
