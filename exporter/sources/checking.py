"""A caller's search against the model of its source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from exporter.errors import FieldProblem, QueryError

Model = TypeVar("Model", bound=BaseModel)


def validate(model: type[Model], raw: Mapping[str, Any]) -> Model:
    """The search as the model reads it. Raises QueryError naming each wrong field."""
    try:
        return model.model_validate(raw)
    except ValidationError as error:
        problems: list[FieldProblem] = []
        for found in error.errors(include_url=False):
            loc, message = found["loc"], found["msg"]
            if found["type"] == "extra_forbidden" and len(loc) == 1:
                message = f"unknown filter; known: {', '.join(model.model_fields)}"
            problems.append({"loc": loc, "msg": message, "type": found["type"]})
        raise QueryError(problems) from None
