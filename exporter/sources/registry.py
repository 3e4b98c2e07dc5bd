"""The types of sources.

How to add a source, in one file and one line of TYPES:

1. Write a module here, with a class that has the methods of `base.Source`. A page depends only on
   query and cursor. Filters that other modules need, too, go to `exporter/contracts/`.
2. Write its settings there: a subclass of `config.SourceConfig`, or of `HttpConfig` for the API of
   a vendor, with `type`, its own keys, and `make`. A key of the type `Secret` is shown in no error.
3. State in it what differs from the defaults: `rate`, `documented_columns`, `feature`. An import
   that is slow or optional belongs into `make`.
4. Add the class to TYPES. The TOML file, its errors, deploy/SOURCES.md (`python -m
   exporter.sources.registry > deploy/SOURCES.md`) and the contract suite read it from there;
   `tests/contract/test_sources.py` asks for rows to read.
"""

from __future__ import annotations

import ast
import inspect
from collections.abc import Mapping
from datetime import timedelta
from itertools import pairwise
from textwrap import dedent

from pydantic.fields import FieldInfo

from exporter.sources.bindbee import BindbeeConfig
from exporter.sources.config import SourceConfig
from exporter.sources.coresignal import CoresignalConfig
from exporter.sources.hirebase import HirebaseConfig
from exporter.sources.qwestly import QwestlyConfig
from exporter.sources.sql.config import SqlConfig

TYPES: Mapping[str, type[SourceConfig]] = {
    config.type_name(): config
    for config in (
        BindbeeConfig,
        CoresignalConfig,
        HirebaseConfig,
        QwestlyConfig,
        SqlConfig,
    )
}
"""The settings of each type of source, by the name of the type."""


def document() -> str:
    """Returns the text of deploy/SOURCES.md: all types, and all keys with their docstrings."""
    keys: dict[tuple[str, str, str], list[str]] = {}
    for name, config in TYPES.items():
        meanings = _docstrings(config)
        for key, field in config.model_fields.items():
            if key != "type":
                row = f"`{key}`", _default(field), meanings[key]
                keys.setdefault(row, []).append(f"`{name}`")
    lines = [
        "# Types of sources",
        "",
        "Made by `python -m exporter.sources.registry > deploy/SOURCES.md`.",
        "",
        *(f"- `{name}`: {inspect.getdoc(config)}" for name, config in TYPES.items()),
        "",
        "| key | types | default | meaning |",
        "|---|---|---|---|",
    ]
    for (key, default, meaning), types in sorted(keys.items()):
        which = "all" if len(types) == len(TYPES) else ", ".join(types)
        lines.append(f"| {key} | {which} | {default} | {meaning} |")
    return "\n".join((*lines, ""))


def _docstrings(config: type[SourceConfig]) -> dict[str, str]:
    """Returns the docstring of each key, in one line."""
    found: dict[str, str] = {}
    for model in reversed(config.__mro__):
        if not issubclass(model, SourceConfig):
            continue
        (code,) = ast.parse(dedent(inspect.getsource(model))).body
        assert isinstance(code, ast.ClassDef)
        for key, text in pairwise(code.body):
            if (
                isinstance(key, ast.AnnAssign)
                and isinstance(text, ast.Expr)
                and isinstance(text.value, ast.Constant)
            ):
                found[ast.unparse(key.target)] = " ".join(str(text.value.value).split())
    return found


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.default
    if isinstance(value, timedelta):
        value = f"{value.total_seconds():g}s"
    return f"`{value}`" if value not in (None, "") else ""


if __name__ == "__main__":
    print(document(), end="")  # noqa: T201 - the generator of the document
