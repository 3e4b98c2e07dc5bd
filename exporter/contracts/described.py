"""Describes the filters of a source, from which forms and documentation are made."""

from __future__ import annotations

import types
from collections.abc import Collection, Sequence
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import msgspec
from pydantic import BaseModel
from pydantic.fields import FieldInfo

from exporter.contracts.filters import Kind, Shown


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """One filter of a source; the source itself validates the values."""

    name: str
    kind: Annotated[
        Kind,
        msgspec.Meta(
            description="`texts`: one text or a list of texts. `flag`: true or false. `day`:"
            " YYYY-MM-DD. `month`: YYYY-MM. `time`: a date and a time. `range`: an object with"
            " `min` and `max`. `places`: a list of objects with `city`, `region` and `country`."
        ),
    ]
    description: str = ""
    choices: Annotated[
        Sequence[str],
        msgspec.Meta(description="The known values; empty if the source publishes no list."),
    ] = ()


def describe(model: type[BaseModel], without: Collection[str] = ()) -> tuple[Filter, ...]:
    """Returns the filters of a model in its order.

    Fields in `without`, such as a second spelling, are left out, and so are fields that the model
    excludes from its output.
    """
    return tuple(
        _filter(name, field)
        for name, field in model.model_fields.items()
        if name not in without and not field.exclude
    )


def _filter(name: str, field: FieldInfo) -> Filter:
    known = [one for one in field.metadata if isinstance(one, Shown)]
    shown = known[-1] if known else _shown(field.annotation)
    return Filter(
        name=name, kind=shown.kind, choices=shown.choices, description=field.description or ""
    )


def _shown(annotation: Any) -> Shown:
    """Returns how a filter without metadata is shown, by its type without None."""
    kind = _without_none(annotation)
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) is Literal:
        return Shown("choice", tuple(map(str, get_args(kind))))
    if kind is bool:
        return Shown("flag")
    if kind in (int, float):
        return Shown("number")
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return Shown("range" if {"min", "max"} <= kind.model_fields.keys() else "json")
    return Shown("json")


def _without_none(annotation: Any) -> Any:
    if get_origin(annotation) in (Union, types.UnionType):
        rest = [one for one in get_args(annotation) if one is not type(None)]
        return rest[0] if len(rest) == 1 else annotation
    return annotation
