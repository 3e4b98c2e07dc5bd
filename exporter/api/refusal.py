"""Defines Refusal, the exception with which a handler answers a request with an error."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from exporter.errors import FieldProblem


class Refusal(Exception):
    """Exception that makes the API answer the request with an error.

    The answer has the error shape of the contract to which the request's path belongs. `problems`
    name the wrong fields. The location of each field begins with `body`, `query` (the query string)
    or `header`, as in Hirebase's own errors.
    """

    def __init__(
        self,
        status: int,
        code: str,
        detail: str,
        *,
        problems: Sequence[FieldProblem] = (),
        headers: Mapping[str, str] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.problems = problems
        self.headers = dict(headers or {})
        self.details = dict(details or {})
        """Machine-readable facts, for contracts whose errors have a field for them."""
