"""Validation of a caller's search against the model of a source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from exporter.errors import FieldProblem, QueryError, problem

Model = TypeVar("Model", bound=BaseModel)


def validate(model: type[Model], raw: Mapping[str, Any]) -> Model:
    """Returns the caller's search as an instance of `model`.

    Raises QueryError, which names each wrong field; for an unknown filter it lists the known
    filters.
    """
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        problems: list[FieldProblem] = []
        for found in error.errors(include_url=False):
            loc, message = found["loc"], found["msg"]
            if found["type"] == "extra_forbidden" and len(loc) == 1:
                message = f"unknown filter; known: {', '.join(model.model_fields)}"
            problems.append(problem(loc, message, found["type"]))
        raise QueryError(problems) from None
